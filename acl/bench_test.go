package acl

import (
	"fmt"
	"net/netip"
	"testing"
)

// benchPolicy has some tens of rules, most of which have to be walked past, among them long lists.
func benchPolicy(tb testing.TB) *Policy {
	var rules []Rule
	for i := range 40 {
		rules = append(rules, Rule{
			Name: fmt.Sprintf("rule %d", i), Action: Deny, Client: mustPrefixes(fmt.Sprintf("10.%d.0.0/16", i)),
			Target: []string{fmt.Sprintf("*.n%d.example", i)}, Port: mustPorts("80", "443"),
		})
	}
	for _, n := range []int{1000, 10} {
		var list, users []string
		for i := range n {
			list = append(list, fmt.Sprintf("*.list%d.example", i), fmt.Sprintf("host%d.example", i))
			users = append(users, fmt.Sprintf("user%d", i))
		}
		rules = append(rules, Rule{Name: "list", Action: Deny, Target: list}, Rule{Name: "users", Action: Allow, User: users, Port: mustPorts("22")})
	}
	rules = append(rules, Rule{Name: "office", Action: Deny, Time: "Mon-Fri 20:00-06:00 Europe/Berlin"})
	rules = append(rules, Rule{Name: "addresses", Action: Deny, Target: []string{"192.0.2.0/24", "2001:db8::/32"}}, Rule{Name: "rest", Action: Allow})
	return mustPolicy(tb, Options{Rules: rules, HasUsers: true})
}

func benchRequest(to string) Request {
	return Request{
		Client: netip.MustParseAddr("10.39.0.9"), ClientPort: 50000, Identity: "alice", Groups: []string{"staff"}, Protocol: "connect",
		Method: "CONNECT", Listener: "main", Target: mustTarget(to), Time: monday,
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	policies := map[string]*Policy{"long": benchPolicy(t), "default": mustPolicy(t, Options{HasUsers: true})}
	addr := netip.MustParseAddr("2606:4700::1111")
	for name, p := range policies {
		for _, to := range []string{"www.some.example.com:443", "93.184.216.34:443", "[2606:4700::1111]:443", "127.0.0.1:80"} {
			r := benchRequest(to)
			if n := testing.AllocsPerRun(100, func() { _, _ = p.Decide(r) }); n != 0 {
				t.Errorf("%s policy: Decide(%s) allocates %v times, want 0", name, to, n)
			}
			if n := testing.AllocsPerRun(100, func() { _ = p.DecideAddr(r, addr) }); n != 0 {
				t.Errorf("%s policy: DecideAddr(%s) allocates %v times, want 0", name, to, n)
			}
			if n := testing.AllocsPerRun(100, func() { _ = p.AdmitsAnonymous(r.Client, "", "http", "main", true) }); n != 0 {
				t.Errorf("%s policy: AdmitsAnonymous allocates %v times, want 0", name, n)
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	policies := []struct {
		name string
		p    *Policy
	}{{"default", mustPolicy(b, Options{HasUsers: true})}, {"47 rules", benchPolicy(b)}}
	for _, pp := range policies {
		for _, to := range []string{"www.some.example.com:443", "93.184.216.34:443", "[2606:4700::1111]:443"} {
			b.Run(pp.name+"/"+to, func(b *testing.B) {
				r := benchRequest(to)
				b.ReportAllocs()
				for b.Loop() {
					pp.p.Decide(r)
				}
			})
		}
	}
}

func BenchmarkDecideAddr(b *testing.B) {
	p, r := benchPolicy(b), benchRequest("www.some.example.com:443")
	a := netip.MustParseAddr("2606:4700::1111")
	b.ReportAllocs()
	for b.Loop() {
		p.DecideAddr(r, a)
	}
}

func BenchmarkSpecial(b *testing.B) {
	for _, s := range []string{"8.8.8.8", "2606:4700::1111"} {
		b.Run(s, func(b *testing.B) {
			a := netip.MustParseAddr(s)
			b.ReportAllocs()
			for b.Loop() {
				judge(a)
			}
		})
	}
}
