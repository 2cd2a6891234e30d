package mux

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"polyport/internal/reactor"
)

// Conn is a client connection: a net.Conn in front of which the bytes that the
// classifier has taken are replayed. One goroutine at a time may read it, one write it;
// Close, CloseWrite and the deadlines may be called from any.
type Conn struct {
	nc       net.Conn     // what Read and Write act on
	tcp      *net.TCPConn // nc itself when no layer transforms the bytes, else nil
	prefix   []byte       // taken from nc, not yet read by anyone
	buf      *sniffBuffer // under prefix; nil when prefix has memory of its own
	client   netip.AddrPort
	local    netip.AddrPort
	listener string
	row      string
	wrote    bool // so the client has an answer to read, which a reset must not destroy
	ended    bool // the end of what the client sends has been read while sniffing
	child    int  // which cmux listener serves row
	loop     *reactor.Loop
	left     atomic.Bool          // it has left loop
	bare     net.Conn             // under every layer, what others than who serves it may close; set before left
	arrival  *arrival             // while its row is looked for on the loop
	secured  *tls.ConnectionState // of the layer that nc is; nil is none
	packets  *PacketSocket        // UDP beside the listening socket; nil is none
	within   *Conn                // nc is one of its streams; nil for a connection of its own
	slot     slot                 // the place in the caps; freed by Close
}

// Read reads the sniffed bytes first, then the connection.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
			c.dropBuffer()
		}
		return n, nil
	}
	return c.nc.Read(b)
}

// Unread puts bytes back in front of the connection: what a handler has read
// beyond its handshake, so that a tunnel loses nothing. Conn keeps b.
func (c *Conn) Unread(b []byte) {
	switch {
	case len(b) == 0:
	case len(c.prefix) == 0:
		c.prefix = b
	default:
		joined := append(b[:len(b):len(b)], c.prefix...)
		c.dropBuffer()
		c.prefix = joined
	}
}

// dropBuffer gives the sniff buffer back.
func (c *Conn) dropBuffer() {
	if c.buf != nil {
		sniffBuffers.Put(c.buf)
	}
	c.buf, c.prefix = nil, nil
}

// Prefix returns what has been sniffed and not yet been read. The slice is
// valid until the next Read or Unread and must not be changed.
func (c *Conn) Prefix() []byte { return c.prefix }

// TakePrefix returns what has been sniffed and not yet been read, and leaves
// the connection without it. The slice is the caller's.
func (c *Conn) TakePrefix() []byte {
	if len(c.prefix) == 0 {
		return nil
	}
	p := append([]byte(nil), c.prefix...)
	c.dropBuffer()
	return p
}

// Write writes to the client.
func (c *Conn) Write(b []byte) (int, error) {
	c.wrote = true
	return c.nc.Write(b)
}

// CloseWrite ends our side of the stream (a FIN) and leaves the other open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.New("this connection cannot be half-closed")
}

// RawTCP returns the bare TCP connection, for zero-copy. It is false while
// sniffed bytes are unread or a layer (TLS) transforms the bytes; there is no
// other way to the socket, so ciphertext can never be relayed by mistake.
func (c *Conn) RawTCP() (*net.TCPConn, bool) { return c.tcp, c.tcp != nil && len(c.prefix) == 0 }

// Client returns the client's address: the one in the PROXY header where a
// named balancer sent one. It is unmapped and without a zone.
func (c *Conn) Client() netip.AddrPort { return c.client }

// Local returns the address that the client connected to (in the PROXY header where there is one).
func (c *Conn) Local() netip.AddrPort {
	if !c.local.IsValid() {
		c.local = addrPort(c.nc.LocalAddr()) // on a loop it is asked for only by those who need it
	}
	return c.local
}

// Listener returns the name of the [listen.NAME] table.
func (c *Conn) Listener() string { return c.listener }

// Packets returns UDP on the address and port number that the client connected to; nil is none.
func (c *Conn) Packets() *PacketSocket { return c.packets }

// Row returns the name of the row that matched.
func (c *Conn) Row() string { return c.row }

// RemoteAddr implements net.Conn; it is Client as a net.Addr.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.client) }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// Finished says that the handshake is over: the connection no longer counts as
// unfinished and cannot be evicted, nor can the one that it is a stream of. It may be called more than once.
func (c *Conn) Finished() {
	c.slot.finish()
	if c.within != nil {
		c.within.Finished()
	}
}

// Evicted reports whether the connection was closed to make room for a newer one.
func (c *Conn) Evicted() bool { return c.slot.wasEvicted() }

// MakeRoom closes the oldest connection of the server that has not finished its
// handshake, for one that has and finds no descriptor left. It reports whether
// there was one; its descriptor is free a moment later.
func (c *Conn) MakeRoom() bool {
	if c.slot.caps == nil {
		return false
	}
	evicted := c.slot.caps.evictOldest()
	pushOut(evicted)
	return evicted != nil
}

// Close closes the connection and frees its place in the caps. It may be
// called more than once.
func (c *Conn) Close() error {
	c.slot.free()
	return c.nc.Close()
}

