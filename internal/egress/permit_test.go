package egress

import (
	"net/netip"
	"testing"

	"polyport/acl"
	"polyport/internal/pool"
	"polyport/internal/upstream"
)

func TestKey(t *testing.T) {
	f := names(map[string]string{"a.example": "8.8.8.8", "b.example": "8.8.8.8", "a.examples": "8.8.8.8"})
	d1 := New(Options{Policy: policy(t, false, acl.Rule{Name: "s", Action: acl.Allow, Target: []string{"b.example"}}, allowAll), Resolver: f})
	d2 := New(Options{Policy: d1.policy, Resolver: f})
	b := newBackend("b", "127.0.0.1:22")
	key := func(d *Dialer, hostport string) string {
		p, err := d.Authorize(t.Context(), to(t, hostport))
		if err != nil {
			t.Fatal(err)
		}
		return p.Key()
	}
	if key(d1, "a.example:80") != key(d1, "A.Example.:80") {
		t.Error("the same target, rule and generation have two keys")
	}
	p, err := d1.AuthorizeBackend(t.Context(), to(t, "a.example:80"), b)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{
		"one":            key(d1, "a.example:80"),
		"other port":     key(d1, "a.example:81"),
		"other name":     key(d1, "a.examples:80"),
		"other rule":     key(d1, "b.example:80"),
		"the address":    key(d1, "8.8.8.8:80"),
		"other policy":   key(d2, "a.example:80"),
		"other dial set": p.Key(),
	}
	seen := map[string]string{}
	for what, k := range keys {
		if other := seen[k]; other != "" {
			t.Errorf("%q and %q have the same key", what, other)
		}
		seen[k] = what
	}
}

// TestKeyOfASite: a visitor makes no new connection by another name or port of the same backend, and nobody gets one to a server that he would
// not have been given.
func TestKeyOfASite(t *testing.T) {
	d := New(Options{Policy: policy(t, false, allowAll)})
	plain, other := newBackend("b", "127.0.0.1:22"), newBackend("c", "127.0.0.1:22")
	balanced := func(by pool.Balance) *upstream.Backend {
		b, err := upstream.NewBackend(upstream.BackendOptions{
			Servers: []string{"127.0.0.1:22", "127.0.0.1:23"}, Pool: pool.Options{Name: "b", Balance: by},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		name          string
		b             [2]*upstream.Backend
		hosts, client [2]string
		same          bool
	}{
		{"ports", [2]*upstream.Backend{plain, plain}, [2]string{"a.example:80", "a.example:81"}, [2]string{"192.0.2.1", "192.0.2.1"}, true},
		{"names", [2]*upstream.Backend{plain, plain}, [2]string{"a.example:80", "b.example:80"}, [2]string{"192.0.2.1", "192.0.2.1"}, true},
		{"clients", [2]*upstream.Backend{plain, plain}, [2]string{"a.example:80", "a.example:80"}, [2]string{"192.0.2.1", "192.0.2.2"}, true},
		{"backends", [2]*upstream.Backend{plain, other}, [2]string{"a.example:80", "a.example:80"}, [2]string{"192.0.2.1", "192.0.2.1"}, false},
		{"clients that stick", [2]*upstream.Backend{}, [2]string{"a.example:80", "a.example:80"}, [2]string{"192.0.2.1", "192.0.2.2"}, false},
		{"one client that sticks", [2]*upstream.Backend{}, [2]string{"a.example:80", "a.example:80"}, [2]string{"192.0.2.1", "192.0.2.1"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.b[0] == nil {
				b := balanced(pool.StickyClient)
				tt.b = [2]*upstream.Backend{b, b}
			}
			var keys [2]string
			for i := range keys {
				r := to(t, tt.hosts[i])
				r.Client = netip.MustParseAddr(tt.client[i])
				p, err := d.AuthorizeSite(t.Context(), r, tt.b[i])
				if err != nil {
					t.Fatal(err)
				}
				keys[i] = p.Key()
			}
			if got := keys[0] == keys[1]; got != tt.same {
				t.Errorf("the same key: %v, want %v", got, tt.same)
			}
		})
	}
}
