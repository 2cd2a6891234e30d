package httpproxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"polyport/acl"
	balance "polyport/internal/pool"
	"polyport/internal/upstream"
	"polyport/protocols/spec"
)

// backendTo makes a backend of one server.
func backendTo(t *testing.T, addr string, header upstream.ProxyHeader) *upstream.Backend {
	t.Helper()
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: []string{addr}, Header: header, Pool: balance.Options{Name: "web"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withSite has a gateway serve www.site.test and all below wild.test.
func withSite(b *upstream.Backend, change func(*gatewayOptions)) gatewayOptions {
	o := gatewayOptions{
		rules:    []acl.Rule{{Name: "site", Action: acl.Allow, Target: []string{"www.site.test", "*.wild.test", "wild.test"}, Anonymous: true}},
		sites:    []spec.Site{{Name: "s", Hosts: []string{"www.Site.test.", "*.wild.test"}, Backend: "web"}},
		backends: map[string]*upstream.Backend{"web": b},
		names:    names{},
		address:  "proxy.test:80",
	}
	if change != nil {
		change(&o)
	}
	return o
}

func TestSite(t *testing.T) {
	const visitor = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
	tests := []struct{ name, anonymity, request, want string }{
		{
			"plain", "", "GET /a?b HTTP/1.1\r\nHost: www.site.test\r\nAccept: */*\r\n\r\n",
			"GET /a?b HTTP/1.1\r\nHost: www.site.test\r\nAccept: */*\r\nVia: 1.1 polyport\r\n" + visitor +
				"X-Forwarded-Host: www.site.test\r\nForwarded: for=127.0.0.1;host=www.site.test;proto=http\r\n\r\n",
		},
		{
			"the Host as it was sent, with a port", "hide-proxy", "GET / HTTP/1.1\r\nHost: A.b.WILD.test:8080\r\nVia: 1.0 x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: A.b.WILD.test:8080\r\n" + visitor +
				"X-Forwarded-Host: A.b.WILD.test:8080\r\nForwarded: for=127.0.0.1;host=\"A.b.WILD.test:8080\";proto=http\r\n\r\n",
		},
		{
			"what a client says of itself", "off", "GET / HTTP/1.1\r\nHost: www.site.test\r\nX-Forwarded-For: 10.0.0.1\r\nX-FORWARDED-PROTO: https\r\n" +
				"X-Forwarded-Host: evil\r\nForwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 1\r\nX_Forwarded-For: 10.0.0.1\r\nx_real_ip: 10.0.0.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: www.site.test\r\nVia: 1.1 polyport\r\n" + visitor +
				"X-Forwarded-Host: www.site.test\r\nForwarded: for=127.0.0.1;host=www.site.test;proto=http\r\n\r\n",
		},
		{
			"what a client says of itself, as CGI reads it", "off", "GET / HTTP/1.1\r\nHost: www.site.test\r\nX_Forwarded_For: 10.0.0.1\r\n" +
				"X-Forwarded_Proto: https\r\nX_REAL_IP: 10.0.0.1\r\nx_kept: a\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: www.site.test\r\nx_kept: a\r\nVia: 1.1 polyport\r\n" + visitor +
				"X-Forwarded-Host: www.site.test\r\nForwarded: for=127.0.0.1;host=www.site.test;proto=http\r\n\r\n",
		},
		{
			"credentials for the site, and for a proxy", "hide-proxy", "POST / HTTP/1.1\r\nHost: www.site.test\r\nAuthorization: Basic YTpi\r\n" +
				"Proxy-Authorization: Basic YTpi\r\nContent-Length: 0\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: www.site.test\r\nAuthorization: Basic YTpi\r\nContent-Length: 0\r\n" + visitor +
				"X-Forwarded-Host: www.site.test\r\nForwarded: for=127.0.0.1;host=www.site.test;proto=http\r\n\r\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, heads := replies(t, okAnswer)
			b := backendTo(t, o.addr(), upstream.NoHeader)
			g := newGateway(t, withSite(b, func(o *gatewayOptions) {
				o.anonymity, o.users, o.requireUser = tt.anonymity, users{}, true
			}))
			for range 2 {
				c := g.connect()
				c.send("%s", tt.request)
				if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || body != "ok" || resp.Close {
					t.Errorf("answer %d %q", resp.StatusCode, body)
				}
				want(t, "the backend saw", <-heads, tt.want)
				c.Close()
				if rec := g.record(); rec.Backend != "web" || rec.Server != o.addr() || rec.Rule != "site" || rec.Protocol != "http" || rec.Address.String() != o.addr() {
					t.Errorf("record %+v", rec)
				}
			}
			if n := o.count(); n != 1 {
				t.Errorf("%d connections, want 1 for both clients", n)
			}
			g.handler.pool.retire()
			wantReleased(t, b.Pool())
		})
	}
}

func TestNoSite(t *testing.T) {
	o, heads := replies(t, okAnswer)
	g := newGateway(t, withSite(backendTo(t, o.addr(), upstream.NoHeader), func(o *gatewayOptions) {
		o.rules = append(o.rules[:1:1], acl.Rule{Name: "user", Action: acl.Allow, Target: []string{"b.wild.test"}})
		o.rules[0].Target = o.rules[0].Target[:1]
		o.users, o.requireUser = users{}, true
	}))
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"another name", "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n", 200}, // the help page
		{"another name, no page", "GET /x HTTP/1.1\r\nHost: site.test\r\n\r\n", 404},
		{"below an exact one", "GET /x HTTP/1.1\r\nHost: a.www.site.test\r\n\r\n", 404},
		{"the suffix itself", "GET /x HTTP/1.1\r\nHost: wild.test\r\n\r\n", 404},
		{"no Host", "GET /x HTTP/1.0\r\n\r\n", 404},
		{"an address", "GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404},
		{"userinfo", "GET /x HTTP/1.1\r\nHost: www.site.test@x\r\n\r\n", 400},
		{"two of them", "GET /x HTTP/1.1\r\nHost: www.site.test\r\nHost: x\r\n\r\n", 400},
		{"a list", "GET /x HTTP/1.1\r\nHost: www.site.test, x\r\n\r\n", 400},
		{"in absolute-form", "GET http://www.site.test/ HTTP/1.1\r\nHost: www.site.test\r\n\r\n", 502},
		{"a fake Host of another URI", "GET http://site.test/ HTTP/1.1\r\nHost: www.site.test\r\n\r\n", 403},
		{"CONNECT", "CONNECT www.site.test:80 HTTP/1.1\r\nHost: www.site.test\r\n\r\n", 502},
		{"a rule that wants a user", "GET / HTTP/1.1\r\nHost: b.wild.test\r\n\r\n", 403},
		{"no rule", "GET / HTTP/1.1\r\nHost: c.wild.test\r\n\r\n", 403},
		{"credentials for a proxy", "GET / HTTP/1.1\r\nHost: b.wild.test\r\nProxy-Authorization: Basic YWw6eA==\r\n\r\n", 403},
		{"OPTIONS of the gateway", "OPTIONS * HTTP/1.1\r\nHost: www.site.test\r\n\r\n", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := g.connect()
			c.send("%s", tt.request)
			if resp, _ := c.response(http.MethodGet); resp.StatusCode != tt.status || (resp.Header.Get("Proxy-Authenticate") != "") != (tt.status == 407) {
				t.Errorf("answer %d, Proxy-Authenticate %q, want %d", resp.StatusCode, resp.Header.Get("Proxy-Authenticate"), tt.status)
			}
		})
	}
	if n := len(heads); n != 0 {
		t.Errorf("%d requests came to the backend", n)
	}
}

