package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/http1"
	"polyport/internal/session"
)

// client is one client connection and the exchange that is under way on it. It
// belongs to the goroutine that serves it; an upload goroutine has the reading side while it runs.
type client struct {
	h *handler
	s *session.Session
	stream
	bridge *bridge // the stream of HTTP/2 that is served in place of a connection; nil mostly
	r      http1.Reader
	w      http1.Writer
	req    http1.Request
	resp   http1.Response

	// What is kept from one exchange to the next.
	established bool
	owned       *origin // authenticated as this client (NTLM, Negotiate), or told of it by a PROXY header; idle
	ownedBy     string  // the identity that it was authenticated under
	basic       credentials
	dest        destination
	keyed       *egress.Permit // that key is of
	keyedKind   byte           // likewise
	key         string
	keyBytes    []byte // what it was made of

	// What must be known of a request once its fields are gone.
	t transfer

	// rest is what a goroutine is to go on with where a loop cannot; nil is nothing.
	rest func(ctx context.Context) (outcome, error)
}

// credentials are the last Proxy-Authorization that was seen, taken apart.
type credentials struct {
	value string
	auth.Credentials
}

// outcome is how an exchange leaves the connection.
type outcome uint8

const (
	ends       outcome = iota // nothing may follow
	goesOn                    // the next request may come
	handedOver                // it is a tunnel now, and not ours any more
	leaves                    // a goroutine goes on with it
)

func newClient(h *handler, s *session.Session) *client {
	c := &client{h: h, s: s}
	c.conn = s.Conn()
	c.fragile = s.Conn().TLS() != nil && s.Conn().Within() == nil
	// The session has set this very deadline already, for both directions.
	d := s.Timeouts().Handshake
	c.rd.total(d)
	c.rd.settle(now())
	c.rd.armed = c.rd.until
	c.wr.each(d)
	c.wr.armed = c.rd.until
	c.r.Reset(&c.stream)
	c.w.Reset(&c.stream)
	return c
}

// release gives everything back but the connection, which is the session's. It is called
// after a panic too, so it takes nothing for settled.
func (c *client) release() {
	if u := c.t.upload; u != nil {
		c.stopReads()
		c.t.origin.abort()
		<-u.done
	}
	c.closeOrigin()
	c.r.Release()
	c.w.Release()
	c.dropOwned()
}

// serve serves one exchange after another.
func (c *client) serve(ctx context.Context) error {
	for {
		c.t = transfer{ctx: ctx, read: c.r.Count(), written: c.w.Count(), forwards: -1}
		if done, err := c.finish(c.exchange(ctx)); done {
			return err
		}
	}
}

// finish ends an exchange, and begins the next one if there is one.
func (c *client) finish(out outcome, err error) (done bool, _ error) {
	if out == handedOver || out == leaves {
		return true, err
	}
	c.s.AddBytes(c.r.Count()-c.t.read, c.w.Count()-c.t.written)
	return out == ends || !c.next(err), err
}

// leaveLoop has a goroutine go on with rest.
func (c *client) leaveLoop(rest func(ctx context.Context) (outcome, error)) (outcome, error) {
	if c.owned != nil {
		c.owned.leaveLoop()
	}
	c.rest = rest
	c.s.LeaveLoop(c)
	return leaves, nil
}

// resume goes on with what has left the loop, in a goroutine.
func (c *client) resume(ctx context.Context) error {
	rest := c.rest
	c.rest = nil
	c.disarmed()
	if done, err := c.finish(rest(ctx)); done {
		return err
	}
	return c.serve(ctx)
}

// next waits for the next request and begins its session. err is why the
// exchange before failed, or nil. It is false when there is no next request.
func (c *client) next(err error) bool {
	if c.r.Buffered() == 0 {
		c.s.End(err)
		c.rd.total(c.s.Timeouts().KeepAlive)
		if c.r.Wait() != nil {
			return false // the client has gone, or has been idle for too long
		}
		err = nil
	}
	c.s = c.s.Next(err)
	c.rd.total(c.s.Timeouts().Handshake)
	switch h := c.s.Handler().(type) { // a reload may have replaced it
	case *handler:
		c.h = h
	case *http2Handler: // a client that has agreed on h2 and speaks HTTP/1.1
		c.h = h.h
	}
	return true
}

// exchange reads one request and answers it.
func (c *client) exchange(ctx context.Context) (outcome, error) {
	if err := c.r.ReadRequest(&c.req); err != nil {
		return c.unreadable(err)
	}
	c.s.SetMethod(c.req.Method)
	c.s.SetVersion(c.version())
	row := rowHTTP
	if c.req.Target.Form == http1.AuthorityForm {
		row = rowConnect
	}
	c.s.SetProtocol(row)
	if c.s.OnLoop() && !c.fitsLoop() {
		return c.leaveLoop(c.perform)
	}
	return c.perform(ctx)
}

