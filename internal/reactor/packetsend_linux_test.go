package reactor

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// datagram is one to be sent.
type datagram struct {
	to              int // which peer
	header, payload []byte
}

func (d datagram) whole() []byte { return append(bytes.Clone(d.header), d.payload...) }

// plain makes datagrams of some sizes to the first peer.
func plain(sizes ...int) (all []datagram) {
	for i, n := range sizes {
		all = append(all, datagram{payload: fill(n, i)})
	}
	return all
}

// headed makes datagrams that consist of a header of 10 octets and payloads of some sizes.
func headed(sizes ...int) []datagram {
	all := plain(sizes...)
	for i := range all {
		all[i].header = fill(10, 1000+i)
	}
	return all
}

// alternating sends them to two peers in turn.
func alternating(all []datagram) []datagram {
	for i := range all {
		all[i].to = i % 2
	}
	return all
}

var sendTests = []struct {
	name   string
	send   []datagram
	pieces []int // of each message, in order
}{
	{"one", plain(1200), []int{1}},
	{"one with a header", headed(1200), []int{1}},
	{"an empty one", plain(0), []int{1}},
	{"a header alone", headed(0), []int{1}},
	{"the longest", plain(65507), []int{1}},
	{"the longest with a header", headed(65497), []int{1}},
	{"several of one size", plain(1200, 1200, 1200), []int{3}},
	{"several with headers", headed(1200, 1200, 1200), []int{3}},
	{"a shorter last one", plain(1200, 1200, 700), []int{3}},
	{"a shorter last one with headers", headed(1200, 1200, 700), []int{3}},
	{"headers alone", headed(0, 0, 0), []int{3}},
	{"a last one that is a header alone", headed(100, 100, 0), []int{3}},
	{"behind a shorter one", plain(1200, 700, 1200, 1200), []int{2, 2}},
	{"growing", plain(100, 200, 300), []int{1, 1, 1}},
	{"falling", plain(300, 200, 100), []int{2, 1}},
	{"empty ones", plain(0, 0), []int{1, 1}},
	{"an empty one amid others", plain(100, 100, 0, 100), []int{2, 1, 1}},
	{"one octet each", plain(1, 1, 1, 1), []int{4}},
	{"more than the system cuts", plain(slices.Repeat([]int{20}, 100)...), []int{64, 36}},
	{"more than 64 KiB", plain(slices.Repeat([]int{30000}, 5)...), []int{2, 2, 1}},
	{"with and without a header", append(plain(100), headed(90, 90)...), []int{1, 2}},
	{"two peers in turn", alternating(plain(100, 100, 100, 100)), []int{1, 1, 1, 1}},
}

// TestSend: each datagram arrives as it was, for itself and in order, at peers that know nothing of messages.
func TestSend(t *testing.T) {
	l := open(t, 1).Next()
	for _, address := range bothLoopbacks {
		for _, tt := range sendTests {
			t.Run(address+" "+tt.name, func(t *testing.T) {
				p, _ := packets(t, l, address, PacketOptions{})
				peers := []*net.UDPConn{udp(t, address), udp(t, address)}
				sent, pieces := send(t, l, p, tt.send, portOf(peers[0]), portOf(peers[1]))
				if !slices.Equal(pieces, tt.pieces) {
					t.Errorf("messages of %v datagrams, want %v", pieces, tt.pieces)
				}
				want := Sent{Datagrams: int64(len(tt.send))}
				for _, d := range tt.send {
					want.Bytes += int64(len(d.payload))
				}
				if sent != want {
					t.Errorf("Flush = %+v, want %+v", sent, want)
				}
				arrives(t, p.Local(), tt.send, peers...)
			})
		}
	}
}

