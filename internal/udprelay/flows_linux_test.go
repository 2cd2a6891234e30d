package udprelay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/target"
)

// counted waits for the counts of an association.
func counted(t *testing.T, a *Association, want Counts) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); a.now() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the counts are %+v, want %+v", a.now(), want)
		}
	}
}

// TestWhatIsNotPassedOn: each datagram is counted once, where it belongs, and the association goes on.
func TestWhatIsNotPassedOn(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	fragment := to(good, "x")
	fragment[2] = 1
	longName := strings.Repeat("a", 64) + ".test"
	for _, tt := range []struct {
		name     string
		datagram []byte
		want     Counts
	}{
		{"denied by a rule", to(netip.MustParseAddrPort("127.0.0.66:53"), "x"), Counts{Denied: 1}},
		{"denied by the guard", to(netip.MustParseAddrPort("10.0.0.1:53"), "x"), Counts{Denied: 1}},
		{"denied as an IPv4-mapped address", append([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x42\x00\x35"), 'x'), Counts{Denied: 1}},
		{"denied, by a name", toName("denied.test", 53, "x"), Counts{Denied: 1}},
		{"denied, as an address in a name", toName("127.0.0.66", 53, "x"), Counts{Denied: 1}},
		{"a name that is none", toName("missing.test", 53, "x"), Counts{Dropped: 1}},
		{"a name that cannot be", toName(longName, 53, "x"), Counts{Dropped: 1}},
		{"a fragment", fragment, Counts{Fragmented: 1}},
		{"the last fragment", append([]byte{0, 0, 0x80}, to(good, "x")[3:]...), Counts{Fragmented: 1}},
		{"port 0", to(netip.AddrPortFrom(good.Addr(), 0), "x"), Counts{Dropped: 1}},
		{"port 0 of a name", toName("good.test", 0, "x"), Counts{Dropped: 1}},
		{"half a header", to(good, "")[:9], Counts{Dropped: 1}},
		{"RSV", append([]byte{0, 1}, to(good, "x")[2:]...), Counts{Dropped: 1}},
		{"an unknown ATYP", append([]byte{0, 0, 0, 2}, to(good, "x")[4:]...), Counts{Dropped: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{})
			s := newAsker(t, names{"denied.test": netip.MustParseAddr("127.0.0.66"), "good.test": good.Addr()})
			a := r.open(r.request(s))
			c := newSocket(t, "127.0.0.1:0")
			c.send(a.Bound(), to(good, "1"))
			c.wants(good, "1")
			want := tt.want
			want.FromClient, want.FromTarget, want.BytesFromClient, want.BytesFromTarget, want.Targets = 1, 1, 1, 1, 1
			c.send(a.Bound(), tt.datagram)
			counted(t, a, want)
			c.send(a.Bound(), to(good, "2"))
			c.wants(good, "2")
			sum := a.Close()
			if refused := tt.want.Denied > 0; errors.Is(sum.Failed, egress.ErrDenied) != refused {
				t.Errorf("Failed = %v", sum.Failed)
			}
			if d, _ := sum.First.Destination(); d.AddrPort() != good {
				t.Errorf("First is for %v, want %v", d.AddrPort(), good)
			}
		})
	}
}

// TestANameAdmitsNoAddress: the way that a name was given is the name's alone, and the other way round.
func TestANameAdmitsNoAddress(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	s := newAsker(t, names{"good.test": good.Addr(), "bad.test": good.Addr()})
	var forbidden string
	s.script = func(_ context.Context, asked target.Target) (*egress.Permit, error) {
		if asked.Host() == forbidden {
			return nil, &egress.Error{Reason: egress.RequestDenied, Target: asked, Err: egress.ErrDenied}
		}
		return nil, nil
	}
	forbidden = good.Addr().String()
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), toName("good.test", good.Port(), "1"))
	c.wants(good, "1")
	c.send(a.Bound(), to(good, "address"))
	eventually(t, "the address is denied", func() bool { return a.now().Denied == 1 })
	c.send(a.Bound(), toName("good.test", good.Port(), "2"))
	c.wants(good, "2")
	if got, want := a.Close().Counts, (Counts{FromClient: 2, FromTarget: 2, BytesFromClient: 2, BytesFromTarget: 2, Targets: 1, Denied: 1}); got != want {
		t.Errorf("Close = %+v, want %+v", got, want)
	}

	forbidden = "bad.test"
	b := r.open(r.request(s))
	c.send(b.Bound(), to(good, "1"))
	c.wants(good, "1")
	c.send(b.Bound(), toName("bad.test", good.Port(), "name"))
	eventually(t, "the name is denied", func() bool { return b.now().Denied == 1 })
	c.send(b.Bound(), toName("good.test", good.Port(), "2"))
	c.wants(good, "2")
	if got := b.Close(); got.Targets != 1 || got.FromClient != 2 {
		t.Errorf("Close = %+v, want one target and 2 datagrams", got)
	}
}

