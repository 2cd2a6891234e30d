package exit

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		if strings.Contains(s, "/") {
			out = append(out, netip.MustParsePrefix(s))
			continue
		}
		a := netip.MustParseAddr(s)
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// Every address that may be chosen is, and no other.
func TestPickChoosesAll(t *testing.T) {
	tests := []struct {
		name      string
		addresses []netip.Prefix
		is6       bool
		want      string // the addresses, in order
	}{
		{"one address", prefixes("192.0.2.7"), false, "192.0.2.7"},
		{"an IPv4 /31", prefixes("192.0.2.6/31"), false, "192.0.2.6 192.0.2.7"},
		{"an IPv4 /30", prefixes("192.0.2.4/30"), false, "192.0.2.5 192.0.2.6"},
		{"an IPv4 /29", prefixes("192.0.2.8/29"), false, "192.0.2.9 192.0.2.10 192.0.2.11 192.0.2.12 192.0.2.13 192.0.2.14"},
		{"an IPv6 address", prefixes("2001:db8::7"), true, "2001:db8::7"},
		{"an IPv6 /127", prefixes("2001:db8::6/127"), true, "2001:db8::6 2001:db8::7"},
		{"an IPv6 /126", prefixes("2001:db8::4/126"), true, "2001:db8::5 2001:db8::6 2001:db8::7"},
		{"an IPv6 /125", prefixes("2001:db8::/125"), true, "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 2001:db8::6 2001:db8::7"},
		{"both families, IPv4", prefixes("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"), false, "192.0.2.1 192.0.2.2"},
		{"both families, IPv6", prefixes("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"), true, "2001:db8::1 2001:db8::2"},
		{"bits behind the length", []netip.Prefix{netip.MustParsePrefix("192.0.2.7/31")}, false, "192.0.2.6 192.0.2.7"},
	}
	for _, tt := range tests {
		for _, choose := range []Choose{Random, StickyUser} {
			t.Run(tt.name+", "+choose.String(), func(t *testing.T) {
				s := Source{Addresses: tt.addresses, Choose: choose}
				counts := map[netip.Addr]int{}
				const each = 1000
				want := strings.Fields(tt.want)
				for i := range each * len(want) {
					a, ok := s.Pick(tt.is6, Key{User: fmt.Sprint("user", i)})
					if !ok {
						t.Fatal("there is no address")
					}
					counts[a]++
				}
				for _, w := range want {
					// 8 standard deviations: once in many lifetimes by chance
					if n := counts[netip.MustParseAddr(w)]; math.Abs(float64(n-each)) > 8*math.Sqrt(each) {
						t.Errorf("%s was chosen %d times, want about %d", w, n, each)
					}
				}
				if len(counts) != len(want) {
					t.Errorf("these were chosen: %v, want %s", counts, tt.want)
				}
			})
		}
	}
}

// Each prefix is as likely as any other, and within one the addresses go over all of it.
func TestPickSpreads(t *testing.T) {
	list := prefixes("192.0.2.1", "10.0.0.0/8", "198.51.100.0/24", "2001:db8:1::/48", "2001:db8:2::/64", "2001:db8:3::1", "2001:db8:4::/65", "fd00::/8")
	for _, choose := range []Choose{Random, StickyUser, StickyClient, StickySession} {
		for _, is6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, IPv6 %v", choose, is6), func(t *testing.T) {
				s := Source{Addresses: list, Choose: choose}
				counts := make([]int, len(list))
				ones := make([]int, 128) // by bit of the address, in the longest prefix of the family
				wide := list[1]
				if is6 {
					wide = list[7]
				}
				const each = 2000
				rounds, families := 3*each, 0
				if is6 {
					rounds = 5 * each
				}
				for i := range rounds {
					key := Key{Client: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), User: fmt.Sprint(i), Session: fmt.Sprint(i * 7)}
					if choose != StickySession {
						key.Session = ""
					}
					a, ok := s.Pick(is6, key)
					if !ok || a.Is6() != is6 {
						t.Fatalf("Pick = %v, %v", a, ok)
					}
					for j, p := range list {
						if p.Contains(a) {
							counts[j]++
							families++
						}
					}
					if wide.Contains(a) {
						for bit, b := range a.AsSlice() {
							for k := range 8 {
								ones[bit*8+k] += int(b >> (7 - k) & 1)
							}
						}
					}
				}
				if families != rounds {
					t.Errorf("%d of %d addresses are in a prefix", families, rounds)
				}
				for j, p := range list {
					if want := each; p.Addr().Is6() == is6 && math.Abs(float64(counts[j]-want)) > 8*math.Sqrt(float64(want)) {
						t.Errorf("%v was chosen %d times, want about %d", p, counts[j], want)
					}
				}
				for bit := wide.Bits(); bit < wide.Addr().BitLen(); bit++ {
					if n := ones[bit]; math.Abs(float64(n)-each/2) > 8*math.Sqrt(each) {
						t.Errorf("bit %d of the addresses in %v is set %d times, want about %d", bit, wide, n, each/2)
					}
				}
			})
		}
	}
}