// Abort is Close with a reset instead of an end of file: the client must not take
// what it got for the whole. It may be called from any goroutine.
func (c *Conn) Abort() {
	c.slot.free()
	c.abort()
}

// AbortHere is Abort for the task or goroutine that serves the connection: it is reset at once.
func (c *Conn) AbortHere() {
	c.slot.free()
	abort(c.nc)
}

// Outside calls f, which may close the connection, for others than who serves it: on its loop if it is on one.
func (c *Conn) Outside(f func()) {
	if c.loop != nil && !c.left.Load() {
		c.loop.Post(f)
		return
	}
	f()
}

// abort resets the connection, on its loop if it is on one.
func (c *Conn) abort() {
	if c.loop != nil && !c.left.Load() {
		c.loop.Post(c.abortHere)
		return
	}
	abort(c.bareConn())
}

// bareConn returns the connection under every layer.
func (c *Conn) bareConn() net.Conn {
	if c.bare != nil {
		return c.bare
	}
	return c.nc
}

// abortHere is abort on the loop.
func (c *Conn) abortHere() {
	if c.arrival != nil {
		c.arrival.abort()
		return
	}
	if rc, ok := c.nc.(*reactor.Conn); ok {
		rc.Abort() // a tunnel has to hear of it
		return
	}
	abort(c.nc)
}

// closedConn stands for a connection that is closed, and lost.
type closedConn struct{ remote net.Addr }

// Read implements net.Conn.
func (closedConn) Read([]byte) (int, error) { return 0, net.ErrClosed }

// Write implements net.Conn.
func (closedConn) Write([]byte) (int, error) { return 0, net.ErrClosed }

// Close implements net.Conn.
func (closedConn) Close() error { return net.ErrClosed }

// LocalAddr implements net.Conn.
func (closedConn) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (c closedConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (closedConn) SetDeadline(time.Time) error { return net.ErrClosed }

// SetReadDeadline implements net.Conn.
func (closedConn) SetReadDeadline(time.Time) error { return net.ErrClosed }

// SetWriteDeadline implements net.Conn.
func (closedConn) SetWriteDeadline(time.Time) error { return net.ErrClosed }

// OnLoop returns the connection as its loop has it, for zero-copy. It is false
// while sniffed bytes are unread, and for connections that goroutines serve.
func (c *Conn) OnLoop() (*reactor.Conn, bool) {
	rc, ok := c.nc.(*reactor.Conn)
	return rc, ok && len(c.prefix) == 0
}

// Loop returns the loop on which the connection is served; nil if goroutines do it.
func (c *Conn) Loop() *reactor.Loop {
	if _, ok := c.nc.(*reactor.Conn); ok {
		return c.loop
	}
	return nil
}

// LeaveLoop takes the connection off its loop, for a goroutine to go on with. It is called on the loop. After an error it is closed.
func (c *Conn) LeaveLoop() error {
	rc, ok := c.nc.(*reactor.Conn)
	if !ok {
		return nil
	}
	tcp, err := rc.Detach()
	if err != nil {
		c.nc = closedConn{rc.RemoteAddr()}
	} else {
		c.nc, c.tcp = tcp, tcp
	}
	c.bare = c.nc
	c.left.Store(true)
	return err
}

// Bounds of CloseGently.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// SetLinger is that of a TCP connection: with 0 the coming Close is a reset.
func (c *Conn) SetLinger(sec int) error {
	if l, ok := c.nc.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return errors.ErrUnsupported
}

// CloseGently closes the connection so that what was written to it last arrives: a
// close with unread bytes in the receive buffer is a reset, and that destroys what
// the client has not read yet. So it ends our side and discards what the client still
// sends, until its end, for at most a second and 256 KiB (RFC 9112 section 9.6). It is for
// the goroutine that reads; while it waits it holds no buffer.
func (c *Conn) CloseGently() {
	c.dropBuffer()
	if c.secured != nil && c.within == nil {
		_ = c.SetWriteDeadline(time.Now().Add(lingerTime)) // of a close_notify; it fails only on a closed connection
	}
	if c.within == nil && c.wrote && c.CloseWrite() == nil && !c.ended {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime)) // fails only on a closed connection, as fill then does
		for n := 0; n < lingerBytes && c.fill() == nil; c.dropBuffer() {
			n += len(c.prefix)
		}
	}
	_ = c.Close()
}

// NewConn makes a Conn of any net.Conn, for tests of handlers: prefix is
// what was sniffed of it, row what matched. It has no place in any cap.
func NewConn(nc net.Conn, listener, row string, prefix []byte) *Conn {
	c := &Conn{nc: nc, bare: nc, prefix: prefix, listener: listener, row: row}
	c.tcp, _ = nc.(*net.TCPConn)
	c.client, c.local = addrPort(nc.RemoteAddr()), addrPort(nc.LocalAddr())
	return c
}

// addrPort returns a TCP address unmapped and without its zone, the form in which
// addresses are counted and compared everywhere else.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
