package reactor

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody returns an address at which nobody listens.
func nobody(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return portOf(c)
}

// TestUnreachable: the owner is told, and the socket goes on in both directions.
func TestUnreachable(t *testing.T) {
	l := open(t, 1).Next()
	for _, address := range bothLoopbacks {
		t.Run(address, func(t *testing.T) {
			p, h := packets(t, l, address, PacketOptions{Errors: true})
			peer := dialUDP(t, "", p.Local())
			for range 3 {
				run(t, l, func() {
					p.Send(l, nobody(t, address), netip.Addr{}, nil, []byte("anybody?"))
					if s := p.Flush(l); s != (Sent{Datagrams: 1, Bytes: 8}) {
						t.Errorf("Flush = %+v, want that it has been sent", s)
					}
				})
				select {
				case n := <-h.unreachable:
					if n != 1 {
						t.Errorf("%d errors came back, want 1", n)
					}
				case <-time.After(patience):
					t.Fatal("the owner does not hear that nobody is there")
				}
				write(t, peer, []byte("hello"))
				if d := h.next(t); string(d.Data) != "hello" {
					t.Errorf("after the error %q arrives, want hello", d.Data)
				}
				answer(t, l, p, portOf(peer), peer)
			}
			if len(h.unreachable) > 0 {
				t.Errorf("the owner has heard of %d errors more", <-h.unreachable)
			}
		})
	}
}

// answer has p send a word to peer, which is at an address.
func answer(t *testing.T, l *Loop, p *PacketConn, to netip.AddrPort, peer *net.UDPConn) {
	t.Helper()
	run(t, l, func() {
		p.Send(l, to, netip.Addr{}, nil, []byte("word"))
		if s := p.Flush(l); s != (Sent{Datagrams: 1, Bytes: 4}) {
			t.Errorf("Flush = %+v, want 1 datagram", s)
		}
	})
	b := make([]byte, 100)
	if n, err := peer.Read(b); err != nil || string(b[:n]) != "word" {
		t.Errorf("the peer reads %q, %v, want %q", b[:n], err, "word")
	}
}

// TestUnreachableIsNotAsked: without Errors nobody is told.
func TestUnreachableIsNotAsked(t *testing.T) {
	l := open(t, 1).Next()
	p, h := packets(t, l, "127.0.0.1:0", PacketOptions{})
	peer := dialUDP(t, "", p.Local())
	run(t, l, func() {
		p.Send(l, nobody(t, "127.0.0.1:0"), netip.Addr{}, nil, []byte("anybody?"))
		p.Flush(l)
	})
	write(t, peer, []byte("hello"))
	h.next(t)
	if len(h.unreachable) > 0 {
		t.Error("the owner has heard of an error that it did not ask for")
	}
}

// TestErrorInTheWay: the system tells an error that has come back in place of what the next call is for. Nothing is lost by that.
func TestErrorInTheWay(t *testing.T) {
	l := open(t, 1).Next()
	for _, address := range bothLoopbacks {
		t.Run(address, func(t *testing.T) {
			p, _ := packets(t, l, address, PacketOptions{Errors: true})
			peer := dialUDP(t, "", p.Local())
			run(t, l, func() { // before the loop looks for events
				fail := func() {
					p.Send(l, nobody(t, address), netip.Addr{}, nil, []byte("anybody?"))
					p.Flush(l)
					if v, err := unix.GetsockoptInt(p.sock.fd, unix.SOL_SOCKET, unix.SO_ERROR); v != int(unix.ECONNREFUSED) || err != nil {
						t.Errorf("the error that came back is %d, %v, want %d", v, err, unix.ECONNREFUSED)
					}
					p.Send(l, nobody(t, address), netip.Addr{}, nil, []byte("anybody?")) // asking has taken that one
					p.Flush(l)
				}
				fail()
				for range 3 {
					p.Send(l, portOf(peer), netip.Addr{}, nil, []byte("word"))
				}
				if s := p.Flush(l); s != (Sent{Datagrams: 3, Bytes: 12}) {
					t.Errorf("Flush = %+v, want 3 datagrams", s)
				}
				write(t, peer, []byte("hello"))
				fail()
				if batch, more := p.Receive(); len(batch) != 1 || more || string(batch[0].Data) != "hello" {
					t.Errorf("Receive = %v, %v, want the one datagram", batch, more)
				}
			})
		})
	}
}