// TestSiteFraming: the body of a request and what surrounds it pass as they do when they are forwarded.
func TestSiteFraming(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			req, err := http.ReadRequest(p.r)
			if err != nil {
				t.Error(err)
				return
			}
			if req.Header.Get("Expect") != "" {
				p.send("HTTP/1.1 100 Continue\r\n\r\n")
			}
			body, _ := io.ReadAll(req.Body)
			answer := fmt.Sprintf("%s %q %v", req.Method, body, req.Trailer)
			if req.Method == http.MethodHead {
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
				continue
			}
			p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	})
	g := newGateway(t, withSite(backendTo(t, o.addr(), upstream.NoHeader), func(o *gatewayOptions) { o.anonymity = "off" }))
	c := g.connect()
	c.send("POST / HTTP/1.1\r\nHost: www.site.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	want(t, "interim", c.head(), "HTTP/1.1 100 Continue\r\nVia: 1.1 polyport\r\n\r\n")
	c.send("hello")
	_, body := c.response(http.MethodPost)
	want(t, "answer", body, `POST "hello" map[]`)
	c.send("PUT / HTTP/1.1\r\nHost: www.site.test\r\nTransfer-Encoding: chunked\r\nTrailer: Sum, X-Forwarded-For\r\n\r\n" +
		"5\r\nhello\r\n0\r\nSum: 1\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
	_, body = c.response(http.MethodPut)
	if !strings.HasPrefix(body, `PUT "hello" map[Sum:[1]`) || strings.Contains(body, "10.0.0.1") {
		t.Errorf("the backend got %s", body)
	}
	c.send("HEAD / HTTP/1.1\r\nHost: www.site.test\r\n\r\n")
	if resp, _ := c.response(http.MethodHead); resp.ContentLength != 1000 {
		t.Errorf("length %d, want 1000", resp.ContentLength)
	}
	c.send("OPTIONS / HTTP/1.1\r\nHost: www.site.test\r\nMax-Forwards: 0\r\n\r\n")
	if resp, _ := c.response(http.MethodOptions); resp.Header.Get("Allow") == "" {
		t.Error("Max-Forwards has not ended here")
	}
	c.send("GET / HTTP/1.1\r\nHost: www.site.test\r\n\r\n")
	_, body = c.response(http.MethodGet)
	want(t, "answer", body, `GET "" map[]`)
	if n := o.count(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestSiteWebSocket(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		if h := p.head(); !strings.HasPrefix(h, "GET /chat HTTP/1.1\r\nHost: www.site.test\r\n") || !strings.Contains(h, "Upgrade: websocket\r\nConnection: Upgrade\r\n") {
			t.Errorf("the backend saw %q", h)
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	b := backendTo(t, o.addr(), upstream.NoHeader)
	g := newGateway(t, withSite(b, nil))
	c := g.connect()
	c.send("GET /chat HTTP/1.1\r\nHost: www.site.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	c.head()
	c.send("hello")
	want(t, "echo", c.bytes(5), "hello")
	if n := b.Pool().Members()[0].Status().Connections; n != 1 {
		t.Errorf("%d connections count, want 1", n)
	}
	_ = c.CloseWrite()
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("then came %q, %v", rest, err)
	}
	if rec := g.record(); rec.Status != 101 || rec.Backend != "web" {
		t.Errorf("record %+v", rec)
	}
	wantReleased(t, b.Pool())
}

// TestSiteTellsTheClient: a connection that begins with a PROXY header is for one client connection, for all of its requests.
func TestSiteTellsTheClient(t *testing.T) {
	lines := make(chan string, 10)
	o := newScripted(t, func(p *peer) {
		line, _ := p.r.ReadString('\n')
		lines <- line
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			p.head()
			p.send(okAnswer)
		}
	})
	b := backendTo(t, o.addr(), upstream.ProxyV1)
	g := newGateway(t, withSite(b, nil))
	for range 2 {
		c := g.connect()
		for _, method := range []string{"GET", "POST", "GET"} {
			c.send("%s / HTTP/1.1\r\nHost: www.site.test\r\nContent-Length: 0\r\n\r\n", method)
			if resp, body := c.response(method); resp.StatusCode != 200 || body != "ok" || resp.Close {
				t.Errorf("answer %d %q", resp.StatusCode, body)
			}
		}
		from, to := peerOf(c.TCPConn), c.LocalAddr().String()
		host, port, _ := strings.Cut(to, ":")
		want(t, "the server was told", <-lines, fmt.Sprintf("PROXY TCP4 %s %v %s %d\r\n", host, from.Addr(), port, from.Port()))
		c.Close()
		wantReleased(t, b.Pool())
	}
	if n := o.count(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	if n := g.handler.pool.size(); n != 0 {
		t.Errorf("%d connections in the pool, want none", n)
	}
}

// TestSiteRepeat: a private connection that has died in the meantime is replaced.
func TestSiteRepeat(t *testing.T) {
	gone := make(chan struct{}, 10)
	o := newScripted(t, func(p *peer) {
		_, _ = p.r.ReadString('\n')
		p.head()
		p.send(okAnswer)
		p.Close()
		gone <- struct{}{}
	})
	b := backendTo(t, o.addr(), upstream.ProxyV1)
	g := newGateway(t, withSite(b, nil))
	c := g.connect()
	for range 3 {
		c.send("GET / HTTP/1.1\r\nHost: www.site.test\r\n\r\n")
		if resp, _ := c.response(http.MethodGet); resp.StatusCode != 200 {
			t.Errorf("answer %d, want 200", resp.StatusCode)
		}
		<-gone
	}
	c.Close()
	wantReleased(t, b.Pool())
}

// TestSiteUnreachable says which, and nothing of a proxy's rules to a visitor.
func TestSiteUnreachable(t *testing.T) {
	o := newScripted(t, untilClosed)
	o.ln.Close()
	b := backendTo(t, o.addr(), upstream.NoHeader)
	g := newGateway(t, withSite(b, nil))
	c := g.connect()
	c.send("GET / HTTP/1.1\r\nHost: www.site.test\r\n\r\n")
	resp, body := c.response(http.MethodGet)
	if resp.StatusCode != 502 || strings.Contains(body, "[[rule]]") || strings.Contains(body, o.addr()) {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	wantReleased(t, b.Pool())
}
