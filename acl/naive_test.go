package acl

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"polyport/internal/target"
)

// This file holds the rules a second time, written as slowly and plainly as the
// page says them, and compares both on random policies.

// tri is how a naive rule stands to a request: no, yes, or only the address tells.
type tri int

const (
	no tri = iota
	yes
	unknown
)

// naiveRule is a rule by its index, so that it has a name.
type naiveRule struct {
	Rule
	name string
}

// naiveDecide returns the outcomes in question, in order: those of rules that might
// match and, last, the one that is sure. There is one outcome if nothing is open.
func naiveDecide(rules []Rule, hasUsers bool, r Request, a netip.Addr) []Decision {
	var out []Decision
	for i, rule := range rules {
		n := naiveRule{rule, fmt.Sprintf("rule[%d]", i)}
		switch n.matches(r, a) {
		case yes:
			return append(out, n.outcome(hasUsers, r, a))
		case unknown:
			out = append(out, n.outcome(hasUsers, r, a))
		}
	}
	return append(out, Decision{Action: Deny, Reason: ReasonNoRule})
}

func (n naiveRule) matches(r Request, a netip.Addr) tri {
	ok := has(n.Protocol, r.Protocol) && has(n.Listener, r.Listener) && n.matchesMethod(strings.ToUpper(r.Method)) &&
		inPorts(n.Port, r.Target.Port()) && inPorts(n.ClientPort, r.ClientPort) &&
		(len(n.Client) == 0 || inPrefixes(n.Client, r.Client))
	if r.Identity != "" {
		ok = ok && has(n.User, r.Identity)
		if len(n.Group) > 0 {
			member := false
			for _, g := range r.Groups {
				member = member || has(n.Group, g)
			}
			ok = ok && member
		}
	}
	if n.Time != "" { // the one schedule that the random rules use
		ok = ok && r.Time.UTC().Hour() >= 8 && r.Time.UTC().Hour() < 18
	}
	switch {
	case !ok:
		return no
	case len(n.Target) == 0:
		return yes
	}
	return n.matchesTarget(r.Target, a)
}

func (n naiveRule) matchesMethod(method string) bool {
	if len(n.Method) == 0 && n.Action == Allow && method == "BIND" {
		return false
	}
	return has(n.Method, method)
}

func (n naiveRule) matchesTarget(t target.Target, a netip.Addr) tri {
	literal, isLiteral := t.Addr()
	if isLiteral && !a.IsValid() {
		a = literal
	}
	result := no
	for _, pattern := range n.Target {
		p, isPrefix := asPrefix(pattern)
		switch {
		case pattern == "*":
			return yes
		case isPrefix && !a.IsValid():
			result = unknown
		case isPrefix:
			if p.Contains(a) {
				return yes
			}
		case isLiteral:
		case strings.HasPrefix(pattern, "*."):
			if strings.HasSuffix(t.Host(), pattern[1:]) {
				return yes
			}
		case strings.HasPrefix(pattern, "."):
			if t.Host() == pattern[1:] || strings.HasSuffix(t.Host(), pattern) {
				return yes
			}
		case t.Host() == pattern:
			return yes
		}
	}
	return result
}

func (n naiveRule) outcome(hasUsers bool, r Request, a netip.Addr) Decision {
	if !a.IsValid() {
		a, _ = r.Target.Addr()
	}
	wantsUser := len(n.User)+len(n.Group) > 0 || n.Action == Allow && r.RequireUser && !n.Anonymous
	switch {
	case r.Identity == "" && wantsUser && hasUsers:
		return Decision{Challenge, n.name, ReasonNeedsUser}
	case r.Identity == "" && wantsUser:
		return Decision{Deny, n.name, ReasonNeedsUser}
	case n.Action == Allow && a.IsValid() && !n.liftsAll(naiveSpecial(a), a):
		return Decision{Deny, n.name, ReasonGuard}
	}
	return Decision{n.Action, n.name, ReasonRule}
}

// liftsAll reports whether for each range some target prefix lies inside it and holds a.
func (n naiveRule) liftsAll(ranges []netip.Prefix, a netip.Addr) bool {
	for _, s := range ranges {
		lifted := false
		for _, pattern := range n.Target {
			if p, ok := asPrefix(pattern); ok && p.Contains(a) && p.Bits() >= s.Bits() && s.Contains(p.Addr()) {
				lifted = true
			}
		}
		if !lifted {
			return false
		}
	}
	return true
}

