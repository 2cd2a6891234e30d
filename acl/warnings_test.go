package acl

import (
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	tests := []struct {
		name  string
		rules []Rule
		want  []string // what each warning holds, in order
	}{
		{"nothing", []Rule{{Name: "a", Target: []string{"a.example"}}, {Name: "b", Action: Allow}}, nil},
		{"behind a match-all", []Rule{{Name: "a", Action: Allow}, {Name: "b", Action: Allow, Target: []string{"x.example"}}}, []string{`rule[1]: "b" can never be reached, since rule[0] "a"`}},
		{"behind stars", []Rule{{Name: "a", Target: []string{"*"}, User: []string{"*"}}, {Name: "b", Action: Allow, User: []string{"alice"}}}, []string{`rule[1]: "b" can never be reached`}},
		{"behind a wider name", []Rule{{Name: "a", Target: []string{".example.com"}}, {Name: "b", Target: []string{"example.com", "*.x.example.com", "y.example.com"}}}, []string{"can never be reached"}},
		{"beside a wildcard", []Rule{{Name: "a", Target: []string{"*.example.com"}}, {Name: "b", Target: []string{".example.com"}}}, nil},
		{"behind a wider prefix", []Rule{{Name: "a", Target: []string{"8.0.0.0/8"}}, {Name: "b", Target: []string{"8.8.8.8"}}}, []string{"can never be reached"}},
		{"before a wider prefix", []Rule{{Name: "a", Target: []string{"8.8.0.0/24"}}, {Name: "b", Target: []string{"8.8.0.0/16"}}}, nil},
		{"behind wider ports", []Rule{{Name: "a", Port: mustPorts("1-100")}, {Name: "b", Port: mustPorts("80", "90-95")}}, []string{"can never be reached"}},
		{"behind a wider client", []Rule{{Name: "a", Client: mustPrefixes("10.0.0.0/8")}, {Name: "b", Client: mustPrefixes("10.1.0.0/16")}}, []string{"can never be reached"}},
		{"behind another protocol", []Rule{{Name: "a", Protocol: []string{"http"}}, {Name: "b"}}, nil},
		{"behind more backends", []Rule{{Name: "a", Backend: []string{"web", "git"}}, {Name: "b", Backend: []string{"git"}}}, []string{"can never be reached"}},
		{"behind all backends", []Rule{{Name: "a", Backend: []string{"*"}}, {Name: "b", Backend: []string{"git"}}, {Name: "c"}}, []string{`rule[1]: "b" can never be reached`}},
		{"behind one backend", []Rule{{Name: "a", Backend: []string{"web"}}, {Name: "b", Backend: []string{"*"}}}, nil},
		{"behind the same time", []Rule{{Name: "a", Time: "Mon"}, {Name: "b", Time: "Mon"}}, []string{"can never be reached"}},
		{"behind another time", []Rule{{Name: "a", Time: "Mon"}, {Name: "b", Time: "Tue"}}, nil},
		{"behind more countries", []Rule{{Name: "a", Country: []string{"DE", "fr"}}, {Name: "b", Country: []string{"de"}}}, []string{"can never be reached"}},
		{"behind other countries", []Rule{{Name: "a", Country: []string{"de"}}, {Name: "b", Country: []string{"de", "fr"}}}, nil},
		{"behind one country", []Rule{{Name: "a", Country: []string{"de"}}, {Name: "b"}}, nil},
		{"one country behind all", []Rule{{Name: "a"}, {Name: "b", Country: []string{"de"}}}, []string{"can never be reached"}},
		{"behind more countries of clients", []Rule{{Name: "a", ClientCountry: []string{"de", "fr"}}, {Name: "b", ClientCountry: []string{"FR"}}}, []string{"can never be reached"}},
		{"behind one country of clients", []Rule{{Name: "a", ClientCountry: []string{"de"}}, {Name: "b"}}, nil},
		{"a country is not one of clients", []Rule{{Name: "a", ClientCountry: []string{"de"}}, {Name: "b", Country: []string{"de"}}}, nil},
		{"behind some users", []Rule{{Name: "a", User: []string{"alice"}}, {Name: "b"}}, nil},
		{"behind the same users", []Rule{{Name: "a", User: []string{"alice", "bob"}}, {Name: "b", User: []string{"bob"}}}, []string{"can never be reached"}},
		{"behind the same group", []Rule{{Name: "a", Group: []string{"g"}}, {Name: "b", Group: []string{"g"}, Port: mustPorts("80")}}, []string{"can never be reached"}},
		{"any user of a group is not any user", []Rule{{Name: "a", User: []string{"*"}, Group: []string{"g"}}, {Name: "b", User: []string{"alice"}}}, nil},
		{"group is not user", []Rule{{Name: "a", Group: []string{"g"}}, {Name: "b", User: []string{"alice"}}}, nil},
		{"anonymous behind users", []Rule{{Name: "a", Action: Allow, User: []string{"alice"}}, {Name: "b", Action: Allow, Anonymous: true, Protocol: []string{"tls"}}}, []string{`rule[1].anonymous: rule[0] "a" comes first`}},
		{"same name twice", []Rule{{Name: "a", Port: mustPorts("1")}, {Name: "a"}}, []string{`rule[1].name: rule[0] is called "a" as well`}},
		{"all of IPv4", []Rule{{Name: "a", Action: Allow, Target: []string{"0.0.0.0/0"}}}, []string{"rule[0].target: 0.0.0.0/0 does not lift the guard from the special-purpose ranges inside it (0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10 and"}},
		{"all of IPv6", []Rule{{Name: "a", Action: Allow, Target: []string{"::/0"}}}, []string{"::/0 does not lift"}},
		{"a little too wide", []Rule{{Name: "a", Action: Allow, Target: []string{"192.168.0.0/15"}}}, []string{"192.168.0.0/15 does not lift the guard from the special-purpose ranges inside it (192.168.0.0/16)"}},
		{"link-local with metadata", []Rule{{Name: "a", Action: Allow, Target: []string{"169.254.0.0/16"}}}, []string{"169.254.0.0/16 does not lift"}},
		{"denied, so no matter", []Rule{{Name: "a", Target: []string{"0.0.0.0/0"}}}, nil},
		{"a public prefix", []Rule{{Name: "a", Action: Allow, Target: []string{"8.8.0.0/16"}}}, nil},
		{"the LAN", []Rule{{Name: "a", Action: Allow, Target: []string{"10.0.0.0/8"}}}, nil},
		{"loopback", []Rule{{Name: "a", Action: Allow, Target: []string{"127.0.0.1"}}}, []string{"rule[0].target: 127.0.0.1/32 opens the services of this machine itself"}},
		{"unspecified", []Rule{{Name: "a", Action: Allow, Target: []string{"0.0.0.0"}}}, []string{"opens the services of this machine itself"}},
		{"loopback behind NAT64", []Rule{{Name: "a", Action: Allow, Target: []string{"64:ff9b::7f00:0/104"}}}, []string{"opens the services of this machine itself"}},
		{"metadata", []Rule{{Name: "a", Action: Allow, Target: []string{"169.254.169.254"}}}, []string{"opens the metadata service"}},
		{"localhost", []Rule{{Name: "a", Action: Allow, Target: []string{"localhost"}}}, []string{"rule[0].target: localhost is a loopback address"}},
		{"localhost, meant", []Rule{{Name: "a", Action: Allow, Target: []string{"localhost", "127.0.0.1"}}}, []string{"opens the services"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mustPolicy(t, Options{Rules: tt.rules, HasUsers: true}).Warnings()
			if len(got) != len(tt.want) {
				t.Fatalf("Warnings() = %q, want %d", got, len(tt.want))
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("warning %d is %q, want it to say %q", i, got[i], tt.want[i])
				}
			}
		})
	}
}

// A rule that is said to be out of reach never decides.
func TestUnreachableRulesNeverDecide(t *testing.T) {
	unreachable := regexp.MustCompile(`^rule\[(\d+)\]: .* can never be reached`)
	found := 0
	eachRandom(t, func(_ *rand.Rand, rules []Rule, _ bool, p *Policy, q Request, addrs []netip.Addr) {
		for _, w := range p.Warnings() {
			m := unreachable.FindStringSubmatch(w)
			if m == nil {
				continue
			}
			found++
			name := "rule[" + m[1] + "]"
			if n, err := strconv.Atoi(m[1]); err != nil || n >= len(rules) {
				t.Fatalf("there is no %s", name)
			}
			for _, a := range addrs {
				if d := p.DecideAddr(located(q, a), a); d.Rule == name {
					t.Errorf("%s\nbut DecideAddr(%+v, %v) = %+v\nunder %+v", w, q, a, d, rules)
				}
			}
		}
	})
	if found < 50 {
		t.Errorf("only %d rules were out of reach, want at least 50", found)
	}
}
