package batch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/bench/loopback"
)

// pair is a connected client and a server, with room for n datagrams of 8 octets.
func pair(t *testing.T, n int) (client, server *Conn) {
	t.Helper()
	l, err := loopback.ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.LocalAddr().(*net.UDPAddr).AddrPort()
	d, err := loopback.DialUDP(netip.MustParseAddrPort("127.0.0.1:0"), to)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to   **Conn
		from *net.UDPConn
	}{{&client, d}, {&server, l}} {
		if *c.to, err = New(c.from, n, 8); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*c.to).Close() })
	}
	return client, server
}

func TestDatagramsGoThereAndBack(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut %v", cut), func(t *testing.T) { thereAndBack(t, cut) })
	}
}

func thereAndBack(t *testing.T, cut bool) {
	client, server := pair(t, 4)
	for i, s := range []string{"datagram", "are kept", "in order"} {
		copy(client.Buffer(i), s)
	}
	if n, err := client.Write(3, cut); n != 3 || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	for _, want := range [][]string{{"datagram", "are kept", "in order"}, {"in order", "datagram"}} {
		reader := server
		if len(want) == 2 {
			if err := server.WriteBack([]int{2, 0}, cut); err != nil {
				t.Fatal(err)
			}
			reader = client
		}
		if got := readAll(t, reader, len(want)); !bytes.Equal(got, []byte(joined(want))) {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	if n, err := client.Read(false); n != 0 || err != nil {
		t.Errorf("Read of nothing = %d, %v", n, err)
	}
}

func joined(all []string) (s string) {
	for _, a := range all {
		s += a
	}
	return s
}

// readAll reads until n datagrams have come. On loopback they all have when Write
// returns, so that one Read is enough, and its buffers are there for WriteBack.
func readAll(t *testing.T, c *Conn, n int) (all []byte) {
	t.Helper()
	for n > 0 {
		k, err := c.Read(true)
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			all = append(all, c.Datagram(i)...)
		}
		n -= k
	}
	return all
}

func TestCloseEndsARead(t *testing.T) {
	_, server := pair(t, 1)
	ended := make(chan error)
	go func() {
		_, err := server.Read(true)
		ended <- err
	}()
	server.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
	if err := server.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close = %v", err)
	}
}

func TestALongerDatagramIsNotCutToSize(t *testing.T) {
	l, err := loopback.ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.LocalAddr().(*net.UDPAddr).AddrPort()
	server, err := New(l, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := loopback.DialUDP(netip.MustParseAddrPort("127.0.0.1:0"), to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("nine octets or more"))
	if n, err := server.Read(true); n != 1 || err != nil || len(server.Datagram(0)) != 9 {
		t.Errorf("Read = %d, %v, %q", n, err, server.Datagram(0))
	}
}

func TestNap(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, 0, 100 * time.Microsecond} {
		start := time.Now()
		Nap(d)
		if got := time.Since(start); got < d {
			t.Errorf("Nap(%v) took %v", d, got)
		}
	}
}
