package httpproxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

// TestSitesFind: exact names before suffixes, of which the longest counts.
func TestSitesFind(t *testing.T) {
	var env spec.Env
	backends := map[string]*upstream.Backend{}
	env.Backend = func(name string) (*upstream.Backend, bool) { b, ok := backends[name]; return b, ok }
	for _, host := range []string{"a.test", "*.a.test", "*.b.a.test", "x.b.a.test", "*.test", "BÜCHER.example"} {
		backends[host] = new(upstream.Backend)
		env.Sites = append(env.Sites, spec.Site{Name: host, Hosts: []string{host}, Backend: host})
	}
	all, err := newSites(env)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ host, want string }{
		{"a.test:1", "a.test"},
		{"A.TEST.:1", "a.test"},
		{"b.a.test:1", "*.a.test"},
		{"c.b.a.test:1", "*.b.a.test"},
		{"d.c.b.a.test:1", "*.b.a.test"},
		{"x.b.a.test:1", "x.b.a.test"},
		{"y.x.b.a.test:1", "*.b.a.test"},
		{"aa.test:1", "*.test"},
		{"test:1", ""},
		{"xn--bcher-kva.example:1", "BÜCHER.example"},
		{"a.example:1", ""},
		{"127.0.0.1:1", ""},
		{"[::1]:1", ""},
	} {
		st := all.find(mustTarget(t, tt.host))
		if st == nil && tt.want != "" || st != nil && st.backend != backends[tt.want] {
			t.Errorf("%s is found %v, want %q", tt.host, st != nil, tt.want)
		}
	}
}

func TestFaultsOfSites(t *testing.T) {
	env := spec.Env{Sites: []spec.Site{
		{Name: "a", Hosts: []string{"a.test"}, Backend: "gone"}, {Name: "b", Hosts: []string{"ok.test", "127.0.0.1", "*.*.test"}, Backend: "web"},
	}}
	env.Backend = func(name string) (*upstream.Backend, bool) { return new(upstream.Backend), name == "web" }
	_, err := New(env, func(any) error { return nil })
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"site.a.backend: there is no [backend.gone] table", "site.b.hosts[1]: ", "site.b.hosts[2]: "} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %q, want %q in it", err, part)
		}
	}
	if strings.Contains(err.Error(), "hosts[0]") {
		t.Errorf("the error is %q", err)
	}
}

// secureConn is the client's end of TLS to a gateway, under a server name, with the row that serves what is inside.
func secureConn(t *testing.T, g *gateway, name, row string) *tls.Conn {
	t.Helper()
	ours, theirs := tcpPair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		c := mux.NewConn(theirs, "main", row, nil)
		layer := tls.Server(c.Beneath(), gatewayTLS())
		if err := layer.Handshake(); err != nil {
			t.Error(err)
			theirs.Close()
			return
		}
		c.Secure(layer)
		g.Serve(c)
	}()
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	if row == rowHTTP2 {
		config.NextProtos = []string{"h2"}
	}
	layer := tls.Client(ours, config)
	t.Cleanup(func() { layer.Close(); <-served })
	return layer
}

func TestSiteInTLS(t *testing.T) {
	o, heads := replies(t, okAnswer)
	g := newGateway(t, withSite(backendTo(t, o.addr(), upstream.NoHeader), nil))
	layer := secureConn(t, g, "www.site.test", rowHTTP)
	fmt.Fprintf(layer, "GET / HTTP/1.1\r\nHost: www.site.test\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(layer), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("answer %v, %v", resp, err)
	}
	want(t, "the backend saw", <-heads, "GET / HTTP/1.1\r\nHost: www.site.test\r\nVia: 1.1 polyport\r\nX-Forwarded-For: 127.0.0.1\r\n"+
		"X-Forwarded-Proto: https\r\nX-Forwarded-Host: www.site.test\r\nForwarded: for=127.0.0.1;host=www.site.test;proto=https\r\n\r\n")
	layer.Close()
	if rec := g.record(); rec.Target != "www.site.test:443" || rec.TLS == "" {
		t.Errorf("record %+v", rec)
	}
}

func TestSiteInHTTP2(t *testing.T) {
	o, _ := replies(t, okAnswer)
	b := backendTo(t, o.addr(), upstream.NoHeader)
	type row struct {
		uri     string
		backend string
		fields  []string
	}
	for _, tt := range []struct {
		name string
		open func(g *gateway) *h2Client
		rows []row
	}{
		{"in TLS", func(g *gateway) *h2Client { return newH2Client(t, secureConn(t, g, "gw.test", rowHTTP2)) }, []row{
			{"https://www.site.test/a", "web", nil},
			{"https://a.wild.test:8443/a", "web", nil},
			{"http://www.site.test/a", "", nil},
			{"https://www.site.test/a", "", []string{"Proxy-Authorization", "Basic YWw6eA=="}},
		}},
		{"in the clear", (*gateway).h2, []row{
			{"http://www.site.test/a", "web", nil},
			{"http://www.site.test:81/a", "", nil}, // that would be another server
			{"https://www.site.test/a", "", nil},
			{"http://www.site.test/a", "", []string{"Proxy-Authorization", "Basic YWw6eA=="}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, withSite(b, nil))
			c := tt.open(g)
			for _, r := range tt.rows {
				resp, body := c.do(c.request("GET", r.uri, nil, r.fields...))
				if (resp.StatusCode == 200 && body == "ok") != (r.backend != "") {
					t.Errorf("%s: answer %d %q", r.uri, resp.StatusCode, body)
				}
				if rec := g.record(); rec.Backend != r.backend {
					t.Errorf("%s: record %+v", r.uri, rec)
				}
			}
			c.nc.Close()
		})
	}
}

func TestSiteWebSocketInHTTP2(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		req, _ := p.request()
		if req.Method != "GET" || req.RequestURI != "/chat" || req.Host != "www.site.test" || req.Header.Get("Upgrade") != "websocket" {
			t.Errorf("the backend saw %s %s of %s, %v", req.Method, req.RequestURI, req.Host, req.Header)
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			webSocketAccept(req.Header.Get("Sec-Websocket-Key")))
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	b := backendTo(t, o.addr(), upstream.NoHeader)
	g := newGateway(t, withSite(b, nil))
	c := newRawClient(t, g.connectH2())
	c.upgrade(1, "websocket", "www.site.test")
	c.want("1 head :status=200 via=1.1 polyport")
	c.data(1, false, "ping")
	c.want("1 data ping")
	c.data(1, true, "")
	want(t, "at the end", c.content(1), "")
	if rec := g.record(); rec.Backend != "web" || rec.Status != 200 || rec.Err != nil {
		t.Errorf("record %+v", rec)
	}
	wantReleased(t, b.Pool())
}

// FuzzSitesFind: what is found is a site of the host itself or of something that it lies below.
func FuzzSitesFind(f *testing.F) {
	for _, host := range []string{"a.test", "x.A.test.:80", "test", "[::1]", "a..test", "bücher.test", ".test"} {
		f.Add(host)
	}
	exact, below := new(site), new(site)
	all := sites{exact: map[string]*site{"a.test": exact}, below: map[string]*site{"a.test": below}}
	f.Fuzz(func(t *testing.T, host string) {
		to, err := target.ParseAuthority(host, 80)
		if err != nil {
			return
		}
		st := all.find(to)
		if (st == exact) != (to.Host() == "a.test") || (st == below) != strings.HasSuffix(to.Host(), ".a.test") {
			t.Errorf("%q is found %p", to.Host(), st)
		}
	})
}
