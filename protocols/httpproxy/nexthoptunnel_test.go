package httpproxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"polyport/internal/upstream"
)

func (s *scripted) count() int32 { return s.accepted.Load() }

// socks5 serves a SOCKS5 client without authentication, whatever it asks for, by a connection to addr.
func socks5(p *peer, addr string) {
	p.bytes(3)
	p.send("\x05\x00")
	head := p.bytes(4)
	n := 4 + 2
	if head[3] == 3 {
		n = int(p.bytes(1)[0]) + 2
	}
	p.bytes(n)
	to, err := net.Dial("tcp", addr)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer to.Close()
	p.send("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
	join(buffered{p.TCPConn, p.r}, to)
}

// join copies both ways until both have ended.
func join(a, b io.ReadWriteCloser) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		endWrites(a)
	}()
	_, _ = io.Copy(b, a)
	endWrites(b)
	<-done
}

// endWrites half-closes where that can be.
func endWrites(c io.Closer) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

// buffered is a connection some of which has been read into r.
type buffered struct {
	*net.TCPConn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// connectProxy is a proxy that serves CONNECT alone, by connections to addr; heads gets what it was asked for.
func connectProxy(t *testing.T, addr string, heads chan<- string, early string) *scripted {
	return newScripted(t, func(p *peer) {
		heads <- p.head()
		to, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer to.Close()
		p.send("HTTP/1.1 200 OK\r\n\r\n%s", early)
		join(buffered{p.TCPConn, p.r}, to)
	})
}

// TestHTTPSThroughAnUpstream takes a tunnel, since no proxy on the way may see what is asked for.
func TestHTTPSThroughAnUpstream(t *testing.T) {
	a := newAuthority(t)
	heads, asked := make(chan string, 10), make(chan string, 10)
	origin := newSecured(t, a.server("secure.test"), answering(okAnswer, heads))
	proxy := connectProxy(t, origin.addr(), asked, "")
	g, u := through(t, "http://"+proxy.addr(), func(o *gatewayOptions) {
		o.https, o.roots, o.names = true, a.roots, names{"secure.test": {"127.0.0.1"}}
	})
	c := g.connect()
	for range 2 {
		c.send("GET https://secure.test/a HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("answer %d %q", resp.StatusCode, body)
		}
		want(t, "the origin saw", <-heads, "GET /a HTTP/1.1\r\nHost: secure.test\r\nVia: 1.1 polyport\r\n\r\n")
		if rec := g.record(); rec.Address.String() != "127.0.0.1:443" || rec.Server != "http://"+proxy.addr() {
			t.Errorf("record %+v", rec)
		}
	}
	want(t, "the proxy saw", <-asked, "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\nVia: 1.1 polyport\r\n\r\n")
	if n := proxy.count(); n != 1 {
		t.Errorf("%d tunnels, want 1", n)
	}
	c.Close()
	g.handler.pool.retire()
	wantReleased(t, u.Pool())
}

// TestTraceThroughAnUpstream takes a tunnel: a proxy whose turn it is to answer says back what it was asked, our credentials too.
func TestTraceThroughAnUpstream(t *testing.T) {
	origin, heads := replies(t, okAnswer)
	asked := make(chan string, 10)
	proxy := connectProxy(t, origin.addr(), asked, "")
	g, u := through(t, "http://us:er@"+proxy.addr(), nil)
	c := g.connect()
	c.send("TRACE http://example.test/a HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\n\r\n")
	if resp, body := c.response(http.MethodTrace); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	if got := <-asked; !strings.HasPrefix(got, "CONNECT ") {
		t.Fatalf("the proxy saw %q, want CONNECT", got)
	}
	want(t, "the origin saw", <-heads, "TRACE /a HTTP/1.1\r\nHost: example.test\r\nMax-Forwards: 0\r\nVia: 1.1 polyport\r\n\r\n")
	c.Close()
	g.handler.pool.retire()
	wantReleased(t, u.Pool())
}

// TestUpgradeThroughAnUpstream takes a tunnel, whose place in the balance lasts as long as the tunnel.
func TestUpgradeThroughAnUpstream(t *testing.T) {
	origin := newScripted(t, func(p *peer) {
		if h := p.head(); !strings.HasPrefix(h, "GET /chat HTTP/1.1\r\nHost: example.test\r\n") {
			t.Errorf("the origin saw %q", h)
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	asked := make(chan string, 10)
	proxy := connectProxy(t, origin.addr(), asked, "")
	g, u := through(t, "http://"+proxy.addr(), nil)
	c := g.connect()
	c.send(wish, "example.test", "websocket")
	c.head()
	c.send("hello")
	want(t, "echo", c.bytes(5), "hello")
	if n := u.Pool().Members()[0].Status().Connections; n != 1 {
		t.Errorf("%d connections count, want 1", n)
	}
	c.Close()
	if rec := g.record(); rec.Status != 101 || rec.Server != "http://"+proxy.addr() {
		t.Errorf("record %+v", rec)
	}
	want(t, "the proxy saw", <-asked, "CONNECT 127.0.0.9:80 HTTP/1.1\r\nHost: 127.0.0.9:80\r\nVia: 1.1 polyport\r\n\r\n")
	wantReleased(t, u.Pool())
}

// TestSpeaksFirst: what comes through a tunnel before a request is no answer to it.
func TestSpeaksFirst(t *testing.T) {
	origin := newScripted(t, untilClosed)
	proxy := connectProxy(t, origin.addr(), make(chan string, 10), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	g, u := through(t, "http://"+proxy.addr(), nil)
	c := g.connect()
	c.send(wish, "example.test", "websocket")
	resp, body := c.response(http.MethodGet)
	if resp.StatusCode != 502 || !strings.Contains(body, "spoke before") {
		t.Errorf("answer %d %q, want 502", resp.StatusCode, body)
	}
	want(t, "Proxy-Status", resp.Header.Get("Proxy-Status"), `polyport; error=http_protocol_error; next-hop="http://`+proxy.addr()+`"`)
	wantReleased(t, u.Pool())
}

// h2Proxy is a proxy that serves CONNECT in HTTP/2, by connections to to.
type h2Proxy struct {
	*httptest.Server
	t       *testing.T
	to      string
	tunnels atomic.Int32
}

func newH2Proxy(t *testing.T, a *authority, to string) *h2Proxy {
	t.Helper()
	p := &h2Proxy{t: t, to: to}
	p.Server = httptest.NewUnstartedServer(p)
	p.Server.EnableHTTP2, p.Server.TLS = true, a.server("proxy.test")
	p.Server.StartTLS()
	t.Cleanup(p.Server.Close)
	return p
}

func (p *h2Proxy) addr() string { return p.Listener.Addr().String() }
func (p *h2Proxy) count() int32 { return p.tunnels.Load() }

// ServeHTTP implements http.Handler.
func (p *h2Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.tunnels.Add(1)
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		p.t.Error(err)
		return
	}
	w.WriteHeader(200)
	_ = http.NewResponseController(w).Flush()
	join(h2End{r.Body, w}, to)
}

// h2End is the proxy's end of a tunnel.
type h2End struct {
	io.ReadCloser
	w http.ResponseWriter
}

func (e h2End) Write(b []byte) (int, error) {
	n, err := e.w.Write(b)
	_ = http.NewResponseController(e.w).Flush()
	return n, err
}

// TestStreamsThroughAnUpstream: CONNECT and a request in streams of HTTP/2 go through an upstream as others do.
func TestStreamsThroughAnUpstream(t *testing.T) {
	target := newScripted(t, func(p *peer) {
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	proxy := connectProxy(t, target.addr(), make(chan string, 10), "early")
	g, u := through(t, "http://"+proxy.addr(), nil)
	in, out, err := g.h2().tunnel(within(t), "example.test:443")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "late"); err != nil {
		t.Error(err)
	}
	in.Close()
	if got, err := io.ReadAll(out); string(got) != "earlylate" || err != nil {
		t.Errorf("the tunnel gave %q, %v", got, err)
	}
	if rec := g.record(); rec.Server != "http://"+proxy.addr() || rec.Err != nil {
		t.Errorf("record %+v", rec)
	}
	wantReleased(t, u.Pool())

	forwards, _ := replies(t, okAnswer)
	g, _ = through(t, "http://"+forwards.addr(), nil)
	c := g.h2()
	for range 2 {
		if resp, body := c.do(c.request("GET", "http://example.test/", nil)); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("answer %d %q", resp.StatusCode, body)
		}
	}
	if n := forwards.count(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestIdleTunnelEnds: a tunnel whose target has closed, or spoken, while it lay idle is not used again, even for what cannot be repeated.
func TestIdleTunnelEnds(t *testing.T) {
	a := newAuthority(t)
	for _, does := range []struct {
		name string
		then func(p *peer)
	}{
		{"closed", func(*peer) {}},
		{"spoke", func(p *peer) { p.send("HTTP/1.1 408 Request Timeout\r\n\r\n"); untilClosed(p) }},
	} {
		idle := make(chan struct{})
		origin := newScripted(t, func(p *peer) {
			p.head()
			p.send(okAnswer)
			<-idle
			does.then(p)
		})
		socks := newScripted(t, func(p *peer) { socks5(p, origin.addr()) })
		h2 := newH2Proxy(t, a, origin.addr())
		for _, url := range []string{"socks5://" + socks.addr(), "h2://" + h2.addr()} {
			scheme, _, _ := strings.Cut(url, ":")
			t.Run(does.name+" "+scheme, func(t *testing.T) {
				g, u := throughProxy(t, upstream.ProxyOptions{URL: url, RootCAs: a.roots, ServerName: "proxy.test"}, nil)
				c := g.connect()
				for range 3 {
					c.send("POST http://example.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
					if resp, body := c.response(http.MethodPost); resp.StatusCode != 200 || body != "ok" {
						t.Errorf("answer %d %q, want 200", resp.StatusCode, body)
					}
					waitFor(t, func() bool { return g.handler.pool.size() == 1 })
					idle <- struct{}{}
					settled(t, g)
				}
				g.handler.pool.retire()
				wantReleased(t, u.Pool())
			})
		}
	}
}
