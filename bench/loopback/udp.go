package loopback

import (
	"fmt"
	"net"
	"net/netip"
)

// socketBuffer is asked for on each end of the benchmark; the kernel gives what it allows.
const socketBuffer = 4 << 20

// ListenUDP opens addr for datagrams. The caller closes the socket.
func ListenUDP(addr string) (*net.UDPConn, error) {
	ap, err := Check(addr)
	if err != nil {
		return nil, err
	}
	return bindUDP(ap)
}

// bindUDP binds a socket with buffers that hold a burst.
func bindUDP(addr netip.AddrPort) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	c.SetReadBuffer(socketBuffer)
	c.SetWriteBuffer(socketBuffer)
	return c, nil
}

// DialUDP connects a socket on from, whose port 0 is any, to addr.
func DialUDP(from, addr netip.AddrPort) (*net.UDPConn, error) {
	if !from.Addr().IsLoopback() || !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("from %s to %s: these are not both loopback addresses", from, addr)
	}
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialFrom connects to addr from another loopback address, with any port.
func DialFrom(from netip.Addr, addr netip.AddrPort) (*net.TCPConn, error) {
	if !from.IsLoopback() || !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("from %s to %s: these are not both loopback addresses", from, addr)
	}
	d := net.Dialer{Timeout: timeout, Control: lateBind, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c, err := d.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
