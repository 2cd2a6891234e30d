package reactor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a PacketOwner that tells what it hears.
type listener struct {
	heard       chan Datagram // copies
	unreachable chan int
}

func newListener() *listener {
	return &listener{heard: make(chan Datagram, 1000), unreachable: make(chan int, 1000)}
}

func (h *listener) Arrived(p *PacketConn) {
	for {
		batch, more := p.Receive()
		for _, d := range batch {
			d.Data = bytes.Clone(d.Data)
			h.heard <- d
		}
		if !more {
			return
		}
	}
}

func (h *listener) Unreachable(_ *PacketConn, _ netip.AddrPort) { h.unreachable <- 1 }

// next waits for a message.
func (h *listener) next(t *testing.T) Datagram {
	t.Helper()
	select {
	case d := <-h.heard:
		return d
	case <-time.After(patience):
		t.Fatal("no datagram arrives")
	}
	return Datagram{}
}

// packets opens a UDP socket on a loop.
func packets(t testing.TB, l *Loop, address string, o PacketOptions) (*PacketConn, *listener) {
	t.Helper()
	p, err := OpenPacket(netip.MustParseAddrPort(address), o)
	if err != nil {
		t.Fatal(err)
	}
	h := newListener()
	if err := p.Watch(l, h); err != nil {
		t.Fatal(err)
	}
	return p, h
}

// udp opens a UDP socket of package net, which asks for no more than datagrams.
func udp(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// dialUDP opens one that hears of a single peer.
func dialUDP(t testing.TB, local string, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var from *net.UDPAddr
	if local != "" {
		from = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
	}
	c, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func portOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func write(t testing.TB, c *net.UDPConn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// fill makes n octets that are like no others.
func fill(n, seed int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

// split takes a message into its datagrams.
func split(d Datagram) (all [][]byte) {
	if len(d.Data) == 0 {
		return [][]byte{{}}
	}
	return slices.Collect(slices.Chunk(d.Data, d.Size))
}

var bothLoopbacks = []string{"127.0.0.1:0", "[::1]:0"}

func TestReceive(t *testing.T) {
	l := open(t, 1).Next()
	for _, address := range bothLoopbacks {
		for _, size := range []int{0, 1, 1200, 65507} {
			t.Run(fmt.Sprint(address, " ", size), func(t *testing.T) {
				p, h := packets(t, l, address, PacketOptions{})
				peer, sent := dialUDP(t, "", p.Local()), fill(size, size)
				write(t, peer, sent)
				d := h.next(t)
				if !bytes.Equal(d.Data, sent) || d.Size != max(1, size) {
					t.Errorf("got %d octets as datagrams of %d, want the %d that were sent, as one", len(d.Data), d.Size, size)
				}
				if d.From != portOf(peer) || d.To.IsValid() {
					t.Errorf("from %v to %v, want from %v, and no address that was not asked for", d.From, d.To, portOf(peer))
				}
			})
		}
	}
}

// TestReceiveMoreThanABatch: a full batch says that there may be more, the next one brings it, and nothing lies upon anything else.
func TestReceiveMoreThanABatch(t *testing.T) {
	l := open(t, 1).Next()
	p, _ := packets(t, l, "127.0.0.1:0", PacketOptions{})
	peer := dialUDP(t, "", p.Local())
	run(t, l, func() { // meanwhile the loop tells nobody
		var sent [][]byte
		for i := range ReceiveBatch + 8 {
			sent = append(sent, fill(500+i, i))
			write(t, peer, sent[i])
		}
		for i, want := range []struct {
			n    int
			more bool
		}{{ReceiveBatch, true}, {8, false}, {0, false}} {
			batch, more := p.Receive()
			if len(batch) != want.n || more != want.more {
				t.Fatalf("batch %d has %d messages, more %v; want %d, %v", i, len(batch), more, want.n, want.more)
			}
			for k, d := range batch {
				if !bytes.Equal(d.Data, sent[k]) {
					t.Errorf("message %d of batch %d is not what was sent", k, i)
				}
			}
			sent = sent[len(batch):]
		}
	})
}

// TestArrivedIsNeverMissed: who takes all that there is hears of whatever comes after, however it falls.
func TestArrivedIsNeverMissed(t *testing.T) {
	p, h := packets(t, open(t, 1).Next(), "127.0.0.1:0", PacketOptions{Errors: true})
	peer := dialUDP(t, "", p.Local())
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 500 {
		n := 1 + r.IntN(70)
		for i := range n {
			write(t, peer, []byte{byte(round), byte(i)})
		}
		for i := range n {
			if got, want := h.next(t).Data, []byte{byte(round), byte(i)}; !bytes.Equal(got, want) {
				t.Fatalf("round %d: % x has come, want % x", round, got, want)
			}
		}
	}
}

func TestArrivedBeforeWatch(t *testing.T) {
	l := open(t, 1).Next()
	p, err := OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), PacketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dialUDP(t, "", p.Local()), []byte("early"))
	h := newListener()
	if err := p.Watch(l, h); err != nil {
		t.Fatal(err)
	}
	if d := h.next(t); string(d.Data) != "early" {
		t.Errorf("heard %q, want what had come before", d.Data)
	}
	if p.Loop() != l {
		t.Errorf("its loop is %p, want %p", p.Loop(), l)
	}
}

// ownAddresses lists unicast addresses of this machine, 127.0.0.5 among them, where it is one of many. Link-local ones have their zone.
func ownAddresses(t *testing.T) []netip.Addr {
	t.Helper()
	all := []netip.Addr{netip.MustParseAddr("127.0.0.5"), netip.MustParseAddr("::1")}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip := netip.MustParsePrefix(a.String()).Addr()
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(i.Name)
			}
			if c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))); err == nil { // else it is tentative
				c.Close()
				all = append(all, ip)
			}
		}
	}
	return all
}

