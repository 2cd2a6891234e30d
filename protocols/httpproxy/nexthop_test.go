package httpproxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"polyport/internal/egress"
	balance "polyport/internal/pool"
	"polyport/internal/upstream"
)

// upstreamTo makes an upstream of one proxy.
func upstreamTo(t *testing.T, o upstream.ProxyOptions, change func(*upstream.Options)) *upstream.Upstream {
	t.Helper()
	p, err := upstream.NewProxy(o)
	if err != nil {
		t.Fatal(err)
	}
	all := upstream.Options{Proxies: []*upstream.Proxy{p}, Pool: balance.Options{Name: "up"}}
	if change != nil {
		change(&all)
	}
	u, err := upstream.New(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// through is a gateway that reaches everything through one proxy.
func through(t *testing.T, url string, change func(*gatewayOptions)) (*gateway, *upstream.Upstream) {
	t.Helper()
	return throughProxy(t, upstream.ProxyOptions{URL: url}, change)
}

func throughProxy(t *testing.T, p upstream.ProxyOptions, change func(*gatewayOptions)) (*gateway, *upstream.Upstream) {
	t.Helper()
	u := upstreamTo(t, p, nil)
	o := gatewayOptions{
		names: names{"example.test": {"127.0.0.9"}, "bücher.test": {"127.0.0.9"}, "xn--bcher-kva.test": {"127.0.0.9"}},
		ways:  egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
	}
	if change != nil {
		change(&o)
	}
	return newGateway(t, o), u
}

// wantReleased waits until no connection counts in the balance of the pool.
func wantReleased(t *testing.T, p *balance.Pool) {
	t.Helper()
	waitFor(t, func() bool { return p.Members()[0].Status().Connections == 0 })
}

func TestForwardInAbsoluteForm(t *testing.T) {
	tests := []struct{ name, credentials, request, want string }{
		{
			"plain", "", "GET http://example.test/a?b HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n\r\n",
			"GET http://example.test/a?b HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"credentials of ours, and none of the client's", "us:er%20", "GET http://example.test/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic YWxpY2U6eA==\r\n\r\n",
			"GET http://example.test/ HTTP/1.1\r\nProxy-Authorization: Basic dXM6ZXIg\r\nHost: example.test\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"the authority in its normal form", "", "GET HTTP://B%c3%bccher.test:080?q HTTP/1.1\r\nHost: x\r\n\r\n", "",
		},
		{
			"no path", "", "GET HTTP://EXAMPLE.test.:80?q HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET http://example.test/?q HTTP/1.1\r\nHost: example.test\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"another port", "", "DELETE http://example.test:8080 HTTP/1.0\r\n\r\n",
			"DELETE http://example.test:8080/ HTTP/1.1\r\nHost: example.test:8080\r\nVia: 1.0 polyport\r\n\r\n",
		},
		{
			"OPTIONS of the server itself", "", "OPTIONS http://example.test HTTP/1.1\r\nHost: x\r\nMax-Forwards: 3\r\n\r\n",
			"OPTIONS http://example.test HTTP/1.1\r\nHost: example.test\r\nMax-Forwards: 2\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"POST", "", "POST http://example.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
			"POST http://example.test/ HTTP/1.1\r\nHost: example.test\r\nContent-Length: 0\r\nVia: 1.1 polyport\r\n\r\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proxy, heads := replies(t, okAnswer)
			url := "http://" + proxy.addr()
			if tt.credentials != "" {
				url = "http://" + tt.credentials + "@" + proxy.addr()
			}
			g, u := through(t, url, nil)
			c := g.connect()
			c.send("%s", tt.request)
			resp, _ := c.response(http.MethodGet)
			c.Close()
			rec := g.record()
			if tt.want == "" {
				if resp.StatusCode != 400 || len(heads) != 0 {
					t.Errorf("answer %d and %d requests, want 400 and none", resp.StatusCode, len(heads))
				}
				return
			}
			want(t, "the proxy saw", <-heads, tt.want)
			if resp.StatusCode != 200 || rec.Upstream != "up" || rec.Server != "http://"+proxy.addr() || rec.Address.IsValid() {
				t.Errorf("answer %d, record %+v", resp.StatusCode, rec)
			}
			g.handler.pool.retire()
			wantReleased(t, u.Pool())
		})
	}
}

// TestUpstreamConnectionsAreReused: whatever the proxy speaks, a second request needs no second connection.
func TestUpstreamConnectionsAreReused(t *testing.T) {
	a := newAuthority(t)
	origin := pathEcho(t)
	socks := newScripted(t, func(p *peer) { socks5(p, origin.addr()) })
	http1 := pathEcho(t)
	https := newSecured(t, a.server("proxy.test"), func(p *secured) {
		for h := p.head(); h != ""; h = p.head() {
			path := strings.Fields(h)[1]
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path))
		}
	})
	h2 := newH2Proxy(t, a, origin.addr())
	for _, tt := range []struct {
		name, url string
		proxy     interface{ count() int32 }
		prefix    string
	}{
		{"http", "http://" + http1.addr(), http1, "http://example.test"},
		{"https", "https://" + https.addr(), https, "http://example.test"},
		{"socks5", "socks5://" + socks.addr(), socks, ""},
		{"h2", "h2://" + h2.addr(), h2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, u := throughProxy(t, upstream.ProxyOptions{URL: tt.url, RootCAs: a.roots, ServerName: "proxy.test"}, nil)
			for range 2 { // two clients, one after another
				c := g.connect()
				for _, method := range []string{"GET", "POST"} {
					c.send("%s http://example.test/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", method)
					resp, body := c.response(method)
					want(t, "body", body, tt.prefix+"/a")
					if rec := g.record(); resp.Close || rec.Upstream != "up" || rec.Server != tt.url {
						t.Errorf("close %v, record %+v", resp.Close, rec)
					}
				}
			}
			if n := tt.proxy.count(); n != 1 {
				t.Errorf("%d connections through the proxy, want 1", n)
			}
			if n := u.Pool().Members()[0].Status().Connections; n != 1 {
				t.Errorf("%d connections count, want 1", n)
			}
			g.handler.pool.retire()
			wantReleased(t, u.Pool())
		})
	}
}

