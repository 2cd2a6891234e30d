package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
)

// association is a way for datagrams to the origin: SOCKS5 UDP ASSOCIATE (RFC
// 1928 section 7), or a socket alone for direct.
type association struct {
	tcp  *net.TCPConn // that it lives as long as; nil for direct
	udp  *net.UDPConn
	head []byte // in front of each datagram in both directions, since all have the origin's address; empty for direct
}

// associate opens an association as a client at from, whose port 0 is any.
func (e Endpoint) associate(from netip.AddrPort) (*association, error) {
	a := &association{}
	to := e.to
	if e.Proto == measure.Socks5UDP {
		var err error
		if a.tcp, to, err = e.requestAssociation(from.Addr()); err != nil {
			return nil, err
		}
		ip := e.origin.Addr().As4()
		a.head = binary.BigEndian.AppendUint16(append([]byte{0, 0, 0, 1}, ip[:]...), e.origin.Port())
	}
	var err error
	a.udp, err = loopback.DialUDP(from, to)
	if errors.Is(err, syscall.EADDRINUSE) {
		a.udp, err = loopback.DialUDP(netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// requestAssociation asks for an association and returns where its datagrams go.
func (e Endpoint) requestAssociation(from netip.Addr) (c *net.TCPConn, to netip.AddrPort, err error) {
	if c, err = loopback.DialFrom(from, e.to); err != nil {
		return nil, to, err
	}
	c.SetDeadline(time.Now().Add(opTimeout))
	if _, err = c.Write([]byte{5, 1, 0}); err == nil {
		err = expect(c, []byte{5, 0})
	}
	if err == nil {
		_, err = c.Write(e.request)
	}
	if err == nil {
		to, err = readBound(c)
	}
	if err != nil {
		reset(c)
		return nil, to, fmt.Errorf("UDP ASSOCIATE: %w", err)
	}
	if !to.Addr().IsValid() || to.Addr().IsUnspecified() { // what the client has connected to
		to = netip.AddrPortFrom(e.to.Addr(), to.Port())
	}
	return c, to, c.SetDeadline(time.Time{})
}

// close ends the association. It leaves no port in TIME_WAIT.
func (a *association) close() {
	if a.udp != nil {
		a.udp.Close()
	}
	if a.tcp != nil {
		reset(a.tcp)
	}
}

// datagram is a buffer with the head and room for size octets.
func (a *association) datagram(size int) (whole, payload []byte) {
	whole = append(bytes.Clone(a.head), make([]byte, size)...)
	return whole, whole[len(a.head):]
}

// payload is what stands behind the head of a datagram that has come.
func (a *association) payload(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, a.head) {
		return nil, fmt.Errorf("a datagram begins % x, want % x", b[:min(len(b), len(a.head))], a.head)
	}
	return b[len(a.head):], nil
}

// exchange has the origin echo one datagram, number n. What is lost is sent again, twice.
func (a *association) exchange(size int, n uint64) error {
	whole, payload := a.datagram(size)
	origin.WriteDatagram(payload, origin.Echo, n)
	b := make([]byte, len(whole)+64)
	var err error
	for range 3 {
		if _, err = a.udp.Write(whole); err != nil {
			return err
		}
		a.udp.SetReadDeadline(time.Now().Add(opTimeout / 5))
		var k int
		if k, err = a.udp.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return err
		}
		if !bytes.Equal(b[:k], whole) {
			return fmt.Errorf("the echo of datagram %d is another datagram: % x", n, b[:min(k, 24)])
		}
		return a.udp.SetReadDeadline(time.Time{})
	}
	return fmt.Errorf("no echo of a datagram that was sent three times: %w", err)
}

// associateOnce opens an association, has one datagram echoed, and closes it.
func (l *Load) associateOnce(n int) error {
	a, err := l.end.associate(netip.AddrPortFrom(loopback.Client(n), 0))
	if err != nil {
		return err
	}
	defer a.close()
	return a.exchange(len(hail), uint64(n))
}