// TestDestination: a socket for every address answers from the one that was asked; another answer would not reach the peer.
func TestDestination(t *testing.T) {
	l := open(t, 1).Next()
	wildcard := map[bool]string{false: "0.0.0.0:0", true: "[::]:0"}
	for _, asked := range ownAddresses(t) {
		t.Run(asked.String(), func(t *testing.T) {
			p, h := packets(t, l, wildcard[asked.Is6()], PacketOptions{Destination: true})
			local := "127.0.0.1:0" // whence the system would answer by itself
			switch {
			case asked.Zone() != "":
				local = netip.AddrPortFrom(asked, 0).String()
			case asked.Is6():
				local = "[::1]:0"
			}
			peer := dialUDP(t, local, netip.AddrPortFrom(asked, p.Local().Port()))
			write(t, peer, []byte("asks"))
			d := h.next(t)
			if d.To != asked.WithZone("") {
				t.Errorf("asked at %v, want %v", d.To, asked.WithZone(""))
			}
			if zone := d.From.Addr().Zone(); (zone != "") != (asked.Zone() != "") {
				t.Errorf("the peer's zone is %q, ours %q", zone, asked.Zone())
			} else if _, err := strconv.Atoi(zone); zone != "" && err != nil {
				t.Errorf("the peer's zone is %q, want the number of an interface", zone)
			}
			run(t, l, func() {
				p.Send(l, d.From, d.To, nil, []byte("answer"))
				p.Send(l, d.From, d.To, nil, []byte("by two")) // one message with two control messages
				if s := p.Flush(l); s != (Sent{Datagrams: 2, Bytes: 12}) {
					t.Errorf("Flush = %+v, want 2 datagrams", s)
				}
			})
			for _, want := range []string{"answer", "by two"} {
				b := make([]byte, 100)
				if n, err := peer.Read(b); err != nil || string(b[:n]) != want {
					t.Errorf("the peer reads %q, %v, want %q", b[:n], err, want)
				}
			}
		})
	}
}

