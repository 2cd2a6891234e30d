package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// bothFamilies resolves every name to one address of each.
type bothFamilies struct{}

func (bothFamilies) Lookup(context.Context, netip.Addr, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.0.0.1")}, nil
}

// What this machine lacks is none of a server's faults, for as long as that is all that went wrong.
func TestOurOwnFaultsEjectNobody(t *testing.T) {
	system := func(call string, errno syscall.Errno) behaviour {
		return behaviour{err: &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError(call, errno)}}
	}
	noSource := behaviour{err: errNoSource("four")}
	notHere := behaviour{err: &sourceError{"local_address 2001:db8:1::1", "four", syscall.EADDRNOTAVAIL}}
	refused, noPort := system("connect", syscall.ECONNREFUSED), system("connect", syscall.EADDRNOTAVAIL)
	tests := []struct {
		name    string
		a6, a4  behaviour
		ejected bool
	}{
		{"the exit has an address of neither family", noSource, noSource, false},
		{"it has one of IPv4 alone, by which the server refuses", noSource, refused, true},
		{"it has one that is not ours, and by the other the server refuses", notHere, refused, true},
		{"no local port is left", noPort, noPort, false},
		{"no address of IPv6 here, and by IPv4 the server refuses", noPort, refused, true},
		{"the server refuses by both", refused, refused, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			eject := pool.Eject{Failures: 1, Pause: time.Hour, MaxPause: time.Hour}
			f := newFakeNet(script{"2001:db8::1": tt.a6, "10.0.0.1": tt.a4})
			b, err := upstream.NewBackend(upstream.BackendOptions{Servers: []string{"server.example:1"}, Pool: pool.Options{Name: "b", Eject: eject}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			u := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: eject}}, "socks5://server.example:1")
			d := throughUpstream(t, u, Options{Resolver: bothFamilies{}})
			d.dial = f.dial
			p, err := d.AuthorizeBackend(t.Context(), to(t, "row.example:1"), b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Open(t.Context(), p, OpenOptions{}); err == nil {
				t.Fatal("the backend was reached")
			}
			if _, err := openTo(t, d, "127.0.0.1:9", OpenOptions{}); err == nil {
				t.Fatal("the upstream was reached")
			}
			for what, p := range map[string]*pool.Pool{"backend": b.Pool(), "upstream": u.Pool()} {
				if got := states(p)[0] == pool.Ejected; got != tt.ejected {
					t.Errorf("%s: ejected %v, want %v", what, got, tt.ejected)
				}
				checkNoneCounted(t, p)
			}
		})
	}
}

// A gateway that is out of descriptors must not believe that all its servers are down.
func TestOurOwnFaultsSpoilNoCheck(t *testing.T) {
	f := newFakeNet(script{"10.0.0.1": {err: syscall.EMFILE}})
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: []string{"10.0.0.1:1"}, Pool: pool.Options{Name: "b", Fall: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	u := upstreamOf(t, upstream.Options{Pool: pool.Options{Fall: 1}}, "socks5://10.0.0.1:1", "h2://10.0.0.1:1", "http://10.0.0.1:1")
	d := throughUpstream(t, u, Options{})
	d.dial = f.dial
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, probe := range []Probe{{}, {Kind: ProbeTunnel, Target: upstream.Destination{Host: "example.com", Port: 1}}} {
		b.Pool().Members()[0].Checked(d.ProbeBackend(ctx, b, 0, probe))
		for i, m := range u.Pool().Members() {
			err := d.ProbeUpstream(ctx, u, i, probe)
			if m.Checked(err); !errors.Is(err, syscall.EMFILE) {
				t.Errorf("%s: %v, want the cause in it", m.Name(), err)
			}
		}
	}
	if got := slices.Concat(states(b.Pool()), states(u.Pool())); slices.Contains(got, pool.Down) {
		t.Errorf("the servers are %v, want all up", got)
	}
}
