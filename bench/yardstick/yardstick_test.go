package yardstick

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"polyport/bench/loopback"
)

func TestAHalfClosedTunnelGoesOn(t *testing.T) {
	target, proxy := listen(t), listen(t)
	go Serve(proxy)
	go loopback.Serve(target, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(all))
	})
	c, err := net.Dial("tcp", proxy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	port := target.Addr().(*net.TCPAddr).Port
	c.Write([]byte{5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, byte(port >> 8), byte(port), 'a', 'b'})
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if want := "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00AB"; err != nil || string(got) != want {
		t.Errorf("the client reads %q, %v, want %q", got, err, want)
	}
}

func TestItServesLoopbackAlone(t *testing.T) {
	var b bytes.Buffer
	b.Write([]byte{5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 0, 80})
	if _, addr, err := readRequest(&b); err == nil {
		t.Errorf("a request for %v is accepted", addr)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := loopback.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
