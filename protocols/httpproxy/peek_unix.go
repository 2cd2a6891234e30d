//go:build unix

package httpproxy

import (
	"net"
	"syscall"
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
	n, _, err := syscall.Recvfrom(int(fd), p.buffer[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		p.found = peekQuiet
	case err != nil:
	case n > 0:
		p.found = peekBytes
	default:
		p.found = peekEOF
	}
}
