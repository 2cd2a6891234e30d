package acl

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"polyport/internal/target"
)

// Every range is special from its first address to its last, whatever nests in it.
func TestSpecialRangesWhole(t *testing.T) {
	for i := range specialRanges {
		p := specialRanges[i].prefix
		if p != p.Masked() {
			t.Errorf("%v has bits behind its length", p)
		}
		if p.Addr().Is4In6() {
			continue // unmapped before it is looked up; TestSpecial has it
		}
		for _, a := range []netip.Addr{p.Addr(), lastAddr(p)} {
			if what, ok := Special(a); !ok || what == "" {
				t.Errorf("Special(%v) = %q, %v; want it special as part of %v", a, what, ok, p)
			}
		}
	}
}

func TestSpecial(t *testing.T) {
	tests := []struct {
		addr, what string // what begins so; "" is public
	}{
		{"1.1.1.1", ""},
		{"9.255.255.255", ""},
		{"10.0.0.0", "private use"},
		{"10.255.255.255", "private use"},
		{"11.0.0.0", ""},
		{"0.0.0.0", "this network"},
		{"0.255.255.255", "this network"},
		{"1.0.0.0", ""},
		{"100.63.255.255", ""},
		{"100.64.0.0", "shared"},
		{"100.100.100.200", "cloud metadata"},
		{"100.127.255.255", "shared"},
		{"100.128.0.0", ""},
		{"126.255.255.255", ""},
		{"127.0.0.0", "loopback"},
		{"127.255.255.255", "loopback"},
		{"128.0.0.0", ""},
		{"168.63.129.15", ""},
		{"168.63.129.16", "cloud metadata"},
		{"169.253.255.255", ""},
		{"169.254.0.0", "link-local"},
		{"169.254.169.254", "cloud metadata"},
		{"169.254.170.2", "cloud metadata"},
		{"169.255.0.0", ""},
		{"192.0.0.1", "IETF"},
		{"192.0.0.192", "cloud metadata"},
		{"192.0.1.0", ""},
		{"192.0.2.1", "documentation"},
		{"192.0.3.0", ""},
		{"192.31.196.1", "AS112"},
		{"192.52.193.1", "automatic multicast"},
		{"192.88.99.1", "6to4"},
		{"192.167.255.255", ""},
		{"192.168.0.0", "private use"},
		{"192.169.0.0", ""},
		{"192.175.48.1", "AS112"},
		{"198.17.255.255", ""},
		{"198.18.0.0", "benchmarking"},
		{"198.19.255.255", "benchmarking"},
		{"198.20.0.0", ""},
		{"198.51.100.7", "documentation"},
		{"203.0.113.7", "documentation"},
		{"223.255.255.255", ""},
		{"224.0.0.0", "multicast"},
		{"239.255.255.255", "multicast"},
		{"240.0.0.0", "reserved"},
		{"255.255.255.255", "limited broadcast"},

		{"::", "the unspecified"},
		{"::1", "loopback"},
		{"::2", "the IPv4-compatible form of 0.0.0.2: this network"},
		{"::8.8.8.8", "IPv4-compatible"},
		{"::10.0.0.1", "the IPv4-compatible form of 10.0.0.1: private"},
		{"::1:0:0", "reserved"},
		{"::ffff:8.8.8.8", ""},
		{"::ffff:127.0.0.1", "loopback"},
		{"::ffff:0:8.8.8.8", "IPv4-translated"},
		{"::ffff:0:127.0.0.1", "the IPv4-translated form of 127.0.0.1: loopback"},
		{"64:ff9b::8.8.8.8", "IPv4/IPv6 translation"},
		{"64:ff9b::169.254.169.254", "the NAT64 form of 169.254.169.254: cloud metadata"},
		{"64:ff9b::1:0:0", "reserved"},
		{"64:ff9b:1::8.8.8.8", "local-use"},
		{"64:ff9b:1::10.0.0.1", "the local-use NAT64 form of 10.0.0.1: private"},
		{"64:ff9b:1:a00:1::", "the local-use NAT64 form of 0.0.0.0: this network"},
		{"64:ff9b:2::1", "reserved"},
		{"100::1", "discard"},
		{"100:0:0:1::1", "dummy"},
		{"100:0:0:2::1", "reserved"},
		{"1fff:ffff::1", "reserved"},
		{"2000::1", ""},
		{"2001::", "the Teredo client form of 255.255.255.255"},
		{"2001:0:808:808::f7f7:f7f7", "Teredo"},
		{"2001:0:808:808::f5ff:fffe", "the Teredo client form of 10.0.0.1: private"},
		{"2001:0:a00:1::f7f7:f7f7", "the Teredo server form of 10.0.0.1: private"},
		{"2001:1::1", "IETF"},
		{"2001:2::1", "benchmarking"},
		{"2001:10::1", "ORCHID, deprecated"},
		{"2001:20::1", "ORCHIDv2"},
		{"2001:30::1", "drone"},
		{"2001:1ff:ffff::1", "IETF"},
		{"2001:200::1", ""},
		{"2001:db8::1", "documentation"},
		{"2001:db9::1", ""},
		{"2002:808:808::1", "6to4"},
		{"2002:a00:1::1", "the 6to4 form of 10.0.0.1: private"},
		{"2003::1", ""},
		{"2606:4700::5efe:8.8.8.8", ""},
		{"2606:4700::5efe:10.0.0.1", "the ISATAP form of 10.0.0.1: private"},
		{"2606:4700::200:5efe:127.0.0.1", "the ISATAP form of 127.0.0.1: loopback"},
		{"2606:4700::300:5efe:127.0.0.1", "the ISATAP form of 127.0.0.1: loopback"},
		{"2606:4700::400:5efe:127.0.0.1", ""},
		{"2606:4700:0:0:1:5efe:7f00:1", ""},
		{"2620:4f:8000::1", "AS112"},
		{"3ffe::1", ""},
		{"3fff::1", "documentation"},
		{"3fff:1000::1", ""},
		{"4000::1", "reserved"},
		{"5f00::1", "segment routing"},
		{"9fff::1", "reserved"},
		{"fbff::1", "reserved"},
		{"fc00::1", "unique local"},
		{"fd00:ec2::254", "cloud metadata"},
		{"fdff::1", "unique local"},
		{"fe00::1", "reserved"},
		{"fe80::1", "link-local"},
		{"fe80::1%eth0", "link-local"},
		{"fe80::a9fe:a9fe", "cloud metadata"},
		{"fec0::1", "site-local"},
		{"ff02::1", "multicast"},
		{"ffff::1", "multicast"},
	}
	for _, tt := range tests {
		got, special := Special(netip.MustParseAddr(tt.addr))
		if special != (tt.what != "") || !strings.HasPrefix(got, tt.what) {
			t.Errorf("Special(%s) = %q, %v; want it to begin with %q", tt.addr, got, special, tt.what)
		}
	}
	if what, ok := Special(netip.Addr{}); ok {
		t.Errorf("Special(no address) = %q, want none", what)
	}
}

