//go:build !linux

package mux

import (
	"context"
	"net"
)

// listen opens a listening socket. Other systems have no way to take over an address.
func listen(ctx context.Context, network, address string, _ []*Acceptor) (*net.TCPListener, error) {
	return open(ctx, net.ListenConfig{}, network, address)
}
