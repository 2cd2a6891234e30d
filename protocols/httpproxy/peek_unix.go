//go:build unix

package httpproxy

import "syscall"

// peek looks into the receive buffer without taking anything and without waiting.
func peek(raw syscall.RawConn) peeked {
	result := peekError
	err := raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			result = peekQuiet
		case err != nil:
		case n > 0:
			result = peekBytes
		default:
			result = peekEOF
		}
	})
	if err != nil {
		return peekError
	}
	return result
}