// send sends datagrams, and says what has become of them and how many were in each message.
func send(t *testing.T, l *Loop, p *PacketConn, all []datagram, peers ...netip.AddrPort) (sent Sent, pieces []int) {
	t.Helper()
	run(t, l, func() {
		for _, d := range all {
			p.Send(l, peers[d.to], netip.Addr{}, d.header, d.payload)
		}
		for _, m := range l.sends.parts[:l.sends.n] {
			pieces = append(pieces, m.pieces)
		}
		sent = p.Flush(l)
		if again := p.Flush(l); again != (Sent{}) {
			t.Errorf("Flush again = %+v, want nothing", again)
		}
	})
	return sent, pieces
}

// arrives wants all datagrams at their peers.
func arrives(t *testing.T, from netip.AddrPort, all []datagram, peers ...*net.UDPConn) {
	t.Helper()
	b := make([]byte, 1<<16)
	for i, d := range all {
		n, at, err := peers[d.to].ReadFromUDPAddrPort(b)
		if want := d.whole(); err != nil || !bytes.Equal(b[:n], want) || at != from {
			t.Fatalf("datagram %d is %d octets from %v, %v; want the %d that were sent, from %v", i, n, at, err, len(want), from)
		}
	}
}

// TestSendTogether: a message arrives whole at a socket that asks for it, as all of this package do.
func TestSendTogether(t *testing.T) {
	l := open(t, 1).Next()
	for _, address := range bothLoopbacks {
		for _, tt := range sendTests {
			t.Run(address+" "+tt.name, func(t *testing.T) {
				p, _ := packets(t, l, address, PacketOptions{})
				q, h := packets(t, l, address, PacketOptions{})
				other, h2 := packets(t, l, address, PacketOptions{})
				if sent, _ := send(t, l, p, tt.send, q.Local(), other.Local()); sent.Datagrams != int64(len(tt.send)) {
					t.Errorf("Flush = %+v, want %d datagrams", sent, len(tt.send))
				}
				left := tt.send
				for i, n := range tt.pieces {
					d := []*listener{h, h2}[left[0].to].next(t)
					got := split(d)
					if len(got) != n || d.From != p.Local() {
						t.Fatalf("message %d has %d datagrams from %v, want %d from %v", i, len(got), d.From, n, p.Local())
					}
					for k := range got {
						if !bytes.Equal(got[k], left[k].whole()) {
							t.Fatalf("datagram %d of message %d is not what was sent", k, i)
						}
					}
					left = left[n:]
				}
			})
		}
	}
}

// TestSendMoreThanThereIsPlaceFor: what is full is sent on the way, and what became of it is not forgotten.
func TestSendMoreThanThereIsPlaceFor(t *testing.T) {
	l := open(t, 1).Next()
	for _, tt := range []struct {
		name string
		all  []datagram
		left int // messages that are left for Flush
	}{
		{"messages", alternating(plain(slices.Repeat([]int{9}, sendBatch+10)...)), 10},
		{"pieces of memory", headed(slices.Repeat([]int{9}, sendIovecs/2+3)...), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := packets(t, l, "127.0.0.1:0", PacketOptions{})
			peers := []*net.UDPConn{udp(t, "127.0.0.1:0"), udp(t, "127.0.0.1:0")}
			_ = peers[0].SetReadBuffer(1 << 20)
			sent, pieces := send(t, l, p, tt.all, portOf(peers[0]), portOf(peers[1]))
			if len(pieces) != tt.left || sent != (Sent{Datagrams: int64(len(tt.all)), Bytes: 9 * int64(len(tt.all))}) {
				t.Errorf("Flush of %d messages = %+v, want %d, and %d datagrams in all", len(pieces), sent, tt.left, len(tt.all))
			}
			arrives(t, p.Local(), tt.all, peers...)
		})
	}
}

// narrow makes the way of an IPv6 socket no wider than its least MTU (RFC 8200 section 5).
func narrow(t *testing.T, p *PacketConn) {
	t.Helper()
	if err := unix.SetsockoptInt(p.sock.fd, unix.IPPROTO_IPV6, unix.IPV6_MTU, 1280); err != nil {
		t.Fatal(err)
	}
}