func TestPickSticks(t *testing.T) {
	list := prefixes("10.0.0.0/8", "2001:db8::/64")
	alice := Key{Client: netip.MustParseAddr("192.0.2.1"), User: "alice"}
	session := func(k Key, s string) Key { k.Session = s; return k }
	from := func(k Key, a string) Key { k.Client = netip.MustParseAddr(a); return k }
	user := func(k Key, u string) Key { k.User = u; return k }
	tests := []struct {
		name   string
		choose Choose
		a, b   Key
		same   bool
	}{
		{"random", Random, alice, alice, false},
		{"one client, other users", StickyClient, alice, user(alice, "bob"), true},
		{"one client, mapped", StickyClient, alice, from(alice, "::ffff:192.0.2.1"), true},
		{"other clients", StickyClient, alice, from(alice, "192.0.2.2"), false},
		{"no client", StickyClient, Key{}, Key{}, false},
		{"one user, other clients", StickyUser, alice, from(alice, "2001:db8::1"), true},
		{"other users", StickyUser, alice, user(alice, "bob"), false},
		{"no user, one client", StickyUser, user(alice, ""), user(alice, ""), true},
		{"no user, other clients", StickyUser, user(alice, ""), from(user(alice, ""), "192.0.2.2"), false},
		{"one session, other clients", StickySession, session(alice, "x"), from(session(alice, "x"), "192.0.2.2"), true},
		{"other sessions", StickySession, session(alice, "x"), session(alice, "y"), false},
		{"a session of other users", StickySession, session(alice, "x"), session(user(alice, "bob"), "x"), false},
		{"user and session are apart", StickySession, session(user(alice, "ab"), "c"), session(user(alice, "a"), "bc"), false},
		{"no session", StickySession, alice, alice, false},
		{"a session, random", Random, session(alice, "x"), from(session(alice, "x"), "192.0.2.2"), true},
		{"a session, sticky to the user", StickyUser, session(alice, "x"), session(alice, "y"), false},
		{"a session, sticky to the client", StickyClient, session(alice, "x"), from(session(alice, "x"), "192.0.2.2"), true},
	}
	for _, tt := range tests {
		for _, is6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %v", tt.name, is6), func(t *testing.T) {
				s := Source{Addresses: list, Choose: tt.choose}
				same := true
				for range 4 { // one of 2^24 addresses, four times the same: not by chance
					a, _ := s.Pick(is6, tt.a)
					b, _ := s.Pick(is6, tt.b)
					same = same && a == b
				}
				if same != tt.same {
					t.Errorf("%+v and %+v get the same address: %v, want %v", tt.a, tt.b, same, tt.same)
				}
			})
		}
	}
}

// A sticky choice outlives a restart, and a new version of polyport: these are written down.
func TestPickIsStable(t *testing.T) {
	s := Source{Addresses: prefixes("192.0.2.0/24", "198.51.100.0/24", "2001:db8:1::/64", "2001:db8:2::/48")}
	tests := []struct {
		choose Choose
		key    Key
		v4, v6 string
	}{
		{StickyClient, Key{Client: netip.MustParseAddr("192.0.2.1")}, "192.0.2.135", "2001:db8:1:0:edd9:533c:e511:c5cc"},
		{StickyClient, Key{Client: netip.MustParseAddr("2001:db8::1")}, "198.51.100.52", "2001:db8:2:338a:e9a8:1e62:73dd:7cbc"},
		{StickyUser, Key{User: "alice"}, "192.0.2.224", "2001:db8:1:0:6158:fb08:89b8:415b"},
		{StickySession, Key{User: "alice", Session: "k3j"}, "198.51.100.191", "2001:db8:2:c07b:d053:cf13:1fc7:e141"},
	}
	for _, tt := range tests {
		s.Choose = tt.choose
		v4, _ := s.Pick(false, tt.key)
		v6, _ := s.Pick(true, tt.key)
		if v4.String() != tt.v4 || v6.String() != tt.v6 {
			t.Errorf("%v for %+v: %v and %v, want %s and %s", tt.choose, tt.key, v4, v6, tt.v4, tt.v6)
		}
	}
}

func TestPickWithout(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    *Source
		is6  bool
		want bool
	}{
		{"nil", nil, false, true},
		{"no addresses", &Source{Interface: "wg0"}, true, true},
		{"none of IPv6", &Source{Addresses: prefixes("192.0.2.1")}, true, false},
		{"none of IPv4", &Source{Addresses: prefixes("2001:db8::/64")}, false, false},
	} {
		if a, ok := tt.s.Pick(tt.is6, Key{}); a.IsValid() || ok != tt.want {
			t.Errorf("%s: Pick = %v, %v; want no address, %v", tt.name, a, ok, tt.want)
		}
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	key := Key{Client: netip.MustParseAddr("2001:db8::1"), User: "alice"}
	for choose := range Choose(len(chooseNames)) {
		s := Source{Addresses: prefixes("192.0.2.0/24", "2001:db8:1::/64", "10.0.0.1"), Choose: choose}
		for _, session := range []string{"", "k3j"} {
			key.Session = session
			if n := testing.AllocsPerRun(100, func() { _, _ = s.Pick(false, key); _, _ = s.Pick(true, key) }); n != 0 {
				t.Errorf("%v: Pick costs %v allocations, want none", choose, n)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	for c := range Choose(len(chooseNames)) {
		if got, err := ParseChoose(c.String()); got != c || err != nil {
			t.Errorf("ParseChoose(%q) = %v, %v", c.String(), got, err)
		}
	}
	if got, err := ParseChoose(""); got != Random || err != nil {
		t.Errorf(`ParseChoose("") = %v, %v; want random`, got, err)
	}
	if _, err := ParseChoose("sticky"); err == nil || Choose(9).String() != "invalid choice" {
		t.Errorf("ParseChoose(sticky) = %v, Choose(9) is %v", err, Choose(9))
	}
}

func BenchmarkPick(b *testing.B) {
	s := Source{Addresses: prefixes("192.0.2.0/24", "2001:db8:1::/64"), Choose: StickyUser}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Pick(true, Key{User: "alice"})
	}
}
