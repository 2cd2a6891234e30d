package udprelay

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"polyport/internal/socks"
)

// TestTheServerHangsUp: the next datagram gets a new association, but not faster than refusals are asked about.
func TestTheServerHangsUp(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	server := newSocksServer(t).serve()
	s := sentThrough(t, names{"good.test": good.Addr()}, upstreamOf(t, "eu", false, server.url()))
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(good, "x"))
	c.wants(good, "x")
	c.send(a.Bound(), toName("good.test", good.Port(), "x"))
	c.wants(good, "x")
	server.hangUp()
	eventually(t, "the end is heard of", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.outlets[0].conn == nil
	})
	a.mu.Lock()
	a.outlets[0].until = 1 << 62
	a.mu.Unlock()
	c.send(a.Bound(), to(good, "too soon"))
	c.send(a.Bound(), toName("good.test", good.Port(), "too soon"))
	eventually(t, "it is too soon", func() bool { return a.now().Dropped == 2 })
	a.mu.Lock()
	a.outlets[0].until = 0
	a.mu.Unlock()
	c.send(a.Bound(), to(good, "y"))
	c.wants(good, "y")
	c.send(a.Bound(), toName("good.test", good.Port(), "z"))
	c.wants(good, "z")
	if server.associations() != 2 || len(s.questions()) != 4 {
		t.Errorf("%d associations, and the rules are asked about %q; want 2, and each target anew", server.associations(), s.questions())
	}
}

// TestATalkativeServer: a control connection is not for talking.
func TestATalkativeServer(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	server := newSocksServer(t).serve()
	a := r.open(r.request(sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(good, "x"))
	c.wants(good, "x")
	server.mu.Lock()
	_, _ = server.controls[0].Write(make([]byte, 1<<16))
	server.mu.Unlock()
	eventually(t, "it is over", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.outlets[0].conn == nil
	})
}

// TestTheRelayIsGone: an ICMP error says so, in place of the control connection.
func TestTheRelayIsGone(t *testing.T) {
	r := newRig(t, Options{})
	server := newSocksServer(t)
	server.answer = func(a *served, _ socks.Header, _ []byte) { _ = a.udp.Close() }
	server.serve()
	a := r.open(r.request(sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))))
	c := newSocket(t, "127.0.0.1:0")
	eventually(t, "it is over", func() bool {
		c.send(a.Bound(), to(netip.MustParseAddrPort("127.0.0.9:53"), "x"))
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.outlets) > 0 && a.outlets[0].conn == nil && !a.outlets[0].opening && a.counts.Unreachable > 0
	})
}

// TestWaysAreKeptApart: one address, of which a name leads there directly and the address itself through an upstream.
func TestWaysAreKeptApart(t *testing.T) {
	target := newSocket(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	server := newSocksServer(t).serve()
	s := sentThrough(t, names{"near.example": target.addr().Addr()}, upstreamOf(t, "eu", false, server.url()))
	direct := newAsker(t, names{"near.example": target.addr().Addr()})
	s.script = direct.byName
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	senders := map[string]netip.Addr{}
	for range 2 {
		c.send(a.Bound(), to(target.addr(), "by address"))
		c.send(a.Bound(), toName("near.example", target.addr().Port(), "by name"))
		for range 2 {
			b, from := target.receive()
			senders[string(b)] = from.Addr()
		}
		if senders["by address"] != netip.MustParseAddr("127.0.0.20") || senders["by name"] != netip.MustParseAddr("127.0.0.1") {
			t.Fatalf("they come from %v, want the upstream's address and ours", senders)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flows.n != 2 || a.counts.Targets != 2 {
		t.Errorf("%d flows and %d targets, want 2", a.flows.n, a.counts.Targets)
	}
	a.flows.drop(1 << 62)
	if a.flows.n != 0 || len(a.flows.all) != 0 {
		t.Errorf("%d flows are left: %v", a.flows.n, a.flows.all)
	}
}

// TestNoAllocationPerDatagramThroughAnUpstream: as on the way straight to targets.
func TestNoAllocationPerDatagramThroughAnUpstream(t *testing.T) {
	good := netip.MustParseAddrPort("127.0.0.9:53")
	r := newRig(t, Options{})
	server := newSocksServer(t)
	answer := to(good, strings.Repeat("x", 64))
	server.answer = func(a *served, _ socks.Header, _ []byte) { a.says(answer) }
	server.asked = make([]string, 0, 1<<16)
	server.serve()
	a := r.open(r.request(sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))))
	c := newSocket(t, "127.0.0.1:0")
	datagram := to(good, strings.Repeat("x", 64))
	c.send(a.Bound(), datagram)
	c.wants(good, strings.Repeat("x", 64))
	b := make([]byte, 1<<16)
	one := testing.AllocsPerRun(200, func() { c.roundTrips(1, a.Bound(), datagram, b) })
	many := testing.AllocsPerRun(50, func() { c.roundTrips(16, a.Bound(), datagram, b) })
	if most := 1.0; one > most || many > 16*most { // the server's own: the name of the target
		t.Errorf("%v allocations for a datagram and %v for 16, want the server's %v of each", one, many, most)
	}
}

// FuzzFromRelay: whatever an upstream sends, the client gets the very datagram or nothing, and only if it is well-formed.
func FuzzFromRelay(f *testing.F) {
	good := netip.MustParseAddrPort("127.0.0.9:53")
	f.Add(to(good, "x"))
	f.Add(to(good, "")[:9])
	f.Add(toName("a.test", 53, "x"))
	f.Add([]byte{0, 0, 1, 1, 127, 0, 0, 9, 0, 53})
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &Association{}
		o := &outlet{a: a, relay: netip.MustParseAddrPort("127.0.0.20:1080")}
		a.flows.add(destinationOf(t, good), o).spoken = true
		h, n, err := socks.ParseHeader(b)
		if err != nil || h.Frag != 0 {
			return
		}
		want := h.IP.IsValid() && netip.AddrPortFrom(h.IP.Unmap(), binary.BigEndian.Uint16(b[n-2:])) == good
		if got := o.passesInner(h); got != want {
			t.Errorf("passesInner(% x) = %v, want %v", b[:n], got, want)
		}
	})
}
