package httpproxy

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"polyport/internal/http1"
	"polyport/internal/reactor"
)

// origin is a connection to an origin server. It belongs to one exchange, or lies in the pool.
type origin struct {
	stream
	tcp    *net.TCPConn // the connection where it is a bare one, for splice and peek; else nil
	peeker peeker
	on     *reactor.Conn // the connection where a loop has it; else nil
	wire   *wire         // what lies below the connection where that is TLS; else nil
	peer   netip.AddrPort
	key    string // of the permit that it was dialled under
	r      http1.Reader
	w      http1.Writer
	reused bool // it has carried an exchange before this one
	// owned says that NTLM or Negotiate was seen on it: it is authenticated as
	// one client now and never goes to the pool.
	owned bool

	// In the pool:
	idleSince time.Time
	idleRound uint64 // of its loop
	ring      *ring  // of its key
	links     [2]links
}

// newOrigin makes an origin of a connection that has just been dialled.
func newOrigin(conn net.Conn, key string) *origin {
	o := &origin{key: key}
	o.conn = conn
	o.openSocket()
	switch c := conn.(type) {
	case *net.TCPConn:
		o.tcp = c
	case *reactor.Conn:
		o.on = c
	}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		o.peer = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	o.r.Reset(&o.stream)
	o.w.Reset(&o.stream)
	return o
}

// newSecureOrigin makes an origin of a TLS connection over w, whose handshake is done. There is no bare
// connection then: splice and peek must not meet what is encrypted.
func newSecureOrigin(conn *tls.Conn, w *wire, key string) *origin {
	o := newOrigin(strict{conn, w}, key)
	o.wire, o.fragile = w, true
	return o
}

// forTunnel returns the connection for bytes that no HTTP frames: how a tunnel ends is for who speaks in it.
func (o *origin) forTunnel() net.Conn {
	if c, ok := o.conn.(strict); ok {
		return c.Conn
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
}

// abort closes the connection with a reset, so that a request that was cut short
// cannot look whole. Another goroutine may still be in a Read or Write, which it ends.
func (o *origin) abort() {
	if c := o.on; c != nil {
		c.Loop().Post(func() { abortOnLoop(c) })
		return
	}
	if o.wire != nil { // without a word of TLS, which would say that all is well
		_ = o.wire.SetLinger(0)
		_ = o.wire.Close()
		return
	}
	if o.tcp != nil {
		_ = o.tcp.SetLinger(0) // fails only on a closed connection
	}
	_ = o.conn.Close()
}

// stale reports whether the origin has closed the connection, or spoken, while
// nothing was asked of it.
func (o *origin) stale() bool {
	switch {
	case o.r.Buffered() > 0:
		return true
	case o.on != nil:
		return o.staleOnLoop()
	case o.wire != nil:
		return !o.wire.quiet(o.conn)
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