// TestSendWiderThanTheWay: the system does not cut pieces that it would have to cut again. They go one by one then, in fragments.
func TestSendWiderThanTheWay(t *testing.T) {
	l := open(t, 1).Next()
	p, _ := packets(t, l, "[::1]:0", PacketOptions{Errors: true})
	narrow(t, p)
	peer := udp(t, "[::1]:0")
	_ = peer.SetReadBuffer(1 << 20)
	for _, tt := range []struct {
		name   string
		all    []datagram
		pieces []int
		whole  int
	}{
		{"narrower", headed(1000, 1000, 500), []int{3}, 0},
		{"wider", plain(1400, 1400, 1400, 900), []int{4}, 1399},
		{"wider, once it is known", headed(1390, 1390, 1390), []int{1, 1, 1}, 1399},
		{"a little narrower, but still wider", headed(1300, 1300, 20), []int{3}, 1309},
		{"wider amid others", append(plain(100, 100, 1300, 1300), plain(50)...), []int{2, 3}, 1299},
		{"narrower again", headed(1000, 1000, 500), []int{3}, 1299},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent, pieces := send(t, l, p, tt.all, portOf(peer))
			if !slices.Equal(pieces, tt.pieces) || sent.Datagrams != int64(len(tt.all)) || sent.Dropped != 0 {
				t.Errorf("Flush of messages of %v = %+v, want %v, and all %d sent", pieces, sent, tt.pieces, len(tt.all))
			}
			if got := l.sends.narrow[netip.IPv6Loopback()]; got != tt.whole {
				t.Errorf("up to %d octets are left for the system to cut, want %d", got, tt.whole)
			}
			arrives(t, p.Local(), tt.all, peer)
		})
	}
}

// TestSendOneByOneToNobody: each piece has an error come back, which must not be taken for what became of the next.
func TestSendOneByOneToNobody(t *testing.T) {
	l := open(t, 1).Next()
	p, _ := packets(t, l, "[::1]:0", PacketOptions{Errors: true})
	narrow(t, p)
	sent, _ := send(t, l, p, plain(1400, 1400, 1400), nobody(t, "[::1]:0"))
	if want := (Sent{Datagrams: 3, Bytes: 4200}); sent != want {
		t.Errorf("Flush = %+v, want %+v", sent, want)
	}
}

// TestDropped: what cannot leave is counted, and is in nobody's way.
func TestDropped(t *testing.T) {
	to := func(where int, all []datagram) []datagram {
		for i := range all {
			all[i].to = where
		}
		return all
	}
	const nowhere, full = 1, 0
	for _, tt := range []struct {
		name string
		bad  []datagram
		sent int // of them all the same
	}{
		{"no port", to(nowhere, plain(100)), 0},
		{"no port, several", to(nowhere, headed(100, 100, 50)), 0},
		{"too long", plain(65508), 0},
		{"too long with its header", headed(65498), 0},
		{"no room", to(full, plain(60000)), 0},
		{"no room for the first ones", to(full, plain(30000, 30000, 100)), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := open(t, 1).Next()
			p, _ := packets(t, l, "[::1]:0", PacketOptions{})
			narrow(t, p)
			if err := unix.SetsockoptInt(p.sock.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil { // the least
				t.Fatal(err)
			}
			peer := udp(t, "[::1]:0")
			good := plain(500, 500)
			all := slices.Concat(good, tt.bad, good)
			sent, _ := send(t, l, p, all, portOf(peer), netip.MustParseAddrPort("[::1]:0"))
			if want := int64(len(tt.bad) - tt.sent); sent.Dropped != want || sent.Datagrams != int64(len(all))-want {
				t.Errorf("Flush = %+v, want %d dropped of %d", sent, want, len(all))
			}
			arrives(t, p.Local(), slices.Concat(good, tt.bad[len(tt.bad)-tt.sent:], good), peer)
			if tt.bad[0].to == nowhere && len(l.sends.narrow) > 0 {
				t.Errorf("the way is taken for narrow (%v), which was not why something was refused", l.sends.narrow)
			}
		})
	}
}