// naiveSpecial returns the special ranges that hold one of naiveAddrs, hidden
// addresses as the IPv6 range that hides their range.
func naiveSpecial(a netip.Addr) (out []netip.Prefix) {
	for _, s := range strings.Fields(naiveAddrs[a.String()]) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// naiveAddrs are the target addresses of the random requests, with the special
// ranges that they lie in, worked out by hand.
var naiveAddrs = map[string]string{
	"8.8.8.8":                 "",
	"93.184.216.34":           "",
	"2606:4700::1111":         "",
	"2606:4700::5efe:808:808": "",
	"10.1.2.3":                "10.0.0.0/8",
	"10.2.2.3":                "10.0.0.0/8",
	"127.0.0.1":               "127.0.0.0/8",
	"169.254.1.1":             "169.254.0.0/16",
	"169.254.169.254":         "169.254.0.0/16 169.254.169.254/32",
	"fd00:1::1":               "fc00::/7",
	"::1":                     "::1/128",
	"64:ff9b::808:808":        "64:ff9b::/96",
	"64:ff9b::a01:203":        "64:ff9b::/96 64:ff9b::a00:0/104",
	"2002:a01:203::1":         "2002::/16 2002:a00::/24",
	"2606:4700::5efe:a01:203": "2606:4700::5efe:a00:0/104",
}

// randomTargets are the patterns of the random rules, in normal form.
var randomTargets = []string{
	"*", "*.example.com", ".example.com", "www.example.com", "*.www.example.com", "example.org",
	"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.0.0.0/7", "93.184.0.0/16", "127.0.0.0/8", "169.254.0.0/16",
	"169.254.169.254", "fc00::/7", "fd00::/8", "::1", "64:ff9b::/96", "64:ff9b::a00:0/104", "64:ff9b::a01:203", "2002::/16",
	"2002:a00::/24", "2606:4700::/32", "2606:4700::5efe:a00:0/104", "8.8.8.8",
}

var randomHosts = []string{"example.com", "www.example.com", "a.www.example.com", "example.org", "a.example.org", "localhost"}

// pick returns up to most entries of list, often none.
func pick[T any](r *rand.Rand, list []T, most int) (out []T) {
	if r.IntN(3) > 0 {
		return nil
	}
	for range 1 + r.IntN(most) {
		out = append(out, list[r.IntN(len(list))])
	}
	return out
}

func randomRule(r *rand.Rand) Rule {
	out := Rule{
		Action:     []Action{Deny, Allow, Allow}[r.IntN(3)],
		Client:     pick(r, mustPrefixes("10.0.0.0/8", "10.0.0.0/16", "0.0.0.0/0", "2001:db8::/32", "10.0.0.9"), 2),
		ClientPort: pick(r, mustPorts("1-1023", "1024-65535"), 1),
		User:       pick(r, []string{"alice", "bob", "*"}, 2),
		Protocol:   pick(r, []string{"http", "connect", "tls"}, 2),
		Listener:   pick(r, []string{"main", "second"}, 1),
		Port:       pick(r, mustPorts("80", "443", "400-500"), 2),
		Method:     pick(r, []string{"GET", "CONNECT", "BIND", "*"}, 2),
	}
	if r.IntN(4) == 0 {
		out.Group = pick(r, []string{"staff", "guests"}, 2)
	}
	if r.IntN(5) == 0 {
		out.Time = "08:00-18:00"
	}
	if r.IntN(4) > 0 {
		out.Target = pick(r, randomTargets, 4)
	}
	out.Anonymous = out.Action == Allow && len(out.User)+len(out.Group) == 0 && r.IntN(3) == 0
	return out
}

func randomPolicy(t *testing.T, r *rand.Rand) ([]Rule, bool, *Policy) {
	t.Helper()
	rules := make([]Rule, 1+r.IntN(6))
	for i := range rules {
		rules[i] = randomRule(r)
	}
	hasUsers := r.IntN(4) > 0
	p, err := New(Options{Rules: rules, HasUsers: hasUsers})
	if err != nil {
		t.Fatalf("New(%+v): %v", rules, err)
	}
	return rules, hasUsers, p
}

func randomRequest(r *rand.Rand, addrs []netip.Addr) Request {
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	host := one(randomHosts...)
	if r.IntN(3) == 0 {
		host = addrs[r.IntN(len(addrs))].String()
	}
	to, err := target.New(host, []uint16{80, 443, 8080}[r.IntN(3)])
	if err != nil {
		panic(err)
	}
	out := Request{
		Client:     netip.MustParseAddr(one("10.0.0.9", "10.5.0.1", "192.0.2.1", "2001:db8::9")),
		ClientPort: []uint16{80, 50000}[r.IntN(2)],
		Identity:   one("", "", "alice", "bob", "carol"),
		Protocol:   one("http", "connect", "tls"), Method: one("GET", "CONNECT", "get", "BIND", "bind"), Listener: one("main", "second"),
		RequireUser: r.IntN(2) == 0, Target: to, Time: monday.Add(time.Duration(r.IntN(24)) * time.Hour),
	}
	if out.Identity != "" {
		out.Groups = [][]string{nil, {"staff"}, {"guests", "staff"}, {"others"}}[r.IntN(4)]
	}
	return out
}

// eachRandom calls f with many seeded random policies and requests.
func eachRandom(t *testing.T, f func(r *rand.Rand, rules []Rule, hasUsers bool, p *Policy, q Request, addrs []netip.Addr)) {
	t.Helper()
	var addrs []netip.Addr
	for s := range naiveAddrs {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // a map has no order, a seed should
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7659))
		rules, hasUsers, p := randomPolicy(t, r)
		for range 8 {
			f(r, rules, hasUsers, p, randomRequest(r, addrs), addrs)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

func TestDifferential(t *testing.T) {
	counts := map[string]int{}
	eachRandom(t, func(r *rand.Rand, rules []Rule, hasUsers bool, p *Policy, q Request, addrs []netip.Addr) {
		got, need := p.Decide(q)
		open := naiveDecide(rules, hasUsers, q, netip.Addr{})
		want, wantNeed := weigh(open)
		if need != wantNeed || !need && got != want {
			t.Errorf("Decide(%+v)\nunder %+v\n= %+v, %v; want %+v, %v", q, rules, got, need, want, wantNeed)
		}
		if need {
			counts["address"]++
		} else {
			counts[got.Action.String()+" "+got.Reason]++
		}
		for _, a := range addrs {
			got := p.DecideAddr(q, a)
			if want := naiveDecide(rules, hasUsers, q, a)[0]; got != want {
				t.Errorf("DecideAddr(%+v, %v)\nunder %+v\n= %+v, want %+v", q, a, rules, got, want)
			}
			counts["at "+got.Action.String()+" "+got.Reason]++
		}
	})
	// A generator that no longer reaches every kind of answer proves nothing.
	for _, kind := range []string{
		"address", "allow rule", "deny rule", "deny no_rule", "deny guard", "deny needs_user", "challenge needs_user",
		"at allow rule", "at deny rule", "at deny no_rule", "at deny guard", "at deny needs_user", "at challenge needs_user",
	} {
		if counts[kind] < 30 {
			t.Errorf("only %d answers were %q, want at least 50", counts[kind], kind)
		}
	}
}

// weigh is what Decide promises of several outcomes that are in question: the address
// is needed if one of them allows; else a challenge goes first; else the sure one counts.
func weigh(open []Decision) (d Decision, needAddress bool) {
	last := open[len(open)-1]
	if len(open) == 1 {
		return last, false
	}
	for _, o := range open {
		if o.Action == Allow {
			return Decision{}, true
		}
	}
	for _, o := range open {
		if o.Action == Challenge {
			return o, false
		}
	}
	return last, false
}

// What Decide has refused without an address, no address may admit; what it has
// allowed, only the guard may take back.
func TestDecideAgreesWithDecideAddr(t *testing.T) {
	eachRandom(t, func(_ *rand.Rand, rules []Rule, _ bool, p *Policy, q Request, addrs []netip.Addr) {
		d, need := p.Decide(q)
		if _, literal := q.Target.Addr(); need || literal {
			return
		}
		for _, a := range addrs {
			got := p.DecideAddr(q, a)
			if d.Action != Allow && got.Action == Allow {
				t.Errorf("Decide(%+v) = %+v, but DecideAddr(%v) = %+v\nunder %+v", q, d, a, got, rules)
			}
			if d.Action == Allow && got != d && got != (Decision{Deny, d.Rule, ReasonGuard}) {
				t.Errorf("Decide(%+v) = %+v, but DecideAddr(%v) = %+v\nunder %+v", q, d, a, got, rules)
			}
		}
	})
}

// DecideName is Decide under the same rules without their addresses.
func TestDecideNameIgnoresAddresses(t *testing.T) {
	eachRandom(t, func(_ *rand.Rand, rules []Rule, hasUsers bool, p *Policy, q Request, _ []netip.Addr) {
		if _, literal := q.Target.Addr(); literal {
			return
		}
		want := Decision{Reason: ReasonNoRule}
		for i, rule := range rules {
			n := naiveRule{rule, fmt.Sprintf("rule[%d]", i)}
			if n.matches(q, netip.Addr{}) == yes {
				want = n.outcome(hasUsers, q, netip.Addr{})
				break
			}
		}
		if got := p.DecideName(q); got != want {
			t.Errorf("DecideName(%+v) = %+v, want %+v\nunder %+v", q, got, want, rules)
		}
	})
}

func has(list []string, s string) bool {
	ok := len(list) == 0
	for _, have := range list {
		ok = ok || have == s || have == "*"
	}
	return ok
}

func inPorts(list []PortRange, p uint16) bool {
	ok := len(list) == 0
	for _, r := range list {
		ok = ok || p >= r.First && p <= r.Last
	}
	return ok
}

func inPrefixes(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func asPrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return netip.Prefix{}, false
}
