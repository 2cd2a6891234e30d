package yardstick

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// ServeHop is Serve as a next hop: each CONNECT is to target, whatever the
// request says. Who asks for a port where nobody listens reaches target
// through this hop or not at all.
func ServeHop(l net.Listener, target netip.AddrPort) {
	serveBy(l, func(netip.AddrPort) (*net.TCPConn, error) { return connect(target) })
}

// ServeThrough is Serve with each CONNECT by way of hop, a SOCKS5 server that wants no authentication.
func ServeThrough(l net.Listener, hop netip.AddrPort) {
	serveBy(l, func(addr netip.AddrPort) (*net.TCPConn, error) { return through(hop, addr) })
}

// through has hop connect to addr. The error says which of the two failed.
func through(hop, addr netip.AddrPort) (*net.TCPConn, error) {
	c, err := connect(hop)
	if err != nil {
		return nil, fmt.Errorf("connect to the next hop: %w", err)
	}
	if err := request(c, addr); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect by way of the next hop: %w", err)
	}
	return c, nil
}

// request is the client's side of CONNECT to an IPv4 address (RFC 1928 sections 3, 4 and 6).
func request(c io.ReadWriter, addr netip.AddrPort) error {
	var b [10]byte
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	if b[0] != 5 || b[1] != 0 {
		return fmt.Errorf("method % x", b[:2])
	}
	ip := addr.Addr().As4()
	if _, err := c.Write(binary.BigEndian.AppendUint16(append([]byte{5, commandConnect, 0, 1}, ip[:]...), addr.Port())); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if b[1] != 0 || b[3] != 1 { // ServeHop answers with an IPv4 address
		return fmt.Errorf("reply %d, address type %d", b[1], b[3])
	}
	return nil
}
