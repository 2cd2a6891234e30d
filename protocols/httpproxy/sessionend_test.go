package httpproxy

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/exit"
	balance "polyport/internal/pool"
	"polyport/internal/upstream"
)

// twoProxies makes an upstream that takes turns.
func twoProxies(t *testing.T, a, b string) *upstream.Upstream {
	t.Helper()
	second, err := upstream.NewProxy(upstream.ProxyOptions{URL: b})
	if err != nil {
		t.Fatal(err)
	}
	return upstreamTo(t, upstream.ProxyOptions{URL: a}, func(o *upstream.Options) {
		o.Proxies = append(o.Proxies, second)
		o.Pool.Balance = balance.RoundRobin
	})
}

// TestKeptConnectionsEndWithTheSession: while a session lasts its requests use one connection; after it they must not, since that leads to
// the server of the session before.
func TestKeptConnectionsEndWithTheSession(t *testing.T) {
	target := pathEcho(t)
	for _, scheme := range []string{"http", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			serve := map[string]func(*testing.T) *scripted{
				"http":   pathEcho,
				"socks5": func(t *testing.T) *scripted { return newScripted(t, func(p *peer) { socks5(p, target.addr()) }) },
			}[scheme]
			a, b := serve(t), serve(t)
			u := twoProxies(t, scheme+"://"+a.addr(), scheme+"://"+b.addr())
			g := newGateway(t, gatewayOptions{
				names: names{"example.test": {"127.0.0.9"}},
				users: users{}, requireUser: true, parameters: exit.Parameters{Session: true, TTL: true},
				rules: []acl.Rule{{Name: "user", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}},
				ways:  egress.Ways{Upstreams: map[string]*upstream.Upstream{"up": u}, Default: u},
			})
			c := g.connect()
			get := func() string {
				t.Helper()
				c.send("GET http://example.test/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic %s\r\n\r\n",
					base64.StdEncoding.EncodeToString([]byte("al+session-x+ttl-1s:x")))
				if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || !strings.HasSuffix(body, "/") {
					t.Fatalf("answer %d, %q", resp.StatusCode, body)
				}
				return g.record().Server
			}
			begun := time.Now()
			first := get()
			if again := get(); again != first || a.count()+b.count() != 1 {
				t.Errorf("in the session: by %s and %s, over %d connections", first, again, a.count()+b.count())
			}
			waitFor(t, func() bool { return time.Since(begun) > 1500*time.Millisecond })
			if after := get(); after == first || a.count() != 1 || b.count() != 1 {
				t.Errorf("after the session: by %s, as before, over %d connections of one server and %d of the other", after, a.count(), b.count())
			}
		})
	}
}
