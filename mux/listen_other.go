//go:build !linux

package mux

import (
	"context"
	"errors"
	"net"
	"time"
)

// deferAccept is Acceptor.DeferAccept.
func deferAccept(_ *net.TCPListener, d time.Duration) error {
	if d > 0 {
		return errors.ErrUnsupported
	}
	return nil
}

// listen opens a listening socket. Other systems have no way to take over an address.
func listen(ctx context.Context, network, address string, _ []*Acceptor) (*net.TCPListener, error) {
	return open(ctx, net.ListenConfig{}, network, address)
}
