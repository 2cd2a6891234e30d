package daemon

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// interfaces makes a lookup that answers with these prefixes.
func interfaces(list ...string) func() ([]net.Addr, error) {
	return func() ([]net.Addr, error) {
		var all []net.Addr
		for _, s := range list {
			ip, n, err := net.ParseCIDR(s)
			if err != nil {
				return nil, err
			}
			all = append(all, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return all, nil
	}
}

func TestOwnSocketsHolds(t *testing.T) {
	tests := []struct {
		name string
		own  []string
		ap   string
		want bool
	}{
		{"the socket itself", []string{"127.0.0.1:7659"}, "127.0.0.1:7659", true},
		{"another port", []string{"127.0.0.1:7659"}, "127.0.0.1:7660", false},
		{"another loopback address", []string{"127.0.0.1:7659"}, "127.0.0.2:7659", false},
		{"a stranger", []string{"127.0.0.1:7659"}, "192.0.2.7:7659", false},
		{"0.0.0.0 connects to loopback", []string{"127.0.0.1:7659"}, "0.0.0.0:7659", true},
		{":: connects to loopback", []string{"[::1]:7659"}, "[::]:7659", true},
		{":: is not 127.0.0.1", []string{"127.0.0.1:7659"}, "[::]:7659", false},
		{"0.0.0.0 does not reach an outer address", []string{"10.0.0.5:7659"}, "0.0.0.0:7659", false},
		{"wildcard, loopback", []string{"0.0.0.0:7659"}, "127.0.0.1:7659", true},
		{"wildcard, any loopback", []string{"0.0.0.0:7659"}, "127.9.9.9:7659", true},
		{"wildcard, wildcard", []string{"0.0.0.0:7659"}, "0.0.0.0:7659", true},
		{"wildcard, an address of this machine", []string{"0.0.0.0:7659"}, "10.0.0.5:7659", true},
		{"wildcard, its network's others", []string{"0.0.0.0:7659"}, "10.0.0.6:7659", false},
		{"wildcard of IPv4, IPv6", []string{"0.0.0.0:7659"}, "[::1]:7659", false},
		{"wildcard of IPv6, loopback", []string{"[::]:7659"}, "[::1]:7659", true},
		{"wildcard of IPv6, an address of this machine", []string{"[::]:7659"}, "[2001:db8::5]:7659", true},
		{"wildcard of IPv6, IPv4", []string{"[::]:7659"}, "127.0.0.1:7659", false},
		{"link-local, whatever its zone", []string{"[::]:7659"}, "[fe80::1]:7659", true},
		{"one of several", []string{"127.0.0.1:1", "127.0.0.1:2", "[::1]:2"}, "[::1]:2", true},
		{"none", nil, "127.0.0.1:7659", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOwnSockets()
			o.lookups = interfaces("127.0.0.1/8", "10.0.0.5/24", "::1/128", "2001:db8::5/64", "fe80::1/64")
			o.binds = func(netip.Addr) bool { return false }
			for _, s := range tt.own {
				o.add(netip.MustParseAddrPort(s))
			}
			if got := o.holds(netip.MustParseAddrPort(tt.ap)); got != tt.want {
				t.Errorf("own %v holds %s: %v, want %v", tt.own, tt.ap, got, tt.want)
			}
		})
	}
}

func TestOwnSocketsSetReplaces(t *testing.T) {
	o := newOwnSockets()
	old, fresh := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	o.add(old)
	o.set([]netip.AddrPort{fresh})
	if o.holds(old) || !o.holds(fresh) {
		t.Errorf("holds the old one %v, the new one %v; want false and true", o.holds(old), o.holds(fresh))
	}
}

// TCP of a BIND and UDP of an association may have one address and port: the end of one is not that of the other.
func TestOwnSocketsCloseOne(t *testing.T) {
	o := newOwnSockets()
	at := netip.MustParseAddrPort("127.0.0.1:1")
	o.open(at)
	o.open(at)
	for _, want := range []bool{true, false} {
		o.close(at)
		if got := o.holds(at); got != want {
			t.Errorf("holds what has been closed = %v, want %v", got, want)
		}
	}
}

// An address that the machine gets later is found out, and a failed look-up keeps what was known.
func TestOwnSocketsLearnAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwnSockets()
		o.set([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:7659")})
		lookups := 0
		answer := interfaces("10.0.0.5/24")
		o.lookups = func() ([]net.Addr, error) { lookups++; return answer() }
		o.binds = func(netip.Addr) bool { return false }
		first, later := netip.MustParseAddrPort("10.0.0.5:7659"), netip.MustParseAddrPort("10.0.0.9:7659")
		for range 3 {
			if !o.holds(first) || o.holds(later) {
				t.Fatal("the addresses of the machine are not known")
			}
		}
		if lookups != 1 {
			t.Errorf("%d look-ups, want 1 for a while", lookups)
		}
		answer = interfaces("10.0.0.5/24", "10.0.0.9/24")
		time.Sleep(localsLife + time.Second)
		if !o.holds(later) {
			t.Error("the new address is not known after a while")
		}
		answer = func() ([]net.Addr, error) { return nil, errors.New("no netlink") }
		time.Sleep(localsLife + time.Second)
		if !o.holds(first) || !o.holds(later) {
			t.Error("a failed look-up lost the addresses that were known")
		}
	})
}

// A whole prefix may be this machine's without any interface listing its addresses.
func TestOwnSocketsKnowLocalPrefixes(t *testing.T) {
	local, remote := netip.MustParsePrefix("10.88.0.0/16"), netip.MustParseAddrPort("10.89.0.1:7659")
	tests := []struct {
		name  string
		binds func(netip.Addr) bool
		want  bool
	}{
		{"it can be bound", local.Contains, true},
		{"everything can be bound", func(netip.Addr) bool { return true }, false},
		{"nothing can be bound", func(netip.Addr) bool { return false }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOwnSockets()
			o.lookups, o.binds = interfaces("10.88.0.1/16"), tt.binds
			o.add(netip.MustParseAddrPort("0.0.0.0:7659"))
			if got := o.holds(netip.MustParseAddrPort("10.88.9.9:7659")); got != tt.want {
				t.Errorf("an address of a local prefix: %v, want %v", got, tt.want)
			}
			if o.holds(remote) {
				t.Errorf("%v is taken for an address of this machine", remote)
			}
		})
	}
}

func TestCanBind(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1": true, "127.9.8.7": true} {
		if got := canBind(netip.MustParseAddr(addr)); got != want {
			t.Errorf("canBind(%s) = %v, want %v", addr, got, want)
		}
	}
	for _, addr := range []string{"10.0.0.1", "2001:db8::5"} {
		if a := netip.MustParseAddr(addr); foreign(a).Is4() != a.Is4() || foreign(a) == a {
			t.Errorf("foreign(%v) = %v, want another address of its family", a, foreign(a))
		}
	}
}
