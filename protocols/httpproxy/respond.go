package httpproxy

import (
	"errors"
	"fmt"
	"os"
	"time"

	"polyport/internal/http1"
)

// Faults of an origin that are found here and not on the wire.
var (
	errProxyChallenge = errors.New("the origin asked for credentials of a proxy (407), which only a proxy may")
	errSwitched       = errors.New("the origin switched to a protocol that it was not asked for")
	errAccept         = errors.New("the origin's Sec-WebSocket-Accept does not fit the key that it was sent")
	errNotSwitched    = errors.New("the origin answered as if it had switched to the protocol of an extended CONNECT, and has not")
)

// respond passes the final response of o on, whose head is in c.resp.
func (c *client) respond(o *origin) (outcome, error) {
	switch c.resp.Status {
	case statusSwitchingProtocols:
		return c.switchProtocols(o)
	case statusProxyAuthRequired:
		if o.link.Forward != nil {
			return c.fail(fmt.Errorf("upstream %s %w", o.link.Server, errUpstreamChallenge))
		}
		return c.fail(errProxyChallenge)
	}
	if c.bridge != nil && c.bridge.key != "" && c.resp.Status < 300 {
		return c.fail(errNotSwitched) // to the client any 2xx is a tunnel that stands (RFC 8441 section 5)
	}
	c.s.Responded()
	c.s.SetStatus(c.resp.Status)
	c.t.answering = true
	o.owned = o.owned || bindsConnection(&c.resp.Fields, "WWW-Authenticate")
	f := c.resp.Framing.ForReceiver(c.req.Minor)
	keep := !c.req.Close && f.Kind != http1.UntilClose && !c.s.Draining()
	if u := c.t.upload; u != nil && !c.isEnding(u) {
		keep = false // nobody knows whether the client will send the rest
	}
	if err := c.passResponse(o, f, keep); err != nil {
		return c.breakOff(f, err)
	}
	u, running := c.t.upload, c.stopUpload()
	whole := !running && (u == nil || u.err == nil)
	c.settle(o, whole)
	if keep && whole {
		return goesOn, nil
	}
	return ends, nil
}

// passResponse writes the response in c.resp to the client, framed as f.
func (c *client) passResponse(o *origin, f http1.Framing, keep bool) error {
	idle := c.s.Timeouts().Idle
	c.wr.each(idle)
	o.rd.each(idle)
	offered := ""
	if c.resp.Status == statusUpgradeRequired {
		offered = upgradeWish(c.resp.Fields.Get("Upgrade"))
	}
	c.beginResponse()
	w := &c.w
	switch {
	case offered != "" && keep:
		w.Field("Upgrade", offered)
		w.Field("Connection", "Upgrade")
	case offered != "":
		w.Field("Upgrade", offered)
		w.Field("Connection", "close, Upgrade")
	case !keep:
		w.Field("Connection", "close")
	}
	if err := w.EndHead(f); err != nil {
		return err
	}
	if c.resp.Framing.Empty() {
		return w.EndBody(nil)
	}
	var options http1.CopyOptions
	if f := c.resp.Framing; f.Kind == http1.Length && f.Length >= http1.SpliceMin { // a function for each response would be garbage
		options.Splice = func(n int64) (int64, error) { return c.spliceResponse(o, n) }
	}
	_, err := http1.CopyBody(w, &o.r, options)
	return err
}

// spliceResponse has the kernel move some of the response's body; none where a layer lies in between.
func (c *client) spliceResponse(o *origin, n int64) (int64, error) {
	if u := c.t.upload; o.tcp == nil || u != nil && !u.isDone() {
		return 0, nil // the upload has the client's reading side, which RawTCP looks at
	}
	to, ok := c.RawTCP()
	if !ok {
		return 0, nil
	}
	return splice(&c.stream, to, &o.stream, o.tcp, n, nil)
}

// beginResponse writes the head of the response in c.resp as far as every response
// has it: without what concerns the origin's connection, and with our Via.
func (c *client) beginResponse() {
	c.w.BeginForwardResponse(&c.resp)
	c.resp.Strip()
	c.w.Fields(&c.resp.Fields)
	if c.h.anonymity != hideProxy {
		c.w.Field("Via", via(c.resp.Minor))
	}
}

// breakOff ends an exchange whose response could not be passed on whole, in a way that
// the client sees.
func (c *client) breakOff(f http1.Framing, err error) (outcome, error) {
	u := c.t.upload
	running := c.stopUpload()
	c.closeOrigin()
	switch {
	case isWriteError(err):
		return ends, fmt.Errorf("pass the response on: %w", err)
	case f.Kind == http1.UntilClose, c.bridge != nil:
		c.abort() // a plain close would say that this was all
	}
	if u != nil && !running && u.err != nil && !isWriteError(u.err) {
		return ends, fmt.Errorf("read the body of the request: %w", u.err)
	}
	c.s.SetReason(string(bodyReason(err)))
	return ends, fmt.Errorf("read the response: %w", err)
}

// bodyReason is the token for a response whose body could not be read whole.
func bodyReason(err error) token {
	var malformed *http1.ParseError
	switch {
	case errors.As(err, &malformed):
		return responseTransfer
	case errors.Is(err, os.ErrDeadlineExceeded):
		return readTimeout
	}
	return responseIncomplete
}

// switchProtocols passes a 101 on and joins both sides into a tunnel. What the
// origin sent behind its 101 goes to the client first; what the client sent behind its
// request is given back to the connection.
func (c *client) switchProtocols(o *origin) (outcome, error) {
	protocol := c.resp.Upgrade()
	if c.t.upgrade == "" || !wished(c.t.upgrade, protocol) {
		return c.fail(errSwitched)
	}
	c.s.SetStatus(c.resp.Status)
	if c.bridge != nil {
		if string(c.resp.Fields.Get("Sec-WebSocket-Accept")) != webSocketAccept(c.bridge.key) {
			return c.fail(errAccept)
		}
		c.s.SetStatus(statusOK)
	}
	c.wr.each(c.s.Timeouts().Handshake)
	written := c.w.Count()
	if err := c.passSwitch(string(protocol)); err != nil {
		return ends, fmt.Errorf("pass the 101 on: %w", err)
	}
	early := o.r.TakeBuffered()
	if len(early) > 0 {
		if _, err := c.stream.Write(early); err != nil {
			return ends, fmt.Errorf("pass on what came behind the 101: %w", err)
		}
	}
	if err := o.conn.SetDeadline(time.Time{}); err != nil {
		return ends, fmt.Errorf("begin the tunnel: %w", err)
	}
	c.watchGone(nil)
	c.t.origin = nil // the tunnel's from here on
	c.s.AddBytes(c.r.Count()-c.t.read, c.w.Count()-written+int64(len(early)))
	c.s.Conn().Unread(c.r.TakeBuffered())
	c.s.KeepLink(o.link)
	c.s.Relay(o.forTunnel())
	return handedOver, nil
}

// passSwitch writes the 101 in c.resp to the client.
func (c *client) passSwitch(protocol string) error {
	c.beginResponse()
	w := &c.w
	w.Field("Upgrade", protocol)
	w.Field("Connection", "Upgrade")
	if err := w.EndHead(http1.Framing{}); err != nil {
		return err
	}
	return w.EndBody(nil)
}
