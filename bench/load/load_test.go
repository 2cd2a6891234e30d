package load

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
	"polyport/bench/yardstick"
)

// still is a meter at rest.
type still struct{}

func (still) CPU() float64    { return 0 }
func (still) Others() float64 { return 0 }
func (still) Memory() Memory  { return Memory{} }

// small keeps every workload under a second.
var small = Options{Window: 50 * time.Millisecond, Idle: 20, Beside: 5, Held: 16, Workers: 4, Conns: 4, Verify: 300_000, Rest: 20 * time.Millisecond, Associations: 20}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := loopback.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// startOrigin returns the addresses of an origin and of its HTTP side.
func startOrigin(t *testing.T) (tunnels, web string) {
	t.Helper()
	s, err := origin.New()
	if err != nil {
		t.Fatal(err)
	}
	l, h := listen(t), listen(t)
	u, err := origin.ListenUDP(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go s.Serve(l)
	go s.ServeUDP(u)
	go origin.ServeHTTP(h)
	return l.Addr().String(), h.Addr().String()
}

// newLoad is a load by SOCKS5 through the yardstick, or on the origin itself.
func newLoad(t *testing.T, name, proto string) *Load {
	t.Helper()
	tunnels, web := startOrigin(t)
	proxy := listen(t)
	go yardstick.Serve(proxy)
	e, err := NewEndpoint(proto, proxy.Addr().String(), tunnels, web, "bench.test")
	if err != nil {
		t.Fatal(err)
	}
	return New(name, 1, e, still{}, small)
}

func TestWorkloads(t *testing.T) {
	rate := map[string]string{measure.Idle: measure.WakeP50, measure.Bulk: measure.GBps, measure.BusyIdle: measure.GBps, measure.Verify: measure.Bytes, measure.ChainBulk: measure.GBps}
	for _, tt := range []struct{ name, proto string }{{measure.Direct, measure.Direct}, {"copy", "socks5"}} {
		for _, work := range measure.Workloads {
			if work == measure.HTTP && tt.proto != measure.Direct || work == measure.Handshakes || work == measure.TLSBulk {
				continue
			}
			if work == measure.UDP || work == measure.UDPIdle {
				continue // TestUDPWorkloads
			}
			t.Run(tt.name+"/"+work, func(t *testing.T) {
				all := newLoad(t, tt.name, tt.proto).Run(work)
				if len(all) == 0 {
					t.Fatal("no measurement")
				}
				for _, m := range all {
					want := rate[work]
					if work == measure.ChainBulk && (m.Variant == "down" || m.Variant == "up") {
						want = measure.Bytes
					}
					if want == "" {
						want = measure.PerSec
					}
					if m.Errors > 0 || m.Metrics[want] <= 0 {
						t.Errorf("%s %s: %d errors (%s), %s", m.Work, m.Variant, m.Errors, m.FirstErr, want)
					}
				}
			})
		}
	}
}

func TestHeldConnectionsStayOpen(t *testing.T) {
	m := newLoad(t, "copy", "socks5").Run(measure.Held)[0]
	if got := m.Metrics[measure.StillIn]; got != float64(small.Held) {
		t.Errorf("%v of %d are still open", got, small.Held)
	}
}

// flipper is a proxy that changes one octet of what the origin sends.
func flipper(t *testing.T, to string) string {
	l := listen(t)
	go loopback.Serve(l, func(c *net.TCPConn) {
		defer c.Close()
		o, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer o.Close()
		go func() {
			b := make([]byte, 4096)
			for n, err := c.Read(b); err == nil; n, err = c.Read(b) {
				o.Write(b[:n])
			}
		}()
		b := make([]byte, 4096)
		for first := true; ; first = false {
			n, err := o.Read(b)
			if first && n > 0 {
				b[0] ^= 1
			}
			c.Write(b[:n])
			if err != nil {
				return
			}
		}
	})
	return l.Addr().String()
}

func TestAChangedOctetIsAnError(t *testing.T) {
	tunnels, web := startOrigin(t)
	e, err := NewEndpoint(measure.Direct, "", flipper(t, tunnels), web, "")
	if err != nil {
		t.Fatal(err)
	}
	l := New("flipper", 1, e, still{}, small)
	if m := l.verify(down); m.Errors != 8 || !strings.Contains(m.FirstErr, "changed") {
		t.Errorf("verify counts %d errors (%s), want one for each tunnel", m.Errors, m.FirstErr)
	}
	if err := l.Check(); err == nil {
		t.Error("Check does not see a changed echo")
	}
}

func TestAddressesThatAreNotLoopbackAreRefused(t *testing.T) {
	for _, a := range [][3]string{
		{"192.0.2.1:1080", "127.0.0.1:1", "127.0.0.1:2"},
		{"127.0.0.1:1080", "192.0.2.1:1", "127.0.0.1:2"},
		{"127.0.0.1:1080", "127.0.0.1:1", "192.0.2.1:2"},
		{"proxy.example:1080", "127.0.0.1:1", "127.0.0.1:2"},
	} {
		if _, err := NewEndpoint("socks5", a[0], a[1], a[2], ""); err == nil {
			t.Errorf("NewEndpoint(%v) was accepted", a)
		}
	}
}

func TestReplies(t *testing.T) {
	tests := []struct {
		name string
		err  error
		ok   bool
	}{
		{"socks5", readSocks5Reply(strings.NewReader("\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")), true},
		{"socks5, a name", readSocks5Reply(strings.NewReader("\x05\x00\x00\x03\x01a\x00\x50")), true},
		{"socks5, refused", readSocks5Reply(strings.NewReader("\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00")), false},
		{"socks5, cut", readSocks5Reply(strings.NewReader("\x05\x00\x00\x01\x7f")), false},
		{"socks4", readSocks4Reply(strings.NewReader("\x00\x5a\x00\x00\x00\x00\x00\x00")), true},
		{"socks4, refused", readSocks4Reply(strings.NewReader("\x00\x5b\x00\x00\x00\x00\x00\x00")), false},
		{"connect", readConnectReply(strings.NewReader("HTTP/1.0 200 OK\r\nVia: x\r\n\r\n")), true},
		{"connect, refused", readConnectReply(strings.NewReader("HTTP/1.1 403 Forbidden\r\n\r\n")), false},
		{"connect, cut", readConnectReply(strings.NewReader("HTTP/1.1 200 OK\r\n")), false},
		{"connect, endless", readConnectReply(bytes.NewReader(make([]byte, 9999))), false},
	}
	for _, tt := range tests {
		if (tt.err == nil) != tt.ok {
			t.Errorf("%s: %v, want ok = %v", tt.name, tt.err, tt.ok)
		}
	}
}

func TestReadAnswer(t *testing.T) {
	body := strings.Repeat("x", origin.BodySize)
	tests := []struct {
		name, answer string
		keep, ok     bool
	}{
		{"kept", "HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n" + body, true, true},
		{"closed", "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\nConnection: close\r\n\r\n" + body, false, true},
		{"to the end", "HTTP/1.0 200 OK\r\n\r\n" + body, false, true},
		{"short", "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + body[1:], false, false},
		{"short, to the end", "HTTP/1.0 200 OK\r\n\r\n" + body[1:], false, false},
		{"changed", "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + body[1:] + "y", false, false},
		{"an error", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", false, false},
	}
	for _, tt := range tests {
		keep, err := readAnswer(strings.NewReader(tt.answer), make([]byte, 8192))
		if keep != tt.keep || (err == nil) != tt.ok {
			t.Errorf("%s: readAnswer = %v, %v, want %v, ok = %v", tt.name, keep, err, tt.keep, tt.ok)
		}
	}
}

// slowMeter takes longer to read than the window lasts.
type slowMeter struct{ still }

func (slowMeter) CPU() float64 { time.Sleep(2 * time.Second); return 0 }

func TestReadingTheMeterIsNotPartOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New("x", 1, Endpoint{}, slowMeter{}, Options{Window: time.Second})
		m := l.operate(1, func(int) error { time.Sleep(10 * time.Millisecond); return nil })
		if got := m[measure.PerSec]; got < 99 || got > 101 {
			t.Errorf("%v operations a second, want 100", got)
		}
	})
}
