package mux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAcceptedConnectionsInheritKeepAlive(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			sock, err := Listen(t.Context(), netip.MustParseAddrPort(address))
			if err != nil {
				t.Fatal(err)
			}
			defer sock.Close()
			client, err := net.Dial("tcp", sock.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			c, err := sock.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if mp, err := c.MultipathTCP(); mp || err != nil {
				t.Errorf("MultipathTCP = %v, %v; want it off", mp, err)
			}
			for _, o := range append(inherited, struct{ level, option, value int }{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}) {
				if got := optionOf(t, c, o.level, o.option); got != o.value {
					t.Errorf("option %d of level %d is %d, want %d", o.option, o.level, got, o.value)
				}
			}
		})
	}
}

// TestDeferAccept: a client that says nothing is not seen, one that speaks is.
func TestDeferAccept(t *testing.T) {
	a := acceptorOn(t, "127.0.0.1:0")
	if err := a.DeferAccept(1500 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	sock := a.l.Load().Socket
	dial := func() net.Conn {
		c, err := net.Dial("tcp", sock.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	silent, speaking := dial(), dial()
	if _, err := speaking.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	c, err := sock.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := c.RemoteAddr().String(), speaking.LocalAddr().String(); got != want {
		t.Errorf("accepted %s first, want %s, which has spoken; %s has not", got, want, silent.LocalAddr())
	}
	if err := a.DeferAccept(0); err != nil {
		t.Fatal(err)
	}
	next := dial()
	for { // the silent one may come meanwhile
		c, err := sock.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.RemoteAddr().String() == next.LocalAddr().String() {
			return
		}
	}
}

func optionOf(t *testing.T, c *net.TCPConn, level, option int) (value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) }), err)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// acceptorOn listens on an address, as if a server served it.
func acceptorOn(t *testing.T, address string) *Acceptor {
	t.Helper()
	sock, err := Listen(t.Context(), netip.MustParseAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	return newAcceptor(&Server{}, &Listener{Socket: sock}, sock)
}

func TestListenBesideASocketThatIsLeaving(t *testing.T) {
	tests := []struct{ name, old, fresh string }{
		{"from loopback to everywhere", "127.0.0.1", "0.0.0.0"},
		{"from everywhere to loopback", "0.0.0.0", "127.0.0.1"},
		{"IPv6", "::1", "::"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := acceptorOn(t, netip.AddrPortFrom(netip.MustParseAddr(tt.old), 0).String())
			address := netip.AddrPortFrom(netip.MustParseAddr(tt.fresh), old.Addr().Port())
			if _, err := Listen(t.Context(), address); !errors.Is(err, unix.EADDRINUSE) {
				t.Fatalf("Listen on %s = %v, want EADDRINUSE", address, err)
			}
			fresh, err := Listen(t.Context(), address, old)
			if err != nil {
				t.Fatalf("Listen on %s beside %s: %v", address, old.Addr(), err)
			}
			defer fresh.Close()
			if _, err := Listen(t.Context(), address); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("a third socket: %v, want EADDRINUSE", err)
			}
			old.socket.Close()
			c, err := net.Dial("tcp", netip.AddrPortFrom(loopbackOf(address.Addr()), address.Port()).String())
			if err != nil {
				t.Fatalf("dial once the old socket is closed: %v", err)
			}
			c.Close()
		})
	}
}

func loopbackOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func TestListenBesideAStranger(t *testing.T) {
	old := acceptorOn(t, "127.0.0.1:0")
	stranger := acceptorOn(t, "127.0.0.2:0")
	address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), stranger.Addr().Port())
	if _, err := Listen(t.Context(), address, old); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Listen on an address that another holds = %v, want EADDRINUSE", err)
	}
	for _, a := range []*Acceptor{old, stranger} {
		lc := net.ListenConfig{}
		if ln, err := lc.Listen(context.Background(), "tcp4", a.Addr().String()); err == nil {
			ln.Close()
			t.Errorf("%s can be bound once more", a.Addr())
		}
	}
}