// No IPv6 address outside global unicast is public (the IANA address space registry).
func TestSpecialHoldsAllButGlobalUnicast(t *testing.T) {
	var list []netip.Prefix
	for i := range specialRanges {
		list = append(list, specialRanges[i].prefix)
	}
	if !families[1].covered(append(list, netip.MustParsePrefix("2000::/3"))) {
		t.Error("some address is neither in 2000::/3 nor special")
	}
	if families[1].covered(list) || families[0].covered(list) {
		t.Error("every address is special")
	}
}

// For each range: a prefix as long as the range lifts the guard, one that is
// shorter does not, nor does a star, nor a name.
func TestGuardYieldsOnlyInside(t *testing.T) {
	for i := range specialRanges {
		p := specialRanges[i].prefix
		if p.Addr().Is4In6() {
			continue
		}
		a := lastAddr(p)
		if j := judge(a); j.need > p.Bits() {
			continue // the last address has a more specific range as well, which has its own turn
		}
		wide := netip.PrefixFrom(a, p.Bits()-1).Masked()
		tests := []struct {
			pattern string
			want    string
		}{
			{p.String(), "allow rule"},
			{netip.PrefixFrom(a, p.Bits()).Masked().String(), "allow rule"},
			{a.String(), "allow rule"},
			{wide.String(), "guard rule"},
			{"*", "guard rule"},
			{".example.com", "guard rule"},
		}
		for _, tt := range tests {
			policy := mustPolicy(t, Options{Rules: []Rule{{Name: "rule", Action: Allow, Target: []string{tt.pattern}}}})
			r := Request{Client: netip.MustParseAddr("10.0.0.9"), Target: mustTarget("example.com:80")}
			if got := inWords(policy.DecideAddr(r, a)); got != tt.want {
				t.Errorf("target %s: DecideAddr(%v) = %s, want %s (range %v)", tt.pattern, a, got, tt.want, p)
			}
		}
	}
}