// fitsLoop reports whether a task can serve the request: it is done by one flow of control, and is no tunnel but CONNECT's.
func (c *client) fitsLoop() bool {
	switch c.req.Target.Form {
	case http1.AuthorityForm:
		return true
	case http1.AbsoluteForm:
		return c.req.Framing.Empty() && c.req.Upgrade() == nil && !c.fetchesTLS()
	case http1.OriginForm:
		return c.h.acme == nil && c.req.Framing.Empty() && c.req.Upgrade() == nil && c.siteAsked() != nil
	}
	return false
}

// perform serves the request that has been read.
func (c *client) perform(ctx context.Context) (outcome, error) {
	row := rowHTTP
	if c.req.Target.Form == http1.AuthorityForm {
		row = rowConnect
	}
	if r := c.unserved(row); r != nil {
		if row == rowConnect {
			return c.refuseTunnel(r)
		}
		return c.refuse(r)
	}
	switch c.req.Target.Form {
	case http1.AuthorityForm:
		return c.connect(ctx)
	case http1.AbsoluteForm:
		return c.forward(ctx)
	case http1.AsteriskForm:
		c.s.SetURL("*")
		return c.reply(optionsAnswer())
	}
	return c.serveSelf(ctx)
}

// serveSelf serves a request in origin-form.
func (c *client) serveSelf(ctx context.Context) (outcome, error) {
	if a, ok := c.acmeAnswer(string(c.req.Target.PathQuery)); ok {
		c.s.SetURL(string(c.req.Target.PathQuery))
		return c.reply(a)
	}
	if st := c.siteAsked(); st != nil {
		return c.serveSite(ctx, st)
	}
	return c.help()
}

// unserved refuses what the listener does not serve, which a reload may have changed since the connection was classified.
func (c *client) unserved(row string) *refusal {
	switch {
	case c.s.RequiresTLS():
		return &refusal{status: statusForbidden, reason: requestDenied, says: "This port serves nobody outside TLS to the proxy itself.", closes: true}
	case !c.s.Allows(row):
		return &refusal{status: statusForbidden, reason: requestDenied, says: "This port does not serve requests of this kind."}
	}
	return nil
}

// versions are the names of the minor versions.
var versions = [...]string{"HTTP/1.0", "HTTP/1.1"}

// version is that of the request, for the record.
func (c *client) version() string {
	if c.bridge != nil {
		return versionHTTP2
	}
	return versions[c.req.Minor]
}

// unreadable answers a request whose head could not be read.
func (c *client) unreadable(err error) (outcome, error) {
	var malformed *http1.ParseError
	var r *refusal
	switch {
	case errors.As(err, &malformed):
		r = badRequest(err)
		r.status = malformed.Status
	case errors.Is(err, os.ErrDeadlineExceeded):
		r = &refusal{
			status: statusRequestTimeout, reason: requestError,
			says: "The request did not arrive in time.", err: fmt.Errorf("read the request: %w", err),
		}
	case errors.Is(err, io.EOF):
		return ends, nil // an empty line, and no request behind it
	default:
		return ends, fmt.Errorf("read the request: %w", err)
	}
	c.req = http1.Request{Minor: 1, Close: true}
	return c.refuse(r)
}

// authenticate checks the credentials that the request brings. Where there are no
// users to check against it ignores them.
func (c *client) authenticate(ctx context.Context) *refusal {
	const name = "Proxy-Authorization"
	value := c.req.Fields.Get(name)
	if value == nil {
		return nil
	}
	if c.req.Fields.Count(name) > 1 {
		return badRequest(errors.New("the request has more than one Proxy-Authorization field"))
	}
	if !c.s.HasUsers() {
		return nil
	}
	if c.basic.value == "" || string(value) != c.basic.value {
		found, err := parseBasic(string(value))
		if err != nil {
			return challenged(err)
		}
		c.basic = credentials{value: string(value), Credentials: found}
	}
	if _, err := c.s.Authenticate(ctx, c.basic.Credentials); err != nil {
		c.basic = credentials{}
		return forAuth(err, now())
	}
	return nil
}

// establish says once that the handshake is over, which clears the deadlines.
func (c *client) establish() {
	if !c.established {
		c.established = true
		c.s.Established()
		c.disarmed()
	}
}

// abort ends the client's connection with a reset: what was sent of a body must
// not look whole.
func (c *client) abort() { c.s.Conn().AbortHere() }
