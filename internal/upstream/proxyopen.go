package upstream

import (
	"context"
	"errors"
	"net"
	"time"

	"polyport/internal/tlsconn"
)

// DialFunc makes the connection to a proxy.
type DialFunc = func(ctx context.Context) (net.Conn, error)

// longPast, as a deadline, ends whatever waits.
var longPast = time.Unix(1, 0)

// Open opens a tunnel through the proxy over a connection that dial makes; HTTP/2 calls dial only when no live connection
// has room. dial is to keep to the deadline itself. The tunnel comes with all deadlines cleared, can CloseWrite where the connection can, and is the very
// connection that dial made where there is no TLS and the target has not spoken at once. A zero deadline is none. ctx ends
// an Open that Blocks; another hears of it in dial alone. from tells connections apart that leave in different ways: tunnels of HTTP/2
// share none that was dialled for another one. The error is an *Error.
func (p *Proxy) Open(ctx context.Context, deadline time.Time, from string, dial DialFunc, to Destination) (net.Conn, error) {
	if err := p.Takes(to); err != nil {
		return nil, err
	}
	if p.scheme == H2 {
		return p.h2.open(ctx, deadline, from, dial, to)
	}
	return p.with(ctx, deadline, dial, func(c net.Conn) (net.Conn, error) { return p.tunnel(c, to) })
}

// Takes returns the error of Open for a destination that the proxy cannot be asked for at all, such as an IPv6 address of SOCKS4; nil for others.
func (p *Proxy) Takes(to Destination) error {
	switch {
	case !to.valid():
		return p.unusable("cannot be asked for a target without a valid name or address", nil)
	case !to.validVia():
		return p.unusable("cannot be told a Via that is no field value", nil)
	case p.scheme == SOCKS4 && to.Host != "":
		return p.unusable("cannot be asked for "+to.String()+": SOCKS4 knows no names; use socks4a or resolve = \"local\"", nil)
	case (p.scheme == SOCKS4 || p.scheme == SOCKS4A) && to.addr().Is6():
		return p.unusable("cannot be asked for "+to.String()+": SOCKS4 knows no IPv6; use socks5", nil)
	}
	return nil
}

// tunnel speaks the handshake on a connection that is for one tunnel.
func (p *Proxy) tunnel(c net.Conn, to Destination) (net.Conn, error) {
	switch p.scheme {
	case SOCKS4, SOCKS4A:
		return c, p.connect4(c, to)
	case SOCKS5, SOCKS5S:
		return c, p.connect5(c, to)
	}
	return p.connectHTTP(c, to)
}

// OpenForward returns a connection to the proxy itself, for requests in absolute-form (RFC 9112 section 3.2.2), with
// all deadlines cleared. The scheme must be HTTP or HTTPS. Arguments and error are those of Open.
func (p *Proxy) OpenForward(ctx context.Context, deadline time.Time, dial DialFunc) (net.Conn, error) {
	if p.scheme != HTTP && p.scheme != HTTPS {
		return nil, p.unusable("takes no requests in absolute-form: it is not http or https", nil)
	}
	return p.with(ctx, deadline, dial, func(c net.Conn) (net.Conn, error) { return c, nil })
}

// Check is the health probe "connect": it dials, and does the TLS handshake where there is TLS; HTTP/2 is waited for
// until the proxy's SETTINGS have come (RFC 9113 section 3.4). Arguments and error are those of Open.
func (p *Proxy) Check(ctx context.Context, deadline time.Time, dial DialFunc) error {
	if p.scheme == H2 {
		return p.h2.check(ctx, deadline, dial)
	}
	c, err := p.with(ctx, deadline, dial, func(c net.Conn) (net.Conn, error) { return c, nil })
	if err != nil {
		return err
	}
	_ = c.Close() // it has served
	return nil
}

// Close lets the connections of HTTP/2 go: each ends with its last tunnel, and nothing is kept of those for later ones. Other
// schemes have none of their own.
func (p *Proxy) Close() {
	if p.h2 != nil {
		p.h2.close()
	}
}

// with dials, does TLS where there is some, and calls handshake, all until the deadline. The connection is closed
// after an error.
func (p *Proxy) with(ctx context.Context, deadline time.Time, dial DialFunc,
	handshake func(net.Conn) (net.Conn, error),
) (net.Conn, error) {
	if p.Blocks() { // a context with a deadline has a timer; else the deadline of the connection has to do
		var cancel context.CancelFunc
		ctx, cancel = until(ctx, deadline)
		defer cancel()
	}
	c, err := p.connect(ctx, deadline, dial)
	if err != nil {
		return nil, err
	}
	stop := p.watch(ctx, c)
	tunnel, err := handshake(c)
	if !stop() && err == nil {
		err = p.broken(ctx.Err())
	}
	if err == nil {
		err = p.cleared(tunnel)
	}
	if err != nil {
		_ = c.Close() // the error is why
		return nil, err
	}
	return tunnel, nil
}

// connect dials and does TLS where there is some. The connection has the deadline.
func (p *Proxy) connect(ctx context.Context, deadline time.Time, dial DialFunc) (net.Conn, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, p.undialled(ctx, err)
	}
	err = c.SetDeadline(deadline)
	if err == nil {
		err = ctx.Err() // the deadline may have taken the place of the one by which dial ends waits on this connection
	}
	if err != nil {
		_ = c.Close()
		return nil, p.broken(err)
	}
	if p.tls == nil {
		return c, nil
	}
	secure := tlsconn.Client(c, p.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close() // the peer is not owed an alert behind the one that crypto/tls has sent
		return nil, p.insecure(err)
	}
	return secure, nil
}

// watch lets ctx end what waits on the connection, where Blocks allows a goroutine. The function that it returns ends
// that, and is false if ctx was first.
func (p *Proxy) watch(ctx context.Context, c net.Conn) (stop func() bool) {
	if !p.Blocks() || ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(longPast) // it fails for a closed connection alone, where nothing waits
	})
}

// cleared takes the deadlines off a connection that goes to the caller.
func (p *Proxy) cleared(c net.Conn) error {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return p.broken(err)
	}
	return nil
}

// until returns a context that ends with the deadline too.
func until(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline)
}

// errNoCloseWrite is the error of a half-close over a connection that has none.
var errNoCloseWrite = errors.New("the connection cannot be half-closed")