// Every special IPv4 range is found in every form that hides IPv4, also where a rule
// has lifted the guard from the form itself.
func TestGuardSeesHiddenAddresses(t *testing.T) {
	for i := range embeddings {
		e := &embeddings[i]
		outer := e.prefix
		if !outer.IsValid() {
			outer = netip.MustParsePrefix("2606:4700::/32")
		}
		policy := mustPolicy(t, Options{Rules: []Rule{{Name: "rule", Action: Allow, Target: []string{outer.String()}}}})
		for j := range specialRanges {
			p := specialRanges[j].prefix
			if !p.Addr().Is4() || e.form == "IPv4-compatible" && p.Bits() == 8 && p.Addr() == netip.IPv4Unspecified() {
				continue // ::1 and :: have names of their own
			}
			for _, v4 := range []netip.Addr{p.Addr(), lastAddr(p)} {
				a := hide(e, outer, v4)
				if what, ok := Special(a); !ok || !strings.Contains(what, v4.String()) {
					t.Errorf("Special(%v) = %q, %v; want the %s form of %v", a, what, ok, e.form, v4)
				}
				r := Request{Target: target.FromAddrPort(netip.AddrPortFrom(a, 80))}
				if d, need := policy.Decide(r); need || inWords(d) != "guard rule" {
					t.Errorf("Decide(%v), the %s form of %v, under target %v = %s, want guard", a, e.form, v4, outer, inWords(d))
				}
			}
		}
	}
}

// hide puts v4 into an address of this form; what else the form hides is public.
func hide(e *embedding, outer netip.Prefix, v4 netip.Addr) netip.Addr {
	b := outer.Addr().As16()
	switch e.form {
	case "ISATAP":
		b[10], b[11] = 0x5e, 0xfe
	case "Teredo client":
		copy(b[4:8], []byte{8, 8, 8, 8})
	case "Teredo server":
		copy(b[12:16], []byte{0xf7, 0xf7, 0xf7, 0xf7})
	}
	octets := v4.As4()
	for i, o := range octets {
		if e.inverted {
			o ^= 0xff
		}
		b[e.offset+i] = o
	}
	return netip.AddrFrom16(b)
}

