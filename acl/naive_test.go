package acl

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

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
		inPorts(n.Port, r.Target.Port()) && inPorts(n.ClientPort, r.ClientPort) && (len(n.Backend) == 0 || r.Backend != "" && has(n.Backend, r.Backend)) &&
		(len(n.Client) == 0 || inPrefixes(n.Client, r.Client)) && (len(n.ClientCountry) == 0 || inCountries(n.ClientCountry, r.ClientCountry))
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
		return n.matchesCountry(r, a)
	}
	both := [2]tri{n.matchesTarget(r.Target, a), n.matchesCountry(r, a)}
	switch {
	case slices.Contains(both[:], no):
		return no
	case slices.Contains(both[:], unknown):
		return unknown
	}
	return yes
}

func (n naiveRule) matchesCountry(r Request, a netip.Addr) tri {
	_, isLiteral := r.Target.Addr()
	switch {
	case len(n.Country) == 0:
		return yes
	case !isLiteral && !a.IsValid():
		return unknown
	case inCountries(n.Country, r.TargetCountry):
		return yes
	}
	return no
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
		return Decision{Challenge, n.name, ReasonNeedsUser, nil}
	case r.Identity == "" && wantsUser:
		return Decision{Deny, n.name, ReasonNeedsUser, nil}
	case n.Action == Allow && a.IsValid() && !n.liftsAll(naiveSpecial(a), a):
		return Decision{Deny, n.name, ReasonGuard, nil}
	}
	d := Decision{n.Action, n.name, ReasonRule, nil}
	if n.Upstream != "" || len(n.Exit) > 0 {
		d.Way = &Way{n.Upstream, n.Exit}
	}
	return d
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

// naiveCountries are the countries of naiveAddrs; the others have none, as is usual.
var naiveCountries = map[string]string{"8.8.8.8": "us", "93.184.216.34": "us", "2606:4700::1111": "de", "10.2.2.3": "fr", "2606:4700::5efe:a01:203": "de"}

// located is q with the country of a, or of its own address where a is invalid.
func located(q Request, a netip.Addr) Request {
	if !a.IsValid() {
		a, _ = q.Target.Addr()
	}
	q.TargetCountry = naiveCountries[a.String()]
	return q
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

func TestDifferential(t *testing.T) {
	counts := map[string]int{}
	eachRandom(t, func(r *rand.Rand, rules []Rule, hasUsers bool, p *Policy, q Request, addrs []netip.Addr) {
		got, need := p.Decide(q)
		open := naiveDecide(rules, hasUsers, q, netip.Addr{})
		want, wantNeed := weigh(open)
		if need != wantNeed || !need && !reflect.DeepEqual(got, want) {
			t.Errorf("Decide(%+v)\nunder %+v\n= %+v, %v; want %+v, %v", q, rules, got, need, want, wantNeed)
		}
		if need {
			counts["address"]++
		} else {
			counts[got.Action.String()+" "+got.Reason]++
		}
		for _, a := range addrs {
			got := p.DecideAddr(located(q, a), a)
			if want := naiveDecide(rules, hasUsers, located(q, a), a)[0]; !reflect.DeepEqual(got, want) {
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
			got := p.DecideAddr(located(q, a), a)
			if d.Action != Allow && got.Action == Allow {
				t.Errorf("Decide(%+v) = %+v, but DecideAddr(%v) = %+v\nunder %+v", q, d, a, got, rules)
			}
			if d.Action == Allow && got != d && got != (Decision{Deny, d.Rule, ReasonGuard, nil}) {
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
		if got := p.DecideName(q); !reflect.DeepEqual(got, want) {
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

func inCountries(list []string, country string) bool {
	for _, have := range list {
		if country != "" && strings.EqualFold(have, country) {
			return true
		}
	}
	return false
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
