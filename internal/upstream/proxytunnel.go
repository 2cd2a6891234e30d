package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	// closeLinger is how long the last bytes of a tunnel that ended well may take to go out once it is closed.
	closeLinger = 10 * time.Second
	// A tunnel that is quiet holds the small buffer.
	smallReceive = 1 << 10
	largeReceive = 32 << 10
)

var receiveBuffers = sync.Pool{New: func() any { return new([largeReceive]byte) }}

// tunnel is a stream of HTTP/2 as a connection. Both directions go through a net.Pipe, which has deadlines that lose no
// byte, unlike the bodies of net/http, and holds none, so that whoever is slow holds up the stream.
type tunnel struct {
	conn   *h2Conn
	up     net.Conn // to the proxy: its other end is the body of the request
	down   net.Conn // from the proxy: receive fills it from the body of the response
	fill   net.Conn // the other end of down
	body   io.ReadCloser
	cancel context.CancelFunc // resets the stream

	wroteEnd atomic.Bool           // CloseWrite
	readEnd  atomic.Bool           // the proxy has ended its side
	failed   atomic.Pointer[error] // why nothing more comes, where that is not an end
	closed   atomic.Bool
	unread   atomic.Int64 // bytes that have come and that Read has not returned

	mu     sync.Mutex
	sent   bool        // net/http is done with the request
	linger *time.Timer // bounds that after Close
}

// upload is the body of the request.
type upload struct {
	net.Conn
	t *tunnel
}

var errReset = errors.New("the tunnel was closed before its end")

// Read tells an end that is meant from a tunnel that was closed in the middle, which must reset the stream.
func (u upload) Read(b []byte) (int, error) {
	n, err := u.Conn.Read(b)
	if err == io.EOF && !u.t.wroteEnd.Load() {
		err = errReset
	}
	return n, err
}

// Close is what net/http calls when it is done with the request, with or without success.
func (u upload) Close() error {
	u.t.mu.Lock()
	u.t.sent = true
	if u.t.linger != nil {
		u.t.linger.Stop()
		u.t.cancel()
	}
	u.t.mu.Unlock()
	return u.Conn.Close()
}

// newTunnel returns a tunnel, and the body of the request for it.
func newTunnel(c *h2Conn) (*tunnel, io.ReadCloser) {
	t := &tunnel{conn: c}
	var body net.Conn
	t.up, body = net.Pipe()
	t.down, t.fill = net.Pipe()
	return t, upload{body, t}
}

// receive passes on what the proxy sends until that ends, or the tunnel is closed.
func (t *tunnel) receive() {
	var small [smallReceive]byte
	buf := small[:]
	var large *[largeReceive]byte
	for {
		n, err := t.body.Read(buf)
		if n > 0 {
			t.unread.Add(int64(n))
			if _, werr := t.fill.Write(buf[:n]); werr != nil {
				break // Close has seen to the rest
			}
		}
		if err == io.EOF {
			t.readEnd.Store(true)
			break
		} else if err != nil {
			t.fail(err)
			break
		}
		switch {
		case n == len(buf) && large == nil:
			large = receiveBuffers.Get().(*[largeReceive]byte)
			buf = large[:]
		case n < smallReceive && large != nil:
			receiveBuffers.Put(large)
			buf, large = small[:], nil
		}
	}
	if large != nil {
		receiveBuffers.Put(large)
	}
	_ = t.fill.Close()
}

// fail keeps why the stream has failed.
func (t *tunnel) fail(err error) {
	var reset h2.StreamError
	if errors.As(err, &reset) {
		err = fmt.Errorf("upstream %v has reset the tunnel (HTTP/2 %v): %w", t.conn.proxy, reset.Code, syscall.ECONNRESET)
	} else {
		err = fmt.Errorf("upstream %v has lost the tunnel (%w): %w", t.conn.proxy, err, syscall.ECONNRESET)
	}
	t.failed.Store(&err)
}

// cause returns why the tunnel can neither be read nor written, or otherwise.
func (t *tunnel) cause(otherwise error) error {
	if t.closed.Load() {
		return net.ErrClosed
	}
	if err := t.failed.Load(); err != nil {
		return *err
	}
	return otherwise
}

// Read implements net.Conn.
func (t *tunnel) Read(b []byte) (int, error) {
	n, err := t.down.Read(b)
	t.unread.Add(int64(-n))
	if err == io.EOF || err == io.ErrClosedPipe {
		err = t.cause(io.EOF)
	}
	return n, err
}

// Quiet reports whether a Read would have to wait.
func (t *tunnel) Quiet() bool {
	return t.unread.Load() == 0 && !t.readEnd.Load() && t.failed.Load() == nil && !t.closed.Load()
}

// Write implements net.Conn. What it has written it has given to the stream, as far as the proxy's window lets it.
func (t *tunnel) Write(b []byte) (int, error) {
	n, err := t.up.Write(b)
	if err == io.ErrClosedPipe {
		err = t.cause(syscall.EPIPE)
	}
	return n, err
}

// CloseWrite ends our side of the stream (END_STREAM).
func (t *tunnel) CloseWrite() error {
	if t.closed.Load() {
		return net.ErrClosed
	}
	t.wroteEnd.Store(true)
	return t.up.Close()
}

// Close resets the stream, unless both sides have ended it.
func (t *tunnel) Close() error {
	if t.closed.Swap(true) {
		return net.ErrClosed
	}
	_ = t.up.Close()
	_ = t.down.Close()
	if t.wroteEnd.Load() && t.readEnd.Load() && t.lingers() {
		return nil
	}
	t.cancel()
	if t.body != nil {
		_ = t.body.Close() // wakes what waits for the proxy's window
	}
	return nil
}

// lingers lets our last bytes and END_STREAM go out, which the proxy's window may hold up. It is false if they have.
func (t *tunnel) lingers() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.sent {
		t.linger = time.AfterFunc(closeLinger, t.cancel)
	}
	return !t.sent
}

// LocalAddr implements net.Conn. It is that of the connection beneath.
func (t *tunnel) LocalAddr() net.Addr { return t.conn.wire.LocalAddr() }

// RemoteAddr implements net.Conn. It is that of the connection beneath.
func (t *tunnel) RemoteAddr() net.Addr { return t.conn.wire.RemoteAddr() }

// SetDeadline implements net.Conn.
func (t *tunnel) SetDeadline(d time.Time) error {
	return errors.Join(t.SetReadDeadline(d), t.SetWriteDeadline(d))
}

// SetReadDeadline implements net.Conn. Once it has passed, a later one lets reading go on where it was.
func (t *tunnel) SetReadDeadline(d time.Time) error {
	if t.closed.Load() {
		return net.ErrClosed
	}
	_ = t.down.SetReadDeadline(d) // it fails for a pipe that has ended, where no deadline is needed
	return nil
}

// SetWriteDeadline implements net.Conn. A Write that it ends says how much of it will still be sent.
func (t *tunnel) SetWriteDeadline(d time.Time) error {
	if t.closed.Load() {
		return net.ErrClosed
	}
	_ = t.up.SetWriteDeadline(d) // as in SetReadDeadline
	return nil
}
