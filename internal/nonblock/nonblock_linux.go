//go:build linux && !386 && !race

package nonblock

import (
	"syscall"
	"unsafe"
)

// Recv receives what is there, at most len(p) bytes, of which there must be some. It
// returns 0 and no error at the end of the stream, EAGAIN if nothing is there.
func Recv(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

// Peek is Recv, but leaves the bytes where they are.
func Peek(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
}

// Send sends what the socket takes of p, which must not be empty. The error is
// EAGAIN if it takes nothing now.
func Send(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// call is recv or send, until no signal interrupts it.
func call(trap, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch err {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}