// closer closes its socket at the first datagram.
type closer struct {
	t      *testing.T
	closed chan struct{}
}

func (c *closer) Arrived(p *PacketConn) {
	defer close(c.closed)
	if err := p.Close(); err != nil {
		c.t.Errorf("Close = %v", err)
	}
	if err := p.Close(); !errors.Is(err, net.ErrClosed) {
		c.t.Errorf("Close again = %v, want %v", err, net.ErrClosed)
	}
	if batch, more := p.Receive(); batch != nil || more {
		c.t.Errorf("Receive = %v, %v of a closed socket", batch, more)
	}
	p.Send(p.Loop(), p.Local(), netip.Addr{}, nil, []byte("x"))
	if s := p.Flush(p.Loop()); s != (Sent{Dropped: 1}) {
		c.t.Errorf("Flush of a closed socket = %+v, want that it is dropped", s)
	}
}

func (c *closer) Unreachable(*PacketConn, netip.AddrPort) {}

// quitter closes its socket when it hears of an error.
type quitter struct{ *listener }

func (q quitter) Unreachable(p *PacketConn, _ netip.AddrPort) {
	_ = p.Close()
	q.unreachable <- 1
}

func (q quitter) Arrived(*PacketConn) { q.heard <- Datagram{} }

// TestCloseAtAnError: who closes the socket then hears no more of it, though there is a datagram too.
func TestCloseAtAnError(t *testing.T) {
	l := open(t, 1).Next()
	p, err := OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), PacketOptions{Errors: true})
	if err != nil {
		t.Fatal(err)
	}
	q := quitter{newListener()}
	if err := p.Watch(l, q); err != nil {
		t.Fatal(err)
	}
	peer, gone := dialUDP(t, "", p.Local()), nobody(t, "127.0.0.1:0")
	run(t, l, func() { // both come with one event
		p.Send(l, gone, netip.Addr{}, nil, []byte("anybody?"))
		p.Flush(l)
		write(t, peer, []byte("hello"))
	})
	select {
	case <-q.unreachable:
	case <-time.After(patience):
		t.Fatal("the owner does not hear that nobody is there")
	}
	run(t, l, func() {})
	if len(q.heard) > 0 {
		t.Error("the owner was told of a datagram of a socket that it has closed")
	}
}

// TestClosePacketConn: whether an owner closes it, the loop, or somebody before there was one, no descriptor is left.
func TestClosePacketConn(t *testing.T) {
	before := openFiles(t)
	g, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	l := g.Next()
	unwatched, err := OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), PacketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := unwatched.Close(); err != nil {
		t.Errorf("Close before Watch = %v", err)
	}
	if err := unwatched.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close again = %v, want %v", err, net.ErrClosed)
	}
	c := &closer{t, make(chan struct{})}
	p, err := OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), PacketOptions{Errors: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Watch(l, c); err != nil {
		t.Fatal(err)
	}
	peer, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.Local()))
	if err != nil {
		t.Fatal(err)
	}
	write(t, peer, []byte("x"))
	<-c.closed
	peer.Close()
	if got := registered(t, l); got != 1 {
		t.Errorf("%d descriptors are in epoll, want 1, its own", got)
	}
	left, _ := packets(t, l, "127.0.0.1:0", PacketOptions{})
	late, err := OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), PacketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if err := left.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after the loop = %v, want %v", err, net.ErrClosed)
	}
	if err := late.Watch(l, newListener()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Watch on a closed loop = %v, want %v", err, net.ErrClosed)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, want %d", after, before)
	}
}
