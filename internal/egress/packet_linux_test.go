package egress

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/reactor"
	"polyport/internal/target"
)

// linkLocal is a rule for addresses that mean nothing without a zone, so that this machine has no way to them.
var linkLocal = acl.Rule{Name: "link-local", Action: acl.Allow, Target: []string{"fe80::/10"}}

func TestAuthorizePacket(t *testing.T) {
	resolver := map[string]string{
		"one.example":      "127.0.0.1",
		"both.example":     "127.0.0.1 ::1",
		"skipped.example":  "fe80::1 127.0.0.1",
		"skipped2.example": "fe80::1 fe80::2 127.0.0.1 127.0.0.2",
		"nowhere.example":  "fe80::1 fe80::2",
		"lonely.example":   "fe80::1",
		"private.example":  "10.0.0.1 10.0.0.2",
		"mixed.example":    "10.0.0.1 127.0.0.1",
	}
	for _, tt := range []struct {
		name, target string
		want, rule   string // the address and the rule that admits it; "" is a refusal
		rest         string // the address to try after it
		reason       Reason
		cause        error
	}{
		{name: "a name with one address", target: "one.example:53", want: "127.0.0.1", rule: "loopback"},
		{name: "the first of a name's", target: "both.example:53", want: "::1", rule: "loopback", rest: "127.0.0.1"},
		{name: "one to which there is no way is passed over", target: "skipped.example:53", want: "127.0.0.1", rule: "loopback"},
		{name: "several are", target: "skipped2.example:53", want: "127.0.0.1", rule: "loopback", rest: "127.0.0.2"},
		{name: "no way to any", target: "nowhere.example:53", reason: DestinationUnroutable, cause: syscall.EINVAL},
		{name: "the only one is tried", target: "lonely.example:53", want: "fe80::1", rule: "link-local"},
		{name: "an address", target: "127.0.0.1:53", want: "127.0.0.1", rule: "loopback"},
		{name: "an IPv6 address", target: "[::1]:53", want: "::1", rule: "loopback"},
		{name: "a mapped address", target: "[::ffff:127.0.0.1]:53", want: "127.0.0.1", rule: "loopback"},
		{name: "a guarded address", target: "10.0.0.1:53", reason: DestinationProhibited, cause: ErrDenied},
		{name: "a guarded name", target: "private.example:53", reason: DestinationProhibited, cause: ErrDenied},
		{name: "what is guarded is left out", target: "mixed.example:53", want: "127.0.0.1", rule: "loopback"},
		{name: "a port that no rule allows", target: "one.example:25", reason: RequestDenied, cause: ErrDenied},
		{name: "a name that there is not", target: "none.example:53", reason: DNSError, cause: errNoAddress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			no25 := acl.Rule{Name: "no mail", Port: []acl.PortRange{{First: 25, Last: 25}}}
			d := New(Options{Policy: policy(t, false, no25, loopback, linkLocal, allowAll), Resolver: names(resolver)})
			p, err := d.AuthorizePacket(t.Context(), to(t, tt.target))
			if tt.want == "" {
				var e *Error
				if p != nil || !errors.As(err, &e) || e.Reason != tt.reason || !errors.Is(err, tt.cause) || e.Target != to(t, tt.target).Target {
					t.Errorf("AuthorizePacket = %v, %v, want %s for %v", p, err, tt.reason, tt.cause)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := netip.AddrPortFrom(netip.MustParseAddr(tt.want), 53)
			dest, ok := p.Destination()
			if !ok || dest.AddrPort() != want || p.Decision().Rule != tt.rule {
				t.Errorf("it admits %v, %v by the rule %q, want %v by %q", dest.AddrPort(), ok, p.Decision().Rule, want, tt.rule)
			}
			pins := addrs(strings.Fields(tt.want + " " + tt.rest)...)
			if !slices.Equal(p.Addrs(), pins) || !p.Covers(want) || p.Target() != to(t, tt.target).Target {
				t.Errorf("it pins %v for %v, want %v", p.Addrs(), p.Target(), pins)
			}
			rest, ok := p.Rest()
			if ok != (tt.rest != "") || ok && (!slices.Equal(rest.Addrs(), pins[1:]) || rest.Covers(want)) {
				t.Errorf("Rest = %v, %v, want what it pins but the first", rest, ok)
			}
		})
	}
}

func TestAuthorizePacketOfOwn(t *testing.T) {
	own := netip.MustParseAddrPort("127.0.0.1:1080")
	d := New(Options{Policy: policy(t, false, loopback), Own: func(a netip.AddrPort) bool { return a == own }})
	var e *Error
	if p, err := d.AuthorizePacket(t.Context(), to(t, own.String())); !errors.As(err, &e) || e.Reason != LoopDetected {
		t.Errorf("AuthorizePacket of our own port = %v, %v, want %s", p, err, LoopDetected)
	}
}

func TestMayReach(t *testing.T) {
	user := acl.Rule{Name: "users", Action: acl.Allow, User: []string{"*"}}
	for _, tt := range []struct {
		name  string
		rules []acl.Rule
		cause error
		says  string
	}{
		{"allowed", []acl.Rule{allowAll}, nil, ""},
		{"a user might", []acl.Rule{user}, ErrChallenge, "a user is required to reach anything: it is not open to sessions without a user (rule users)"},
		{"denied", []acl.Rule{{Name: "no"}}, ErrDenied, "not allowed to reach anything: the rules forbid it (rule no)"},
		{"no rule", []acl.Rule{{Name: "others", Action: acl.Allow, Method: []string{"GET"}}}, ErrDenied, "not allowed to reach anything: no rule allows it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := to(t, "a.example:53")
			r.Target, r.Method = target.Target{}, "UDP"
			err := New(Options{Policy: policy(t, true, tt.rules...)}).MayReach(r)
			if tt.cause == nil {
				if err != nil {
					t.Errorf("MayReach = %v, want nil", err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Reason != RequestDenied || !errors.Is(err, tt.cause) || err.Error() != tt.says {
				t.Errorf("MayReach = %v, want %q for %v", err, tt.says, tt.cause)
			}
		})
	}
}

func TestDestinationOfABackend(t *testing.T) {
	d := New(Options{Policy: policy(t, false, allowAll)})
	p, err := d.AuthorizeBackend(t.Context(), to(t, "git.example:443"), newBackend("b", "127.0.0.1:22"))
	if err != nil {
		t.Fatal(err)
	}
	if dest, ok := p.Destination(); ok || dest.AddrPort().IsValid() {
		t.Errorf("Destination = %v, want none", dest.AddrPort())
	}
	var e *Error
	if c, err := d.OpenPacket(t.Context(), nil, p, nil); c != nil || !errors.As(err, &e) || e.Reason != InternalError {
		t.Errorf("OpenPacket = %v, %v, want %s", c, err, InternalError)
	}
}

// heard is a reactor.PacketOwner.
type heard struct {
	words       chan string
	unreachable chan int
}

func (h *heard) Arrived(c *reactor.PacketConn) {
	batch, _ := c.Receive()
	for _, d := range batch {
		h.words <- string(d.Data) + " from " + d.From.String()
	}
}

func (h *heard) Unreachable(_ *reactor.PacketConn, _ netip.AddrPort) { h.unreachable <- 1 }

func (h *heard) Ended(*PacketConn) { h.words <- "the end" }

// onLoop runs f on a loop.
func onLoop(t *testing.T, l *reactor.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the loop does not answer")
	}
}

// hears waits for a value.
func hears[T comparable](t *testing.T, from <-chan T, want T) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Errorf("heard %v, want %v", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("heard nothing, want %v", want)
	}
}

func TestOpenPacket(t *testing.T) {
	loops, err := reactor.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close()
	l := loops.Next()
	d := New(Options{Policy: policy(t, false, loopback)})
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			peer, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			_ = peer.SetDeadline(time.Now().Add(10 * time.Second))
			h := &heard{make(chan string, 10), make(chan int, 10)}
			at := peer.LocalAddr().(*net.UDPAddr).AddrPort()
			dest := destination(t, d, at)
			p, err := d.AuthorizePacket(t.Context(), to(t, at.String()))
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.OpenPacket(t.Context(), l, p, h)
			if err != nil {
				t.Fatal(err)
			}
			other := destination(t, d, netip.MustParseAddrPort(map[bool]string{true: "[::1]:9", false: "127.0.0.1:9"}[at.Addr().Is4()]))
			onLoop(t, l, func() {
				c.Send(l, dest, []byte("hello"))
				c.Send(l, other, []byte("the other family"))
				if s := c.Flush(l); s != (reactor.Sent{Datagrams: 1, Bytes: 5}) {
					t.Errorf("Flush = %+v, want 1 datagram", s)
				}
				c.Send(l, Destination{}, []byte("to nobody"))
				if s := c.Flush(l); s.Datagrams != 0 {
					t.Errorf("Flush = %+v of what no Permit admits, want nothing sent", s)
				}
			})
			b := make([]byte, 100)
			n, from, err := peer.ReadFromUDPAddrPort(b)
			if err != nil || !bytes.Equal(b[:n], []byte("hello")) || from.Port() != c.conn.Local().Port() {
				t.Fatalf("the target reads %q from %v, %v", b[:n], from, err)
			}
			if _, err := peer.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			hears(t, h.words, "answer from "+at.String())
			peer.Close()
			onLoop(t, l, func() {
				c.Send(l, dest, []byte("still there?"))
				c.Flush(l)
			})
			hears(t, h.unreachable, 1)
			c.Close()
			onLoop(t, l, func() {
				c.Send(l, dest, []byte("late"))
				if s := c.Flush(l); s != (reactor.Sent{Dropped: 1}) {
					t.Errorf("Flush once it is closed = %+v, want that it is dropped", s)
				}
			})
		})
	}
}

// destination makes one of an address that is allowed.
func destination(t *testing.T, d *Dialer, a netip.AddrPort) Destination {
	t.Helper()
	p, err := d.AuthorizePacket(t.Context(), to(t, a.String()))
	if err != nil {
		t.Fatal(err)
	}
	dest, _ := p.Destination()
	return dest
}

// TestOpenPacketFails: a loop that has ended takes no socket, and none is left.
func TestOpenPacketFails(t *testing.T) {
	loops, err := reactor.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	l := loops.Next()
	loops.Close()
	d := New(Options{Policy: policy(t, false, loopback)})
	r := to(t, "127.0.0.1:53")
	p, err := d.AuthorizePacket(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	before := sockets(t)
	c, err := d.OpenPacket(t.Context(), l, p, &heard{})
	var e *Error
	if c != nil || !errors.As(err, &e) || e.Target != r.Target || !errors.Is(err, net.ErrClosed) {
		t.Errorf("OpenPacket on a loop that has ended = %v, %v, want %v", c, err, net.ErrClosed)
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, want %d", after, before)
	}
}

// sockets counts the open sockets of this process.
func sockets(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
