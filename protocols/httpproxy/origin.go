package httpproxy

import (
	"io"
	"net"
	"time"

	"polyport/internal/egress"
	"polyport/internal/http1"
	"polyport/internal/reactor"
	"polyport/internal/tlsconn"
)

// origin is a connection to an origin server, or to a proxy that forwards to it. It belongs to one exchange, or lies in the pool.
type origin struct {
	stream
	link    egress.Link  // the way that it takes, without its connection; released by close
	tcp     *net.TCPConn // the connection where it is a bare one, for splice and peek; else nil
	peeker  peeker
	on      *reactor.Conn // the connection where a loop has it; else nil
	layered *tlsconn.Conn // the connection where it is TLS, to the origin or to a proxy; else nil
	quiet   quieter       // the connection where it is neither bare nor on a loop, and can be looked at; else nil
	key     string        // of the permit that it was dialled under
	r       http1.Reader
	w       http1.Writer
	reused  bool // it has carried an exchange before this one
	// owned says that NTLM or Negotiate was seen on it: it is authenticated as
	// one client now and never goes to the pool.
	owned bool
	// private says that the server was told of the client by a PROXY header: it never goes to the pool either.
	private bool

	// In the pool:
	idleSince time.Time
	idleRound uint64 // of its loop
	ring      *ring  // of its key
	links     [2]links
}

// quieter is a connection that knows whether its peer has said or closed anything that has not been read.
type quieter interface{ Quiet() bool }

// newOrigin makes an origin of a connection that has just been dialled.
func newOrigin(link egress.Link, key string) *origin {
	o := &origin{key: key, link: link}
	o.conn, o.link.Conn = link.Conn, nil
	switch c := o.conn.(type) {
	case *net.TCPConn:
		o.tcp = c
	case *reactor.Conn:
		o.on = c
	case *tlsconn.Conn: // there is no bare connection then: splice and peek must not meet what is encrypted
		o.conn, o.layered, o.quiet, o.fragile = strict{c}, c, c, true
	case quieter:
		o.quiet = c
	}
	o.openSocket()
	o.r.Reset(&o.stream)
	o.w.Reset(&o.stream)
	return o
}

// strict is a TLS connection whose end is an error where the peer has not said that it is the end: a body that ends
// with the connection may have been cut short then (RFC 9112 section 9.8). Package tls lets that pass.
type strict struct{ *tlsconn.Conn }

// Read implements io.Reader.
func (c strict) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.Cut() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// forTunnel returns the connection for bytes that no HTTP frames: how a tunnel ends is for who speaks in it.
func (o *origin) forTunnel() net.Conn {
	if o.layered != nil {
		return o.layered
	}
	return o.conn
}

// close closes the connection and gives its buffers back.
func (o *origin) close() {
	if c := o.on; c != nil { // it may be another loop's, or a timer may have called
		c.Loop().Post(func() { _ = c.Close() })
	} else {
		_ = o.conn.Close() // nothing of it is wanted any more
	}
	o.r.Release()
	o.w.Release()
	o.link.Release()
	o.link = egress.Link{}
}

// abort closes the connection with a reset, so that a request that was cut short
// cannot look whole. Another goroutine may still be in a Read or Write, which it ends.
func (o *origin) abort() {
	if c := o.on; c != nil {
		c.Loop().Post(func() { abortOnLoop(c) })
		return
	}
	if l, ok := o.conn.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0) // fails only on a closed connection
	}
	_ = o.conn.Close() // of a tunnel in HTTP/2 it is a reset by itself
}

// stale reports whether the origin has closed the connection, or spoken, while
// nothing was asked of it.
func (o *origin) stale() bool {
	switch {
	case o.r.Buffered() > 0:
		return true
	case o.on != nil:
		return o.staleOnLoop()
	case o.quiet != nil:
		return !o.quiet.Quiet()
	}
	return o.tcp == nil || o.peeker.peek(o.tcp) != peekQuiet
}

// leaveLoop makes it a connection for goroutines.
func (o *origin) leaveLoop() {
	if o.on == nil {
		return
	}
	tcp, err := o.on.Detach()
	if err != nil {
		return // it is closed
	}
	o.conn, o.tcp, o.on = tcp, tcp, nil
	o.disarmed()
}
