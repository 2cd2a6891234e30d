package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// step is what a proxy that is played by a test reads, and what it then sends.
type step struct{ read, send string }

// play is the proxy: it goes through the steps, then waits for the client to close. chunk is how many bytes it writes at a
// time, and total how many it sends before it closes; negative is all of them.
func play(t *testing.T, c net.Conn, steps []step, chunk, total int) {
	defer c.Close()
	for _, s := range steps {
		got := make([]byte, len(s.read))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != s.read {
			t.Errorf("the proxy got %q, %v; want %q", got, err, s.read)
			return
		}
		for b := []byte(s.send); len(b) > 0; {
			n := min(chunk, len(b))
			if total >= 0 {
				n = min(n, total)
				total -= n
			}
			if n == 0 {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
	}
	_, _ = io.Copy(io.Discard, c)
}

// sent is all that the proxy sends.
func sent(steps []step) (n int) {
	for _, s := range steps {
		n += len(s.send)
	}
	return n
}

// played returns a dial function to a proxy that plays the steps, and the connection that it hands out. done is closed
// when the proxy has ended.
func played(t *testing.T, steps []step, chunk, total int) (dial DialFunc, client net.Conn, done chan struct{}) {
	client, server := net.Pipe()
	done = make(chan struct{})
	dial = func(context.Context) (net.Conn, error) {
		go func() {
			defer close(done)
			play(t, server, steps, chunk, total)
		}()
		return client, nil
	}
	return dial, client, done
}

func mustProxy(t testing.TB, o ProxyOptions) *Proxy {
	t.Helper()
	p, err := NewProxy(o)
	if err != nil {
		t.Fatalf("NewProxy(%+v): %v", o, err)
	}
	return p
}

var (
	named = Destination{Host: "example.com", Port: 443}
	ip4   = Destination{Addr: netip.MustParseAddr("192.0.2.7"), Port: 80}
	ip6   = Destination{Addr: netip.MustParseAddr("2001:db8::7"), Port: 80}
)

const connectNamed = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"

// tunnels are handshakes that succeed.
var tunnels = []struct {
	name, url string
	to        Destination
	steps     []step
}{
	{"http", "http://192.0.2.1", named, []step{{connectNamed, "HTTP/1.1 200 OK\r\n\r\n"}}},
	{"http, HTTP/1.0 and no reason", "http://192.0.2.1", named, []step{{connectNamed, "HTTP/1.0 200\r\n\r\n"}}},
	{"http, 299", "http://192.0.2.1", named, []step{{connectNamed, "HTTP/1.1 299 x\r\n\r\n"}}},
	{
		"http, interim responses", "http://192.0.2.1", named,
		[]step{{connectNamed, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"}},
	},
	{
		"http, lengths to ignore", "http://192.0.2.1", named,
		[]step{{connectNamed, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"}},
	},
	{
		"http, IPv6 and a user", "http://u:p%40@192.0.2.1", ip6,
		[]step{{
			"CONNECT [2001:db8::7]:80 HTTP/1.1\r\nHost: [2001:db8::7]:80\r\nProxy-Authorization: Basic dTpwQA==\r\n\r\n",
			"HTTP/1.1 200 OK\r\n\r\n",
		}},
	},
	{"socks4", "socks4://192.0.2.1", ip4, []step{{"\x04\x01\x00\x50\xc0\x00\x02\x07\x00", "\x00\x5a\x00\x00\x00\x00\x00\x00"}}},
	{
		"socks4, a user", "socks4://me@192.0.2.1", ip4,
		[]step{{"\x04\x01\x00\x50\xc0\x00\x02\x07me\x00", "\x00\x5a\x00\x50\xc0\x00\x02\x07"}},
	},
	{
		"socks4a", "socks4a://192.0.2.1", named,
		[]step{{"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.com\x00", "\x00\x5a\x00\x00\x00\x00\x00\x00"}},
	},
	{
		"socks5", "socks5://192.0.2.1", ip4,
		[]step{{"\x05\x01\x00", "\x05\x00"}, {"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"}},
	},
	{
		"socks5, IPv6, bound to a name", "socks5://192.0.2.1", ip6,
		[]step{
			{"\x05\x01\x00", "\x05\x00"},
			{
				"\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x50",
				"\x05\x00\x00\x03\x02gw\x00\x50",
			},
		},
	},
	{
		"socks5, a user", "socks5://u:p@192.0.2.1", named,
		[]step{
			{"\x05\x02\x00\x02", "\x05\x02"},
			{"\x01\x01u\x01p", "\x01\x00"},
			{"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "\x05\x00\x00\x04" + strings.Repeat("\x00", 18)},
		},
	},
	{
		"socks5, a user that nobody asks for", "socks5://u:p@192.0.2.1", named,
		[]step{
			{"\x05\x02\x00\x02", "\x05\x00"},
			{"\x05\x01\x00\x03\x0bexample.com\x01\xbb", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
		},
	},
}

// TestTunnel has each handshake succeed in one piece and in single bytes, and then fail cut at each length.
func TestTunnel(t *testing.T) {
	for _, tt := range tunnels {
		t.Run(tt.name, func(t *testing.T) {
			p := mustProxy(t, ProxyOptions{URL: tt.url})
			for _, chunk := range []int{1, 1 << 10} {
				dial, c, done := played(t, tt.steps, chunk, -1)
				got, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", dial, tt.to)
				if err != nil {
					t.Fatalf("Open in pieces of %d: %v", chunk, err)
				}
				if got != c {
					t.Errorf("Open in pieces of %d = %T, not the connection that was dialled", chunk, got)
				}
				got.Close()
				<-done
			}
			for total := range sent(tt.steps) {
				dial, c, done := played(t, tt.steps, 1<<10, total)
				got, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", dial, tt.to)
				checkError(t, err, reasonTerminated, true, 0)
				if got != nil {
					t.Errorf("cut after %d bytes: a tunnel", total)
				}
				if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("cut after %d bytes: the connection was left open", total)
				}
				<-done
			}
		})
	}
}

// TestTunnelServerFirst has the target speak right behind the handshake.
func TestTunnelServerFirst(t *testing.T) {
	const banner = "220 hello\r\n\r\nHTTP/1.1 200\r\n\r\n"
	for _, tt := range tunnels {
		t.Run(tt.name, func(t *testing.T) {
			p := mustProxy(t, ProxyOptions{URL: tt.url})
			steps := append([]step(nil), tt.steps...)
			steps[len(steps)-1].send += banner
			for _, chunk := range []int{1, 7, 1 << 10} {
				dial, c, done := played(t, steps, chunk, -1)
				got, err := p.Open(t.Context(), time.Time{}, "", dial, tt.to)
				if err != nil {
					t.Fatalf("Open: %v", err)
				}
				if p.Scheme() != HTTP && got != c {
					t.Errorf("Open = %T, not the connection that was dialled", got)
				}
				b := make([]byte, len(banner))
				if _, err := io.ReadFull(got, b); err != nil || string(b) != banner {
					t.Errorf("the tunnel begins with %q, %v; want %q", b, err, banner)
				}
				got.Close()
				<-done
			}
		})
	}
}

// checkError checks all that an *Error says but its words, and that the password is not among those.
func checkError(t *testing.T, err error, reason string, server bool, status int) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("error is %T (%v), want *Error", err, err)
		return
	}
	if e.Reason != reason || e.Server != server || e.Status != status {
		t.Errorf("error has %s, server %t, status %d; want %s, %t, %d: %v", e.Reason, e.Server, e.Status, reason, server, status, err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("error shows the password: %v", err)
	}
}

// echo is a target: it says back all it hears, then ends.
func echo(c io.ReadWriter) {
	var b bytes.Buffer
	_, _ = io.Copy(c, io.TeeReader(c, &b))
}

// checkSays checks the words of an error.
func checkSays(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("error %q does not say %q", err, words)
	}
}

// loopConn is a connection as a task of an event loop may use it: with Read, Write, Close and SetDeadline alone.
type loopConn struct {
	net.Conn // nil
	c        net.Conn
}

func (l loopConn) Read(b []byte) (int, error)    { return l.c.Read(b) }
func (l loopConn) Write(b []byte) (int, error)   { return l.c.Write(b) }
func (l loopConn) Close() error                  { return l.c.Close() }
func (l loopConn) SetDeadline(t time.Time) error { return l.c.SetDeadline(t) }

// loopContext is a context that nobody may wait for, which would take a goroutine.
type loopContext struct{ context.Context }

func (loopContext) Done() <-chan struct{} { panic("somebody waits for the context") }

// TestTunnelOnLoop has Open do nothing that a task of an event loop may not, where it does not say that it Blocks.
func TestTunnelOnLoop(t *testing.T) {
	for _, tt := range tunnels {
		p := mustProxy(t, ProxyOptions{URL: tt.url})
		if p.Blocks() {
			t.Errorf("%v blocks", p)
		}
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			play(t, server, tt.steps, 1<<10, -1)
		}()
		got, err := p.Open(loopContext{t.Context()}, time.Now().Add(time.Minute), "", dialled(loopConn{c: client}), tt.to)
		if err != nil {
			t.Fatalf("%s: Open: %v", tt.name, err)
		}
		got.Close()
		<-done
	}
}
