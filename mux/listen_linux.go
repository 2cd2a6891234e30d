package mux

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inherited is what a connection inherits from its listening socket: what package net
// would set on each one, at the cost of five system calls.
var inherited = []struct{ level, option, value int }{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},  // seconds
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15}, // seconds
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
}

// listen opens a listening socket, beside those that are leaving if it must be.
func listen(ctx context.Context, network, address string, leaving []*Acceptor) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error { return inherit(c) }}
	ln, err := open(ctx, lc, network, address)
	if !errors.Is(err, unix.EADDRINUSE) || len(leaving) == 0 {
		return ln, err
	}
	return listenBeside(ctx, network, address, leaving)
}

func inherit(c syscall.RawConn) error {
	for _, o := range inherited {
		if err := setOption(c, o.level, o.option, o.value); err != nil {
			return err
		}
	}
	return nil
}

// listenBeside opens a socket whose address is taken by sockets that are leaving. All
// of them share the port for a moment (SO_REUSEPORT), so that it is never closed.
func listenBeside(ctx context.Context, network, address string, leaving []*Acceptor) (*net.TCPListener, error) {
	for _, a := range leaving {
		if err := a.share(1); err != nil {
			return nil, err
		}
		defer a.share(0)
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		return errors.Join(inherit(c), setOption(c, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}}
	ln, err := open(ctx, lc, network, address)
	if err != nil {
		return nil, err
	}
	return ln, setListener(ln, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
}

// share lets others bind the port of a's socket, or no longer.
func (a *Acceptor) share(on int) error {
	ln := a.l.Load().Socket
	if ln == nil {
		return nil
	}
	return setListener(ln, unix.SOL_SOCKET, unix.SO_REUSEPORT, on)
}

// deferAccept is Acceptor.DeferAccept.
func deferAccept(ln *net.TCPListener, d time.Duration) error {
	seconds := int((d + time.Second - 1) / time.Second)
	return setListener(ln, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)
}

func setListener(ln *net.TCPListener, level, option, value int) error {
	c, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	return setOption(c, level, option, value)
}

func setOption(c syscall.RawConn, level, option, value int) error {
	var err error
	controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(controlErr, err)
}
