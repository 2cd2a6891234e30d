package yardstick

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/bench/loopback"
)

func addrOf(l net.Listener) netip.AddrPort { return netip.MustParseAddrPort(l.Addr().String()) }

// TestAChainLeadsToTheTargetOfItsHop: the client asks for port 9, where nobody listens.
func TestAChainLeadsToTheTargetOfItsHop(t *testing.T) {
	target, hop, first := listen(t), listen(t), listen(t)
	go ServeHop(hop, addrOf(target))
	go ServeThrough(first, addrOf(hop))
	go loopback.Serve(target, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(all))
	})
	for name, l := range map[string]net.Listener{"hop": hop, "chain": first} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte{5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 9, 'a', 'b'})
		c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		if want := "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00AB"; err != nil || string(got) != want {
			t.Errorf("%s: the client reads %q, %v, want %q", name, got, err, want)
		}
	}
}

// answers gives what it holds to who reads, and takes all that is written.
type answers struct {
	io.Reader
	written bytes.Buffer
}

func (a *answers) Write(b []byte) (int, error) { return a.written.Write(b) }

func TestRequest(t *testing.T) {
	const good = "\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
	tests := []struct {
		name, answer string
		ok           bool
	}{
		{"granted", good, true},
		{"no method is acceptable", "\x05\xff", false},
		{"another version", "\x04\x00" + good[2:], false},
		{"connection refused", "\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", false},
		{"an address of another type", "\x05\x00\x05\x00\x00\x04\x00\x00\x00\x00\x00\x00", false},
		{"the reply is cut short", good[:11], false},
		{"the method is cut short", good[:1], false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &answers{Reader: bytes.NewReader([]byte(tt.answer))}
			if err := request(a, netip.MustParseAddrPort("127.0.0.1:258")); (err == nil) != tt.ok {
				t.Errorf("request = %v, want success %v", err, tt.ok)
			}
			if want := "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x01\x02"; tt.ok && a.written.String() != want {
				t.Errorf("it has sent %q, want %q", a.written.String(), want)
			}
		})
	}
}
