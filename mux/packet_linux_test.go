package mux

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"polyport/internal/reactor"
)

// packetFunc is a PacketHandler of a type that cannot be compared.
type packetFunc func(on *PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram)

func (f packetFunc) ServePackets(on *PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram) {
	f(on, by, batch)
}

// telling returns a row that notes what each call has brought, as "name: datagram datagram".
func telling(name, first string, calls *[]string) PacketRow {
	return PacketRow{Name: name, First: []byte(first), Handler: packetFunc(func(_ *PacketSocket, _ *reactor.PacketConn, batch []reactor.Datagram) {
		call := name + ":"
		for _, d := range batch {
			call += fmt.Sprintf(" %q", d.Data)
		}
		*calls = append(*calls, call)
	})}
}

func TestPacketsByFirstOctet(t *testing.T) {
	for _, tt := range []struct {
		name  string
		batch []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"one", []string{"\x00a"}, []string{`socks: "\x00a"`}},
		{"one octet", []string{"\x00"}, []string{`socks: "\x00"`}},
		{"a run is one call", []string{"\x00a", "\x00b", "\x00c"}, []string{`socks: "\x00a" "\x00b" "\x00c"`}},
		{"several first octets of one row", []string{"\x40a", "\xc0b", "\x7fc"}, []string{`quic: "@a" "\xc0b" "\x7fc"`}},
		{"runs", []string{"\x00a", "\x40b", "\x40c", "\x00d"}, []string{`socks: "\x00a"`, `quic: "@b" "@c"`, `socks: "\x00d"`}},
		{"unknown", []string{"\x01a", "GET /"}, nil},
		{"empty", []string{"", ""}, nil},
		{"unknown and empty amid others", []string{"", "\x00a", "\x01", "\x00b", "", "\x40c", "\x02"}, []string{`socks: "\x00a"`, `socks: "\x00b"`, `quic: "@c"`}},
		{"the first row of those that want it", []string{"\xffa"}, []string{`quic: "\xffa"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls []string
			table := newPacketTable([]PacketRow{telling("socks", "\x00", &calls), telling("quic", "\x40\x7f\xc0\xff", &calls), telling("late", "\x00\xff", &calls)})
			var batch []reactor.Datagram
			for _, b := range tt.batch {
				batch = append(batch, reactor.Datagram{Data: []byte(b), Size: max(1, len(b))})
			}
			table.serve(nil, nil, batch)
			if !slices.Equal(calls, tt.want) {
				t.Errorf("handlers were called with %q, want %q", calls, tt.want)
			}
		})
	}
}

func TestPacketsWithoutRows(t *testing.T) {
	newPacketTable(nil).serve(nil, nil, []reactor.Datagram{{Data: []byte{0}, Size: 1}, {Size: 1}})
}

// group starts loops for one test.
func group(t *testing.T, n int) *reactor.Group {
	t.Helper()
	loops, err := reactor.Open(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loops.Close)
	return loops
}

// packetServer serves rows over UDP.
func packetServer(t *testing.T, loops *reactor.Group, rows ...PacketRow) *Server {
	t.Helper()
	s := NewServer(Options{Loops: loops, Packets: rows})
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return s
}

// both opens TCP and UDP on a port that the system chooses. TCP ends with the test.
func both(t *testing.T, address string) *Listener {
	t.Helper()
	l, err := ListenBoth(t.Context(), netip.MustParseAddrPort(address), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Socket.Close() })
	return l
}

// peerOf opens a UDP socket that hears of nothing but what an address sends.
func peerOf(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// answered wants a datagram to be answered with another.
func answered(t *testing.T, peer *net.UDPConn, send, want string) {
	t.Helper()
	if _, err := io.WriteString(peer, send); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := peer.Read(b); err != nil || string(b[:n]) != want {
		t.Fatalf("%q is answered with %q, %v, want %q", send, b[:n], err, want)
	}
}

// echo answers each datagram with the row's name in front, whence it was asked.
func echo(name, first string, served chan<- *reactor.PacketConn) PacketRow {
	return PacketRow{Name: name, First: []byte(first), Handler: packetFunc(func(_ *PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram) {
		for _, d := range batch {
			for data := d.Data; len(data) > 0; data = data[min(d.Size, len(data)):] {
				by.Send(by.Loop(), d.From, d.To, []byte(name), data[:min(d.Size, len(data))])
			}
		}
		by.Flush(by.Loop())
		served <- by
	})}
}

func TestServePackets(t *testing.T) {
	served := make(chan *reactor.PacketConn, 1000)
	s := packetServer(t, group(t, 2), echo("socks ", "\x00", served), echo("quic ", "\xc0", served))
	for _, tt := range []struct{ listen, asked string }{{"127.0.0.1:0", "127.0.0.1"}, {"0.0.0.0:0", "127.0.0.5"}, {"[::1]:0", "::1"}, {"[::]:0", "::1"}} {
		t.Run(tt.listen+" "+tt.asked, func(t *testing.T) {
			l := both(t, tt.listen)
			defer l.Packets.Release()
			if err := s.AddPackets(l.Packets); err != nil {
				t.Fatal(err)
			}
			if err := s.AddPackets(l.Packets); err != nil {
				t.Errorf("AddPackets again = %v", err)
			}
			peer := peerOf(t, netip.AddrPortFrom(netip.MustParseAddr(tt.asked), l.Packets.Addr().Port()))
			for _, nothing := range []string{"", "GET / HTTP/1.1\r\n", "\x05\x01\x00"} {
				if _, err := io.WriteString(peer, nothing); err != nil {
					t.Fatal(err)
				}
			}
			answered(t, peer, "\x00one", "socks \x00one")
			answered(t, peer, "\xc0two", "quic \xc0two")
		})
	}
}

// TestServePacketsTogether: what the system keeps together goes to the handler in one piece.
func TestServePacketsTogether(t *testing.T) {
	loops := group(t, 2)
	got := make(chan string, 10)
	row := PacketRow{First: []byte{0}, Handler: packetFunc(func(_ *PacketSocket, _ *reactor.PacketConn, batch []reactor.Datagram) {
		for _, d := range batch {
			got <- fmt.Sprintf("%q by %d", d.Data, d.Size)
		}
	})}
	s := packetServer(t, loops, row)
	l := both(t, "127.0.0.1:0")
	defer l.Packets.Release()
	if err := s.AddPackets(l.Packets); err != nil {
		t.Fatal(err)
	}
	sender, err := reactor.OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), reactor.PacketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	loop := loops.Next()
	if err := sender.Watch(loop, &packetOwner{&PacketSocket{table: newPacketTable(nil)}}); err != nil {
		t.Fatal(err)
	}
	loop.Post(func() {
		for _, b := range []string{"\x00aa", "\x00bb", "\x01cc", "\x00d"} { // the third one is noise within
			sender.Send(loop, l.Packets.Addr(), netip.Addr{}, nil, []byte(b))
		}
		sender.Flush(loop)
	})
	select {
	case call := <-got:
		if want := `"\x00aa\x00bb\x01cc\x00d" by 3`; call != want {
			t.Errorf("the handler got %s, want %s", call, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the handler hears nothing")
	}
}

// TestSocketsOfOneAddress: peers are dealt out among them, and all of them reach the handler.
func TestSocketsOfOneAddress(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	served := make(chan *reactor.PacketConn, 1000)
	s := packetServer(t, group(t, 4), echo("", "\x00", served))
	l := both(t, "127.0.0.1:0")
	defer l.Packets.Release()
	if err := s.AddPackets(l.Packets); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		answered(t, peerOf(t, l.Packets.Addr()), "\x00x", "\x00x")
	}
	at := map[*reactor.PacketConn]bool{}
	on := map[*reactor.Loop]bool{}
	for range 100 {
		by := <-served
		at[by], on[by.Loop()] = true, true
	}
	if len(l.Packets.conns) != 4 || len(at) != 4 || len(on) != 4 {
		t.Errorf("of %d sockets %d were heard of, on %d loops, want 4", len(l.Packets.conns), len(at), len(on))
	}
}

// fairShare is what one socket may take until others have their turn.
const fairShare = 8 * reactor.ReceiveBatch

// TestPacketsTakeTurns: a socket that has more than its share lets the others of its loop go on, and goes on itself without being told again.
func TestPacketsTakeTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one socket
	got := make(chan int, 1000)
	row := PacketRow{First: []byte{0}, Handler: packetFunc(func(_ *PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram) {
		got <- len(batch)
	})}
	s := packetServer(t, group(t, 1), row)
	l := both(t, "127.0.0.1:0")
	defer l.Packets.Release()
	widen(t, l.Packets.Addr())
	const sent = fairShare + 100
	peer := peerOf(t, l.Packets.Addr())
	for range sent {
		if _, err := peer.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	left := sent - dropped(t, l.Packets.Addr()) // as many as the system lets wait
	if err := s.AddPackets(l.Packets); err != nil {
		t.Fatal(err)
	}
	for left > 0 {
		select {
		case n := <-got:
			left -= n
		case <-time.After(10 * time.Second):
			t.Fatalf("%d datagrams are left in the socket", left)
		}
	}
}

// TestPacketsNeverEnd: a socket that is never empty keeps nobody of its loop from what they have to do.
func TestPacketsNeverEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const batch, all = 32, 5 * fairShare
	var peer *net.UDPConn
	got := 0
	turn, done := make(chan int, 1), make(chan struct{})
	row := PacketRow{First: []byte{0}, Handler: packetFunc(func(_ *PacketSocket, by *reactor.PacketConn, datagrams []reactor.Datagram) {
		if got == 0 {
			by.Loop().Post(func() { turn <- got })
		}
		if got += len(datagrams); got >= all {
			close(done)
			return
		}
		for range batch {
			_, _ = peer.Write([]byte{0})
		}
	})}
	s := packetServer(t, group(t, 1), row)
	l := both(t, "127.0.0.1:0")
	defer l.Packets.Release()
	peer = peerOf(t, l.Packets.Addr())
	for range batch {
		if _, err := peer.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddPackets(l.Packets); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the flood does not end")
	}
	if n := <-turn; n >= all {
		t.Errorf("others have had their turn after all %d datagrams, want it before", n)
	}
}

// TestConnsKnowTheirPackets: a connection is told of what its listener had when it came, whatever way it is served.
func TestConnsKnowTheirPackets(t *testing.T) {
	eachWay(t, func(t *testing.T, o Options) {
		first, second := both(t, "127.0.0.1:0").Packets, both(t, "127.0.0.1:0").Packets
		defer first.Release()
		defer second.Release()
		known := make(chan *PacketSocket, 1)
		o.Rows = []string{"get", RowReject}
		o.Serve = func(c *Conn) {
			known <- c.Packets()
			c.Close()
		}
		o.Handle = func(c *Conn) { go o.Serve(c) }
		s := NewServer(o)
		s.SetTable(Table{"main": {{Name: "get", Match: word("GET ")}, rejectRow}, "other": {{Name: "get", Match: word("GET ")}, rejectRow}})
		sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Add(Listener{Name: "main", Socket: sock, Packets: first})
		if err != nil {
			t.Fatal(err)
		}
		wants := func(want *PacketSocket) {
			t.Helper()
			exchange(t, a.Addr().String(), "GET /")
			if got := <-known; got != want || a.Packets() != want {
				t.Errorf("the connection knows %p, its listener %p, want %p", got, a.Packets(), want)
			}
		}
		wants(first)
		a.Update("other", nil)
		wants(first)
		if before := a.SetPackets(second); before != first {
			t.Errorf("SetPackets returns %p, want %p", before, first)
		}
		wants(second)
		if before := a.SetPackets(nil); before != second {
			t.Errorf("SetPackets returns %p, want %p", before, second)
		}
		wants(nil)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}
