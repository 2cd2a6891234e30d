//go:build unix && (!linux || 386 || race)

package nonblock

import (
	"errors"
	"syscall"
)

// Recv receives what is there, at most len(p) bytes, of which there must be some. It
// returns 0 and no error at the end of the stream, EAGAIN if nothing is there.
func Recv(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(func() (int, error) { return syscall.Read(int(fd), p) })
}

// Peek is Recv, but leaves the bytes where they are.
func Peek(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(func() (int, error) {
		n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return n, err
	})
}

// Send sends what the socket takes of p, which must not be empty. The error is
// EAGAIN if it takes nothing now.
func Send(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(func() (int, error) { return syscall.Write(int(fd), p) })
}

// call repeats a system call until no signal interrupts it.
func call(do func() (int, error)) (int, syscall.Errno) {
	for {
		n, err := do()
		var no syscall.Errno
		switch errors.As(err, &no); no {
		case 0:
			return n, 0
		case syscall.EINTR:
		default:
			return 0, no
		}
	}
}
