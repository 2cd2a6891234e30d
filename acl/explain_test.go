package acl

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	p := mustPolicy(t, Options{HasUsers: true, Rules: []Rule{
		{Name: "port", Port: mustPorts("25", "100-200")},
		{Name: "protocol", Protocol: []string{"tls"}},
		{Name: "listener", Listener: []string{"second"}},
		{Name: "backend", Backend: []string{"web", "git"}},
		{Name: "method", Method: []string{"CONNECT"}},
		{Name: "client", Client: mustPrefixes("192.0.2.0/24", "2001:db8::/32")},
		{Name: "client port", ClientPort: mustPorts("1-1023")},
		{Name: "user", User: []string{"bob"}},
		{Name: "group", Group: []string{"staff"}},
		{Name: "time", Time: "Tue 08:00-18:00 Europe/Berlin"},
		{Name: "target", Target: []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example"}},
		{Name: "address", Target: []string{"8.8.8.0/24"}},
		{Name: "decides", Action: Allow, Client: mustPrefixes("10.0.0.0/8"), Target: []string{"*"}},
		{Name: "behind", Action: Allow},
		{Name: "behind and other", Action: Allow, Port: mustPorts("1")},
	}})
	r := Request{
		Client: netip.MustParseAddr("10.0.0.9"), ClientPort: 50000, Identity: "alice", Groups: []string{"x", "y"}, Protocol: "http",
		Method: "GET", Listener: "main", Target: mustTarget("www.example.com:80"), Time: monday,
	}
	misses := []Step{
		{"port", Deny, NoMatch, "port", "port: 80 is not 25, 100-200"},
		{"protocol", Deny, NoMatch, "protocol", "protocol: http is not tls"},
		{"listener", Deny, NoMatch, "listener", "listener: main is not second"},
		{"backend", Deny, NoMatch, "backend", "backend: none is not web, git"},
		{"method", Deny, NoMatch, "method", "method: GET is not CONNECT"},
		{"client", Deny, NoMatch, "client", "client: 10.0.0.9 is not 192.0.2.0/24, 2001:db8::/32"},
		{"client port", Deny, NoMatch, "client_port", "client_port: 50000 is not 1-1023"},
		{"user", Deny, NoMatch, "user", "user: alice is not bob"},
		{"group", Deny, NoMatch, "group", "group: x, y is not staff"},
		{"time", Deny, NoMatch, "time", `time: Mon 13:00 CET is not in "Tue 08:00-18:00 Europe/Berlin"`},
	}
	tests := []struct {
		name string
		addr string
		want Explanation
	}{
		{"by name", "", Explanation{NeedAddress: true, Steps: append(slices.Clone(misses), []Step{
			{"target", Deny, NoMatch, "target", "target: www.example.com is not a.example, b.example, c.example, d.example, e.example or 2 more"},
			{"address", Deny, NeedsAddress, "target", "whether it matches depends on the address of www.example.com, which is not known here"},
			{"decides", Allow, Decides, "", "it matches by client, target"},
			{"behind", Allow, WouldMatch, "", "it names nothing, so it matches everything"},
			{"behind and other", Allow, NotReached, "port", "port: 80 is not 1"},
		}...)}},
		{"by address", "93.184.216.34", Explanation{Decision: Decision{Allow, "decides", ReasonRule, nil}, Steps: append(slices.Clone(misses), []Step{
			{"target", Deny, NoMatch, "target", "target: www.example.com at 93.184.216.34 is not a.example, b.example, c.example, d.example, e.example or 2 more"},
			{"address", Deny, NoMatch, "target", "target: www.example.com at 93.184.216.34 is not 8.8.8.0/24"},
			{"decides", Allow, Decides, "", "it matches by client, target"},
			{"behind", Allow, WouldMatch, "", "it names nothing, so it matches everything"},
			{"behind and other", Allow, NotReached, "port", "port: 80 is not 1"},
		}...)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a netip.Addr
			if tt.addr != "" {
				a = netip.MustParseAddr(tt.addr)
			}
			got := p.Explain(r, a)
			if got.Decision != tt.want.Decision || got.NeedAddress != tt.want.NeedAddress || got.Special != "" {
				t.Errorf("Explain = %+v, %v, %q; want %+v, %v", got.Decision, got.NeedAddress, got.Special, tt.want.Decision, tt.want.NeedAddress)
			}
			for i := range max(len(got.Steps), len(tt.want.Steps)) {
				if i >= len(got.Steps) || i >= len(tt.want.Steps) || got.Steps[i] != tt.want.Steps[i] {
					t.Fatalf("step %d of\n%+v\nis not that of\n%+v", i, got.Steps, tt.want.Steps)
				}
			}
		})
	}
}

func TestExplainGuardAndUser(t *testing.T) {
	p := mustPolicy(t, Options{HasUsers: true, Rules: []Rule{
		{Name: "staff", Action: Allow, User: []string{"alice"}, Target: []string{"a.example"}},
		{Name: "rest", Action: Allow},
	}})
	e := p.Explain(Request{Target: mustTarget("a.example:80")}, netip.Addr{})
	if e.Decision != (Decision{Challenge, "staff", ReasonNeedsUser, nil}) || e.Steps[0].Result != Decides ||
		e.Steps[0].Why != "it matches by user, target; it needs a user, and the session has none" {
		t.Errorf("Explain without a user = %+v", e)
	}
	e = p.Explain(Request{Target: mustTarget("2130706433:80")}, netip.Addr{})
	if e.Decision != (Decision{Deny, "rest", ReasonGuard, nil}) || e.Special != "loopback (RFC 1122)" ||
		e.Steps[1].Why != "it names nothing, so it matches everything; but 127.0.0.1 is loopback (RFC 1122), and no prefix in its target lies inside that range" {
		t.Errorf("Explain of a loopback literal = %+v", e)
	}
	e = p.Explain(Request{Target: mustTarget("b.example:80")}, netip.MustParseAddr("64:ff9b::a00:1"))
	if e.Decision.Reason != ReasonGuard || !strings.HasPrefix(e.Special, "the NAT64 form of 10.0.0.1: private use") {
		t.Errorf("Explain of a hidden address = %+v", e)
	}
}

// Explain names the rule that Decide and DecideAddr name, and that alone.
func TestExplainAgreesWithDecide(t *testing.T) {
	eachRandom(t, func(r *rand.Rand, rules []Rule, _ bool, p *Policy, q Request, addrs []netip.Addr) {
		d, need := p.Decide(q)
		e := p.Explain(q, netip.Addr{})
		if e.Decision != d || e.NeedAddress != need {
			t.Errorf("Explain = %+v, %v; Decide = %+v, %v", e.Decision, e.NeedAddress, d, need)
		}
		a := addrs[r.IntN(len(addrs))]
		if named := p.ExplainName(q); named.Decision != p.DecideName(q) || named.NeedAddress {
			t.Errorf("ExplainName = %+v; DecideName = %+v", named.Decision, p.DecideName(q))
		}
		d, e = p.DecideAddr(located(q, a), a), p.Explain(located(q, a), a)
		var deciding []string
		for _, s := range e.Steps {
			if s.Result == Decides {
				deciding = append(deciding, s.Rule)
			}
		}
		want := []string{d.Rule}
		if d.Rule == "" {
			want = nil
		}
		if e.Decision != d || !slices.Equal(deciding, want) || len(e.Steps) != len(rules) {
			t.Errorf("Explain(%+v, %v) = %+v with %v deciding; DecideAddr = %+v", q, a, e.Decision, deciding, d)
		}
	})
}
