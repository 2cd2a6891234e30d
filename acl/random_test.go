package acl

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"polyport/internal/target"
)

// This file makes the random policies and requests that several tests ask about.

// randomTargets are the patterns of the random rules, in normal form.
var randomTargets = []string{
	"*", "*.example.com", ".example.com", "www.example.com", "*.www.example.com", "example.org",
	"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.0.0.0/7", "93.184.0.0/16", "127.0.0.0/8", "169.254.0.0/16",
	"169.254.169.254", "fc00::/7", "fd00::/8", "::1", "64:ff9b::/96", "64:ff9b::a00:0/104", "64:ff9b::a01:203", "2002::/16",
	"2002:a00::/24", "2606:4700::/32", "2606:4700::5efe:a00:0/104", "8.8.8.8",
}

// randomNames is how many of them are none of addresses.
const randomNames = 6

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
	if r.IntN(5) == 0 {
		out.ClientCountry = pick(r, []string{"de", "FR"}, 2)
	}
	if r.IntN(3) == 0 {
		out.Country = pick(r, []string{"US", "de", "fr"}, 2)
	}
	if r.IntN(5) == 0 {
		out.Backend = pick(r, []string{"web", "git", "*"}, 2)
	}
	if len(out.Backend) > 0 {
		out.Country = nil
	} else if out.Action == Allow {
		switch r.IntN(4) {
		case 0:
			out.Upstream = []string{"eu", "direct"}[r.IntN(2)]
		case 1:
			out.Exit = []string{"eu", "us"}[:1+r.IntN(2)]
		}
	}
	targets := randomTargets
	if len(out.Backend) > 0 {
		targets = targets[:randomNames] // it is judged by name
	}
	if r.IntN(4) > 0 {
		out.Target = pick(r, targets, 4)
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
		ClientPort: []uint16{80, 50000}[r.IntN(2)], ClientCountry: one("", "de", "fr"),
		Identity: one("", "", "alice", "bob", "carol"),
		Protocol: one("http", "connect", "tls"), Method: one("GET", "CONNECT", "get", "BIND", "bind"), Listener: one("main", "second"),
		Backend:     one("", "", "web", "git", "other"),
		RequireUser: r.IntN(2) == 0, Target: to, Time: monday.Add(time.Duration(r.IntN(24)) * time.Hour),
	}
	if out.Identity != "" {
		out.Groups = [][]string{nil, {"staff"}, {"guests", "staff"}, {"others"}}[r.IntN(4)]
	}
	return located(out, netip.Addr{})
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