// TestUpstreamRepeat: a connection through a proxy that dies while it is idle, or in the very moment of its use.
func TestUpstreamRepeat(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		name   string
		secure bool
		method string
		dies   bool // at the second request; else when idle
		status int
		conns  int32
	}{
		{"http, idle", false, "GET", false, 200, 2},
		{"http, idle, not to be repeated", false, "POST", false, 200, 2},
		{"http, in use", false, "GET", true, 200, 2},
		{"http, in use, not to be repeated", false, "POST", true, 502, 1},
		{"https, idle", true, "GET", false, 200, 2},
		{"https, idle, not to be repeated", true, "POST", false, 200, 2},
		{"https, in use", true, "GET", true, 200, 2},
		{"https, in use, not to be repeated", true, "POST", true, 502, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gone := make(chan struct{}, 10)
			var s *scripted
			var conns atomic.Int32
			script := func(head func() string, send func(string)) {
				first := conns.Add(1) == 1
				for h := head(); h != ""; h = head() {
					send(okAnswer)
					if first && !tt.dies {
						break
					}
					if first {
						head()
						break
					}
				}
			}
			url := "http://"
			if tt.secure {
				url = "https://"
				s = newSecured(t, a.server("proxy.test"), func(p *secured) {
					script(p.head, p.send)
					p.Conn.Close()
					gone <- struct{}{}
				})
			} else {
				s = newScripted(t, func(p *peer) {
					script(func() string {
						if _, err := p.r.Peek(1); err != nil {
							return ""
						}
						return p.head()
					}, func(s string) { p.send("%s", s) })
					p.Close()
					gone <- struct{}{}
				})
			}
			g, u := throughProxy(t, upstream.ProxyOptions{URL: url + s.addr(), RootCAs: a.roots, ServerName: "proxy.test"}, nil)
			c := g.connect()
			g.get(c, "example.test", "/")
			if !tt.dies {
				<-gone
				settled(t, g)
			}
			c.send("%s http://example.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", tt.method)
			resp, body := c.response(tt.method)
			if resp.StatusCode != tt.status || s.accepted.Load() != tt.conns {
				t.Errorf("answer %d %q over %d connections, want %d over %d", resp.StatusCode, body, s.accepted.Load(), tt.status, tt.conns)
			}
			if status := resp.Header.Get("Proxy-Status"); tt.status == 502 {
				want(t, "Proxy-Status", status, `polyport; error=connection_terminated; next-hop="`+url+s.addr()+`"`)
				if !strings.Contains(body, "The upstream proxy closed the connection before it answered.") {
					t.Errorf("the page says %q", body)
				}
			}
			c.Close()
			g.handler.pool.retire()
			wantReleased(t, u.Pool())
		})
	}
}

// settled waits until what an idle connection's peer has done has come: the one that lies idle is stale.
func settled(t *testing.T, g *gateway) {
	t.Helper()
	waitFor(t, func() bool {
		p := g.handler.pool
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.all.oldest != nil && p.all.oldest.stale()
	})
}

