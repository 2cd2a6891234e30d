package acl

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"

	"polyport/internal/target"
)

func TestNewFaults(t *testing.T) {
	tests := []struct {
		name string
		rule Rule
		want []string // what each fault begins with or holds: "key: text"
	}{
		{"action", Rule{Action: Challenge}, []string{"action: challenge is nothing that a rule can do"}},
		{"unknown action", Rule{Action: 9}, []string{"action: invalid action"}},
		{"anonymous deny", Rule{Anonymous: true}, []string{"anonymous: only a rule that allows"}},
		{"anonymous with a user", Rule{Action: Allow, Anonymous: true, User: []string{"*"}}, []string{"anonymous: the rule also names a user"}},
		{"anonymous with a group", Rule{Action: Allow, Anonymous: true, Group: []string{"g"}}, []string{"anonymous: the rule also names a user"}},
		{"client bits", Rule{Client: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}}, []string{"client: 10.1.2.3/8 has bits behind its length; write 10.0.0.0/8"}},
		{"client invalid", Rule{Client: []netip.Prefix{{}}}, []string{"client: it is not a valid prefix"}},
		{"port 0", Rule{Port: []PortRange{{0, 80}}}, []string{"port: 0-80: ports begin at 1"}},
		{"port backwards", Rule{Port: []PortRange{{90, 80}}}, []string{"port: 90-80 ends before it begins; write 80-90"}},
		{"client port", Rule{ClientPort: []PortRange{{}}}, []string{"client_port: 0: ports begin at 1"}},
		{"empty word", Rule{User: []string{""}}, []string{"user: \"\" is empty"}},
		{"spaces", Rule{Protocol: []string{" http"}, Listener: []string{"main "}, Backend: []string{" "}, Method: []string{"\tGET"}}, []string{"protocol: ", "listener: ", "backend: ", "method: "}},
		{"any group", Rule{Group: []string{"*"}}, []string{`group: "*" is no group`}},
		{"time", Rule{Time: "sometimes"}, []string{"time: "}},
		{"any country", Rule{Country: []string{"*"}}, []string{`country: "*" is no country; leave the key out`}},
		{"no country", Rule{Country: []string{"de", "deu", "d", "", "d1", "ü", "d ", "{}"}}, []string{
			`country: "deu" is no country; write two letters such as "de"`, `country: "d" is`, `country: "" is`, `country: "d1" is`,
			`country: "ü" is`, `country: "d " is`, `country: "{}" is`,
		}},
		{"no country of the client", Rule{ClientCountry: []string{"*", "EU-West"}}, []string{`client_country: "*" is no country`, `client_country: "EU-West" is no country`}},
		{"upstream of a deny", Rule{Upstream: "eu"}, []string{"upstream: only a rule that allows has a way out"}},
		{"exit of a deny", Rule{Exit: []string{"eu"}}, []string{"exit: only a rule that allows has a way out"}},
		{"a backend behind an upstream", Rule{Action: Allow, Backend: []string{"web"}, Upstream: "eu"}, []string{"upstream: the rule also names a backend"}},
		{"a backend in a country", Rule{Backend: []string{"*"}, Country: []string{"de"}}, []string{"country: the rule also names a backend"}},
		{"a backend by address", Rule{Backend: []string{"web"}, Target: []string{"www.example.com", "10.0.0.5"}}, []string{"target: the rule also names a backend"}},
		{"a backend by prefix", Rule{Action: Allow, Backend: []string{"web"}, Target: []string{"*", "10.0.0.0/8"}}, []string{"target: the rule also names a backend"}},
		{"two ways out", Rule{Action: Allow, Upstream: "eu", Exit: []string{"us"}}, []string{"upstream: the rule also names an exit"}},
		{"spaces in ways out", Rule{Action: Allow, Upstream: " "}, []string{`upstream: " " has spaces around it`}},
		{"exits", Rule{Action: Allow, Exit: []string{"eu", "*", "", " us", "eu"}}, []string{`exit: "*" is no exit`, `exit: "" is empty`, `exit: " us" is empty or has spaces`, `exit: "eu" stands twice`}},
		{"target bits", Rule{Target: []string{"192.0.2.1/24"}}, []string{"target: 192.0.2.1/24 has bits behind its length; write 192.0.2.0/24"}},
		{"target prefix", Rule{Target: []string{"10.0.0.0/33"}}, []string{`target: "10.0.0.0/33" is not a valid prefix`}},
		{"short prefix", Rule{Target: []string{"10/8"}}, []string{`target: "10/8" is not a valid prefix`}},
		{"octal prefix", Rule{Target: []string{"010.0.0.0/8"}}, []string{`target: "010.0.0.0/8" is not a valid prefix`}},
		{"empty target", Rule{Target: []string{""}}, []string{`target: "" is no name`}},
		{"wildcard alone", Rule{Target: []string{"*.", "."}}, []string{`target: "*." is no name`, `target: "." is no name`}},
		{"wildcard inside", Rule{Target: []string{"a.*.example.com", "*example.com", "**"}}, []string{"target: ", "target: ", "target: "}},
		{"wildcard before an address", Rule{Target: []string{"*.10.0.0.1", ".127.1"}}, []string{"target: \"*.10.0.0.1\" is an address behind", "target: \".127.1\" is an address behind"}},
		{"target with port", Rule{Target: []string{"example.com:80"}}, []string{"target: "}},
		{"target URL", Rule{Target: []string{"http://example.com/"}}, []string{"target: "}},
		{"target zone", Rule{Target: []string{"fe80::1%eth0"}}, []string{"target: "}},
		{"unknown list", Rule{Target: []string{"list:ads"}}, []string{"target: "}},
		{"number that is no address", Rule{Target: []string{"*.example.1"}}, []string{"target: "}},
		{"several at once", Rule{Action: 7, Port: []PortRange{{}}, Target: []string{"a b", "good.example", "10.0.0.1/8"}, Time: "x"}, []string{"target: ", "target: ", "port: ", "time: ", "action: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(Options{Rules: []Rule{{Action: Allow}, tt.rule}})
			var all *multierror.Error
			if !errors.As(err, &all) || p != nil {
				t.Fatalf("New(%+v) = %v, %v; want a *multierror.Error and no Policy", tt.rule, p, err)
			}
			if len(all.Errors) != len(tt.want) {
				t.Fatalf("New(%+v) finds %d faults, want %d: %v", tt.rule, len(all.Errors), len(tt.want), err)
			}
			for i, want := range tt.want {
				if got := all.Errors[i].Error(); !strings.HasPrefix(got, "rule[1]."+want) {
					t.Errorf("fault %d is %q, want it to begin with %q", i, got, "rule[1]."+want)
				}
			}
		})
	}
}

