package tls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"polyport/internal/clienthello"
	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/mux"
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
)

// client is what the handler needs of a session; *session.Session is one.
type client interface {
	Conn() *mux.Conn
	SetVersion(v string)
	SetReason(reason string)
	SetTarget(t target.Target)
	Established()
	Authorize(ctx context.Context, t target.Target) (*egress.Permit, error)
	AuthorizeBackend(ctx context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error)
	Dial(ctx context.Context, p *egress.Permit) (net.Conn, error)
	Relay(target net.Conn)
}

type handler struct {
	routes  *routes
	dialSNI bool
}

// ServeSession implements session.Handler.
func (h *handler) ServeSession(ctx context.Context, s *session.Session) error { return h.serve(ctx, s) }

func (h *handler) serve(ctx context.Context, s client) error {
	hello, err := readHello(s.Conn())
	if err != nil {
		s.SetReason(reasonOf(err))
		return answer(s, err)
	}
	s.SetVersion(hello.Version())
	permit, err := h.authorize(ctx, s, hello)
	if err != nil {
		return answer(s, err)
	}
	s.Established() // a client that waits for a permitted target is not unfinished any more
	server, err := s.Dial(ctx, permit)
	if err != nil {
		return answer(s, err)
	}
	s.Relay(server) // the hello is still in front of the client's bytes
	return nil
}

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

// authorize chooses the way: the route if there is one, else the name itself. The rules
// are asked about the name in either case; a route grants nothing.
func (h *handler) authorize(ctx context.Context, s client, hello clienthello.Hello) (*egress.Permit, error) {
	if hello.ServerName == "" {
		b := h.routes.find("", hello.ALPN)
		if b == nil {
			s.SetReason(reasonNoName)
			return nil, &refusal{clienthello.AlertMissingExtension, errNoName}
		}
		return s.AuthorizeBackend(ctx, target.Name(noSNI), b)
	}
	t, err := targetOf(hello.ServerName)
	if err != nil {
		s.SetReason(reasonBadName)
		return nil, &refusal{clienthello.AlertIllegalParameter, err}
	}
	if b := h.routes.find(t.Host(), hello.ALPN); b != nil {
		return s.AuthorizeBackend(ctx, t, b)
	}
	if h.dialSNI {
		return s.Authorize(ctx, t)
	}
	s.SetTarget(t)
	s.SetReason(reasonNoRoute)
	return nil, &refusal{clienthello.AlertUnrecognizedName, fmt.Errorf("%w %s", errNoRoute, t.Host())}
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

// refusal is an error with the alert that answers it.
type refusal struct {
	alert clienthello.Alert
	err   error
}

func (r *refusal) Error() string { return r.err.Error() }
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
