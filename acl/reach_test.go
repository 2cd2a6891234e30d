package acl

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestOpenTo(t *testing.T) {
	allow := func(name string, client ...string) Rule {
		return Rule{Name: name, Action: Allow, Client: mustPrefixes(client...)}
	}
	anonymous := func(r Rule) Rule { r.Anonymous = true; return r }
	with := func(r Rule, change func(*Rule)) Rule { change(&r); return r }
	tests := []struct {
		name        string
		rules       []Rule
		requireUser bool
		want        string // the rule; "" is not open
	}{
		{"defaults", nil, false, ""},
		{"defaults, users required", nil, true, ""},
		{"no client", []Rule{allow("a")}, false, "a"},
		{"no client, users required", []Rule{allow("a")}, true, ""},
		{"no client, users required, anonymous", []Rule{anonymous(allow("a"))}, true, "a"},
		{"names users", []Rule{{Name: "a", Action: Allow, User: []string{"*"}}}, false, ""},
		{"names a group", []Rule{{Name: "a", Action: Allow, Group: []string{"g"}}}, false, ""},
		{"all of IPv4", []Rule{allow("a", "0.0.0.0/0")}, false, "a"},
		{"all of IPv6", []Rule{allow("a", "::/0")}, false, "a"},
		{"all of IPv4 mapped", []Rule{allow("a", "::ffff:0:0/96")}, false, "a"},
		{"the LAN", []Rule{allow("a", "10.0.0.0/8", "192.168.0.0/16", "fd00::/8", "127.0.0.0/8")}, false, ""},
		{"one half", []Rule{allow("a", "0.0.0.0/1")}, false, ""},
		{"two halves", []Rule{allow("a", "128.0.0.0/1", "0.0.0.0/1")}, false, "a"},
		{"halves of both kinds", []Rule{allow("a", "0.0.0.0/1", "8000::/1")}, false, ""},
		{"four quarters", []Rule{allow("a", "192.0.0.0/2", "0.0.0.0/2", "128.0.0.0/2", "64.0.0.0/2")}, false, "a"},
		{"three quarters", []Rule{allow("a", "192.0.0.0/2", "0.0.0.0/2", "128.0.0.0/2")}, false, ""},
		{"halves of IPv6", []Rule{allow("a", "::/1", "8000::/1")}, false, "a"},
		{"all that is public in IPv6", []Rule{allow("a", "2000::/3")}, false, "a"},
		{"all but private IPv4", []Rule{allow("a", "0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/2", "128.0.0.0/1")}, false, "a"},
		{"halves in two rules", []Rule{allow("a", "0.0.0.0/1"), allow("b", "128.0.0.0/1")}, false, "b"},
		{"nested prefixes", []Rule{allow("a", "0.0.0.0/1", "10.0.0.0/8", "8.8.8.8", "128.0.0.0/1")}, false, "a"},
		{"only a deny", []Rule{{Name: "a"}}, false, ""},
		{"behind a deny for all", []Rule{{Name: "d"}, allow("a")}, false, ""},
		{"behind a deny for all of IPv4", []Rule{{Name: "d", Client: mustPrefixes("0.0.0.0/0")}, allow("a", "0.0.0.0/0")}, false, ""},
		{"behind a deny for IPv4, open to IPv6", []Rule{{Name: "d", Client: mustPrefixes("0.0.0.0/0")}, allow("a")}, false, "a"},
		{"behind denies for both", []Rule{{Name: "d", Client: mustPrefixes("0.0.0.0/0", "::/0")}, allow("a")}, false, ""},
		{"behind a deny for all and one for some", []Rule{{Name: "d", Client: mustPrefixes("0.0.0.0/0")}, {Name: "e", Client: mustPrefixes("8.8.8.8")}, allow("a", "0.0.0.0/0")}, false, ""},
		{"behind a deny for some", []Rule{{Name: "d", Client: mustPrefixes("8.8.8.8")}, allow("a")}, false, "a"},
		{"behind a deny for a port", []Rule{{Name: "d", Port: mustPorts("25")}, allow("a")}, false, "a"},
		{"behind a deny for a protocol", []Rule{{Name: "d", Protocol: []string{"http"}}, allow("a")}, false, "a"},
		{"behind a deny for every protocol", []Rule{{Name: "d", Protocol: []string{"*"}, Target: []string{"*"}, Method: []string{"*"}}, allow("a")}, false, ""},
		{"behind a question for a user", []Rule{{Name: "u", Action: Allow, User: []string{"*"}}, allow("a")}, false, ""},
		{"behind an allow that needs a user", []Rule{allow("u"), anonymous(allow("a"))}, true, ""},
		{"for one target", []Rule{with(allow("a"), func(r *Rule) { r.Target = []string{"example.com"} })}, false, "a"},
		{"for one protocol", []Rule{with(allow("a"), func(r *Rule) { r.Protocol = []string{"tls"} })}, false, "a"},
		{"at some time", []Rule{with(allow("a"), func(r *Rule) { r.Time = "Mon" })}, false, "a"},
		{"for targets in a country", []Rule{with(allow("a"), func(r *Rule) { r.Country = []string{"de"} })}, false, "a"},
		{"for clients of a country", []Rule{with(allow("a"), func(r *Rule) { r.ClientCountry = []string{"de"} })}, false, "a"},
		{"behind a deny for targets in a country", []Rule{{Name: "d", Country: []string{"de"}}, allow("a")}, false, "a"},
		{"behind a deny for clients of a country", []Rule{{Name: "d", ClientCountry: []string{"de"}}, allow("a")}, false, "a"},
		{"for a backend", []Rule{with(allow("a"), func(r *Rule) { r.Backend = []string{"web"} })}, false, ""},
		{"for any backend, users required, anonymous", []Rule{with(anonymous(allow("a")), func(r *Rule) { r.Backend = []string{"*"} })}, true, ""},
		{"for a backend, and half of all clients for anything", []Rule{with(allow("a"), func(r *Rule) { r.Backend = []string{"web"} }), allow("b", "0.0.0.0/1")}, false, ""},
		{"behind an allow for backends", []Rule{with(allow("a"), func(r *Rule) { r.Backend = []string{"*"} }), allow("b")}, false, "b"},
		{"behind a deny for backends", []Rule{{Name: "d", Backend: []string{"*"}}, allow("a")}, false, "a"},
		{"for another listener", []Rule{with(allow("a"), func(r *Rule) { r.Listener = []string{"other"} })}, false, ""},
		{"for this listener", []Rule{with(allow("a"), func(r *Rule) { r.Listener = []string{"other", "main"} })}, false, "a"},
		{"behind a deny for another listener", []Rule{{Name: "d", Listener: []string{"other"}}, allow("a")}, false, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPolicy(t, Options{Rules: tt.rules, HasUsers: tt.requireUser})
			rule, open := p.OpenTo("main", tt.requireUser)
			if rule != tt.want || open != (tt.want != "") {
				t.Errorf("OpenTo(main, %v) = %q, %v; want %q", tt.requireUser, rule, open, tt.want)
			}
		})
	}
}