// A Policy keeps nothing of what it was made of.
func TestPolicyIsImmutable(t *testing.T) {
	rule := Rule{
		Name: "rule", Action: Allow, Client: mustPrefixes("10.0.0.0/8"), ClientPort: mustPorts("1-65535"), User: []string{"alice"},
		Group: []string{"staff"}, Protocol: []string{"http"}, Listener: []string{"main"}, Target: []string{"example.com"},
		Port: mustPorts("80"), Method: []string{"GET"},
		Country: []string{"us"}, ClientCountry: []string{"de"}, Exit: []string{"eu"},
	}
	p := mustPolicy(t, Options{Rules: []Rule{rule}})
	rule.Client[0] = netip.MustParsePrefix("192.0.2.0/24")
	rule.ClientPort[0], rule.Port[0] = PortRange{1, 1}, PortRange{1, 1}
	for _, list := range [][]string{rule.User, rule.Group, rule.Protocol, rule.Listener, rule.Target, rule.Method, rule.Country, rule.ClientCountry, rule.Exit} {
		list[0] = "changed"
	}
	r := Request{
		Client: netip.MustParseAddr("10.0.0.9"), ClientPort: 5, Identity: "alice", Groups: []string{"staff"}, Protocol: "http",
		Method: "GET", Listener: "main", Target: mustTarget("example.com:80"), ClientCountry: "de", TargetCountry: "us",
	}
	if d := p.DecideAddr(r, netip.MustParseAddr("8.8.8.8")); inWords(d) != "allow rule exit=eu" {
		t.Errorf("DecideAddr = %+v after the rule's lists were changed, want allow", d)
	}
	if e := p.Explain(r, netip.Addr{}); strings.Contains(e.Steps[0].Why, "changed") {
		t.Errorf("Explain says %q, which was written after New", e.Steps[0].Why)
	}
}

