//go:build unix

package tlsconn

import (
	"io"
	"net"
	"os"
	"syscall"

	"polyport/internal/nonblock"
)

// receive reads what is there, without waiting: os.ErrDeadlineExceeded says that nothing is.
func receive(c *net.TCPConn, p []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) { n, errno = nonblock.Recv(fd, p) }); err != nil {
		return 0, err
	}
	switch {
	case errno == syscall.EAGAIN:
		return 0, os.ErrDeadlineExceeded
	case errno != 0:
		return 0, os.NewSyscallError("recv", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
