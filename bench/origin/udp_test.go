package origin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/bench/loopback"
)

func TestReadDatagram(t *testing.T) {
	whole := func(n uint64, size int) []byte {
		b := make([]byte, size)
		WriteDatagram(b, Echo, n)
		return b
	}
	tests := []struct {
		name string
		b    []byte
		n    uint64
		ok   bool
	}{
		{"a head alone", whole(7, DatagramHead), 7, true},
		{"64 octets", whole(1<<40|5, 64), 1<<40 | 5, true},
		{"the longest", whole(period-1, LargestDatagram), period - 1, true},
		{"the largest number", whole(1<<56-1, 100), 1<<56 - 1, true},
		{"cut in the head", whole(7, 64)[:7], 0, false},
		{"the body of another", append(whole(7, 8), whole(8, 64)[8:]...), 7, false},
		{"longer than any", make([]byte, len(pattern)+9), 0, false},
	}
	for _, tt := range tests {
		_, n, ok := ReadDatagram(tt.b)
		if n != tt.n || ok != tt.ok {
			t.Errorf("%s: number %d, %v, want %d, %v", tt.name, n, ok, tt.n, tt.ok)
		}
	}
}

func TestDatagramsAreEchoedOrCounted(t *testing.T) {
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	l, err := loopback.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := ListenUDP(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	served := make(chan error)
	go func() { served <- s.ServeUDP(c) }()

	to := netip.MustParseAddrPort(l.Addr().String())
	u, err := loopback.DialUDP(netip.MustParseAddrPort("127.0.0.1:0"), to)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	right, wrong, echo := make([]byte, 64), make([]byte, 64), make([]byte, 64)
	WriteDatagram(right, Take, 1)
	WriteDatagram(wrong, Take, 2)
	wrong[63] ^= 1
	WriteDatagram(echo, Echo, 3)
	for _, b := range [][]byte{right, wrong, {}, right, echo} {
		u.Write(b)
	}
	u.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	if n, err := u.Read(b); err != nil || !bytes.Equal(b[:n], echo) {
		t.Errorf("echo % x, %v", b[:n], err)
	}
	if got := countOf(t, to); got != [2]uint64{4, 2} { // the echo came last
		t.Errorf("taken and wrong: %v, want 4 and 2", got)
	}
	c.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ServeUDP = %v", err)
	}
}

// countOf asks an origin for its count of datagrams.
func countOf(t *testing.T, to netip.AddrPort) [2]uint64 {
	t.Helper()
	c, err := loopback.Dial(to, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write([]byte{'N'})
	var b [16]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}
