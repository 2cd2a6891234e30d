package egress

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// testProxy is a proxy made by hand. It has an opinion on how to serve, and keeps what it was asked for.
type testProxy struct {
	at    netip.AddrPort
	names map[string]string // "host:port" to what is dialled in its place; others are dialled as they are

	mu    sync.Mutex
	asked []string
	from  []netip.Addr
	conns map[net.Conn]bool
}

// proxyAt serves each connection to address by f until the test ends.
func proxyAt(t testing.TB, address string, f func(*testProxy, net.Conn)) *testProxy {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &testProxy{at: l.Addr().(*net.TCPAddr).AddrPort(), names: map[string]string{}, conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.keep(c)
			running.Go(func() {
				defer p.drop(c)
				f(p, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		running.Wait()
	})
	return p
}

func (p *testProxy) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	p.from = append(p.from, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
}

func (p *testProxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

// heard returns what it was asked for, and forgets it.
func (p *testProxy) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// connections is how many it has had.
func (p *testProxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.from)
}

// join dials what was asked for, says so, and passes bytes on until both sides end.
func (p *testProxy) join(c net.Conn, r io.Reader, hostport string, answer func(error)) {
	p.mu.Lock()
	p.asked = append(p.asked, hostport)
	to, known := p.names[hostport]
	p.mu.Unlock()
	if !known {
		to = hostport
	}
	far, err := net.Dial("tcp", to)
	if answer(err); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { io.Copy(far, r); far.(*net.TCPConn).CloseWrite() })
	both.Go(func() { io.Copy(c, far); c.(*net.TCPConn).CloseWrite(); c.Close() })
	both.Wait()
	far.Close()
}

// socks5 serves CONNECT of RFC 1928. credentials is "user:password", "" for none.
func socks5(credentials string) func(*testProxy, net.Conn) {
	return func(p *testProxy, c net.Conn) {
		r := bufio.NewReader(c)
		field := func(n int) string {
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				return strings.Repeat("\x00", n)
			}
			return string(b)
		}
		methods := field(int(field(2)[1]))
		if credentials != "" {
			if !strings.Contains(methods, "\x02") {
				io.WriteString(c, "\x05\xff")
				return
			}
			io.WriteString(c, "\x05\x02")
			user := field(int(field(2)[1]))
			password := field(int(field(1)[0]))
			if user+":"+password != credentials {
				io.WriteString(c, "\x01\x01")
				return
			}
			io.WriteString(c, "\x01\x00")
		} else {
			io.WriteString(c, "\x05\x00")
		}
		var host string
		switch kind := field(4)[3]; kind {
		case 1:
			host = netip.AddrFrom4([4]byte([]byte(field(4)))).String()
		case 4:
			host = netip.AddrFrom16([16]byte([]byte(field(16)))).String()
		case 3:
			host = field(int(field(1)[0]))
		}
		port := binary.BigEndian.Uint16([]byte(field(2)))
		p.join(c, r, net.JoinHostPort(host, fmt.Sprint(port)), func(err error) {
			code := "\x00"
			if err != nil {
				code = "\x05" // connection refused
			}
			io.WriteString(c, "\x05"+code+"\x00\x01\x00\x00\x00\x00\x00\x00")
		})
	}
}

// connectProxy serves CONNECT of HTTP.
func connectProxy(p *testProxy, c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	p.join(c, r, req.Host, func(err error) {
		if err != nil {
			io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	})
}

// says has a proxy say the same to all, once it has heard something, and then wait for their end.
func says(text string) func(*testProxy, net.Conn) {
	return func(p *testProxy, c net.Conn) {
		var b [512]byte
		if _, err := c.Read(b[:]); err != nil {
			return
		}
		io.WriteString(c, text)
		if !strings.HasPrefix(text, "HTTP/1.1 200") {
			io.Copy(io.Discard, c)
		}
	}
}

// silent reads, and says nothing.
func silent(_ *testProxy, c net.Conn) { io.Copy(io.Discard, c) }

// upstreamOf makes an upstream of proxies that are well written.
func upstreamOf(t testing.TB, o upstream.Options, urls ...string) *upstream.Upstream {
	t.Helper()
	for _, u := range urls {
		p, err := upstream.NewProxy(upstream.ProxyOptions{URL: u})
		if err != nil {
			t.Fatal(err)
		}
		o.Proxies = append(o.Proxies, p)
	}
	if o.Pool.Name == "" {
		o.Pool.Name = "eu"
	}
	u, err := upstream.New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// through makes a Dialer whose default upstream is u.
func throughUpstream(t testing.TB, u *upstream.Upstream, o Options) *Dialer {
	t.Helper()
	if o.Policy == nil {
		o.Policy = policy(t, false, loopback, allowAll)
	}
	o.Ways.Default = u
	if o.Ways.Upstreams == nil {
		o.Ways.Upstreams = map[string]*upstream.Upstream{}
	}
	o.Ways.Upstreams[u.Name()] = u
	return New(o)
}

// openTo authorizes and opens.
func openTo(t testing.TB, d *Dialer, hostport string, o OpenOptions) (Link, error) {
	t.Helper()
	p, err := d.Authorize(t.Context(), to(t, hostport))
	if err != nil {
		return Link{}, err
	}
	return d.Open(t.Context(), p, o)
}

// checkNoneCounted checks that no connection is counted on any server.
func checkNoneCounted(t testing.TB, pools ...*pool.Pool) {
	t.Helper()
	for _, p := range pools {
		for _, m := range p.Members() {
			if n := m.Status().Connections; n != 0 {
				t.Errorf("%s counts %d connections, want none", m.Name(), n)
			}
		}
	}
}

// states are the states of a pool's servers.
func states(p *pool.Pool) (all []pool.State) {
	for _, m := range p.Members() {
		all = append(all, m.Status().State)
	}
	return all
}

// reasonOf returns the reason of an error, and fails where that is no *Error.
func reasonOf(t testing.TB, err error) Reason {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	return e.Reason
}
