// Package origin is the server behind the proxies under test. It does as
// little as it can, so that the machine's time goes to the proxy.
//
// A tunnel begins with one octet that says what it is for:
//
//	E        echoes what follows
//	D + u64  sends that many zeros
//	U + u64  takes that many octets, then sends k
//	P + u64  sends that many octets of the pattern
//	V + u64  takes that many octets, then sends how many differ from the pattern (u64)
//	C        sends how many octets U has taken on all tunnels (u64), and again after each octet
//	N        sends how many datagrams were taken and how many of these were not right (2 u64), and again after each octet
//
// A TLS ClientHello in front of it is answered with a real ServerHello: what
// routes by server name can be driven, and nobody pays for cryptography.
package origin

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"

	"polyport/bench/loopback"
)

// Block is how many octets are read and written at a time.
const Block = 256 << 10

// Server is an origin. New makes it.
type Server struct {
	hello []byte
	taken atomic.Uint64
	zeros []byte

	datagrams, wrong atomic.Uint64 // that were taken
}

// New prepares an origin.
func New() (*Server, error) {
	hello, err := serverHello()
	if err != nil {
		return nil, err
	}
	return &Server{hello: hello, zeros: make([]byte, Block)}, nil
}

// Serve serves tunnels until l is closed.
func (s *Server) Serve(l net.Listener) { loopback.Serve(l, s.serve) }

func (s *Server) serve(c *net.TCPConn) {
	defer c.Close()
	command, err := s.command(c)
	if err != nil {
		return
	}
	switch command {
	case 'E':
		echo(c)
	case 'C':
		count(c, &s.taken)
	case 'N':
		count(c, &s.datagrams, &s.wrong)
	default:
		var b [8]byte
		if _, err := io.ReadFull(c, b[:]); err == nil {
			s.bulk(c, command, binary.BigEndian.Uint64(b[:]))
		}
	}
}

// command reads the octet that a tunnel begins with, behind a ClientHello if there is one.
func (s *Server) command(c *net.TCPConn) (byte, error) {
	var b [5]byte
	if _, err := io.ReadFull(c, b[:1]); err != nil || b[0] != recordHandshake {
		return b[0], err
	}
	if _, err := io.ReadFull(c, b[1:]); err != nil {
		return 0, err
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint16(b[3:]))); err != nil {
		return 0, err
	}
	if _, err := c.Write(s.hello); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, b[:1])
	return b[0], err
}

// echo does not use io.Copy: with splice the origin would be another machine than real ones are.
func echo(c *net.TCPConn) {
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if n > 0 {
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func count(c *net.TCPConn, of ...*atomic.Uint64) {
	for {
		var b []byte
		for _, n := range of {
			b = binary.BigEndian.AppendUint64(b, n.Load())
		}
		if _, err := c.Write(b); err != nil {
			return
		}
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return
		}
	}
}

func (s *Server) bulk(c *net.TCPConn, command byte, n uint64) {
	switch command {
	case 'D':
		send(c, n, func(uint64) []byte { return s.zeros })
	case 'U':
		if take(c, n, func(b []byte, _ uint64) { s.taken.Add(uint64(len(b))) }) == nil {
			c.Write([]byte{'k'})
		}
	case 'P':
		WritePattern(c, n)
	case 'V':
		if wrong, err := CheckPattern(c, n); err == nil {
			c.Write(binary.BigEndian.AppendUint64(nil, wrong))
		}
	}
}

// send writes n octets; block gives those that stand at an offset.
func send(w io.Writer, n uint64, block func(at uint64) []byte) error {
	for at := uint64(0); at < n; {
		b := block(at)
		k, err := w.Write(b[:min(uint64(len(b)), n-at)])
		at += uint64(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// take reads n octets and shows them with their offset.
func take(r io.Reader, n uint64, see func(b []byte, at uint64)) error {
	b := make([]byte, Block)
	for at := uint64(0); at < n; {
		k, err := r.Read(b[:min(uint64(len(b)), n-at)])
		see(b[:k], at)
		at += uint64(k)
		if err != nil && at < n {
			return err
		}
	}
	return nil
}
