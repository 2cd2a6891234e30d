package httpproxy

import (
	"context"
	"fmt"

	"polyport/internal/egress"
	"polyport/internal/target"
)

// connected is the answer to a CONNECT that stands (RFC 9110 section 9.3.6). It has no fields: a
// tunnel begins right behind it.
const connected = "HTTP/1.1 200 Connection established\r\n\r\n"

// connect serves a CONNECT request. One with content was refused when it was read.
func (c *client) connect(ctx context.Context) (outcome, error) {
	to, err := target.Parse(string(c.req.Target.Authority))
	if err != nil {
		return c.refuse(badRequest(fmt.Errorf("CONNECT names no usable target: %w", err)))
	}
	c.s.SetURL(to.String())
	if r := c.examineVia(); r != nil {
		return c.refuseTunnel(r)
	}
	if r := c.authenticate(ctx); r != nil {
		return c.refuseTunnel(r)
	}
	permit, err := c.s.Authorize(ctx, to)
	if err != nil {
		return c.refuseTunnel(forPolicy(err, c.s.HasUsers()))
	}
	c.establish() // dialling may outlast the handshake's deadline
	link, err := c.s.Open(ctx, permit, egress.OpenOptions{Via: c.onwardVia(permit)})
	if err != nil {
		return c.refuseTunnel(forEgress(err))
	}
	c.s.KeepLink(link)
	c.s.SetStatus(statusOK)
	c.wr.each(c.s.Timeouts().Handshake)
	if err := c.writeConnected(); err != nil {
		_ = link.Conn.Close() // the client is gone and with it the tunnel
		return ends, fmt.Errorf("write the answer: %w", err)
	}
	c.s.Conn().Unread(c.r.TakeBuffered())
	c.s.Relay(link.Conn)
	return handedOver, nil
}

// writeConnected says that the tunnel stands.
func (c *client) writeConnected() error {
	if c.bridge != nil {
		return c.bridge.WriteHead(statusOK, nil, false)
	}
	_, err := c.stream.Write([]byte(connected))
	return err
}

// refuseTunnel refuses a CONNECT. What has come behind it may be the beginning of
// the tunnel and must not be read as a request; so the connection goes on only for another
// try with a password, and only if nothing came.
func (c *client) refuseTunnel(r *refusal) (outcome, error) {
	if r.status != statusProxyAuthRequired || c.r.Buffered() > 0 {
		r.closes = true
	}
	return c.refuse(r)
}
