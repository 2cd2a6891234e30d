//go:build unix

package http1

import (
	"io"
	"net"
	"os"
	"syscall"
)

// rawWaiter reads from the socket into a buffer that it holds only while the call
// lasts: one system call for waiting and reading, no memory for an idle connection.
type rawWaiter struct {
	tcp  *net.TCPConn
	conn syscall.RawConn
	read func(fd uintptr) bool // made once per connection
	err  error                 // of the last read
}

// waitRaw waits for the socket where there is a bare one. It returns false, having done
// nothing, where there is none; else take has the error.
func (r *Reader) waitRaw() bool {
	tcp := bareTCP(r.src)
	if tcp == nil {
		return false
	}
	if r.raw.tcp != tcp {
		conn, err := tcp.SyscallConn()
		if err != nil {
			return false
		}
		r.raw.tcp, r.raw.conn, r.raw.read = tcp, conn, r.readSocket
	}
	if err := r.raw.conn.Read(r.raw.read); err != nil {
		r.raw.err = err // a deadline, or closed by us
	}
	return true
}

// bareTCP returns the socket that src reads from, nil if there is none or if src does
// more than that: one that still replays sniffed bytes, or transforms bytes, answers so
// itself.
func bareTCP(src io.Reader) *net.TCPConn {
	switch s := src.(type) {
	case *net.TCPConn:
		return s
	case interface{ RawTCP() (*net.TCPConn, bool) }:
		if tcp, ok := s.RawTCP(); ok {
			return tcp
		}
	}
	return nil
}

// take returns the error of the last wait.
func (w *rawWaiter) take() error {
	err := w.err
	w.err = nil
	return err
}

// readSocket reads once without blocking; false asks to be called again when the socket
// is readable.
func (r *Reader) readSocket(fd uintptr) bool {
	r.raw.err = nil
	buf := getBuffer(smallBuffer)
	var n int
	var err error
	for {
		if n, err = syscall.Read(int(fd), buf); err != syscall.EINTR {
			break
		}
	}
	if n > 0 {
		r.buf, r.r, r.w = buf, 0, n
		return true
	}
	putBuffer(buf)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err == nil:
		r.raw.err = io.EOF
	default:
		r.raw.err = os.NewSyscallError("read", err)
	}
	return true
}