func TestNilAndZeroDeny(t *testing.T) {
	r := Request{Client: netip.MustParseAddr("127.0.0.1"), Identity: "alice", Target: mustTarget("example.com:80")}
	for name, p := range map[string]*Policy{"nil": nil, "zero": {}} {
		d, need := p.Decide(r)
		if want := (Decision{Reason: ReasonNoRule}); need || d != want || p.DecideName(r) != want || p.DecideAddr(r, netip.MustParseAddr("8.8.8.8")) != want {
			t.Errorf("the %s Policy decides %+v, want %+v", name, d, want)
		}
		if _, open := p.OpenTo("main", false); open || p.AdmitsAnonymous(r.Client, "", "http", "main", false) || p.Warnings() != nil || p.Explain(r, netip.Addr{}).Steps != nil {
			t.Errorf("the %s Policy admits or says something", name)
		}
	}
	all := mustPolicy(t, Options{Rules: []Rule{{Action: Allow}}})
	if d, need := all.Decide(Request{}); need || d.Action != Deny {
		t.Errorf("Decide of the zero Request = %+v, %v; want a deny", d, need)
	}
	if d := all.DecideAddr(r, netip.Addr{}); d.Action != Deny {
		t.Errorf("DecideAddr of no address = %+v, want a deny", d)
	}
}

func TestNoRulesMeansDefaults(t *testing.T) {
	want := DefaultRules()
	for name, rules := range map[string][]Rule{"nil": nil, "empty": {}} {
		p := mustPolicy(t, Options{Rules: rules})
		if len(p.rules) != len(want) {
			t.Fatalf("%s rules make %d, want the %d default rules", name, len(p.rules), len(want))
		}
		for i := range want {
			if p.rules[i].name != want[i].Name {
				t.Errorf("%s rules: rule %d is %q, want %q", name, i, p.rules[i].name, want[i].Name)
			}
		}
		if w := p.Warnings(); len(w) > 0 {
			t.Errorf("the default rules warn: %q", w)
		}
	}
}

// FuzzTargetPattern states that whatever host package target reads is a pattern for
// itself, and a pattern with *. in front matches below the name and not the name.
func FuzzTargetPattern(f *testing.F) {
	for _, s := range []string{"example.com", "*.example.com", "127.1", "::1", "BÜCHER.example.", "10.0.0.0/8", ".", "*", "*.*", "0x7f.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		to, err := target.New(s, 80)
		if err != nil {
			return
		}
		p, err := New(Options{Rules: []Rule{{Name: "rule", Target: []string{s}}}})
		if err != nil {
			t.Fatalf("%q is a host and no pattern: %v", s, err)
		}
		if d, need := p.Decide(Request{Target: to}); need || d.Rule != "rule" {
			t.Errorf("the pattern %q does not match itself: %+v, %v", s, d, need)
		}
		p, err = New(Options{Rules: []Rule{{Name: "rule", Target: []string{"*." + s}}}})
		if _, isAddr := to.Addr(); isAddr || err != nil {
			if isAddr && err == nil {
				t.Errorf("*.%s is taken, though it is an address", s)
			}
			return
		}
		if d, need := p.Decide(Request{Target: to}); need || d.Rule == "rule" {
			t.Errorf("the pattern *.%s matches %s", s, to)
		}
		below, err := target.New("x."+s, 80)
		if err != nil {
			return // the name is as long as names can be
		}
		if d, _ := p.Decide(Request{Target: below}); d.Rule != "rule" {
			t.Errorf("the pattern *.%s does not match %s", s, below)
		}
	})
}

func TestStrings(t *testing.T) {
	for got, want := range map[string]string{
		Deny.String(): "deny", Allow.String(): "allow", Challenge.String(): "challenge", Action(9).String(): "invalid action",
		PortRange{80, 80}.String(): "80", PortRange{80, 90}.String(): "80-90",
		NoMatch.String(): "no match", NotReached.String(): "not reached", WouldMatch.String(): "not reached, would match",
		NeedsAddress.String(): "needs the address", Decides.String(): "decides", Result(9).String(): "invalid result",
	} {
		if got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

func TestLooksAtTime(t *testing.T) {
	always, office := Rule{Action: Allow}, Rule{Action: Allow, Time: "Mon-Fri 08:00-18:00"}
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  bool
	}{
		{"the defaults", nil, false},
		{"no rule", []Rule{always, always}, false},
		{"the last rule", []Rule{always, office}, true},
		{"the first rule", []Rule{office, always}, true},
	} {
		p, err := New(Options{Rules: tt.rules})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.LooksAtTime(); got != tt.want {
			t.Errorf("%s: LooksAtTime() = %v, want %v", tt.name, got, tt.want)
		}
	}
	if (*Policy)(nil).LooksAtTime() {
		t.Error("a policy that there is not looks at the time")
	}
}