// TestSourcesApart: datagrams of one size to one peer that leave from different addresses are no one message.
func TestSourcesApart(t *testing.T) {
	l := open(t, 1).Next()
	p, _ := packets(t, l, "0.0.0.0:0", PacketOptions{Destination: true})
	peer := udp(t, "127.0.0.1:0")
	from := []string{"127.0.0.5", "127.0.0.5", "127.0.0.6", "127.0.0.5"}
	run(t, l, func() {
		for _, a := range from {
			p.Send(l, portOf(peer), netip.MustParseAddr(a), nil, []byte("word"))
		}
		if s := p.Flush(l); s.Datagrams != int64(len(from)) {
			t.Errorf("Flush = %+v, want %d datagrams", s, len(from))
		}
	})
	for _, want := range from {
		if _, at, err := peer.ReadFromUDPAddrPort(make([]byte, 100)); err != nil || at.Addr() != netip.MustParseAddr(want) {
			t.Errorf("a datagram comes from %v, %v, want %s", at, err, want)
		}
	}
}

func TestOpenPacketTaken(t *testing.T) {
	for _, address := range bothLoopbacks {
		t.Run(address, func(t *testing.T) {
			first, err := OpenPacket(netip.MustParseAddrPort(address), PacketOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			refused := func(share bool) {
				t.Helper()
				p, err := OpenPacket(first.Local(), PacketOptions{Share: share})
				var op *net.OpError
				if !errors.Is(err, unix.EADDRINUSE) || !errors.As(err, &op) || op.Net != "udp" {
					t.Errorf("OpenPacket(%v, share %v) = %v, %v, want EADDRINUSE of udp", first.Local(), share, p, err)
				}
			}
			refused(false)
			refused(true)
			if err := first.Share(); err != nil {
				t.Fatal(err)
			}
			refused(false)
			second, err := OpenPacket(first.Local(), PacketOptions{Share: true})
			if err != nil {
				t.Fatalf("once the first shares: %v", err)
			}
			if err := second.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		})
	}
}

func TestOpenPacketFails(t *testing.T) {
	before := openFiles(t)
	for _, address := range []string{"192.0.2.77:0", "[2001:db8::77]:0", "[::ffff:127.0.0.1]:0"} { // not ours, and IPv4 within IPv6
		if p, err := OpenPacket(netip.MustParseAddrPort(address), PacketOptions{Destination: true, Errors: true}); err == nil {
			t.Errorf("OpenPacket(%s) = %v, want an error", address, p.Local())
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, want %d", after, before)
	}
}

// openFiles counts the descriptors of this process, with those that the runtime opens for itself at the first use of its poller.
func openFiles(t *testing.T) int {
	t.Helper()
	udp(t, "127.0.0.1:0").Close()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestShare: peers are dealt out among sockets of one port, on loops of their own, and each stays where it is.
func TestShare(t *testing.T) {
	g := open(t, 2)
	first, h1 := packets(t, g.loops[0], "127.0.0.1:0", PacketOptions{})
	if err := first.Share(); err != nil {
		t.Fatal(err)
	}
	_, h2 := packets(t, g.loops[1], first.Local().String(), PacketOptions{Share: true})
	peers := make([]*net.UDPConn, 40)
	for i := range peers {
		peers[i] = dialUDP(t, "", first.Local())
	}
	at := map[netip.AddrPort]*listener{}
	heard := map[*listener]int{}
	for range 3 {
		for _, peer := range peers {
			write(t, peer, []byte("x"))
		}
		for range peers {
			var d Datagram
			h := h1
			select {
			case d = <-h1.heard:
			case d = <-h2.heard:
				h = h2
			case <-time.After(patience):
				t.Fatal("a datagram arrives at neither")
			}
			if before := at[d.From]; before != nil && before != h {
				t.Errorf("%v is heard by both", d.From)
			}
			at[d.From] = h
			heard[h]++
		}
	}
	if len(at) != len(peers) || heard[h1] == 0 || heard[h2] == 0 {
		t.Errorf("of %d peers %d are heard, by %d and %d datagrams", len(peers), len(at), heard[h1], heard[h2])
	}
}
