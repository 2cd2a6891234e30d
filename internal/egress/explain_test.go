package egress

import (
	"net/netip"
	"testing"

	"polyport/acl"
	"polyport/internal/exit"
)

// Explain tells the address that a connection would leave from where another process would choose the same, and no other.
func TestExplainTellsTheLocalAddress(t *testing.T) {
	one, many := netip.MustParsePrefix("192.0.2.5/32"), netip.MustParsePrefix("192.0.2.0/28")
	tests := []struct {
		name    string
		source  exit.Source
		session string
		told    bool
	}{
		{"a single one", exit.Source{Addresses: []netip.Prefix{one}}, "", true},
		{"a single one, for a session", exit.Source{Addresses: []netip.Prefix{one}}, "k3j", true},
		{"by chance", exit.Source{Addresses: []netip.Prefix{many}}, "", false},
		{"the client's", exit.Source{Addresses: []netip.Prefix{many}, Choose: exit.StickyClient}, "", true},
		{"the user's", exit.Source{Addresses: []netip.Prefix{many}, Choose: exit.StickyUser}, "", true},
		{"a session's", exit.Source{Addresses: []netip.Prefix{many}, Choose: exit.StickySession}, "k3j", false},
		{"a session's, in place of the user's", exit.Source{Addresses: []netip.Prefix{many}, Choose: exit.StickyUser}, "k3j", false},
		{"without a session, by chance", exit.Source{Addresses: []netip.Prefix{many}, Choose: exit.StickySession}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := to(t, "192.0.32.7:443")
			r.Identity = "alice"
			ask := func() netip.Addr {
				d := New(Options{
					Policy: policy(t, true, acl.Rule{Name: "all", Action: acl.Allow, Exit: []string{"own"}}),
					Ways:   Ways{Exits: map[string]*Exit{"own": {Source: &tt.source}}}, Terms: NewTerms(),
				})
				x := d.Wishing(exit.Wish{Session: tt.session}).Explain(t.Context(), r)
				if !x.Allowed() || x.Route.Exit != "own" {
					t.Fatalf("Explain = %+v, want it to allow by the exit", x)
				}
				return x.Local
			}
			first := ask()
			if first.IsValid() != tt.told || ask() != first {
				t.Errorf("it would leave from %v and then from %v; to be told: %v", first, ask(), tt.told)
			}
		})
	}
}
