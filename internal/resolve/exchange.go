package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is what is offered by EDNS: what passes every network in one
	// piece, since fragments are lost or forged.
	udpSize = 1232
	// udpRead leaves room for servers that do not keep to it.
	udpRead = 4096
)

// exchange sends one query and reads its answer. Each has a socket of its own,
// so that a forger must guess the port and the ID (RFC 5452 section 9).
func (s *servers) exchange(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, s.try)
	defer cancel()
	q.Id = dns.Id()
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	c, err := s.dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() // long past: what waits returns
	var m *dns.Msg
	if network == "udp" {
		m, err = overUDP(c, q, wire)
	} else {
		m, err = overTCP(c, q, wire)
	}
	if ctx.Err() != nil && err != nil {
		err = ctx.Err() // it is why the read failed, and says more
	}
	return m, err
}

// overUDP passes over datagrams that do not answer q: late ones, and forged ones.
func overUDP(c net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := c.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, udpRead)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if n < 2 || binary.BigEndian.Uint16(buf) != q.Id {
			continue
		}
		m := new(dns.Msg)
		// A message that was cut may be readable up to the cut, and says so.
		if err := m.Unpack(buf[:n]); err != nil && !m.Truncated {
			return nil, fmt.Errorf("unreadable answer: %w", err)
		}
		if answers(m, q) {
			return m, nil
		}
	}
}

// overTCP sends and reads one message behind its length (RFC 1035 section 4.2.2).
func overTCP(c net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, fmt.Errorf("read the length of the answer: %w", err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, buf); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(buf); err != nil {
		return nil, fmt.Errorf("unreadable answer: %w", err)
	}
	if !answers(m, q) {
		return nil, errors.New("an answer to another question")
	}
	return m, nil
}

// answers reports whether m is a response to q. A server that could not read q
// may leave the question out.
func answers(m, q *dns.Msg) bool {
	if !m.Response || m.Id != q.Id || m.Opcode != q.Opcode {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Truncated
	}
	got, want := m.Question[0], q.Question[0]
	return len(m.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
