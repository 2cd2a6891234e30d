package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"polyport/internal/auth"
	"polyport/internal/http1"
	"polyport/internal/session"
)

// client is one client connection and the exchange that is under way on it. It
// belongs to the goroutine that serves it; an upload goroutine has the reading side while it runs.
type client struct {
	h *handler
	s *session.Session
	stream
	r    http1.Reader
	w    http1.Writer
	req  http1.Request
	resp http1.Response

	// What is kept from one exchange to the next.
	established bool
	owned       *origin // authenticated as this client (NTLM, Negotiate), idle
	ownedBy     string  // the identity that it was authenticated under
	basic       credentials
	dest        destination
	key         string // of the permit
	keyBytes    []byte // what it was made of

	// What must be known of a request once its fields are gone.
	t transfer
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
)

func newClient(h *handler, s *session.Session) *client {
	c := &client{h: h, s: s}
	c.conn = s.Conn()
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
		read, written := c.r.Count(), c.w.Count()
		c.t = transfer{ctx: ctx, read: read, forwards: -1}
		out, err := c.exchange(ctx)
		if out == handedOver {
			return err
		}
		c.s.AddBytes(c.r.Count()-read, c.w.Count()-written)
		if out == ends {
			return err
		}
		if c.s.OnLoop() {
			c.leaveLoop(err)
			return nil
		}
		if !c.next(err) {
			return err
		}
	}
}

// leaveLoop has a goroutine serve the requests to come: what is no CONNECT, only that can.
func (c *client) leaveLoop(err error) {
	c.s.Conn().Unread(c.r.TakeBuffered())
	c.s.End(err)
	c.s.LeaveLoop()
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
	if h, ok := c.s.Handler().(*handler); ok {
		c.h = h // a reload may have replaced it
	}
	return true
}

// exchange reads one request and answers it.
func (c *client) exchange(ctx context.Context) (outcome, error) {
	if err := c.r.ReadRequest(&c.req); err != nil {
		return c.unreadable(err)
	}
	c.s.SetMethod(c.req.Method)
	c.s.SetVersion(versions[c.req.Minor])
	row := rowHTTP
	if c.req.Target.Form == http1.AuthorityForm {
		row = rowConnect
	}
	c.s.SetProtocol(row)
	if !c.s.Allows(row) {
		r := &refusal{status: statusForbidden, reason: requestDenied, says: "This port does not serve requests of this kind."}
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
	return c.help()
}

// versions are the names of the minor versions.
var versions = [...]string{"HTTP/1.0", "HTTP/1.1"}

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
func (c *client) abort() { c.s.Conn().Abort() }
