// Package loopback listens and dials on loopback addresses and refuses all
// others: load that leaves the machine would be an attack on somebody.
package loopback

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// timeout bounds the opening of a connection.
const timeout = 10 * time.Second

// Check says whether addr is a loopback IP address with a port.
func Check(addr string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ap, fmt.Errorf("%q is not an IP address with a port: %w", addr, err)
	}
	if !ap.Addr().IsLoopback() {
		return ap, fmt.Errorf("%s is not a loopback address: the benchmark stays on this machine, use 127.0.0.1", addr)
	}
	return ap, nil
}

// Listen opens addr. The caller closes the listener.
func Listen(addr string) (net.Listener, error) {
	if _, err := Check(addr); err != nil {
		return nil, err
	}
	return net.Listen("tcp", addr)
}

// Serve gives each connection of l to handle in a goroutine of its own and
// returns when l is closed. handle owns the connection.
func Serve(l net.Listener, handle func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go handle(c.(*net.TCPConn))
	}
}

// Dial connects to addr from client n, which has the address 127.0.1.n+1.
// Clients are apart from 127.0.0.1, the address that proxies connect from:
// otherwise equal port numbers look like a loop to those that watch for one.
func Dial(addr netip.AddrPort, n byte) (*net.TCPConn, error) {
	if !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address", addr)
	}
	d := net.Dialer{Timeout: timeout, Control: lateBind}
	if addr.Addr().Is4() {
		d.LocalAddr = clientAddr(n)
	}
	c, err := d.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
