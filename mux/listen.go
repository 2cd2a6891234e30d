package mux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Listen opens a listening socket on a literal "address:port". It is bound to
// the address's own family alone: 0.0.0.0 and [::] on one port do not collide.
// An address that is taken only by sockets that are about to be closed (127.0.0.1 and
// 0.0.0.0 on one port exclude each other) is had beside them on Linux. The error
// keeps the cause, such as syscall.EADDRINUSE.
func Listen(ctx context.Context, address netip.AddrPort, leaving ...*Acceptor) (*net.TCPListener, error) {
	network := "tcp4"
	if address.Addr().Is6() {
		network = "tcp6"
	}
	ln, err := listen(ctx, network, address.String(), leaving)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return ln, nil
}

// open listens. An MPTCP socket cannot splice, so it is off.
func open(ctx context.Context, lc net.ListenConfig, network, address string) (*net.TCPListener, error) {
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(errors.New("this is no TCP socket"), ln.Close())
	}
	return tcp, nil
}