// TestEachTargetIsAskedForOnce: by each spelling, and by each port.
func TestEachTargetIsAskedForOnce(t *testing.T) {
	good, other := echo(t, "127.0.0.9:0"), echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	s := newAsker(t, names{"good.test": good.Addr()})
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	for range 3 {
		for _, target := range []netip.AddrPort{good, other} {
			c.send(a.Bound(), to(target, "x"))
			c.wants(target, "x")
		}
		c.send(a.Bound(), toName("good.test", good.Port(), "n"))
		c.wants(good, "n")
		c.send(a.Bound(), toName("GOOD.test", good.Port(), "N"))
		c.wants(good, "N")
	}
	want := []string{good.String(), other.String(), fmt.Sprintf("good.test:%d", good.Port()), fmt.Sprintf("good.test:%d", good.Port())}
	if got := s.questions(); !slices.Equal(got, want) {
		t.Errorf("the rules were asked for %q, want %q", got, want)
	}
	if s.openings != 1 || a.Close().Targets != 2 {
		t.Errorf("%d ways out were opened for %d targets, want 1 for 2", s.openings, a.Close().Targets)
	}
}

// TestTargetsAreBounded: those that have long not been spoken to make room.
func TestTargetsAreBounded(t *testing.T) {
	good, other, third := echo(t, "127.0.0.9:0"), echo(t, "127.0.0.9:0"), echo(t, "127.0.0.9:0")
	r := newRig(t, Options{Targets: 2})
	s := newAsker(t, names{"good.test": good.Addr()})
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	for _, target := range []netip.AddrPort{good, other} {
		c.send(a.Bound(), to(target, "x"))
		c.wants(target, "x")
	}
	limited := int64(0)
	refused := func(b []byte) {
		t.Helper()
		limited++
		c.send(a.Bound(), b)
		eventually(t, "one more target is over the limit", func() bool { return a.now().Limited == limited })
	}
	refused(to(third, "x"))
	refused(toName("third.test", 53, "x"))
	c.send(a.Bound(), to(good, "y"))
	c.wants(good, "y")
	a.mu.Lock()
	a.flows.cleared = 0
	a.flows.to(other).used -= flowLife + time.Minute
	a.mu.Unlock()
	c.send(a.Bound(), to(third, "z"))
	c.wants(third, "z")
	refused(to(other, "x"))
	if got := a.Close(); got.Targets != 3 {
		t.Errorf("%d targets were spoken to, want 3", got.Targets)
	}
}

// TestOneTarget: a limit of one admits one, by a name too, and no more names than that are kept.
func TestOneTarget(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{Targets: 1})
	a := r.open(r.request(newAsker(t, names{"good.test": good.Addr(), "alias.test": good.Addr()})))
	c := newSocket(t, "127.0.0.1:0")
	for range 2 {
		c.send(a.Bound(), toName("good.test", good.Port(), "x"))
		c.wants(good, "x")
	}
	c.send(a.Bound(), toName("alias.test", good.Port(), "x"))
	eventually(t, "an alias is over the limit", func() bool { return a.now().Limited == 1 })
	c.send(a.Bound(), to(good, "y"))
	c.wants(good, "y")
}

// TestNamesAreBounded: as many as targets, even if all are of one address.
func TestNamesAreBounded(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{Targets: 2})
	s := newAsker(t, names{"1.test": good.Addr(), "2.test": good.Addr(), "3.test": good.Addr()})
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	for _, name := range []string{"1.test", "2.test"} {
		c.send(a.Bound(), toName(name, good.Port(), "x"))
		c.wants(good, "x")
	}
	c.send(a.Bound(), toName("3.test", good.Port(), "x"))
	eventually(t, "the third is over the limit", func() bool { return a.now().Limited == 1 })
}

