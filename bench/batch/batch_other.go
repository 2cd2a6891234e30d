//go:build !linux

package batch

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// socket reads and writes one datagram at a time: the benchmark runs on Linux alone.
type socket struct {
	conn    *net.UDPConn
	in      []byte
	length  int
	from    netip.AddrPort
	outData [][]byte
}

func newSocket(c *net.UDPConn, n, size int) (socket, error) {
	f, err := c.File()
	if err != nil {
		return socket{}, err
	}
	defer f.Close()
	own, err := net.FileConn(f)
	if err != nil {
		return socket{}, err
	}
	s := socket{conn: own.(*net.UDPConn), in: make([]byte, size+1)}
	for range n {
		s.outData = append(s.outData, make([]byte, size))
	}
	return s, nil
}

func (s *socket) buffer(i int) []byte { return s.outData[i] }
func (s *socket) datagram(int) []byte { return s.in[:s.length] }
func (s *socket) close() error        { return s.conn.Close() }

func (s *socket) read(wait bool) (int, error) {
	d := time.Millisecond
	if wait {
		d = idleRead
	}
	s.conn.SetReadDeadline(time.Now().Add(d))
	var err error
	s.length, s.from, err = s.conn.ReadFromUDPAddrPort(s.in)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return 1, nil
}

func (s *socket) write(n int, _ bool) (int, error) {
	for i := range n {
		if _, err := s.conn.Write(s.outData[i]); err != nil {
			return i, err
		}
	}
	return n, nil
}

func (s *socket) writeBack(datagrams []int, _ bool) error {
	var err error
	for range datagrams {
		_, err = s.conn.WriteToUDPAddrPort(s.in[:s.length], s.from)
	}
	return err
}

// Nap rests for d, or for as long as Go's timers need. Zero and less is no rest.
func Nap(d time.Duration) { time.Sleep(d) }
