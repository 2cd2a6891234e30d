package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/session"
	"polyport/internal/upstream"
	"polyport/mux"
)

// dialOnLoops starts a gateway whose connections begin on event loops, and connects to it.
func dialOnLoops(t *testing.T, o gatewayOptions) (*gateway, *peer) {
	t.Helper()
	var err error
	if o.loops, err = reactor.Open(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.loops.Close)
	g := newGateway(t, o)
	s := mux.NewServer(mux.Options{Rows: []string{rowHTTP, rowConnect}, Loops: o.loops, OnLoop: g.OnLoop, Serve: g.Serve, Handle: g.Handle})
	s.SetTable(mux.Table{"main": {{Name: rowConnect, Match: matchConnect}, {Name: rowHTTP, Match: matchHTTP}}})
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Add(mux.Listener{Name: "main", Socket: ln})
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	c, derr := net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	if err := errors.Join(err, derr); err != nil {
		t.Fatal(err)
	}
	return g, newPeer(t, c)
}

// TestIdleAfterAChallenge: the connection goes on for another try, on the loop or off it, but waits for no longer than others.
func TestIdleAfterAChallenge(t *testing.T) {
	for _, tt := range []struct{ name, request string }{
		{"a tunnel", "CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"a plain request", "GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"one that leaves the loop", "POST http://127.0.0.1:9/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, c := dialOnLoops(t, gatewayOptions{
				users: users{}, requireUser: true,
				rules:    []acl.Rule{{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}},
				timeouts: brief(func(o *session.Timeouts) { o.KeepAlive = 50 * time.Millisecond }),
			})
			c.send("%s", tt.request)
			if resp, _ := c.response(http.MethodGet); resp.StatusCode != 407 || resp.Close {
				t.Errorf("answer %d, close %v, want 407 on a connection that goes on", resp.StatusCode, resp.Close)
			}
			if rest, err := c.rest(); rest != "" || err != nil {
				t.Errorf("then came %q, %v, want the end", rest, err)
			}
			if rec := g.record(); rec.Status != 407 {
				t.Errorf("record status %d, want 407", rec.Status)
			}
		})
	}
}

// TestBodyLeavesTheLoop: what a task cannot serve goes on in a goroutine, and so does what follows on the connection.
func TestBodyLeavesTheLoop(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			req, body := p.request()
			answer := fmt.Sprintf("%s %d", req.Method, len(body))
			p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	})
	g, c := dialOnLoops(t, gatewayOptions{})
	for _, tt := range []struct{ method, body, want string }{
		{"GET", "", "GET 0"},
		{"POST", "hello", "POST 5"},
		{"PUT", strings.Repeat("x", 1<<20), "PUT 1048576"},
		{"GET", "", "GET 0"},
	} {
		c.send("%s http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", tt.method, o.addr(), len(tt.body), tt.body)
		resp, got := c.response(tt.method)
		if got != tt.want || resp.StatusCode != 200 || resp.Close {
			t.Errorf("answer to %s: %d %q, close %v, want %q", tt.method, resp.StatusCode, got, resp.Close, tt.want)
		}
		if rec := g.record(); rec.Err != nil || rec.Method != tt.method || rec.Status != 200 {
			t.Errorf("record = %+v, want a success", rec)
		}
	}
}

// TestHTTPSLeavesTheLoop before it dials, and what follows on the connection is served off it as well.
func TestHTTPSLeavesTheLoop(t *testing.T) {
	a := newAuthority(t)
	heads := make(chan string, 10)
	secure := newSecured(t, a.server("secure.test"), answering(okAnswer, heads))
	plain, _ := replies(t, okAnswer)
	g, c := dialOnLoops(t, gatewayOptions{https: true, roots: a.roots, names: names{"secure.test": {"127.0.0.1"}}})
	for _, base := range []string{
		"http://" + plain.addr(), fmt.Sprintf("https://secure.test:%d", secure.port()), "http://" + plain.addr(), fmt.Sprintf("HTTPS://secure.test:%d", secure.port()),
	} {
		c.send("GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n", base)
		if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || body != "ok" || resp.Close {
			t.Errorf("%s: %d %q, close %v", base, resp.StatusCode, body, resp.Close)
		}
		if rec := g.record(); rec.Err != nil || rec.Status != 200 || !strings.EqualFold(rec.URL, base+"/") {
			t.Errorf("record %+v", rec)
		}
	}
	if n := secure.accepted.Load(); n != 1 {
		t.Errorf("%d TLS connections, want 1", n)
	}
}

