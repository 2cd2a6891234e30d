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

// padding is the block to whose multiples encrypted queries are filled up (RFC 8467 section 4.1).
const padding = 128

// pad fills up a query with EDNS, so that its length does not tell the name.
func pad(q *dns.Msg) {
	o := &dns.EDNS0_PADDING{}
	q.IsEdns0().Option = append(q.IsEdns0().Option, o)
	o.Padding = make([]byte, (padding-q.Len()%padding)%padding)
}

// datagram is the transport over UDP, and over TCP where an answer was truncated.
type datagram struct{ addrs *addresses }

// exchange implements transport.
func (d datagram) exchange(ctx context.Context, q *dns.Msg) (m *dns.Msg, err error) {
	err = d.addrs.each(ctx, func(ctx context.Context, server netip.AddrPort) error {
		m, err = exchangeOnce(ctx, UDP, server, q)
		if err == nil && m.Truncated {
			m, err = exchangeOnce(ctx, TCP, server, q)
		}
		return err
	})
	return m, err
}

// close implements transport.
func (datagram) close() {}

// exchangeOnce sends one query and reads its answer. Each has a socket of its own,
// so that a forger must guess the port and the ID (RFC 5452 section 9).
func exchangeOnce(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return exchangeOn(ctx, c, q)
}

// exchangeOn uses a connection for one query.
func exchangeOn(ctx context.Context, c net.Conn, q *dns.Msg) (*dns.Msg, error) {
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() // long past: what waits returns
	q.Id = dns.Id()
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if _, ok := c.(*net.UDPConn); ok {
		return overUDP(c, q, wire)
	}
	return overTCP(c, q, wire)
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

// overTCP sends and reads one message.
func overTCP(c net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := c.Write(frame(wire)); err != nil {
		return nil, err
	}
	buf, err := readFrame(c)
	if err != nil {
		return nil, err
	}
	return readMessage(buf, q)
}

// frame puts the length before a message (RFC 1035 section 4.2.2). Both must go out in
// one piece (RFC 7766 section 8).
func frame(wire []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(wire)), uint16(len(wire))), wire...)
}

// readFrame reads a message with its length before it. The error wraps io.EOF if r ends
// between messages, and io.ErrUnexpectedEOF if within one.
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("read the length of the answer: %w", err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return buf, nil
}

// errOther says that what was read does not answer the question.
var errOther = errors.New("an answer to another question")

// readMessage reads the answer to q that came in one piece.
func readMessage(wire []byte, q *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		return nil, fmt.Errorf("unreadable answer: %w", err)
	}
	switch {
	case !answers(m, q):
		return nil, errOther
	case m.Truncated:
		return nil, errors.New("an answer that was truncated though it need not be")
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
