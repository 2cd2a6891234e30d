package acl

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"polyport/internal/target"
)

func TestMayReach(t *testing.T) {
	lan := mustPrefixes("10.0.0.0/8")
	udp := []string{"UDP"}
	deny := func(r Rule) Rule { r.Name, r.Action = "deny", Deny; return r }
	allow := func(r Rule) Rule { r.Name, r.Action = "allow", Allow; return r }
	anonymous := func(r Rule) Rule { r = allow(r); r.Anonymous = true; return r }
	names := Rule{Target: []string{".example.com"}}
	tests := []struct {
		name     string
		rules    []Rule
		identity string
		want     Decision
	}{
		{"everything", []Rule{allow(Rule{})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"some names", []Rule{allow(names)}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"some addresses", []Rule{allow(Rule{Target: []string{"192.0.2.0/24"}})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"one port", []Rule{allow(Rule{Port: mustPorts("53")})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"this method", []Rule{allow(Rule{Method: udp})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"another method", []Rule{allow(Rule{Method: []string{"CONNECT", "BIND"}})}, "", Decision{Reason: ReasonNoRule}},
		{"another protocol", []Rule{allow(Rule{Protocol: []string{"http"}})}, "", Decision{Reason: ReasonNoRule}},
		{"another listener", []Rule{allow(Rule{Listener: []string{"second"}})}, "", Decision{Reason: ReasonNoRule}},
		{"another client", []Rule{allow(Rule{Client: mustPrefixes("192.168.0.0/16")})}, "", Decision{Reason: ReasonNoRule}},
		{"another port of the client", []Rule{allow(Rule{ClientPort: mustPorts("1-1023")})}, "", Decision{Reason: ReasonNoRule}},
		{"another time", []Rule{allow(Rule{Time: "Sun"})}, "", Decision{Reason: ReasonNoRule}},
		{"another user", []Rule{allow(Rule{User: []string{"bob"}})}, "alice", Decision{Reason: ReasonNoRule}},
		{"this user", []Rule{allow(Rule{User: []string{"alice"}})}, "alice", Decision{Allow, "allow", ReasonRule, nil}},
		{"a user, and there is none", []Rule{allow(Rule{User: []string{"*"}})}, "", Decision{Challenge, "allow", ReasonNeedsUser, nil}},
		{"a user for some, nobody else for all", []Rule{allow(Rule{User: []string{"*"}, Target: names.Target}), deny(Rule{})}, "", Decision{Challenge, "allow", ReasonNeedsUser, nil}},
		{"a user for some, everybody for others", []Rule{{Name: "u", Action: Allow, User: []string{"*"}, Target: names.Target}, anonymous(Rule{})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"a user for all, then everybody", []Rule{{Name: "u", Action: Allow, User: []string{"*"}}, anonymous(Rule{})}, "", Decision{Challenge, "u", ReasonNeedsUser, nil}},
		{"a deny for this method", []Rule{deny(Rule{Method: udp}), allow(Rule{})}, "", Decision{Deny, "deny", ReasonRule, nil}},
		{"a deny for every target", []Rule{deny(Rule{Target: []string{"*"}}), allow(Rule{})}, "", Decision{Deny, "deny", ReasonRule, nil}},
		{"a deny for some targets", []Rule{deny(names), allow(Rule{})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"a deny for every address", []Rule{deny(Rule{Target: []string{"0.0.0.0/0", "::/0"}}), allow(Rule{})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"a deny for every target at a port", []Rule{deny(Rule{Port: mustPorts("53")}), allow(Rule{})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"a deny for the client", []Rule{deny(Rule{Client: lan}), allow(Rule{})}, "", Decision{Deny, "deny", ReasonRule, nil}},
		{"a deny for the user", []Rule{deny(Rule{User: []string{"alice"}}), allow(Rule{})}, "alice", Decision{Deny, "deny", ReasonRule, nil}},
		{"some countries", []Rule{allow(Rule{Country: []string{"de"}})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"a deny for some countries", []Rule{deny(Rule{Country: []string{"de"}}), allow(Rule{})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"the client's country", []Rule{allow(Rule{ClientCountry: []string{"FR"}})}, "", Decision{Allow, "allow", ReasonRule, nil}},
		{"another country", []Rule{allow(Rule{ClientCountry: []string{"de"}})}, "", Decision{Reason: ReasonNoRule}},
		{"a deny for the client's country", []Rule{deny(Rule{ClientCountry: []string{"fr"}}), allow(Rule{})}, "", Decision{Deny, "deny", ReasonRule, nil}},
		{"only denies for some", []Rule{deny(names), deny(Rule{Port: mustPorts("25")})}, "", Decision{Reason: ReasonNoRule}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPolicy(t, Options{Rules: tt.rules, HasUsers: true})
			r := Request{
				Client: netip.MustParseAddr("::ffff:10.0.0.9"), ClientPort: 50000, ClientCountry: "fr", Protocol: "socks5", Method: "UDP", Listener: "main",
				Identity: tt.identity, Time: monday,
			}
			if got := p.MayReach(r); got != tt.want {
				t.Errorf("MayReach(%+v) = %+v, want %+v", r, got, tt.want)
			}
			r.Target, _ = target.New("blocked.example.com", 25)
			if got := p.MayReach(r); got != tt.want {
				t.Errorf("MayReach(%+v) = %+v, want %+v: the target is not to be looked at", r, got, tt.want)
			}
		})
	}
}

func TestMayReachWithoutUsers(t *testing.T) {
	p := mustPolicy(t, Options{Rules: []Rule{{Name: "u", Action: Allow, User: []string{"*"}}, {Name: "all", Action: Allow}}})
	if got, want := p.MayReach(Request{Client: netip.MustParseAddr("10.0.0.9")}), (Decision{Deny, "u", ReasonNeedsUser, nil}); got != want {
		t.Errorf("MayReach = %+v, want %+v", got, want)
	}
	for _, p := range []*Policy{nil, {}} {
		if got, want := p.MayReach(Request{}), (Decision{Reason: ReasonNoRule}); got != want {
			t.Errorf("MayReach = %+v, want %+v", got, want)
		}
	}
}

// MayReach never denies where a target is admitted, nor where a user might help. What is, the naive rules say as well.
func TestMayReachNeverSaysNoWrongly(t *testing.T) {
	counts := map[Action]int{}
	admitted := 0
	eachRandom(t, func(_ *rand.Rand, rules []Rule, hasUsers bool, p *Policy, q Request, addrs []netip.Addr) {
		unknown := q
		unknown.Target = target.Target{}
		got := p.MayReach(unknown)
		counts[got.Action]++
		for _, a := range addrs {
			best := max(p.DecideAddr(located(q, a), a).Action, naiveDecide(rules, hasUsers, located(q, a), a)[0].Action)
			if best == Allow && got.Action != Allow || best == Challenge && got.Action == Deny {
				t.Errorf("MayReach = %+v, but %+v at %v is answered %v\nunder %+v", got, q, a, best, rules)
			}
			if best == Allow {
				admitted++
			}
		}
	})
	if admitted < 500 {
		t.Errorf("only %d random requests were admitted, want at least 500", admitted)
	}
	for _, action := range []Action{Allow, Deny, Challenge} {
		if counts[action] < 50 {
			t.Errorf("only %d answers were %v, want at least 50", counts[action], action)
		}
	}
}

func TestMayReachDoesNotAllocate(t *testing.T) {
	p := mustPolicy(t, Options{Rules: []Rule{{Target: []string{".example.com"}}, {Action: Allow, Client: mustPrefixes("10.0.0.0/8")}}})
	r := Request{Client: netip.MustParseAddr("10.0.0.9"), Protocol: "socks5", Method: "UDP", Listener: "main"}
	if n := testing.AllocsPerRun(100, func() { _ = p.MayReach(r) }); n != 0 {
		t.Errorf("MayReach costs %v allocations, want none", n)
	}
}
