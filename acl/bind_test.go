package acl

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"polyport/internal/target"
)

// bindFor is a BIND whose client does not know who will connect.
func bindFor(port uint16) Request {
	return Request{
		Client: netip.MustParseAddr("10.0.0.9"), ClientPort: 50000, Protocol: "socks5", Method: MethodBind, Listener: "main",
		Target: target.FromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), port)), Time: monday,
	}
}

func TestMayBind(t *testing.T) {
	bind := []string{"BIND"}
	named := func(r Rule) Rule { r.Action, r.Method = Allow, bind; return r }
	sure := func(rule string) Decision { return Decision{Allow, rule, ReasonRule, nil} }
	some := Decision{Action: Allow, Reason: ReasonRule}
	none := Decision{Reason: ReasonNoRule}
	tests := []struct {
		name  string
		rules []Rule
		port  uint16
		want  Decision
	}{
		{"the default rules", nil, 0, none},
		{"a rule that names nothing", []Rule{{Name: "a", Action: Allow}}, 0, none},
		{"a rule that names it", []Rule{named(Rule{Name: "a"})}, 0, sure("a")},
		{"a star", []Rule{{Name: "a", Action: Allow, Method: []string{"*"}}}, 0, sure("a")},
		{"another case", []Rule{{Name: "a", Action: Allow, Method: []string{"bind"}}}, 0, sure("a")},
		{"some addresses", []Rule{named(Rule{Name: "a", Target: []string{"192.0.2.0/24"}})}, 0, some},
		{"names alone, which no peer has", []Rule{named(Rule{Name: "a", Target: []string{"ftp.example.com"}})}, 0, none},
		{"names and addresses", []Rule{named(Rule{Name: "a", Target: []string{"ftp.example.com", "8.8.8.8"}})}, 0, some},
		{"another client", []Rule{named(Rule{Name: "a", Client: mustPrefixes("192.0.2.0/24")})}, 0, none},
		{"a port that the client does not name", []Rule{named(Rule{Name: "a", Port: mustPorts("20")})}, 0, none},
		{"a port that it names", []Rule{named(Rule{Name: "a", Port: mustPorts("20")})}, 20, sure("a")},
		{"behind a deny for all", []Rule{{Name: "d"}, named(Rule{Name: "a"})}, 0, Decision{Deny, "d", ReasonRule, nil}},
		{"behind a deny for some", []Rule{{Name: "d", Target: []string{"8.8.8.8"}}, named(Rule{Name: "a"})}, 0, some},
		{"behind a deny for names", []Rule{{Name: "d", Target: []string{"*.example.com"}}, named(Rule{Name: "a"})}, 0, sure("a")},
		{"behind an allow for other methods", []Rule{{Name: "o", Action: Allow}, named(Rule{Name: "a"})}, 0, sure("a")},
		{"a user", []Rule{named(Rule{Name: "a", User: []string{"*"}})}, 0, Decision{Challenge, "a", ReasonNeedsUser, nil}},
		{"a user for some addresses", []Rule{named(Rule{Name: "a", User: []string{"*"}, Target: []string{"8.8.8.8"}})}, 0, Decision{Challenge, "a", ReasonNeedsUser, nil}},
		{"a user for some, anybody for others", []Rule{named(Rule{Name: "a", User: []string{"*"}, Target: []string{"8.8.8.8"}}), named(Rule{Name: "b"})}, 0, some},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPolicy(t, Options{Rules: tt.rules, HasUsers: true})
			if got := p.MayBind(bindFor(tt.port)); got != tt.want {
				t.Errorf("MayBind = %+v, want %+v", got, tt.want)
			}
			e := p.ExplainBind(bindFor(tt.port))
			if tt.want == some != e.NeedAddress || !e.NeedAddress && e.Decision != tt.want {
				t.Errorf("ExplainBind = %+v, %v, want %+v", e.Decision, e.NeedAddress, tt.want)
			}
		})
	}
	if got := (*Policy)(nil).MayBind(bindFor(0)); got != none {
		t.Errorf("a nil policy says %+v, want %+v", got, none)
	}
}