// TestSendToTheOtherFamily: a socket is for its own.
func TestSendToTheOtherFamily(t *testing.T) {
	l := open(t, 1).Next()
	for address, to := range map[string]string{"127.0.0.1:0": "[::1]:9", "[::1]:0": "127.0.0.1:9"} {
		p, _ := packets(t, l, address, PacketOptions{})
		if sent, _ := send(t, l, p, plain(1, 1), netip.MustParseAddrPort(to)); sent != (Sent{Dropped: 2}) {
			t.Errorf("from %s to %s Flush = %+v, want 2 dropped", address, to, sent)
		}
	}
}

// TestSendFromSeveralLoops: a socket may be sent by from any loop, while the system refuses to cut what some of them send.
func TestSendFromSeveralLoops(t *testing.T) {
	g := open(t, 3)
	p, _ := packets(t, g.loops[0], "[::1]:0", PacketOptions{})
	narrow(t, p)
	done := make(chan Sent, len(g.loops))
	for i, l := range g.loops {
		peer := udp(t, "[::1]:0")
		l.Post(func() {
			var sent Sent
			for k := range 100 {
				for range 3 {
					p.Send(l, portOf(peer), netip.Addr{}, []byte("header"), fill(1500-k-i, i))
				}
				sent.Add(p.Flush(l))
			}
			done <- sent
		})
	}
	for range g.loops {
		if sent := <-done; sent.Datagrams != 300 || sent.Dropped != 0 {
			t.Errorf("sent %+v, want 300 datagrams", sent)
		}
	}
}

// TestNarrowWaysAreApart: who has a narrow way makes nobody else's slower, and that many are known costs no more memory.
func TestNarrowWaysAreApart(t *testing.T) {
	l := open(t, 1).Next()
	p, _ := packets(t, l, "[::1]:0", PacketOptions{})
	run(t, l, func() {
		l.sends = &sending{conn: p}
		a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		l.sends.narrowed(a, 1281)
		if got := [2]int{l.sends.widest(a), l.sends.widest(b)}; got != [2]int{1280, maxUDP} {
			t.Errorf("the ways take pieces of %d, want 1280 and %d", got, maxUDP)
		}
		for range 3 * maxNarrow {
			b = b.Next()
			l.sends.narrowed(b, 1281)
		}
		if n := len(l.sends.narrow); n > maxNarrow || l.sends.widest(b) != 1280 {
			t.Errorf("%d ways are remembered, the last as %d, want %d at most, and 1280", n, l.sends.widest(b), maxNarrow)
		}
		p.cuts = false
		if got := l.sends.widest(a); got != 0 {
			t.Errorf("pieces of %d are for a system to cut that does not", got)
		}
		for range 3 {
			p.Send(l, p.Local(), netip.Addr{}, nil, []byte("x"))
		}
		if l.sends.n != 3 {
			t.Errorf("3 datagrams make %d messages, want one each", l.sends.n)
		}
		if s := p.Flush(l); s.Datagrams != 3 {
			t.Errorf("Flush = %+v, want 3 datagrams", s)
		}
	})
}

func TestReported(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{
		unix.ECONNREFUSED: true, unix.EHOSTUNREACH: true, unix.EMSGSIZE: true, // by ICMP and ICMPv6
		unix.EINVAL: false, unix.ENOBUFS: false, unix.EAGAIN: false, unix.EBADF: false, unix.EPERM: false,
	} {
		t.Run(fmt.Sprint(errno), func(t *testing.T) {
			if got := reported(errno); got != want {
				t.Errorf("reported(%v) = %v, want %v", errno, got, want)
			}
		})
	}
}
