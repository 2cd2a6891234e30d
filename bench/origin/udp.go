package origin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"polyport/bench/batch"
	"polyport/bench/loopback"
)

// A datagram begins with an octet that says what it is for: E, which is echoed,
// S, which is echoed as one message with others that the kernel cuts, or U,
// which is taken and counted. The seven behind it are a number, and the
// rest is the part of the pattern that belongs to the number.
const (
	Echo     = 'E'
	Segments = 'S'
	Take     = 'U'

	// DatagramHead is how many octets stand in front of the pattern.
	DatagramHead = 8
	// LargestDatagram is the longest that the origin reads.
	LargestDatagram = 2048
)

const numberMask = 1<<56 - 1

// WriteDatagram fills b, of DatagramHead to LargestDatagram octets, with datagram number n, below 2^56.
func WriteDatagram(b []byte, command byte, n uint64) {
	binary.BigEndian.PutUint64(b, uint64(command)<<56|n&numberMask)
	copy(b[DatagramHead:], patternAt(n))
}

// ReadDatagram returns what WriteDatagram has put into b. ok is false if b is
// shorter than a head or any octet behind it is another than it was.
func ReadDatagram(b []byte) (command byte, n uint64, ok bool) {
	if len(b) < DatagramHead {
		return 0, 0, false
	}
	n = binary.BigEndian.Uint64(b) & numberMask
	body := b[DatagramHead:]
	want := patternAt(n)
	return b[0], n, len(body) <= len(want) && bytes.Equal(body, want[:len(body)])
}

// datagramBatch is how many datagrams are read at a time.
const datagramBatch = 128

// datagramNap lets datagrams that come one by one gather.
const datagramNap = 20 * time.Microsecond

// ServeUDP serves datagrams until c is closed. What cannot be echoed, such as
// to a port that is closed meanwhile, is its sender's loss.
func (s *Server) ServeUDP(c *batch.Conn) error {
	echoes, segments := make([]int, 0, datagramBatch), make([]int, 0, datagramBatch)
	for {
		n, err := c.Read(true)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		echoes, segments = echoes[:0], segments[:0]
		for i := range n {
			switch d := c.Datagram(i); {
			case len(d) > 0 && d[0] == Segments:
				segments = append(segments, i)
			case !s.takes(d):
				echoes = append(echoes, i)
			}
		}
		if len(echoes) > 0 {
			c.WriteBack(echoes, false)
		}
		if len(segments) > 0 {
			c.WriteBack(segments, true)
		}
		if n < datagramBatch/4 {
			batch.Nap(datagramNap)
		}
	}
}

// ListenUDP opens the address that ServeUDP serves.
func ListenUDP(addr string) (*batch.Conn, error) {
	c, err := loopback.ListenUDP(addr)
	if err != nil {
		return nil, err
	}
	return batch.New(c, datagramBatch, LargestDatagram)
}

// takes counts a datagram, unless it is to be echoed.
func (s *Server) takes(b []byte) bool {
	if len(b) > 0 && b[0] == Echo {
		return false
	}
	s.datagrams.Add(1)
	if _, _, ok := ReadDatagram(b); !ok {
		s.wrong.Add(1)
	}
	return true
}
