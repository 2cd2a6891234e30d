package yardstick

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"

	"polyport/bench/loopback"
)

// udpHead is the length of the header with an IPv4 address (RFC 1928 section 7).
const udpHead = 10

// largestUDP is the longest datagram there is.
const largestUDP = 65535

// association is UDP ASSOCIATE as it is usually written in Go: two sockets, a
// goroutine for each direction, a datagram at a time.
type association struct {
	client, target *net.UDPConn
	from           netip.Addr                     // of the connection that it belongs to
	learned        atomic.Pointer[netip.AddrPort] // where the client sends from
}

// associate serves one association for as long as c lives.
func associate(c *net.TCPConn) error {
	a := &association{from: c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()}
	var err error
	if a.client, err = loopback.ListenUDP("127.0.0.1:0"); err != nil {
		return err
	}
	defer a.client.Close()
	if a.target, err = loopback.ListenUDP("127.0.0.1:0"); err != nil {
		return err
	}
	defer a.target.Close()
	port := uint16(a.client.LocalAddr().(*net.UDPAddr).Port)
	if _, err := c.Write(binary.BigEndian.AppendUint16([]byte{5, 0, 0, 1, 127, 0, 0, 1}, port)); err != nil {
		return err
	}
	go a.up()
	go a.down()
	_, err = io.Copy(io.Discard, c)
	return err
}

// up passes the client's datagrams on until its socket is closed.
func (a *association) up() {
	b := make([]byte, largestUDP)
	for {
		n, from, err := a.client.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		to, ok := readUDPHead(b[:n])
		if !ok || from.Addr().Unmap() != a.from {
			continue
		}
		if last := a.learned.Load(); last == nil || *last != from {
			a.learned.Store(&from)
		}
		a.target.WriteToUDPAddrPort(b[udpHead:n], to)
	}
}

// down passes answers back until its socket is closed.
func (a *association) down() {
	b := make([]byte, udpHead+largestUDP)
	for {
		n, from, err := a.target.ReadFromUDPAddrPort(b[udpHead:])
		if err != nil {
			return
		}
		to := a.learned.Load()
		if to == nil {
			continue
		}
		writeUDPHead(b, from)
		a.client.WriteToUDPAddrPort(b[:udpHead+n], *to)
	}
}

// readUDPHead returns the target in front of a datagram: ok is false for any
// but a whole datagram to a loopback IPv4 address.
func readUDPHead(b []byte) (to netip.AddrPort, ok bool) {
	if len(b) < udpHead || b[2] != 0 || b[3] != 1 {
		return to, false
	}
	ip := netip.AddrFrom4([4]byte(b[4:8]))
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[8:])), ip.IsLoopback()
}

func writeUDPHead(b []byte, from netip.AddrPort) {
	ip := from.Addr().Unmap().As4()
	copy(b, []byte{0, 0, 0, 1})
	copy(b[4:], ip[:])
	binary.BigEndian.PutUint16(b[8:], from.Port())
}