// MayBind never refuses where some peer would be admitted, or asked for a user.
func TestMayBindNeverRefusesWrongly(t *testing.T) {
	counts := map[Action]int{}
	eachRandom(t, func(_ *rand.Rand, rules []Rule, _ bool, p *Policy, q Request, addrs []netip.Addr) {
		q.Method = MethodBind
		port := q.Target.Port()
		q.Target = target.FromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
		got := p.MayBind(q)
		counts[got.Action]++
		for _, a := range addrs {
			q.Target = target.FromAddrPort(netip.AddrPortFrom(a, port))
			d, _ := p.Decide(located(q, a))
			if d.Action == Allow && got.Action != Allow || d.Action == Challenge && got.Action == Deny {
				t.Errorf("MayBind(%+v) = %+v, but %v gets %+v\nunder %+v", q, got, a, d, rules)
			}
		}
	})
	for _, a := range []Action{Deny, Challenge, Allow} {
		if counts[a] < 50 {
			t.Errorf("only %d answers were %v, want at least 50", counts[a], a)
		}
	}
}

func TestExplainBindNamesTheKey(t *testing.T) {
	p := mustPolicy(t, Options{Rules: []Rule{{Name: "all", Action: Allow}, {Name: "lan", Action: Allow, Method: []string{"BIND"}, Target: []string{"10.0.0.0/8"}}}})
	steps := p.ExplainBind(bindFor(0)).Steps
	want := []Step{
		{"all", Allow, NoMatch, "method", "method: BIND is allowed only by a rule that names it, and this one names none"},
		{"lan", Allow, NeedsAddress, "target", "whether it matches depends on the address of whoever connects, which is not known here"},
	}
	if len(steps) != 2 || steps[0] != want[0] || steps[1] != want[1] {
		t.Errorf("steps %+v, want %+v", steps, want)
	}
}

// Who may only BIND without a user is let in without one, and a listener that is open for BIND alone is open.
func TestReachOfBind(t *testing.T) {
	users, bind := Rule{Name: "u", Action: Allow, User: []string{"*"}}, Rule{Name: "b", Action: Allow, Method: []string{"BIND"}}
	connect := Rule{Name: "c", Action: Allow, Method: []string{"CONNECT"}}
	deny, askBind := Rule{Name: "d"}, Rule{Name: "ub", Action: Allow, User: []string{"*"}, Method: []string{"*"}}
	tests := []struct {
		name  string
		rules []Rule
		want  string // the rule that opens; "" is none
	}{
		{"BIND behind a question for a user", []Rule{users, bind}, "b"},
		{"CONNECT behind it", []Rule{users, connect}, ""},
		{"both behind it", []Rule{users, connect, bind}, "b"},
		{"BIND behind a question that names every method", []Rule{askBind, bind}, ""},
		{"BIND behind a deny", []Rule{deny, bind}, ""},
		{"BIND behind both", []Rule{users, deny, bind}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPolicy(t, Options{Rules: tt.rules, HasUsers: true})
			if got := p.AdmitsAnonymous(netip.MustParseAddr("10.0.0.9"), "", "socks5", "main", false); got != (tt.want != "") {
				t.Errorf("AdmitsAnonymous = %v, want %v", got, tt.want != "")
			}
			if rule, open := p.OpenTo("main", false); rule != tt.want || open != (tt.want != "") {
				t.Errorf("OpenTo = %q, %v; want %q", rule, open, tt.want)
			}
		})
	}
}

func TestWarningsOfBind(t *testing.T) {
	all, deny := Rule{Name: "a", Action: Allow}, Rule{Name: "b"}
	bind := Rule{Name: "b", Action: Allow, Method: []string{"BIND"}}
	tests := []struct {
		name  string
		rules []Rule
		want  string // what the one warning holds; "" is none
	}{
		{"a deny behind an allow for all", []Rule{all, deny}, `"b" is reached by the method BIND alone, since rule[0] "a" matches everything else`},
		{"BIND behind an allow for all", []Rule{all, bind}, ""},
		{"BIND behind a star", []Rule{{Name: "a", Action: Allow, Method: []string{"*"}}, bind}, "can never be reached"},
		{"BIND behind a deny", []Rule{{Name: "a"}, bind}, "can never be reached"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(mustPolicy(t, Options{Rules: tt.rules}).Warnings(), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("Warnings() = %q, want it to say %q", got, tt.want)
			}
		})
	}
}
