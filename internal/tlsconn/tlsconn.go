// Package tlsconn is the client's side of TLS (RFC 8446) over any connection, for whoever keeps such a connection for later: it can
// be looked at without waiting, reset, and asked whether its end was the peer's word. It dials nothing and verifies what it is told to.
package tlsconn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
)

// Conn is a TLS connection to a server. Its end is an io.EOF of Read as package tls has it; see Cut.
type Conn struct {
	*tls.Conn
	wire  *wire
	abort atomic.Bool
}

// Client makes a Conn over conn, which it owns. The handshake is still to be done.
func Client(conn net.Conn, config *tls.Config) *Conn {
	w := &wire{Conn: conn}
	switch c := conn.(type) {
	case *net.TCPConn:
		w.tcp = c
	case *Conn:
		w.layer = c
	case quieter:
		w.quiet = c
	}
	return &Conn{Conn: tls.Client(w, config), wire: w}
}

// Cut reports whether the connection below has ended by itself. An io.EOF of Read is not the peer's word then: what has come
// may have been cut short (RFC 8446 section 6.1). It belongs to the goroutine that reads.
func (c *Conn) Cut() bool { return c.wire.ended }

// Quiet reports whether the peer has neither said nor closed anything that Read has not returned. It takes in what belongs to
// TLS alone, such as session tickets (RFC 8446 section 4.6.1), and a byte of what does not: a connection that is not
// quiet is of no further use. It is false where nobody can look without waiting. No Read may be under way.
func (c *Conn) Quiet() bool {
	var b [1]byte
	n, err := c.readNow(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// readNow is Read without waiting: os.ErrDeadlineExceeded says that nothing is there.
func (c *Conn) readNow(p []byte) (int, error) {
	c.wire.impatient = true
	defer func() { c.wire.impatient = false }()
	return c.Read(p)
}

// SetLinger is that of a TCP connection: with 0 the coming Close is a reset, without a word of TLS, which would say that all is well.
func (c *Conn) SetLinger(sec int) error {
	c.abort.Store(sec == 0)
	if l, ok := c.wire.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return nil // what lies below is reset by Close where it has not ended
}

// Close says that nothing more comes, unless the connection is to be reset.
func (c *Conn) Close() error {
	if c.abort.Load() {
		return c.wire.Close()
	}
	return c.Conn.Close()
}

// quieter is a connection that knows whether a Read would have to wait.
type quieter interface{ Quiet() bool }

// wire is the connection below a TLS connection. It can be read without waiting, which is how an idle TLS connection is looked
// at: what has come may be a session ticket and no sign of anything, and only TLS itself can tell.
type wire struct {
	net.Conn
	// One of them at most is not nil: what Conn is, as far as it can be read without waiting.
	tcp   *net.TCPConn
	layer *Conn
	quiet quieter

	impatient bool // Read takes what is there
	ended     bool // Read has met the end
}

// errCannotLook says that a connection cannot be read without waiting.
var errCannotLook = errors.New("this connection cannot be read without waiting")

// Read implements io.Reader.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.impatient {
		n, err = w.readNow(p)
	} else {
		n, err = w.Conn.Read(p)
	}
	w.ended = w.ended || err == io.EOF
	return n, err
}

func (w *wire) readNow(p []byte) (int, error) {
	switch {
	case w.tcp != nil:
		return receive(w.tcp, p)
	case w.layer != nil:
		return w.layer.readNow(p)
	case w.quiet == nil:
		return 0, errCannotLook
	case w.quiet.Quiet():
		return 0, os.ErrDeadlineExceeded
	}
	return w.Conn.Read(p)
}
