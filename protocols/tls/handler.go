package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"polyport/internal/auth"
	"polyport/internal/clienthello"
	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

// port is where a server name is dialled, and what the rules see (RFC 6066
// names hosts, not ports).
const port = 443

// noSNI is what the rules see of a client that sends no server name.
const noSNI = "no-sni"

// Reasons of this protocol, for the record.
const (
	reasonMalformed = "malformed_client_hello"
	reasonTimeout   = "handshake_timeout"
	reasonCutShort  = "client_closed"
	reasonBadName   = "invalid_sni"
	reasonNoName    = "no_sni"
	reasonNoRoute   = "no_route"
	reasonHandshake = "tls_handshake_failed"
	reasonNested    = "tls_in_tls"
	reasonACME      = "acme_challenge"
)

// client is what the handler needs of a session; *session.Session is one.
type client interface {
	Conn() *mux.Conn
	SetVersion(v string)
	SetServerName(name string)
	SetReason(reason string)
	SetTarget(t target.Target)
	SetALPN(protocol string)
	Established()
	Authorize(ctx context.Context, t target.Target) (*egress.Permit, error)
	AuthorizeBackend(ctx context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error)
	Dial(ctx context.Context, p *egress.Permit) (net.Conn, error)
	Relay(target net.Conn)
	Timeouts() session.Timeouts
	Allows(row string) bool
	OnLoop() bool
	LeaveLoop(carry any)
	Carried() any
	Secure(layer *tls.Conn, identity auth.Identity)
	Inject(row string)
}

type handler struct {
	routes  *routes
	dialSNI bool
	own     *spec.TLS // nil terminates nothing
}

// ServeSession implements session.Handler.
func (h *handler) ServeSession(ctx context.Context, s *session.Session) error { return h.serve(ctx, s) }

func (h *handler) serve(ctx context.Context, s client) error {
	if s.Carried() == any(terminating{}) {
		return h.terminate(s)
	}
	hello, err := readHello(s.Conn())
	if err != nil {
		s.SetReason(reasonOf(err))
		return answer(s, err)
	}
	s.SetVersion(hello.Version())
	if h.isOwn(hello) {
		s.SetServerName(hello.ServerName)
		return h.begin(s)
	}
	permit, err := h.authorize(ctx, s, hello)
	if err != nil {
		return answer(s, err)
	}
	s.Established() // dialling may outlast the handshake's deadline, and an alert must still get out
	server, err := s.Dial(ctx, permit)
	if err != nil {
		return answer(s, err)
	}
	s.Relay(server) // the hello is still in front of the client's bytes
	return nil
}

// isOwn reports whether a client means the gateway itself. A route that names the very name, and takes this client, goes before
// a wildcard of our certificates; the other way round is refused when the routes are made.
func (h *handler) isOwn(hello clienthello.Hello) bool {
	if h.own == nil || !h.own.Owns(hello.ServerName, hello.ALPN) {
		return false
	}
	t, err := targetOf(hello.ServerName)
	return err != nil || h.routes.exactly(t.Host(), hello.ALPN) == nil
}

// Routes reports whether a route names this very name; "" is clients without one. It is for those who warn.
func (h *handler) Routes(name string) bool { return h.routes.exact[name] != nil }

// readHello reads the hello and leaves every byte of it to be read again. Mostly
// all of it has arrived while the connection was classified, and nothing is copied.
func readHello(c *mux.Conn) (clienthello.Hello, error) {
	hello, whole, err := clienthello.Peek(c.Prefix())
	if whole || err != nil {
		return hello, err
	}
	hello, raw, err := clienthello.Read(c)
	c.Unread(raw)
	return hello, err
}

