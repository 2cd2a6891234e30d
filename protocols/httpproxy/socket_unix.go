//go:build unix

package httpproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"polyport/internal/nonblock"
)

// socket is the bare TCP connection of a stream, which is read and written by system
// calls of our own: what can be done at once needs no look at the clock, and a
// connection that waits needs no buffer. It is made once per connection.
type socket struct {
	s   *stream
	tcp *net.TCPConn
	raw syscall.RawConn

	// Of the Read under way:
	tryRead  func(fd uintptr) bool // kept, since a closure costs memory
	into     []byte                // nil: a buffer of get
	get      func() []byte
	put      func([]byte)
	received int
	readErr  error

	// Of the Write under way:
	tryWrite func(fd uintptr) bool
	rest     []byte
	moved    bool // some went out since the last wait began, or there was none
	writeErr error
}

// openSocket looks for the bare connection. It is for the side that reads, before
// which sniffed bytes may lie; the other one finds what it has found.
func (s *stream) openSocket() *socket {
	if k := s.socket.Load(); k != nil {
		return k
	}
	tcp, ok := s.RawTCP()
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	k := &socket{s: s, tcp: tcp, raw: raw}
	k.tryRead, k.tryWrite = k.receive, k.send
	s.socket.Store(k)
	return k
}

// ReadLate implements http1.LateReader.
func (s *stream) ReadLate(get func() []byte, put func([]byte)) ([]byte, int, error) {
	k := s.openSocket()
	if rc := s.loopConn(); k == nil && rc != nil {
		return s.readOnLoop(rc, nil, get, put)
	}
	if k == nil {
		return nil, 0, errors.ErrUnsupported
	}
	k.get, k.put = get, put
	n, err := k.read(nil)
	b := k.into
	k.into = nil
	return b, n, err
}

// read is a Read of the stream, into a buffer of get if p is nil.
func (k *socket) read(p []byte) (int, error) {
	s := k.s
	s.rd.begun = false
	defer s.endRead()
	k.into, k.received, k.readErr = p, 0, nil
	for {
		err := k.raw.Read(k.tryRead)
		switch {
		case err == nil:
			return k.received, k.readErr
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, plainError(err, "read")
		}
		if err := s.readFired(); err != nil {
			return 0, err
		}
	}
}

// receive receives what is there; false asks to be called again when there may be something.
func (k *socket) receive(fd uintptr) bool {
	late := k.into == nil
	if late {
		k.into = k.get()
	}
	n, errno := nonblock.Recv(fd, k.into)
	if n > 0 {
		k.received = n
		return true
	}
	if late {
		k.put(k.into)
		k.into = nil
	}
	switch {
	case errno == 0:
		k.readErr = io.EOF
	case errno != syscall.EAGAIN:
		k.readErr = k.failed("read", errno)
	case !k.s.rd.begun:
		k.readErr = k.s.beginRead(time.Now())
		return k.readErr != nil
	default:
		return false
	}
	return true
}

// write is a Write of the stream.
func (k *socket) write(p []byte) (int, error) {
	s := k.s
	s.wr.begun = false
	k.rest, k.moved, k.writeErr = p, true, nil
	defer k.forget()
	for {
		err := k.raw.Write(k.tryWrite)
		n := len(p) - len(k.rest)
		switch {
		case err == nil:
			return n, k.writeErr
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return n, plainError(err, "write")
		}
		if err := s.writeFired(!s.wr.begun); err != nil {
			return n, err
		}
	}
}

// forget lets go of what Write was given, which is not ours to keep.
func (k *socket) forget() { k.rest = nil }

// send sends what the socket takes; false asks to be called again when it takes more.
func (k *socket) send(fd uintptr) bool {
	for len(k.rest) > 0 {
		n, errno := nonblock.Send(fd, k.rest)
		switch {
		case errno == syscall.EAGAIN && k.moved:
			k.moved = false
			k.writeErr = k.s.beginWrite()
			return k.writeErr != nil
		case errno == syscall.EAGAIN:
			return false
		case errno != 0:
			k.writeErr = k.failed("write", errno)
			return true
		}
		k.rest, k.moved = k.rest[n:], true
	}
	return true
}

// failed is what package net would have made of an error.
func (k *socket) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: k.tcp.LocalAddr(), Addr: k.tcp.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// plainError names the operation of an error of a RawConn as if it had been a Read or Write.
func plainError(err error, op string) error {
	if e, ok := err.(*net.OpError); ok {
		e.Op = op
	}
	return err
}