// TestUpstreamWantsCredentials: its 407 is for us and never for a client, who would be asked for a password that he cannot know.
func TestUpstreamWantsCredentials(t *testing.T) {
	proxy, _ := replies(t, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"inner\"\r\nContent-Length: 2\r\n\r\nno")
	g, u := through(t, "http://us:secret@"+proxy.addr(), nil)
	for _, tt := range []struct {
		request string
		status  int
	}{
		{"GET http://example.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 502},
		{"CONNECT example.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", 500},
	} {
		c := g.connect()
		c.send("%s", tt.request)
		resp, body := c.response(http.MethodGet)
		if resp.StatusCode != tt.status || resp.Header.Get("Proxy-Authenticate") != "" {
			t.Errorf("answer %d, Proxy-Authenticate %q, want %d and none", resp.StatusCode, resp.Header.Get("Proxy-Authenticate"), tt.status)
		}
		for _, value := range resp.Header.Values("Proxy-Status") {
			_, params, _ := parseProxyStatus(value)
			if params["error"] != "proxy_configuration_error" || params["next-hop"] != `"http://`+proxy.addr()+`"` || params["received-status"] != "407" {
				t.Errorf("Proxy-Status %q", value)
			}
		}
		if !strings.Contains(body, "nly whoever runs this proxy") || strings.Contains(body, "secret") || strings.Contains(body, "us:") {
			t.Errorf("the page says %q", body)
		}
		if rec := g.record(); rec.Reason != "proxy_configuration_error" || rec.Upstream != "up" {
			t.Errorf("record %+v", rec)
		}
		c.Close()
	}
	wantReleased(t, u.Pool())
}

// TestUpstreamAnswers are passed on as they are.
func TestUpstreamAnswers(t *testing.T) {
	proxy, _ := replies(t, "HTTP/1.1 403 Forbidden\r\nProxy-Status: inner; error=http_request_denied\r\n"+
		"Proxy-Authentication-Info: x\r\nContent-Length: 2\r\n\r\nno")
	g, _ := through(t, "http://"+proxy.addr(), nil)
	c := g.connect()
	c.send("GET http://example.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
	want(t, "head", c.head(), "HTTP/1.1 403 Forbidden\r\nProxy-Status: inner; error=http_request_denied\r\nContent-Length: 2\r\nVia: 1.1 polyport\r\n\r\n")
	want(t, "body", c.bytes(2), "no")
	c.Close()
	if rec := g.record(); rec.Status != 403 || rec.Reason != "" {
		t.Errorf("record %+v", rec)
	}
}

// TestUpstreamCutsABody: without a word of TLS a body that ends with the connection is not whole.
func TestUpstreamCutsABody(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		name  string
		end   func(p *secured)
		whole bool
	}{
		{"close_notify", func(p *secured) { p.Close() }, true},
		{"none", func(p *secured) { p.tcp.Close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := newSecured(t, a.server("proxy.test"), func(p *secured) {
				p.head()
				p.send("HTTP/1.1 200 OK\r\n\r\nsome")
				tt.end(p)
			})
			g, _ := throughProxy(t, upstream.ProxyOptions{URL: "https://" + proxy.addr(), RootCAs: a.roots, ServerName: "proxy.test"}, nil)
			c := g.connect()
			c.send("GET http://example.test/ HTTP/1.0\r\n\r\n")
			c.head()
			if _, err := c.rest(); (err == nil) != tt.whole {
				t.Errorf("the body ends with %v, want whole %v", err, tt.whole)
			}
		})
	}
}

// TestAnotherServer: a server of a pool that dies with a request on a fresh connection. The next one gets it if it may be repeated.
func TestAnotherServer(t *testing.T) {
	for _, tt := range []struct {
		method string
		status int
		dead   int32 // connections to the one that dies
	}{
		{"GET", 200, 1},
		{"POST", 502, 1},
	} {
		t.Run(tt.method, func(t *testing.T) {
			dead := newScripted(t, func(p *peer) {
				p.head()
				p.Close()
			})
			good := newScripted(t, func(p *peer) {
				p.head()
				p.send("%s", okAnswer)
			})
			second, err := upstream.NewProxy(upstream.ProxyOptions{URL: "http://" + good.addr()})
			if err != nil {
				t.Fatal(err)
			}
			u := upstreamTo(t, upstream.ProxyOptions{URL: "http://" + dead.addr()}, func(o *upstream.Options) {
				o.Proxies = append(o.Proxies, second)
				o.Pool.Balance = balance.RoundRobin
			})
			g := newGateway(t, gatewayOptions{
				names: names{"example.test": {"127.0.0.9"}}, ways: egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
			})
			c := g.connect()
			c.send("%s http://example.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", tt.method)
			resp, body := c.response(tt.method)
			if resp.StatusCode != tt.status || dead.accepted.Load() != tt.dead {
				t.Errorf("answer %d %q, %d connections to the server that dies; want %d, %d", resp.StatusCode, body, dead.accepted.Load(), tt.status, tt.dead)
			}
			c.Close()
			g.handler.pool.retire()
			wantReleased(t, u.Pool())
		})
	}
}