func TestAdmitsAnonymous(t *testing.T) {
	lan, star := mustPrefixes("10.0.0.0/8"), []string{"*"}
	tests := []struct {
		name        string
		rules       []Rule
		requireUser bool
		want        bool
	}{
		{"allow", []Rule{{Action: Allow}}, false, true},
		{"allow, user required", []Rule{{Action: Allow}}, true, false},
		{"anonymous, user required", []Rule{{Action: Allow, Anonymous: true}}, true, true},
		{"client", []Rule{{Action: Allow, Client: lan}}, false, true},
		{"mapped client", []Rule{{Action: Allow, Client: mustPrefixes("::ffff:10.0.0.0/104")}}, false, true},
		{"other client", []Rule{{Action: Allow, Client: mustPrefixes("192.0.2.0/24")}}, false, false},
		{"other protocol", []Rule{{Action: Allow, Protocol: []string{"tls"}}}, false, false},
		{"other listener", []Rule{{Action: Allow, Listener: []string{"other"}}}, false, false},
		{"user", []Rule{{Action: Allow, User: star}}, false, false},
		{"backend", []Rule{{Action: Allow, Backend: star}}, false, false},
		{"behind a deny for backends", []Rule{{Backend: star}, {Action: Allow}}, false, true},
		{"some target", []Rule{{Action: Allow, Target: []string{"example.com"}}}, false, true},
		{"some time", []Rule{{Action: Allow, Time: "Mon"}}, false, true},
		{"behind a deny", []Rule{{}, {Action: Allow}}, false, false},
		{"behind a deny for some targets", []Rule{{Target: []string{"example.com"}}, {Action: Allow}}, false, true},
		{"behind a deny for some ports", []Rule{{Port: mustPorts("25")}, {Action: Allow}}, false, true},
		{"behind a deny for these clients", []Rule{{Client: lan}, {Action: Allow}}, false, false},
		{"behind a deny for others", []Rule{{Client: mustPrefixes("192.0.2.0/24")}, {Action: Allow}}, false, true},
		{"behind a question for a user", []Rule{{Action: Allow, User: star}, {Action: Allow}}, false, false},
		{"behind a question for some targets", []Rule{{Action: Allow, User: star, Target: []string{"a.example"}}, {Action: Allow}}, false, true},
		{"behind an allow that needs a user", []Rule{{Action: Allow}, {Action: Allow, Anonymous: true}}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPolicy(t, Options{Rules: tt.rules, HasUsers: true})
			if got := p.AdmitsAnonymous(netip.MustParseAddr("::ffff:10.0.0.9"), "", "http", "main", tt.requireUser); got != tt.want {
				t.Errorf("AdmitsAnonymous(10.0.0.9, http, main, %v) = %v, want %v", tt.requireUser, got, tt.want)
			}
		})
	}
}

