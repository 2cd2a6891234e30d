package udprelay

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"polyport/internal/egress"
	"polyport/internal/socks"
)

// TestThroughAnUpstream: to addresses and names, over one association with the server, which is what the record says.
func TestThroughAnUpstream(t *testing.T) {
	good, other, near := echo(t, "127.0.0.9:0"), echo(t, "127.0.0.10:0"), echo(t, "127.0.0.8:0")
	r := newRig(t, Options{})
	server := newSocksServer(t).serve()
	a := r.open(r.request(sentThrough(t, names{"good.test": good.Addr()}, upstreamOf(t, "eu", false, server.url()))))
	c := newSocket(t, "127.0.0.1:0")
	for _, target := range []netip.AddrPort{good, other, good} {
		c.send(a.Bound(), to(target, "x"))
		c.wants(target, "x")
	}
	c.send(a.Bound(), toName("good.test", good.Port(), "named"))
	c.wants(good, "named")
	c.send(a.Bound(), to(near, "y"))
	c.wants(near, "y")
	if got, want := server.targets(), []string{good.String(), other.String(), good.String(), good.String()}; !slices.Equal(got, want) {
		t.Errorf("the server is asked for %q, want %q", got, want)
	}
	sum := a.Close()
	want := Counts{FromClient: 5, FromTarget: 5, BytesFromClient: 9, BytesFromTarget: 9, Targets: 3}
	if sum.Counts != want || sum.First == nil || sum.First.Route().Upstream != "eu" || sum.Server != server.url() {
		t.Errorf("Close = %+v, want %+v through eu, %s", sum, want, server.url())
	}
	if n := server.associations(); n != 1 {
		t.Errorf("the server has served %d associations, want 1", n)
	}
}

// TestAllSizesThroughAnUpstream: also many at once, which the system gathers and cuts.
func TestAllSizesThroughAnUpstream(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	server := newSocksServer(t).serve()
	a := r.open(r.request(sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))))
	c := newSocket(t, "127.0.0.1:0")
	for _, size := range []int{0, 1, 1200, 9000, 65000} {
		payload := strings.Repeat("x", size)
		c.send(a.Bound(), to(good, payload))
		c.wants(good, payload)
	}
	for round := range 4 {
		for i := range 16 {
			c.send(a.Bound(), to(good, fmt.Sprintf("%04d %s", i, strings.Repeat("y", 1000-i%2*round))))
		}
		heard := map[string]bool{}
		for range 16 {
			b, _ := c.receive()
			heard[string(b[10:14])] = true
		}
		if len(heard) != 16 {
			t.Errorf("%d datagrams come back, want 16", len(heard))
		}
	}
}

// TestNamesThatAnUpstreamResolves: the server gets the name, and answers from wherever it will, but by the target's port.
func TestNamesThatAnUpstreamResolves(t *testing.T) {
	r := newRig(t, Options{})
	server := newSocksServer(t)
	server.answer = func(a *served, h socks.Header, payload []byte) {
		a.says(to(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), h.Port+1), "another port"))
		a.says(to(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), h.Port), string(payload)))
	}
	server.serve()
	s := sentThrough(t, nil, upstreamOf(t, "eu", true, server.url()))
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	for _, name := range []string{"a.test", "a.test", "A.Test"} {
		c.send(a.Bound(), toName(name, 53, "x"))
		c.wants(netip.MustParseAddrPort("192.0.2.1:53"), "x")
	}
	if got, want := server.targets(), []string{"a.test", "a.test", "a.test"}; !slices.Equal(got, want) {
		t.Errorf("the server is asked for %q, want %q", got, want)
	}
	if got := s.questions(); len(got) != 2 {
		t.Errorf("the rules are asked about %q, want each spelling once", got)
	}
	sum := a.Close()
	if d, ok := sum.First.Destination(); !ok || d.AddrPort().IsValid() || !sum.First.Route().ByName || sum.Dropped != 3 || sum.FromTarget != 3 {
		t.Errorf("Close = %+v for %v, want 3 datagrams and no address", sum, d.AddrPort())
	}
}

// TestWhatAnUpstreamMayNotSend: nothing of it reaches the client, and the association goes on.
func TestWhatAnUpstreamMayNotSend(t *testing.T) {
	good := netip.MustParseAddrPort("127.0.0.9:53")
	frag, reserved := to(good, "x"), to(good, "x")
	frag[2], reserved[1] = 1, 1
	stranger := netip.MustParseAddrPort("127.0.0.77:53")
	for _, tt := range []struct {
		name    string
		filter  Filter
		says    []byte
		aside   bool // from another address than the relay's
		dropped int64
	}{
		{"a fragment", Endpoint, frag, false, 1},
		{"RSV", Endpoint, reserved, false, 1},
		{"half a header", Endpoint, to(good, "")[:9], false, 1},
		{"an ATYP that there is not", Endpoint, append([]byte{0, 0, 0, 9}, to(good, "x")[4:]...), false, 1},
		{"a name that is longer than all", Endpoint, []byte{0, 0, 0, 3, 255, 'a', 0, 53}, false, 1},
		{"from one not spoken to", Endpoint, to(stranger, "x"), false, 1},
		{"from another port", Endpoint, to(netip.AddrPortFrom(good.Addr(), 54), "x"), false, 1},
		{"from one not spoken to, by address", Address, to(stranger, "x"), false, 1},
		{"from a name", Endpoint, toName("a.test", 53, "x"), false, 1},
		{"in the relay's place", Endpoint, to(good, "x"), true, 1},
		{"in the relay's place, for everybody", EndpointIndependent, to(good, "x"), true, 1},
		{"from another port, by address", Address, to(netip.AddrPortFrom(good.Addr(), 54), "x"), false, 0},
		{"from anybody", EndpointIndependent, to(stranger, "x"), false, 0},
		{"from an IPv4-mapped address", Endpoint, append([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x09\x00\x35"), 'x'), false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := newSocket(t, "127.0.0.20:0")
			r := newRig(t, Options{Filter: tt.filter})
			server := newSocksServer(t)
			server.answer = func(a *served, _ socks.Header, payload []byte) {
				if tt.aside {
					other.send(a.client, tt.says)
				} else {
					a.says(tt.says)
				}
				a.says(to(good, string(payload)))
			}
			server.serve()
			a := r.open(r.request(sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))))
			c := newSocket(t, "127.0.0.1:0")
			c.send(a.Bound(), to(good, "ping"))
			if tt.dropped == 0 {
				if b, _ := c.receive(); string(b) != string(tt.says) {
					t.Errorf("the client gets % x, want % x", b, tt.says)
				}
			}
			c.wants(good, "ping")
			eventually(t, "the rest is dropped", func() bool { return a.now().Dropped == tt.dropped })
		})
	}
}

