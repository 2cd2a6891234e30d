package httpproxy

import (
	"strings"
	"testing"

	"polyport/internal/egress"
	balance "polyport/internal/pool"
	"polyport/internal/upstream"
)

// TestServerThatClosesWithoutAnAnswer: what accepts for a dead server, as stunnel does or Docker, takes no request that may be repeated from
// those who could answer it, whatever the balance is.
func TestServerThatClosesWithoutAnAnswer(t *testing.T) {
	type setup func(t *testing.T, servers []string) (gatewayOptions, *balance.Pool)
	forward := func(t *testing.T, servers []string) (gatewayOptions, *balance.Pool) {
		u := upstreamTo(t, upstream.ProxyOptions{URL: "http://" + servers[0]}, func(o *upstream.Options) {
			for _, s := range servers[1:] {
				p, err := upstream.NewProxy(upstream.ProxyOptions{URL: "http://" + s})
				if err != nil {
					t.Fatal(err)
				}
				o.Proxies = append(o.Proxies, p)
			}
		})
		return gatewayOptions{
			names: names{"www.site.test": {"127.0.0.9"}},
			ways:  egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
		}, u.Pool()
	}
	site := func(t *testing.T, servers []string) (gatewayOptions, *balance.Pool) {
		b, err := upstream.NewBackend(upstream.BackendOptions{Servers: servers, Pool: balance.Options{Name: "web"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return withSite(b, nil), b.Pool()
	}
	tests := []struct {
		name   string
		setup  setup
		target string
		dead   int
		good   bool // behind the dead ones there is one that answers
		method string
		status int
		asked  int32 // of the dead ones, by each request
	}{
		{"a proxy", forward, "http://www.site.test/", 1, true, "GET", 200, 1},
		{"two of them", forward, "http://www.site.test/", 2, true, "GET", 200, 2},
		{"a server of a site", site, "/", 1, true, "GET", 200, 1},
		{"a request that may not be repeated", site, "/", 1, true, "POST", 502, 1},
		{"no other", site, "/", 1, false, "GET", 502, 1 + maxRepeats},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dead := newScripted(t, func(p *peer) { p.head() })
			servers := []string{dead.addr()}
			for len(servers) < tt.dead {
				servers = append(servers, strings.Replace(dead.addr(), "127.0.0.1", "localhost", 1)) // the same by another name
			}
			if tt.good {
				servers = append(servers, pathEcho(t).addr())
			}
			o, pool := tt.setup(t, servers)
			if o.names != nil {
				o.names["localhost"] = []string{"127.0.0.1"}
			}
			g := newGateway(t, o)
			for range 3 {
				c := g.connect()
				c.send("%s %s HTTP/1.1\r\nHost: www.site.test\r\nContent-Length: 0\r\n\r\n", tt.method, tt.target)
				if resp, _ := c.response(tt.method); resp.StatusCode != tt.status {
					t.Errorf("answer %d, want %d", resp.StatusCode, tt.status)
				}
				c.Close()
				g.record()
				g.handler.pool.retire() // the next one needs a connection too
			}
			if got := dead.count(); got != 3*tt.asked {
				t.Errorf("%d connections to the dead, want %d", got, 3*tt.asked)
			}
			wantReleased(t, pool)
		})
	}
}

// TestRecordOfARepeatThatFails: the record says how it ended, which was at the second proxy, and names the first one no more.
func TestRecordOfARepeatThatFails(t *testing.T) {
	first, second := newScripted(t, func(p *peer) { p.head() }), newScripted(t, func(*peer) {})
	second.ln.Close()
	u := twoProxies(t, "http://"+first.addr(), "http://"+second.addr())
	g := newGateway(t, gatewayOptions{
		names: names{"www.site.test": {"127.0.0.9"}},
		ways:  egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
	})
	c := g.connect()
	c.send("GET http://www.site.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, _ := c.response("GET"); resp.StatusCode != 502 {
		t.Errorf("answer %d, want 502", resp.StatusCode)
	}
	r := g.record()
	if r.Server != "" || r.Address.IsValid() || r.Upstream != "up" || r.Err == nil || !strings.Contains(r.Err.Error(), second.addr()) {
		t.Errorf("the record has server %q, address %v, upstream %q and %v; want no server, and the second one in the error", r.Server, r.Address, r.Upstream, r.Err)
	}
}
