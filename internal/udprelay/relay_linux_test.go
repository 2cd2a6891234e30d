package udprelay

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"polyport/internal/socks"
	"polyport/mux"
)

func TestEcho(t *testing.T) {
	four, six := echo(t, "127.0.0.9:0"), echo(t, "[::1]:0")
	for _, tt := range []struct {
		name    string
		client  string
		to      netip.AddrPort
		byName  string
		own     bool
		payload string
	}{
		{"IPv4", "127.0.0.1", four, "", false, "hello"},
		{"IPv6", "::1", six, "", false, "hello"},
		{"from IPv4 to IPv6", "127.0.0.1", six, "", false, "hello"},
		{"from IPv6 to IPv4", "::1", four, "", false, "hello"},
		{"by a name", "127.0.0.1", four, "echo.test", false, "hello"},
		{"a name that is an address", "127.0.0.1", four, "127.0.0.9", false, "hello"},
		{"by a port of its own", "127.0.0.1", four, "", true, "hello"},
		{"by a port of its own, IPv6", "::1", six, "", true, "hello"},
		{"nothing in it", "127.0.0.1", four, "", false, ""},
		{"one octet", "127.0.0.1", four, "", false, "x"},
		{"1200 octets", "127.0.0.1", four, "", false, strings.Repeat("q", 1200)},
		{"as long as can be", "127.0.0.1", four, "", false, strings.Repeat("z", longest-10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o Options
			if tt.own {
				o.FirstPort = portOfNobody(t)
				o.LastPort = o.FirstPort
			}
			r := newRig(t, o)
			s := newAsker(t, names{"echo.test": four.Addr()})
			q := r.request(s)
			if tt.client == "::1" {
				q.Client, q.Socket = netip.IPv6Loopback(), r.listen("::1")
			}
			a := r.open(q)
			if tt.own != (a.Bound().Port() == o.FirstPort && o.FirstPort != 0) || a.Bound().Addr() != q.Client {
				t.Errorf("it is bound to %v", a.Bound())
			}
			c := newSocket(t, netip.AddrPortFrom(q.Client, 0).String())
			datagram := to(tt.to, tt.payload)
			if tt.byName != "" {
				datagram = toName(tt.byName, tt.to.Port(), tt.payload)
			}
			for range 3 {
				c.send(a.Bound(), datagram)
				c.wants(tt.to, tt.payload)
			}
			n := int64(3 * len(tt.payload))
			want := Counts{FromClient: 3, FromTarget: 3, BytesFromClient: n, BytesFromTarget: n, Targets: 1}
			if got := a.Close(); got.Counts != want || got.Failed != nil || got.First == nil {
				t.Errorf("Close = %+v, want %+v", got, want)
			}
			if got := s.questions(); len(got) != 1 {
				t.Errorf("the rules were asked for %q, want one question", got)
			}
		})
	}
}

// TestWhoseItIs: what does not come from the client's address and port is nobody's, and a port is learned from what could be passed on.
func TestWhoseItIs(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	for _, own := range []bool{false, true} {
		name := map[bool]string{false: "a shared port", true: "a port of its own"}[own]
		t.Run(name, func(t *testing.T) {
			var o Options
			if own {
				o.FirstPort = portOfNobody(t)
				o.LastPort = o.FirstPort
			}
			r := newRig(t, o)
			a := r.open(r.request(newAsker(t, nil)))
			strangers := uint64(0)
			stranger := func(c *peerSocket, b []byte) {
				t.Helper()
				strangers++
				c.send(a.Bound(), b)
				eventually(t, "a stranger is counted", func() bool { return r.Strangers() == strangers })
			}
			client, beside, other := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.2:0")
			valid := to(target, "hi")
			stranger(other, valid)
			fragment := append([]byte{0, 0, 1}, valid[3:]...)
			stranger(beside, fragment)
			stranger(beside, to(netip.AddrPortFrom(target.Addr(), 0), "port 0"))
			stranger(beside, valid[:9])
			stranger(beside, append([]byte{0, 1, 0}, valid[3:]...))
			client.send(a.Bound(), valid)
			client.wants(target, "hi")
			stranger(beside, valid)
			stranger(other, valid)
			if got, want := a.Close().Counts, (Counts{FromClient: 1, FromTarget: 1, BytesFromClient: 2, BytesFromTarget: 2, Targets: 1}); got != want {
				t.Errorf("Close = %+v, want %+v", got, want)
			}
			if !own {
				stranger(client, valid)
			}
		})
	}
}

func TestNobodyIsAnsweredWithoutAnAssociation(t *testing.T) {
	r := newRig(t, Options{})
	c := newSocket(t, "127.0.0.1:0")
	c.send(r.socket.Addr(), to(c.addr(), "reflect"))
	eventually(t, "it is counted", func() bool { return r.Strangers() == 1 })
	for _, b := range [][]byte{{}, {5, 1, 0}, {0xc0, 1, 2}, {0x16, 3, 1}} { // none of SOCKS
		c.send(r.socket.Addr(), b)
	}
	c.send(r.socket.Addr(), []byte{0})
	eventually(t, "the last one is counted", func() bool { return r.Strangers() == 2 })
}

