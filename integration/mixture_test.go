package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// exchangeStreams writes one stream of bytes to c and reads another, and compares what comes with what should.
func exchangeStreams(c *net.TCPConn, send, expect uint64, sent, expected int64) error {
	stream := func(seed uint64, n int64) io.Reader {
		return io.LimitReader(rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%032x", seed)))), n)
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, stream(send, sent))
		if err == nil {
			err = c.CloseWrite()
		}
		done <- err
	}()
	got := sum(c)
	if err := <-done; err != nil {
		return err
	}
	if want := sum(stream(expect, expected)); got != want {
		return fmt.Errorf("of %d bytes that were expected others came: %s, want %s", expected, got, want)
	}
	return nil
}

// Hundreds of tunnels at once, small and large, by every way in: none gets a byte of another.
func TestTunnelsDoNotMix(t *testing.T) {
	t.Parallel()
	sizes := []int64{0, 1, 1000, 20_000, 70_000, 400_000, 2_000_000}
	const head = "%016x %016x %016x\n" // the key, and how much goes up and down
	server := tcpServer(t, func(c *net.TCPConn) {
		var key uint64
		var up, down int64
		first := make([]byte, len(fmt.Sprintf(head, 0, 0, 0)))
		if _, err := io.ReadFull(c, first); err != nil {
			t.Errorf("at the server: %v", err)
			return
		}
		if _, err := fmt.Sscanf(string(first), head, &key, &up, &down); err != nil {
			t.Errorf("at the server: %q: %v", first, err)
			return
		}
		if err := exchangeStreams(c, ^key, key, down, up); err != nil {
			t.Errorf("at the server: %v", err)
		}
	})
	_, wire := portOf(t, server)
	g := startTidy(t, listenAnywhere+allowLoopback)
	ways := []struct{ says, hears string }{
		{"CONNECT " + server + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\n"},
		{"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + string(wire), "\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01.."},
		{"\x04\x01" + string(wire) + "\x7f\x00\x00\x01\x00", "\x00\x5a..\x7f\x00\x00\x01"},
	}
	proxy := g.at()
	var clients sync.WaitGroup
	for client := range 24 {
		clients.Go(func() {
			for i := range 12 {
				way := ways[(client+i)%len(ways)]
				key := uint64(client)<<32 | uint64(i)
				up, down := sizes[(client+i)%len(sizes)], sizes[(client*3+i*5)%len(sizes)]
				c, err := net.Dial("tcp", proxy)
				if err == nil {
					_ = c.SetDeadline(time.Now().Add(patience))
					_, err = fmt.Fprintf(c, way.says+head, key, up, down) // the head of the streams goes ahead of the answer
				}
				if err == nil {
					_, err = io.ReadFull(c, make([]byte, len(way.hears)))
				}
				if err == nil {
					err = exchangeStreams(c.(*net.TCPConn), key, ^key, up, down)
				}
				if err != nil {
					t.Errorf("client %d, tunnel %d (%q, %d up, %d down): %v", client, i, way.says[:1], up, down, err)
					return
				}
				c.Close()
			}
		})
	}
	clients.Wait()
}