// authorize asks the rules about the name, whichever way there is; a route grants nothing.
func (h *handler) authorize(ctx context.Context, s client, hello clienthello.Hello) (*egress.Permit, error) {
	t, b, no := h.way(hello.ServerName, hello.ALPN)
	switch {
	case no != nil:
		if t.IsValid() {
			s.SetTarget(t)
		}
		s.SetReason(no.reason)
		return nil, no
	case b != nil:
		if len(hello.ALPN) == 1 { // with more of them nobody knows yet which it will be
			s.SetALPN(hello.ALPN[0])
		}
		return s.AuthorizeBackend(ctx, t, b)
	}
	return s.Authorize(ctx, t)
}

// way chooses where a client goes: to the backend of its route, or, with a nil one, to the name itself. t is
// what the rules are asked about.
func (h *handler) way(serverName string, alpn []string) (t target.Target, b *upstream.Backend, no *refusal) {
	if serverName == "" {
		if b := h.routes.find("", alpn); b != nil {
			return target.Name(noSNI), b, nil
		}
		return t, nil, &refusal{clienthello.AlertMissingExtension, reasonNoName, errNoName}
	}
	t, err := targetOf(serverName)
	if err != nil {
		return t, nil, &refusal{clienthello.AlertIllegalParameter, reasonBadName, err}
	}
	if b := h.routes.find(t.Host(), alpn); b != nil || h.dialSNI {
		return t, b, nil
	}
	return t, nil, &refusal{clienthello.AlertUnrecognizedName, reasonNoRoute, fmt.Errorf("%w %s", errNoRoute, t.Host())}
}

// Route says what the rules are asked about a client that sends the host of t for its server name and offers no
// application protocol, and which backend they hand it to; nil is the name itself. It is for
// those who explain. The error says why no such client is served.
func (h *handler) Route(t target.Target) (asked target.Target, b *upstream.Backend, err error) {
	name := ""
	if t.IsValid() {
		name = t.Host()
	}
	asked, b, no := h.way(name, nil)
	if no != nil {
		return asked, nil, no
	}
	return asked, b, nil
}

// Causes of a refusal.
var (
	errNoName  = errors.New(`the client sent no server name, and no route has sni = [""]`)
	errNoRoute = errors.New("dial_sni is off and no route takes the server name")
	errAddress = errors.New("the server name is an IP address, which RFC 6066 section 3 forbids")
)

// targetOf reads a server name. An address is refused in every spelling: with
// it a client would choose what is dialled and pass for a name in the rules.
func targetOf(name string) (target.Target, error) {
	t, err := target.New(name, port)
	if err != nil {
		return target.Target{}, fmt.Errorf("read server name: %w", err)
	}
	if _, ok := t.Addr(); ok {
		return target.Target{}, errAddress
	}
	return t, nil
}

// refusal is an error with the alert that answers it, and what the record says.
type refusal struct {
	alert  clienthello.Alert
	reason string
	err    error
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.err }

// answer tells the client by an alert, where it can still be told, and returns err for the
// record. The session closes the connection so that the alert arrives.
func answer(s client, err error) error {
	alert, ok := alertFor(err)
	if !ok {
		return err
	}
	if _, writeErr := s.Conn().Write(alert.Record()); writeErr != nil {
		return errors.Join(err, fmt.Errorf("write alert %v: %w", alert, writeErr))
	}
	return err
}

// alertFor maps an error to the alert that answers it; none is for a client that has gone or is late.
func alertFor(err error) (alert clienthello.Alert, ok bool) {
	var refused *refusal
	var malformed *clienthello.Error
	var failed *egress.Error
	switch {
	case errors.As(err, &refused):
		return refused.alert, true
	case errors.As(err, &malformed):
		return malformed.Alert, true
	case errors.Is(err, egress.ErrDenied), errors.Is(err, egress.ErrChallenge):
		return clienthello.AlertAccessDenied, true
	case errors.As(err, &failed):
		return clienthello.AlertInternalError, true
	}
	return 0, false
}

// reasonOf names, for the record, what ended the reading of the hello.
func reasonOf(err error) string {
	var malformed *clienthello.Error
	switch {
	case errors.As(err, &malformed):
		return reasonMalformed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	}
	return reasonCutShort
}
