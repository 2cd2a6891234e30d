package session

import (
	"errors"
	"net/netip"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// waysThrough are ways whose default is one proxy.
func waysThrough(t *testing.T, url string) egress.Ways {
	t.Helper()
	p, err := upstream.NewProxy(upstream.ProxyOptions{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	u, err := upstream.New(upstream.Options{Proxies: []*upstream.Proxy{p}, Pool: pool.Options{Name: "eu", Servers: make([]pool.Server, 1)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return egress.Ways{Upstreams: map[string]*upstream.Upstream{"eu": u}, Default: u}
}

// TestPanickingOpening: a panic beneath the opening of a way, here for want of a loop, is that way's refusal.
func TestPanickingOpening(t *testing.T) {
	hn := newHarness(t, nil, func(rt *Runtime) {
		rt.Egress = egress.New(egress.Options{Policy: rt.Policy, Ways: waysThrough(t, "socks5://127.0.0.1:9")})
	})
	p := &packets{session: &Session{manager: hn.Manager, runtime: hn.Runtime()}, request: acl.Request{Client: netip.MustParseAddr("127.0.0.1"), Identity: "alice"}}
	permit, err := p.AuthorizePacket(t.Context(), mustTarget(t, "127.0.0.1:53"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.OpenPacket(t.Context(), nil, permit, nil)
	e := (*egress.Error)(nil)
	if c != nil || !errors.As(err, &e) || e.Reason != egress.InternalError || e.Target != permit.Target() {
		t.Errorf("OpenPacket = %v, %v, want an internal error", c, err)
	}
}