// TestUpstreamOnALoop: a task serves what a proxy without TLS forwards; what comes with goroutines of its own leaves the loop first.
func TestUpstreamOnALoop(t *testing.T) {
	a := newAuthority(t)
	plain := pathEcho(t)
	origin := pathEcho(t)
	socks := newScripted(t, func(p *peer) { socks5(p, origin.addr()) })
	secure := newSecured(t, a.server("proxy.test"), func(p *secured) {
		for h := p.head(); h != ""; h = p.head() {
			path := strings.Fields(h)[1]
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path))
		}
	})
	h2 := newH2Proxy(t, a, origin.addr())
	for _, tt := range []struct {
		name, url, prefix string
		proxy             interface{ count() int32 }
		stays             bool
	}{
		{"http", "http://" + plain.addr(), "http://example.test", plain, true},
		{"socks5", "socks5://" + socks.addr(), "", socks, true},
		{"https", "https://" + secure.addr(), "http://example.test", secure, false},
		{"h2", "h2://" + h2.addr(), "", h2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := upstreamTo(t, upstream.ProxyOptions{URL: tt.url, RootCAs: a.roots, ServerName: "proxy.test"}, nil)
			g, c := dialOnLoops(t, gatewayOptions{
				names: names{"example.test": {"127.0.0.9"}},
				ways:  egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
			})
			for range 3 {
				c.send("GET http://example.test/a HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, body := c.response(http.MethodGet)
				want(t, "body", body, tt.prefix+"/a")
				if rec := g.record(); resp.Close || rec.Err != nil || rec.Server != tt.url {
					t.Errorf("close %v, record %+v", resp.Close, rec)
				}
			}
			if n := tt.proxy.count(); n != 1 {
				t.Errorf("%d connections through the proxy, want 1", n)
			}
			g.handler.pool.mu.Lock()
			if o := g.handler.pool.all.oldest; o == nil || (o.on != nil) != tt.stays {
				t.Errorf("the idle connection is %+v, want it on the loop: %v", o, tt.stays)
			}
			g.handler.pool.mu.Unlock()
			g.handler.pool.retire()
			wantReleased(t, u.Pool())
		})
	}
}

// TestTunnelThroughAnUpstreamOnALoop: neither a target that speaks at once, nor a proxy that needs goroutines, holds a tunnel up.
func TestTunnelThroughAnUpstreamOnALoop(t *testing.T) {
	a := newAuthority(t)
	target := newScripted(t, func(p *peer) {
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	early := connectProxy(t, target.addr(), make(chan string, 10), "early")
	h2 := newH2Proxy(t, a, target.addr())
	for _, tt := range []struct{ name, url, first string }{
		{"http, the target speaks at once", "http://" + early.addr(), "early"},
		{"h2", "h2://" + h2.addr(), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := upstreamTo(t, upstream.ProxyOptions{URL: tt.url, RootCAs: a.roots, ServerName: "proxy.test"}, nil)
			g, c := dialOnLoops(t, gatewayOptions{
				names: names{"example.test": {"127.0.0.9"}},
				ways:  egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
			})
			c.send("CONNECT example.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
			want(t, "head", c.head(), connected)
			want(t, "what the target said at once", c.bytes(len(tt.first)), tt.first)
			long := strings.Repeat("0123456789abcdef", 1<<14)
			go func() {
				c.send("%s", long)
				_ = c.CloseWrite()
			}()
			if got, err := c.rest(); got != long || err != nil {
				t.Errorf("the echo has %d bytes, %v", len(got), err)
			}
			if rec := g.record(); rec.Err != nil || rec.BytesFromTarget != int64(len(tt.first)+len(long)) || rec.Server != tt.url {
				t.Errorf("record %+v", rec)
			}
			wantReleased(t, u.Pool())
		})
	}
}

// TestSiteOnALoop: what a PROXY header has made private goes along when the client leaves the loop.
func TestSiteOnALoop(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header upstream.ProxyHeader
		conns  int32
	}{
		{"shared", upstream.NoHeader, 2}, // the loop's own, and one of goroutines
		{"private", upstream.ProxyV1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) {
				if tt.header != upstream.NoHeader {
					_, _ = p.r.ReadString('\n')
				}
				for {
					if _, err := p.r.Peek(1); err != nil {
						return
					}
					_, body := p.request()
					p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				}
			})
			b := backendTo(t, o.addr(), tt.header)
			g, c := dialOnLoops(t, withSite(b, nil))
			for _, body := range []string{"", "", "hello", "", "again"} {
				c.send("PUT / HTTP/1.1\r\nHost: www.site.test\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				resp, got := c.response(http.MethodPut)
				want(t, "answer", got, body)
				if rec := g.record(); resp.Close || rec.Err != nil || rec.Backend != "web" {
					t.Errorf("close %v, record %+v", resp.Close, rec)
				}
			}
			if n := o.count(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
			c.Close()
			g.handler.pool.retire()
			wantReleased(t, b.Pool())
		})
	}
}
