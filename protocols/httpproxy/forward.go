package httpproxy

import (
	"context"
	"errors"
	"strconv"

	"polyport/internal/egress"
	"polyport/internal/http1"
)

// forward serves a request in absolute-form (RFC 9112 section 3.2.2).
func (c *client) forward(ctx context.Context) (outcome, error) {
	if err := c.locate(); err != nil {
		return c.refuse(badRequest(err))
	}
	c.s.SetURL(c.url())
	if r := c.examine(); r != nil {
		return c.refuse(r)
	}
	if r := c.authenticate(ctx); r != nil {
		return c.refuse(r)
	}
	permit, err := c.s.Authorize(ctx, c.dest.target)
	if err != nil {
		return c.refuse(forPolicy(err, c.s.HasUsers()))
	}
	c.establish()
	if c.t.forwards == 0 && c.lastHop() {
		return c.answerLastHop()
	}
	return c.pass(permit)
}

// pass sends the request on under a permit, in a goroutine if that is what the way takes.
func (c *client) pass(permit *egress.Permit) (outcome, error) {
	c.t.permit, c.t.key = permit, c.keyOf(permit)
	c.strip()
	if c.s.OnLoop() && permit.Blocks() {
		return c.leaveLoop(func(context.Context) (outcome, error) { return c.send() })
	}
	return c.send()
}

// The kinds of connections: in the key that connections are shared by they stand before that of the permit.
const (
	kindHTTP   = 'h' // it may lead to a proxy that forwards requests
	kindTunnel = 't' // it leads to the origin itself
	kindTLS    = 's' // and there is TLS on it
)

// kind is that of the connection that the request needs. Without an upstream each is to the origin itself.
func (c *client) kind(permit *egress.Permit) byte {
	switch {
	case c.dest.secure:
		return kindTLS
	case c.tunnels() && permit.Route().Upstream != "":
		return kindTunnel
	}
	return kindHTTP
}

// keyOf returns the key of connections for permit and the kind that the request needs: the string of the exchange before
// where it is the same.
func (c *client) keyOf(permit *egress.Permit) string {
	kind := c.kind(permit)
	if permit == c.keyed && kind == c.keyedKind {
		return c.key
	}
	c.keyed, c.keyedKind = permit, kind
	c.keyBytes = permit.AppendKey(append(c.keyBytes[:0], kind))
	if string(c.keyBytes) != c.key {
		c.key = string(c.keyBytes)
	}
	return c.key
}

// examine checks what a proxy has to check of a request before it forwards it,
// and notes what the fields say that will be stripped.
func (c *client) examine() *refusal {
	if r := c.examineVia(); r != nil {
		return r
	}
	_, other := c.req.ExpectContinue()
	if other {
		return &refusal{
			status: statusExpectationFailed, reason: requestError,
			says: "The expectation of this request is not known (RFC 9110 section 10.1.1).",
		}
	}
	if c.req.Method == methodTrace && !c.req.Framing.Empty() {
		return badRequest(errors.New("a TRACE request has no content (RFC 9110 section 9.3.8)"))
	}
	if c.lastHop() {
		n, present, err := c.req.MaxForwards()
		if err != nil {
			return badRequest(err)
		}
		if present {
			c.t.forwards = n
		}
	}
	c.t.trailers = c.req.AcceptsTrailers()
	if value := c.req.Upgrade(); value != nil && c.req.Framing.Empty() {
		c.t.upgrade = upgradeWish(value)
	}
	return nil
}

// lastHop reports whether Max-Forwards means anything for the method (RFC 9110 section 7.6.2).
func (c *client) lastHop() bool {
	return c.req.Method == methodTrace || c.req.Method == methodOptions
}

// answerLastHop answers a request whose Max-Forwards has run out.
func (c *client) answerLastHop() (outcome, error) {
	if c.req.Method == methodOptions {
		return c.reply(optionsAnswer())
	}
	c.req.Strip()
	body := append([]byte(nil), c.req.Method...)
	body = append(body, ' ')
	body = append(body, c.req.Target.Raw...)
	body = append(body, ' ')
	body = append(body, versions[c.req.Minor]...)
	body = append(body, "\r\n"...)
	for name, value := range c.req.Fields.All() {
		if !sensitive(name) {
			body = append(body, name...)
			body = append(body, ": "...)
			body = append(body, value...)
			body = append(body, "\r\n"...)
		}
	}
	return c.reply(&answer{status: statusOK, contentType: "message/http", body: append(body, "\r\n"...)})
}

// sensitive reports whether a field is left out of the answer to TRACE (RFC 9110 section 9.3.8).
func sensitive(name []byte) bool {
	for _, s := range [...]string{"Authorization", "Cookie", "Proxy-Authorization"} {
		if http1.EqualFold(name, s) {
			return true
		}
	}
	return false
}

// strip removes from the request's fields what does not go on to the origin and
// what send writes anew.
func (c *client) strip() {
	f := &c.req.Fields
	c.t.binds = bindsConnection(f, "Authorization")
	c.req.Strip()
	forwards := c.t.forwards >= 0
	// An HTTP/1.0 client could not be told to continue; one without content has nothing to
	// continue with (RFC 9110 section 10.1.1), and origins disagree on what that means.
	unexpected := c.req.Minor == 0 || c.req.Framing.Empty()
	f.RemoveFunc(func(name []byte) bool {
		switch len(name) {
		case len("Host"):
			if http1.EqualFold(name, "Host") {
				return true
			}
		case len("Expect"):
			if unexpected && http1.EqualFold(name, "Expect") {
				return true
			}
		case len("Max-Forwards"):
			if forwards && http1.EqualFold(name, "Max-Forwards") {
				return true
			}
		}
		return c.hides(name)
	})
}

// writeHead writes the head of the request to o. It may be called again for another
// origin as long as the fields are there.
func (c *client) writeHead(o *origin) error {
	w := &o.w
	if p := o.link.Forward; p != nil {
		w.BeginRequest(c.req.Method, c.absoluteForm())
		if a := p.Authorization(); a != "" {
			w.Field("Proxy-Authorization", a)
		}
	} else {
		w.BeginForward(&c.req, http1.OriginForm)
	}
	w.Field("Host", c.dest.host)
	w.Fields(&c.req.Fields)
	if c.t.forwards > 0 {
		w.Field("Max-Forwards", strconv.Itoa(c.t.forwards-1))
	}
	switch {
	case c.t.trailers && c.t.upgrade != "":
		w.Field("TE", "trailers")
		w.Field("Upgrade", c.t.upgrade)
		w.Field("Connection", "TE, Upgrade")
	case c.t.trailers:
		w.Field("TE", "trailers")
		w.Field("Connection", "TE")
	case c.t.upgrade != "":
		w.Field("Upgrade", c.t.upgrade)
		w.Field("Connection", "Upgrade")
	}
	if c.h.anonymity != hideProxy {
		w.Field("Via", c.via())
	}
	switch {
	case c.dest.site != nil:
		c.writeVisitor(w)
	case c.h.anonymity == anonymityOff:
		w.Field("Forwarded", forwardedFor(c.s.Conn().Client().Addr()))
	}
	return w.EndHead(c.req.Framing)
}
