package session

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"polyport/internal/auth"
	"polyport/internal/reactor"
	"polyport/internal/socks"
	"polyport/internal/udprelay"
	"polyport/mux"
)

// associating is a manager behind a listener with UDP.
type associating struct {
	*harness
	t      *testing.T
	relay  *udprelay.Relay
	server *mux.Server
	addr   *net.TCPAddr
	socket *mux.PacketSocket
}

// setup is how an associating differs from the plain one.
type setup struct {
	address string // of the listener; "" is 127.0.0.1
	onLoop  bool
	noUDP   bool
	udp     udprelay.Options
	handler Handler // nil is associateFrom
	change  func(*Runtime)
}

// associateFrom is a handler that reads DST.ADDR and DST.PORT, or a user before it, and tells what Associate returns.
var associateFrom = handlerFunc(func(ctx context.Context, s *Session) error {
	say, err := line(s.Conn())
	if err != nil {
		return err
	}
	if user, rest, ok := strings.Cut(say, "@"); ok {
		if _, err := s.Authenticate(ctx, auth.Credentials{User: user, Password: "right"}); err != nil {
			return err
		}
		say = rest
	}
	s.SetMethod("UDP")
	var from netip.AddrPort
	if say != "name" {
		from = netip.MustParseAddrPort(say)
	}
	bound, err := s.Associate(from)
	if err != nil {
		_, werr := io.WriteString(s.Conn(), "no: "+err.Error()+"\n")
		return errors.Join(err, werr)
	}
	_, err = io.WriteString(s.Conn(), bound.String()+"\n")
	return err
})

// newAssociating starts one; what is left of it ends with the test.
func newAssociating(t *testing.T, with setup) *associating {
	t.Helper()
	loops, err := reactor.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	if with.handler == nil {
		with.handler = associateFrom
	}
	a := &associating{t: t, relay: udprelay.New(with.udp, nil)}
	a.harness = newHarness(t, with.handler, func(rt *Runtime) {
		rt.OnLoop = map[string]bool{"test": with.onLoop}
		if with.change != nil {
			with.change(rt)
		}
	})
	a.loops, a.udp = loops, a.relay
	a.server = mux.NewServer(mux.Options{
		Rows: []string{"test"}, Handle: a.Handle, Loops: loops, OnLoop: a.OnLoop, Serve: a.Serve, Packets: []mux.PacketRow{a.relay.Row()},
	})
	everything := func([]byte) mux.Verdict { return mux.Match }
	a.server.SetTable(mux.Table{"main": {{Name: "test", Match: everything}}})
	a.server.SetInside(mux.Table{"main": {{Name: "inner", Match: everything}}})
	a.classify = a.server.Inject
	if with.address == "" {
		with.address = "127.0.0.1"
	}
	l, err := mux.ListenBoth(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(with.address), 0), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	a.addr, a.socket, l.Name = l.Socket.Addr().(*net.TCPAddr), l.Packets, "main"
	if with.noUDP {
		l.Packets = nil
	} else if err := a.server.AddPackets(l.Packets); err != nil {
		t.Fatal(err)
	}
	if _, err := a.server.Add(*l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = a.server.Shutdown(context.Background())
		a.Drain(now)
		if total, unfinished := a.server.Connections(); total != 0 || unfinished != 0 || a.Count() != 0 || a.relay.Count() != 0 {
			t.Errorf("after the end %d connections are counted, %d unfinished, %d sessions, %d associations", total, unfinished, a.Count(), a.relay.Count())
		}
		a.socket.Release()
		loops.Close()
	})
	return a
}

// ask connects, says something and returns the answer.
func (a *associating) ask(say string) (*net.TCPConn, string) {
	a.t.Helper()
	c, err := net.DialTCP("tcp", nil, a.addr)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, say+"\n"); err != nil {
		a.t.Fatal(err)
	}
	got, err := line(c)
	if err != nil {
		a.t.Fatalf("no answer: %v", err)
	}
	return c, got
}

// associate is ask for who gets an association.
func (a *associating) associate(say string) (c *net.TCPConn, bound netip.AddrPort) {
	a.t.Helper()
	c, got := a.ask(say)
	bound, err := netip.ParseAddrPort(got)
	if err != nil {
		a.t.Fatalf("the answer is %q, want an address", got)
	}
	return c, bound
}

// record waits for one.
func (a *associating) record() Record {
	a.t.Helper()
	select {
	case r := <-a.records.ended:
		return r
	case <-time.After(30 * time.Second):
		a.t.Fatal("no session ends")
		return Record{}
	}
}

// socketAt is a UDP socket on a literal address.
func socketAt(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// datagramEcho echoes every datagram.
func datagramEcho(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	c := socketAt(t, address)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 2048); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return addrOf(c)
}

// throughRelay sends a payload to a target and wants it back.
func throughRelay(t *testing.T, c *net.UDPConn, bound, target netip.AddrPort, payload string) {
	t.Helper()
	sent := string(socks.AppendHeader(nil, target)) + payload
	if _, err := c.WriteToUDPAddrPort([]byte(sent), bound); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != sent {
		t.Fatalf("the echo is %q, %v, want %q", b[:n], err, sent)
	}
}

// eachServing runs a test for a session that a goroutine serves, and for one on a loop.
func eachServing(t *testing.T, test func(t *testing.T, onLoop bool)) {
	t.Run("a goroutine", func(t *testing.T) { test(t, false) })
	t.Run("a loop", func(t *testing.T) { test(t, true) })
}