// TestWaitingForAnUpstream: datagrams wait within bounds, leave in order, and hold up no others.
func TestWaitingForAnUpstream(t *testing.T) {
	good, near := echo(t, "127.0.0.9:0"), echo(t, "127.0.0.8:0")
	r := newRig(t, Options{})
	server := newSocksServer(t)
	server.gate = make(chan struct{})
	server.serve()
	s := sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	for i := range maxWaiting + 4 {
		c.send(a.Bound(), to(good, fmt.Sprint("word ", i)))
	}
	c.send(a.Bound(), to(near, "beside"))
	c.wants(near, "beside")
	if got := a.now().Dropped; got != 4 {
		t.Errorf("%d are dropped, want 4", got)
	}
	close(server.gate)
	for i := range maxWaiting {
		c.wants(good, fmt.Sprint("word ", i))
	}
	if len(s.questions()) != 2 {
		t.Errorf("the rules are asked about %q, want each target once", s.questions())
	}
}

// TestCloseWhileAnUpstreamIsAsked: what waited is counted, and nothing is left once the server has answered (newRig sees to that).
func TestCloseWhileAnUpstreamIsAsked(t *testing.T) {
	server := newSocksServer(t)
	server.gate = make(chan struct{})
	server.serve()
	r := newRig(t, Options{})
	s := sentThrough(t, nil, upstreamOf(t, "eu", false, server.url()))
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(netip.MustParseAddrPort("127.0.0.9:53"), "x"))
	eventually(t, "it waits", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.outlets) == 1 && len(a.outlets[0].waiting) == 1
	})
	a.mu.Lock()
	o := a.outlets[0]
	a.mu.Unlock()
	if sum := a.Close(); sum.Dropped != 1 || sum.First != nil {
		t.Errorf("Close = %+v, want one dropped", sum)
	}
	close(server.gate)
	eventually(t, "the server has answered", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !o.opening
	})
	a.account.mu.Lock()
	defer a.account.mu.Unlock()
	if a.account.waiting != 0 {
		t.Errorf("%d octets are still said to wait", a.account.waiting)
	}
}

// TestWhereAnUpstreamCarriesNoUDP: nothing leaves, least of all directly.
func TestWhereAnUpstreamCarriesNoUDP(t *testing.T) {
	for _, tt := range []struct {
		name, url string // "" is the server's
		reply     byte
		want      Counts
		says      string
	}{
		{"http", "http://127.0.0.20:9", 0, Counts{Denied: 3}, "upstream eu has no server that carries UDP"},
		{"socks4a", "socks4a://127.0.0.20:9", 0, Counts{Denied: 3}, "upstream eu has no server that carries UDP"},
		{"SOCKS5 in TLS", "socks5s://127.0.0.20:9", 0, Counts{Denied: 3}, "upstream eu has no server that carries UDP"},
		{"one that refuses", "", 2, Counts{Dropped: 3}, "does not allow UDP"},
		{"one that is not there", "socks5://127.0.0.20:9", 0, Counts{Dropped: 3}, "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := newSocket(t, "127.0.0.9:0")
			r := newRig(t, Options{})
			server := newSocksServer(t)
			server.reply = tt.reply
			server.serve()
			u := upstreamOf(t, "eu", false, cmp.Or(tt.url, server.url()))
			s := sentThrough(t, names{"good.test": target.addr().Addr()}, u)
			a := r.open(r.request(s))
			c := newSocket(t, "127.0.0.1:0")
			c.send(a.Bound(), to(target.addr(), "x"))
			c.send(a.Bound(), to(target.addr(), "x"))
			c.send(a.Bound(), toName("good.test", target.addr().Port(), "x"))
			counted(t, a, tt.want)
			sum := a.Close()
			if e := (*egress.Error)(nil); !errors.As(sum.Failed, &e) || e.Upstream != "eu" || !strings.Contains(e.Error(), tt.says) || sum.First != nil {
				t.Errorf("Close = %+v, want the failure %q of eu", sum, tt.says)
			}
			target.send(target.addr(), []byte("alone"))
			if b, _ := target.receive(); string(b) != "alone" {
				t.Errorf("the target gets %q, want nothing", b)
			}
		})
	}
}

// TestNextServer: one that is not there is passed over, and so are those that are not for UDP.
func TestNextServer(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	gone, server := newSocksServer(t), newSocksServer(t).serve()
	gone.close()
	u := upstreamOf(t, "eu", false, "http://127.0.0.20:9", gone.url(), server.url())
	a := r.open(r.request(sentThrough(t, nil, u)))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(good, "x"))
	c.wants(good, "x")
	if sum := a.Close(); sum.Server != server.url() || sum.Failed != nil {
		t.Errorf("Close = %+v, want %s", sum, server.url())
	}
}
