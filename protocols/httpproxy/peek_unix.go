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
	p.found = foundBy(nonblock.Peek(fd, p.buffer[:]))
}

// foundBy says what a look at a socket has found.
func foundBy(n int, errno syscall.Errno) peeked {
	switch {
	case errno == syscall.EAGAIN:
		return peekQuiet
	case errno != 0:
		return peekError
	case n > 0:
		return peekBytes
	}
	return peekEOF
}