// TestClaimedPort: who says what he sends from is heard from there alone.
func TestClaimedPort(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	for _, own := range []bool{false, true} {
		var o Options
		if own {
			o.FirstPort = portOfNobody(t)
			o.LastPort = o.FirstPort
		}
		r := newRig(t, o)
		client, beside := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.1:0")
		q := r.request(newAsker(t, nil))
		q.Port = client.addr().Port()
		a := r.open(q)
		beside.send(a.Bound(), to(target, "no"))
		eventually(t, "the other port is a stranger", func() bool { return r.Strangers() == 1 })
		client.send(a.Bound(), to(target, "yes"))
		client.wants(target, "yes")
	}
}

// TestSeveralOfOneUser: the oldest has what comes first, but for whose port it is.
func TestSeveralOfOneUser(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	c, claimed, d := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.1:0")
	q := r.request(newAsker(t, nil))
	q.Identity = "alice"
	first, second := r.open(q), r.open(q)
	q.Port = claimed.addr().Port()
	third := r.open(q)
	for _, tt := range []struct {
		from *peerSocket
		want *Association
	}{{claimed, third}, {c, first}, {d, second}, {c, first}} {
		before := tt.want.now().FromClient
		tt.from.send(r.socket.Addr(), to(target, "x"))
		tt.from.wants(target, "x")
		if got := tt.want.now().FromClient; got != before+1 {
			t.Errorf("the association has passed %d, want %d", got, before+1)
		}
	}
}

// TestAmbiguous: what nobody could tell from another user's is not let in.
func TestAmbiguous(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	alice, bob := r.request(newAsker(t, nil)), r.request(newAsker(t, nil))
	alice.Identity, bob.Identity = "alice", "bob"
	a := r.open(alice)
	refused := func(q Request, want error) {
		t.Helper()
		got, err := r.Open(q)
		if got != nil || !errors.Is(err, want) {
			t.Fatalf("Open = %v, %v, want %v", got, err, want)
		}
	}
	refused(bob, ErrAmbiguous)
	nobody := bob
	nobody.Identity = ""
	refused(nobody, ErrAmbiguous)
	elsewhere := bob
	elsewhere.Client = netip.MustParseAddr("127.0.0.2")
	r.open(elsewhere).Close()
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(target, "x"))
	c.wants(target, "x")
	claims := bob
	claims.Port = c.addr().Port()
	refused(claims, ErrAmbiguous) // alice sends from there
	b := r.open(bob)
	refused(alice, ErrAmbiguous)
	b.Close()
	r.open(alice)

	first := portOfNobody(t)
	r.SetOptions(Options{FirstPort: first, LastPort: first})
	if got := r.open(bob).Bound(); got.Port() != first {
		t.Errorf("bob's own port is %v, want %d", got, first)
	}
	refused(bob, ErrAmbiguous) // the only port is taken
}

func TestOpenRefuses(t *testing.T) {
	r := newRig(t, Options{Associations: 3, PerClient: 2})
	closed := r.listen("127.0.0.1")
	if !closed.Hold() {
		t.Fatal("a new socket cannot be held")
	}
	closed.Release()
	released, err := mux.ListenPacket(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portOfNobody(t)), false)
	if err != nil {
		t.Fatal(err)
	}
	released.Release()
	q := r.request(newAsker(t, nil))
	one, two := r.open(q), r.open(q)
	other := q
	other.Client = netip.MustParseAddr("127.0.0.2")
	with := func(change func(*Request)) Request {
		q := other
		change(&q)
		return q
	}
	for _, tt := range []struct {
		name string
		q    Request
		want error
	}{
		{"one more of the client", q, ErrTooManyOfOne},
		{"no socket", with(func(q *Request) { q.Socket = nil }), ErrUnsupported},
		{"no loop", with(func(q *Request) { q.Loop = nil }), ErrUnsupported},
		{"a closed socket", with(func(q *Request) { q.Socket = released }), ErrUnsupported},
	} {
		if a, err := r.Open(tt.q); a != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: Open = %v, %v, want %v", tt.name, a, err, tt.want)
		}
	}
	third := r.open(other)
	if a, err := r.Open(other); a != nil || !errors.Is(err, ErrTooMany) {
		t.Errorf("one more of all: Open = %v, %v, want %v", a, err, ErrTooMany)
	}
	if got := r.Count(); got != 3 {
		t.Errorf("Count = %d, want 3", got)
	}
	third.Close()
	one.Close()
	two.Close()
	r.open(q)
}

// TestAnswersLeaveFromWhereTheClientSentTo: one socket has many addresses.
func TestAnswersLeaveFromWhereTheClientSentTo(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	q := r.request(newAsker(t, nil))
	q.Socket = r.listen("0.0.0.0")
	a := r.open(q)
	c := newSocket(t, "127.0.0.1:0")
	for _, asked := range []string{"127.0.0.5", "127.0.0.6"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(asked), a.Bound().Port())
		c.send(at, to(target, "x"))
		b, from := c.receive()
		if from != at || string(b) != string(socks.AppendHeader(nil, target))+"x" {
			t.Errorf("asked at %v: %q from %v", at, b, from)
		}
	}
}