// A name that is allowed gets an answer from a DNS that lies: each bad address
// is refused, one by one, and the good ones stay.
func TestRebinding(t *testing.T) {
	policies := map[string][]Rule{
		"by name":          {{Name: "rule", Action: Allow, Target: []string{"*.example.com"}}},
		"by star":          {{Name: "rule", Action: Allow, Target: []string{"*"}}},
		"by nothing":       {{Name: "rule", Action: Allow}},
		"by wide prefixes": {{Name: "rule", Action: Allow, Target: []string{"0.0.0.0/0", "::/0", "*.example.com"}}},
		"beside a rule for the LAN": {
			{Name: "rule", Action: Allow, Target: []string{"*.example.com"}},
			{Name: "lan", Action: Allow, Target: []string{"10.0.0.0/8", "127.0.0.0/8", "169.254.169.254"}},
		},
	}
	bad := []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "192.168.0.1", "172.31.0.1", "169.254.169.254", "100.64.1.1",
		"::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
		"64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:808:808::80ff:fffe", "fe80::1", "fe80::1%eth0", "fd00::1", "fd00:ec2::254", "ff02::1",
		"2606:4700::5efe:7f00:1", "::ffff:127.0.0.1%eth0",
	}
	good := []string{"93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"}
	for name, rules := range policies {
		t.Run(name, func(t *testing.T) {
			p := mustPolicy(t, Options{Rules: rules})
			r := Request{Client: netip.MustParseAddr("10.0.0.9"), Target: mustTarget("rebind.example.com:80")}
			if d, need := p.Decide(r); !need && d.Action != Allow {
				t.Fatalf("Decide by name = %+v, want it to go on to the addresses", d)
			}
			for _, s := range bad {
				if got := inWords(p.DecideAddr(r, netip.MustParseAddr(s))); got != "guard rule" {
					t.Errorf("DecideAddr(%s) = %s, want guard rule", s, got)
				}
			}
			for _, s := range good {
				if got := inWords(p.DecideAddr(r, netip.MustParseAddr(s))); got != "allow rule" {
					t.Errorf("DecideAddr(%s) = %s, want allow rule", s, got)
				}
			}
		})
	}
}

// The table and the list give the same answers: long lists are looked up otherwise.
func TestLongListsDecideAlike(t *testing.T) {
	short := []string{"10.1.0.0/16", "10.1.2.0/24", "fd00:1::/32", "8.8.8.0/24", "*.a.example", "b.example", ".c.example"}
	long := slices.Clone(short)
	for _, x := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"} {
		long = append(long, x+".filler.example", "*."+x+".filler.example", "198.51."+strconv.Itoa(len(long))+".0/24")
	}
	few := mustPolicy(t, Options{Rules: []Rule{{Name: "rule", Action: Allow, Target: short}}})
	many := mustPolicy(t, Options{Rules: []Rule{{Name: "rule", Action: Allow, Target: long}}})
	if many.rules[0].target.prefixes.table == nil || many.rules[0].target.names.belowSet == nil || many.rules[0].target.names.exactSet == nil {
		t.Fatal("the long lists are not looked up in tables")
	}
	users := []string{"alice"}
	for i := range 20 {
		users = append(users, "user"+strconv.Itoa(i))
	}
	named := mustPolicy(t, Options{Rules: []Rule{{Name: "rule", Action: Allow, User: users}}})
	for user, want := range map[string]string{"alice": "allow rule", "user19": "allow rule", "user20": "deny -", "Alice": "deny -"} {
		if got := inWords(named.DecideName(Request{Identity: user, Target: mustTarget("a.example:80")})); got != want {
			t.Errorf("DecideName for %s of a long list = %s, want %s", user, got, want)
		}
	}
	for _, host := range []string{"x.a.example", "a.example", "y.x.a.example", "b.example", "x.b.example", "c.example", "x.c.example", "example", "xa.example"} {
		r := Request{Target: mustTarget(host + ":80")}
		for _, s := range []string{"10.1.2.3", "10.2.2.3", "fd00:1::1", "fd00:2::1", "8.8.8.8", "8.8.9.8"} {
			a := netip.MustParseAddr(s)
			if got, want := many.DecideAddr(r, a), few.DecideAddr(r, a); got != want {
				t.Errorf("DecideAddr(%s, %s) = %+v with long lists, %+v with short ones", host, s, got, want)
			}
		}
	}
}

func mustPolicy(t testing.TB, o Options) *Policy {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return p
}
