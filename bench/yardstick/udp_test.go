package yardstick

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"polyport/bench/loopback"
)

// udpEcho is a server that sends each datagram back in capitals.
func udpEcho(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := loopback.ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(bytes.ToUpper(b[:n]), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// openAssociation returns the connection and a socket that is connected to where its datagrams go.
func openAssociation(t *testing.T) (*net.TCPConn, *net.UDPConn) {
	t.Helper()
	proxy := listen(t)
	go Serve(proxy)
	c, err := net.Dial("tcp", proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	var b [12]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	if want := []byte{5, 0, 5, 0, 0, 1, 127, 0, 0, 1}; !bytes.Equal(b[:10], want) {
		t.Fatalf("answers % x, want % x", b[:10], want)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), binary.BigEndian.Uint16(b[10:]))
	u, err := loopback.DialUDP(netip.MustParseAddrPort("127.0.0.1:0"), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return c.(*net.TCPConn), u
}

func TestAnAssociationPassesDatagrams(t *testing.T) {
	_, u := openAssociation(t)
	head := make([]byte, udpHead)
	writeUDPHead(head, udpEcho(t))
	for _, ignored := range []string{"", "\x00\x00\x00", "\x00\x00\x01" + string(head[3:]) + "fragment", "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x50elsewhere"} {
		u.Write([]byte(ignored))
	}
	for _, word := range []string{"one", "", "two"} {
		u.Write([]byte(string(head) + word))
		u.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 100)
		n, err := u.Read(b)
		if want := string(head) + string(bytes.ToUpper([]byte(word))); err != nil || string(b[:n]) != want {
			t.Errorf("%q is answered with %q, %v, want %q", word, b[:n], err, want)
		}
	}
}

func TestAnAssociationEndsWithItsConnection(t *testing.T) {
	c, u := openAssociation(t)
	c.CloseWrite()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("Read = %d, %v, want the end", n, err)
	}
	// The sockets are closed before the connection is: a datagram finds no port.
	u.SetReadDeadline(time.Now().Add(10 * time.Second))
	u.Write([]byte("nobody"))
	if _, err := u.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v, want that the port is closed", err)
	}
}
