//go:build unix

package httpproxy

import (
	"net"
	"syscall"

	"polyport/internal/nonblock"
)

// peeker looks into a socket's receive buffer. It is made once per connection.
type peeker struct {
	raw    syscall.RawConn
	look   func(fd uintptr) // look at the socket; kept, since a closure costs memory
	found  peeked
	buffer [1]byte
}

// peek looks without taking anything and without waiting.
func (p *peeker) peek(c *net.TCPConn) peeked {
	if p.raw == nil {
		raw, err := c.SyscallConn()
		if err != nil {
			return peekError
		}
		p.raw, p.look = raw, p.lookAt
	}
	p.found = peekError
	if err := p.raw.Control(p.look); err != nil {
		return peekError
	}
	return p.found
}

func (p *peeker) lookAt(fd uintptr) {
	n, errno := nonblock.Peek(fd, p.buffer[:])
	switch {
	case errno == syscall.EAGAIN:
		p.found = peekQuiet
	case errno != 0:
	case n > 0:
		p.found = peekBytes
	default:
		p.found = peekEOF
	}
}
