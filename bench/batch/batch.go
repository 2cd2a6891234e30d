// Package batch reads and writes UDP datagrams many at a time, without Go's
// network poller: that would be woken for each datagram, and whoever sends it
// pays for a part of that. Client and origin of the benchmark use it, so that
// they cost less than what is between them.
package batch

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// idleRead is how long a read that waits looks for nothing but datagrams.
const idleRead = 50 * time.Millisecond

// Conn is a socket with buffers for a number of datagrams. New makes it. One
// goroutine uses it; any may close it.
type Conn struct {
	mu     sync.Mutex // held while the kernel has the socket
	closed atomic.Bool
	socket socket
}

// New takes c over, which it closes, with buffers for n datagrams of size
// octets to be sent, and for n of up to size octets to be received.
func New(c *net.UDPConn, n, size int) (*Conn, error) {
	defer c.Close()
	s, err := newSocket(c, n, size)
	if err != nil {
		return nil, err
	}
	return &Conn{socket: s}, nil
}

// Buffer is the i-th datagram that Write sends.
func (c *Conn) Buffer(i int) []byte { return c.socket.buffer(i) }

// Datagram is the i-th of those that Read has read. The next Read overwrites it.
func (c *Conn) Datagram(i int) []byte { return c.socket.datagram(i) }

// Read reads what has come and returns how many datagrams that is; if wait is
// true it waits for one. It returns net.ErrClosed when c is closed, and else
// the errors of the socket, such as ECONNREFUSED.
func (c *Conn) Read(wait bool) (int, error) {
	for {
		n, err := c.locked(func() (int, error) { return c.socket.read(wait) })
		if n > 0 || err != nil || !wait {
			return n, err
		}
	}
}

// Write sends the first n buffers to the peer of a connected socket and
// returns how many were sent. If cut is true those of one size leave as one
// message that the kernel cuts (UDP_SEGMENT, udp(7)), which costs a fraction.
func (c *Conn) Write(n int, cut bool) (int, error) {
	return c.locked(func() (int, error) { return c.socket.write(n, cut) })
}

// WriteBack sends datagrams that were read back to where they came from, as
// Write does. What cannot be sent is left out.
func (c *Conn) WriteBack(datagrams []int, cut bool) error {
	_, err := c.locked(func() (int, error) { return 0, c.socket.writeBack(datagrams, cut) })
	return err
}

// locked keeps the socket open while f uses it.
func (c *Conn) locked(f func() (int, error)) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return f()
}

// Close closes the socket. It waits for a Read to see that.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.socket.close()
}
