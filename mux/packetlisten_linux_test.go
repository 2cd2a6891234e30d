package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"polyport/internal/reactor"
)

// udpSockets counts those that are bound to an address.
func udpSockets(t *testing.T, at netip.AddrPort) int {
	t.Helper()
	return len(udpLines(t, at))
}

// dropped counts the datagrams that those have had no room for.
func dropped(t *testing.T, at netip.AddrPort) (n int) {
	t.Helper()
	for _, f := range udpLines(t, at) {
		d, err := strconv.Atoi(f[len(f)-1])
		if err != nil {
			t.Fatal(err)
		}
		n += d
	}
	return n
}

// widen gives those as much room as the system lets an unprivileged user have.
func widen(t *testing.T, at netip.AddrPort) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range udpLines(t, at) {
		for _, entry := range all {
			if to, err := os.Readlink("/proc/self/fd/" + entry.Name()); err != nil || to != "socket:["+line[9]+"]" {
				continue
			}
			fd, _ := strconv.Atoi(entry.Name())
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// udpLines returns what the system says of the UDP sockets that are bound to an address (proc(5), /proc/net/udp).
func udpLines(t *testing.T, at netip.AddrPort) (lines [][]string) {
	t.Helper()
	local := ""
	for word := range slices.Chunk(at.Addr().AsSlice(), 4) {
		local += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(word))
	}
	local += fmt.Sprintf(":%04X", at.Port())
	for _, name := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[1] == local {
				lines = append(lines, f)
			}
		}
	}
	return lines
}

// settle waits until a loop has done what was posted before.
func settle(t *testing.T, loops *reactor.Group, n int) {
	t.Helper()
	for range n {
		done := make(chan struct{})
		loops.Next().Post(func() { close(done) })
		<-done
	}
}

func TestHoldAndRelease(t *testing.T) {
	loops := group(t, 2)
	served := make(chan *reactor.PacketConn, 1000)
	s := packetServer(t, loops, echo("", "\x00", served))
	for _, read := range []bool{false, true} {
		t.Run(fmt.Sprint("read ", read), func(t *testing.T) {
			p := both(t, "127.0.0.1:0").Packets
			if read {
				if err := s.AddPackets(p); err != nil {
					t.Fatal(err)
				}
			}
			if !p.Hold() {
				t.Fatal("it cannot be held")
			}
			p.Release()
			settle(t, loops, 2)
			if n := udpSockets(t, p.Addr()); n != len(p.conns) {
				t.Fatalf("%d sockets are open while it is held, want %d", n, len(p.conns))
			}
			if read {
				answered(t, peerOf(t, p.Addr()), "\x00x", "\x00x")
			}
			p.Release()
			settle(t, loops, 2)
			if p.Hold() {
				t.Error("it can be held once it is closed")
			}
			if n := udpSockets(t, p.Addr()); n != 0 {
				t.Errorf("%d sockets are open though nobody holds it", n)
			}
			if err := s.AddPackets(p); err != nil {
				t.Errorf("AddPackets once it is closed = %v", err)
			}
		})
	}
	var none *PacketSocket
	none.Release()
}

func TestAddPacketsFails(t *testing.T) {
	loops, err := reactor.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	loops.Close()
	p := both(t, "127.0.0.1:0").Packets
	if err := packetServer(t, loops).AddPackets(p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("AddPackets on loops that have ended = %v, want %v", err, net.ErrClosed)
	}
	p.Release()
	if n := udpSockets(t, p.Addr()); n != 0 {
		t.Errorf("%d sockets are open after Release", n)
	}
}

func TestListenBoth(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			l := both(t, address)
			if tcp, udp := addrPort(l.Socket.Addr()), l.Packets.Addr(); tcp.Port() == 0 || tcp != udp {
				t.Errorf("TCP is at %v, UDP at %v", tcp, udp)
			}
			if n := udpSockets(t, l.Packets.Addr()); n != min(maxPacketSockets, runtime.GOMAXPROCS(0)) {
				t.Errorf("%d sockets are at the port", n)
			}
			l.Packets.Release()
			if n := udpSockets(t, l.Packets.Addr()); n != 0 {
				t.Errorf("%d sockets are open after Release", n)
			}
		})
	}
}