// TestNoWayOut: what cannot be opened is counted, and tried again.
func TestNoWayOut(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	s := newAsker(t, names{"good.test": good.Addr()})
	s.openErr = &egress.Error{Reason: egress.LimitReached, Err: errors.New("too many open files")}
	release := heldUp(s)
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(good, "x"))
	c.send(a.Bound(), toName("good.test", good.Port(), "x"))
	c.send(a.Bound(), toName("good.test", good.Port(), "x"))
	eventually(t, "both wait", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, n := range a.names {
			return len(n.waiting) == 2
		}
		return false
	})
	release(nil)
	counted(t, a, Counts{Dropped: 3})
	s.mu.Lock()
	openErr := s.openErr
	s.openErr = nil
	s.mu.Unlock()
	c.send(a.Bound(), to(good, "y"))
	c.wants(good, "y")
	if sum := a.Close(); !errors.Is(sum.Failed, openErr) || sum.First == nil {
		t.Errorf("Close = %+v, want the first failure and the permit", sum)
	}
}

func TestFilters(t *testing.T) {
	for _, tt := range []struct {
		name                string
		filter              Filter
		samePort, otherPort bool // whose answers pass, of another address and of another port of the same
	}{
		{"endpoint", Endpoint, false, false},
		{"address", Address, false, true},
		{"endpoint-independent", EndpointIndependent, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{Filter: tt.filter})
			a := r.open(r.request(newAsker(t, nil)))
			c, spokenTo := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.9:0")
			c.send(a.Bound(), to(spokenTo.addr(), "x"))
			_, way := spokenTo.receive()
			dropped := int64(0)
			for _, from := range []struct {
				address string
				passes  bool
			}{{"127.0.0.9:0", tt.otherPort}, {"127.0.0.8:0", tt.samePort}} {
				from, s := from.passes, newSocket(t, from.address)
				s.send(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), way.Port()), []byte("answer"))
				if from {
					c.wants(s.addr(), "answer")
					continue
				}
				dropped++
				eventually(t, "it is dropped", func() bool { return a.now().Dropped == dropped })
			}
			spokenTo.send(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), way.Port()), []byte("answer"))
			c.wants(spokenTo.addr(), "answer")
			if got, want := a.Close().FromTarget, 3-dropped; got != want {
				t.Errorf("%d answers have passed, want %d", got, want)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	r := newRig(t, Options{})
	a := r.open(r.request(newAsker(t, nil)))
	gone, good := newSocket(t, "127.0.0.9:0"), echo(t, "127.0.0.9:0")
	at := gone.addr()
	gone.Close()
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(at, "x"))
	eventually(t, "the error comes back", func() bool { return a.now().Unreachable == 1 })
	c.send(a.Bound(), to(good, "y")) // and is not taken for one of this
	c.wants(good, "y")
}

// several is a resolver of one name with several addresses.
type several []netip.Addr

func (s several) Lookup(context.Context, netip.Addr, string) ([]netip.Addr, error) { return s, nil }

func TestNextAddressWhereNobodyIs(t *testing.T) {
	r := newRig(t, Options{})
	s := newAsker(t, nil)
	good := echo(t, "127.0.0.10:0")
	dialer := egress.New(egress.Options{
		Policy:   policyOf(t, acl.Rule{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}),
		Resolver: several{netip.MustParseAddr("127.0.0.9"), good.Addr()},
	})
	s.script = func(ctx context.Context, t target.Target) (*egress.Permit, error) {
		return dialer.AuthorizePacket(ctx, acl.Request{Target: t})
	}
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), toName("a.example", good.Port(), "lost"))
	eventually(t, "the error comes back", func() bool { return a.now().Unreachable == 1 })
	c.send(a.Bound(), toName("a.example", good.Port(), "x"))
	c.wants(good, "x")
	if got := s.questions(); len(got) != 1 {
		t.Errorf("it was asked for %q, want once", got)
	}
	if got := a.Close(); got.Targets != 2 || got.FromTarget != 1 {
		t.Errorf("Close = %+v, want two addresses and one answer", got)
	}
}
