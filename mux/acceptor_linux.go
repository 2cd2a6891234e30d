package mux

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"polyport/internal/reactor"
)

// toLoop returns what accepts connections for the server's loops; nil if there are none.
func (a *Acceptor) toLoop() func() error {
	ln, ok := a.socket.(*net.TCPListener)
	if !ok || a.server.opts.Loops == nil {
		return nil
	}
	file, err := pollable(ln)
	if err != nil {
		return nil // no descriptor is left, perhaps: goroutines serve as well
	}
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil
	}
	a.socket = &loopSocket{ln, file}
	return (&loopAccept{Acceptor: a, raw: raw}).next
}

// pollable returns the socket of a listener as a file: that of package net cannot be waited for
// without its accept.
func pollable(ln *net.TCPListener) (*os.File, error) {
	fd, err := reactor.Duplicate(ln)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// loopSocket is a listening socket with its second descriptor.
type loopSocket struct {
	*net.TCPListener
	file *os.File
}

// SetDeadline bounds the wait for a connection.
func (s *loopSocket) SetDeadline(t time.Time) error { return s.file.SetReadDeadline(t) }

// Close closes the socket.
func (s *loopSocket) Close() error { return errors.Join(s.file.Close(), s.TCPListener.Close()) }

// loopAccept accepts by system calls of its own: package net would ask for both addresses of each
// connection, and put it into its own poller.
type loopAccept struct {
	*Acceptor
	raw  syscall.RawConn
	fd   int
	peer netip.AddrPort
	err  error
}

// next accepts one connection.
func (a *loopAccept) next() error {
	if err := a.raw.Read(a.try); err != nil {
		return err
	}
	if a.err != nil {
		return &net.OpError{Op: "accept", Net: "tcp", Addr: a.socket.Addr(), Err: os.NewSyscallError("accept4", a.err)}
	}
	a.server.acceptedSocket(a.fd, a.peer, a.l.Load())
	return nil
}

// try is next's callback; false waits for a connection.
func (a *loopAccept) try(listener uintptr) bool {
	a.fd, a.peer, a.err = accept(listener)
	return a.err != unix.EAGAIN
}

func accept(listener uintptr) (fd int, peer netip.AddrPort, err error) {
	for {
		fd, peer, err = reactor.Accept(int(listener))
		if err != unix.EINTR {
			return fd, peer, err
		}
	}
}

// longestQueue is how many connections package net lets wait at a socket, at most.
const longestQueue = 1<<16 - 1

// emptyQueue accepts those who wait at a socket that is to be closed. Behind a deadline package net would not
// even look.
func (a *Acceptor) emptyQueue() {
	ln := a.l.Load().Socket
	if ln == nil {
		return
	}
	raw, err := ln.SyscallConn()
	if err != nil {
		return
	}
	for range longestQueue { // who comes later than that may be reset
		var fd int
		var peer netip.AddrPort
		failed := raw.Control(func(listener uintptr) { fd, peer, err = accept(listener) })
		switch {
		case failed == nil && err == nil:
			a.take(fd, peer)
		case failed != nil || !aborted(err):
			return
		}
	}
}

// take hands an accepted socket to a loop, or to a goroutine.
func (a *Acceptor) take(fd int, peer netip.AddrPort) {
	if a.server.opts.Loops != nil {
		a.server.acceptedSocket(fd, peer, a.l.Load())
		return
	}
	a.server.acceptedForGoroutine(fd, peer, a.l.Load())
}
