// Package yardstick is the least that a proxy can be: SOCKS5 CONNECT and UDP
// ASSOCIATE (RFC 1928) to loopback IPv4 literals, two goroutines and io.Copy,
// which splices on Linux, or a datagram at a time. No policy, no names, no
// deadlines: it is measured against, and is the next hop of chains, not used.
package yardstick

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"

	"polyport/bench/loopback"
)

// dial connects to what a client has asked for. The caller closes the connection.
type dial func(addr netip.AddrPort) (*net.TCPConn, error)

// Serve serves clients until l is closed.
func Serve(l net.Listener) { serveBy(l, connect) }

func serveBy(l net.Listener, by dial) {
	loopback.Serve(l, func(c *net.TCPConn) { serve(c, by) })
}

func serve(c *net.TCPConn, by dial) {
	defer c.Close()
	command, addr, err := readRequest(c)
	if err != nil {
		return
	}
	if command == commandAssociate {
		associate(c)
		return
	}
	target, err := open(c, addr, by)
	if err != nil {
		return
	}
	defer target.Close()
	join(c, target)
}

// stream is a connection whose ends end one by one.
type stream interface {
	net.Conn
	CloseWrite() error
}

// join passes bytes both ways until both have ended.
func join(c, target stream) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(target, c)
	}()
	pass(c, target)
	<-done
}

// pass moves bytes until src ends and passes the end on.
func pass(dst, src stream) {
	if _, err := io.Copy(dst, src); err != nil {
		// A reset ends both ways, or the other goroutine would wait for ever.
		dst.Close()
		src.Close()
		return
	}
	dst.CloseWrite()
}

func connect(addr netip.AddrPort) (*net.TCPConn, error) {
	return net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(addr))
}

func open(c *net.TCPConn, addr netip.AddrPort, by dial) (*net.TCPConn, error) {
	target, err := by(addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		target.Close()
		return nil, err
	}
	return target, nil
}

// Commands of a request (RFC 1928 section 4).
const commandConnect, commandAssociate = 1, 3

// readRequest reads methods and request (RFC 1928 sections 3 and 4).
func readRequest(c io.ReadWriter) (command byte, addr netip.AddrPort, err error) {
	var b [257]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return 0, addr, err
	}
	if _, err := io.ReadFull(c, b[2:2+int(b[1])]); err != nil {
		return 0, addr, err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return 0, addr, err
	}
	if _, err := io.ReadFull(c, b[:10]); err != nil {
		return 0, addr, err
	}
	ip := netip.AddrFrom4([4]byte(b[4:8]))
	if b[3] != 1 || b[1] != commandAssociate && (b[1] != commandConnect || !ip.IsLoopback()) {
		return 0, addr, errors.New("only CONNECT to 127.0.0.0/8 and UDP ASSOCIATE are served")
	}
	return b[1], netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[8:10])), nil
}