// AdmitsAnonymous never says no where a request is admitted without a user.
func TestAdmitsAnonymousNeverSaysNoWrongly(t *testing.T) {
	admitted := 0
	eachRandom(t, func(_ *rand.Rand, rules []Rule, _ bool, p *Policy, q Request, addrs []netip.Addr) {
		q.Identity, q.Groups, q.Backend = "", nil, ""
		for _, a := range addrs {
			if p.DecideAddr(located(q, a), a).Action != Allow {
				continue
			}
			admitted++
			if !p.AdmitsAnonymous(q.Client, q.ClientCountry, q.Protocol, q.Listener, q.RequireUser) {
				t.Errorf("AdmitsAnonymous says no, but DecideAddr(%+v, %v) allows\nunder %+v", q, a, rules)
			}
		}
	})
	if admitted < 500 {
		t.Errorf("only %d random requests were admitted, want at least 500", admitted)
	}
}

// Where OpenTo says no, some client of each family is admitted to nothing.
func TestOpenToNeverSaysNoWrongly(t *testing.T) {
	clients := map[bool][]netip.Addr{}
	for _, s := range []string{"8.8.8.8", "93.184.216.34", "200.1.1.1", "2606:4700::1", "2a00::1", "2001:4860::1"} {
		a := netip.MustParseAddr(s)
		clients[a.Is4()] = append(clients[a.Is4()], a)
	}
	opened := 0
	eachRandom(t, func(_ *rand.Rand, rules []Rule, _ bool, p *Policy, q Request, _ []netip.Addr) {
		_, open := p.OpenTo(q.Listener, q.RequireUser)
		if open {
			opened++
			return
		}
		for _, list := range clients {
			all := true
			for _, c := range list {
				q.Client, q.Identity, q.Groups, q.Backend = c, "", nil, ""
				d, _ := p.Decide(q)
				all = all && d.Action == Allow
			}
			if all {
				t.Errorf("OpenTo(%s, %v) says no, but every client may do %+v\nunder %+v", q.Listener, q.RequireUser, q, rules)
			}
		}
	})
	if opened < 50 {
		t.Errorf("only %d random policies are open, want at least 50", opened)
	}
}