// TestListenBothTaken: what one half finds taken, the other gives back. At an address of its own no client of others has the port.
func TestListenBothTaken(t *testing.T) {
	wants := func(at netip.AddrPort, network string) {
		t.Helper()
		l, err := ListenBoth(t.Context(), at, nil, false)
		var op *net.OpError
		if l != nil || !errors.Is(err, unix.EADDRINUSE) || !errors.As(err, &op) || !strings.HasPrefix(op.Net, network) {
			t.Errorf("ListenBoth on %v = %v, %v, want EADDRINUSE of %s", at, l, err, network)
		}
	}
	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 78)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	at := stranger.LocalAddr().(*net.UDPAddr).AddrPort()
	wants(at, "udp")
	tcp, err := Listen(t.Context(), at)
	if err != nil {
		t.Fatalf("its TCP socket is left: %v", err)
	}
	defer tcp.Close()
	stranger.Close()
	wants(at, "tcp")
	if n := udpSockets(t, at); n != 0 {
		t.Errorf("%d UDP sockets are left", n)
	}
}

// TestListenBothTriesAgain: a port that is free for TCP alone is not the one. With so many taken, hardly any of the first attempts
// would all find a free one.
func TestListenBothTriesAgain(t *testing.T) {
	for range 1000 {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 77)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 200 {
		l, err := ListenBoth(t.Context(), netip.MustParseAddrPort("127.0.0.77:0"), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		l.Socket.Close()
		l.Packets.Release()
	}
}

// TestListenPacketBeside: a successor shares the port with one that is about to be closed, and has it alone afterwards.
func TestListenPacketBeside(t *testing.T) {
	loops := group(t, 2)
	served := make(chan *reactor.PacketConn, 1000)
	s := packetServer(t, loops, echo("", "\x00", served))
	old := both(t, "127.0.0.1:0").Packets
	at := old.Addr()
	if p, err := ListenPacket(at, false); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("ListenPacket on a port that is taken = %v, %v, want EADDRINUSE", p, err)
	}
	fresh, err := ListenPacket(at, true)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Release()
	for _, p := range []*PacketSocket{old, fresh} {
		if err := s.AddPackets(p); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // whichever of them it comes to
		answered(t, peerOf(t, at), "\x00x", "\x00x")
	}
	old.Release()
	settle(t, loops, 2)
	for range 20 {
		answered(t, peerOf(t, at), "\x00x", "\x00x")
	}
	for range 40 {
		<-served
	}
}

func TestListenPacketBesideAStranger(t *testing.T) {
	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	at := stranger.LocalAddr().(*net.UDPAddr).AddrPort()
	if p, err := ListenPacket(at, true); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("ListenPacket beside one that does not share = %v, %v, want EADDRINUSE", p, err)
	}
	if n := udpSockets(t, at); n != 1 {
		t.Errorf("%d sockets are at the port, want the stranger's", n)
	}
}

// TestNameOfAPacketSocket: its end is told once, when nobody holds it any more.
func TestNameOfAPacketSocket(t *testing.T) {
	p, err := ListenPacket(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.78"), 20078), false)
	if err != nil {
		t.Fatal(err)
	}
	ends := 0
	p.Name("main", func() { ends++ })
	if want := (Door{"main", 20078}); !p.Hold() || p.Door().Value() != want {
		t.Errorf("its door is %v, want %v", p.Door().Value(), want)
	}
	p.Release()
	if ends != 0 {
		t.Error("its end is told, though it is held")
	}
	p.Release()
	if p.Hold() || ends != 1 {
		t.Errorf("its end was told %d times, want once", ends)
	}
}
