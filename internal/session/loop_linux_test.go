package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/mux"
)

// onLoops is a manager whose row "test" is served by event loops, behind a server.
type onLoops struct {
	*harness
	server *mux.Server
	addr   *net.TCPAddr
}

// newOnLoops starts it; what is left of it ends with the test.
func newOnLoops(t *testing.T, h Handler, limits mux.Limits, change func(*Runtime)) *onLoops {
	t.Helper()
	loops, err := reactor.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	o := &onLoops{harness: newHarness(t, h, func(rt *Runtime) {
		rt.OnLoop = map[string]bool{"test": true}
		if change != nil {
			change(rt)
		}
	})}
	o.loops = loops
	o.server = mux.NewServer(mux.Options{
		Rows: []string{"test"}, Handle: o.Handle, Loops: loops, OnLoop: o.OnLoop, Serve: o.Serve, Limits: limits,
	})
	o.server.SetTable(mux.Table{"main": {{Name: "test", Match: func([]byte) mux.Verdict { return mux.Match }}}})
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.server.Add(mux.Listener{Name: "main", Socket: ln}); err != nil {
		t.Fatal(err)
	}
	o.addr = ln.Addr().(*net.TCPAddr)
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = o.server.Shutdown(context.Background())
		o.Drain(now)
		if total, unfinished := o.server.Connections(); total != 0 || unfinished != 0 || o.Count() != 0 {
			t.Errorf("after the end %d connections are counted, %d unfinished, %d sessions", total, unfinished, o.Count())
		}
		loops.Close()
	})
	return o
}

// dial connects and says something.
func (o *onLoops) dial(t *testing.T, say string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp4", nil, o.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	return c
}

// line reads up to a line end, byte by byte, so that nothing is read too far.
func line(r io.Reader) (string, error) {
	var s strings.Builder
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			return s.String(), err
		}
		if b[0] == '\n' {
			return s.String(), nil
		}
		s.WriteByte(b[0])
	}
}

// tunnelTo is a handler that reads a target and becomes a tunnel to it.
var tunnelTo = handlerFunc(func(ctx context.Context, s *Session) error {
	if !s.OnLoop() {
		return errors.New("not on a loop")
	}
	to, err := line(s.Conn())
	if err != nil {
		return err
	}
	if user, rest, ok := strings.Cut(to, "@"); ok {
		if _, err := s.Authenticate(ctx, auth.Credentials{User: user, Password: "right"}); err != nil {
			_, werr := io.WriteString(s.Conn(), "who?\n")
			return errors.Join(err, werr)
		}
		to = rest
	}
	p, err := s.Authorize(ctx, mustParse(to))
	if err != nil {
		_, werr := io.WriteString(s.Conn(), "no\n")
		return errors.Join(err, werr)
	}
	s.Established()
	c, err := s.Dial(ctx, p)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(s.Conn(), "yes\n"); err != nil {
		return errors.Join(err, c.Close())
	}
	s.Relay(c)
	return nil
})

// addresses resolves every name to the same addresses, after a while.
type addresses []netip.Addr

func (a addresses) Lookup(context.Context, netip.Addr, string) ([]netip.Addr, error) {
	time.Sleep(time.Millisecond) // it may block, and must not hold the loop up
	return a, nil
}

// echoServer echoes whatever is sent to it.
func echoServer(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// TestTunnelsOnLoops: the record says the same as that of a session that a goroutine serves.
func TestTunnelsOnLoops(t *testing.T) {
	echo := echoServer(t)
	port := ":" + strings.SplitN(echo.String(), ":", 2)[1]
	o := newOnLoops(t, tunnelTo, mux.Limits{}, func(rt *Runtime) {
		nobody := netip.MustParseAddr("127.0.0.9") // refuses
		rt.Egress = egress.New(egress.Options{Policy: rt.Policy, Resolver: addresses{nobody, echo.Addr()}})
	})
	for _, tt := range []struct{ name, say, want, identity, reason string }{
		{"an address", "127.0.0.1" + port, "yes", "", ""},
		{"a name with two addresses, of which the first refuses", "echo.test" + port, "yes", "", ""},
		{"a user", "alice@127.0.0.1" + port, "yes", "alice", ""},
		{"a wrong user", "mallory@127.0.0.1" + port, "who?", "", "bad_credentials"},
		{"denied", "127.0.0.1:23", "no", "", "rule"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := o.dial(t, tt.say+"\nearly ")
			if got, err := line(c); got != tt.want || err != nil {
				t.Fatalf("answer %q, %v, want %q", got, err, tt.want)
			}
			sent, wants := int64(0), ""
			if tt.want == "yes" {
				_, _ = io.WriteString(c, "and late")
				sent, wants = 14, "early and late"
			}
			_ = c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != wants || err != nil {
				t.Errorf("the tunnel gave %q, %v, want %q", got, err, wants)
			}
			r := <-o.records.ended
			if r.BytesFromClient != sent || r.BytesFromTarget != sent || r.Reason != tt.reason || r.Identity != tt.identity ||
				(r.Err == nil) != (tt.want == "yes") || r.Client.Port() != uint16(c.LocalAddr().(*net.TCPAddr).Port) {
				t.Errorf("record = %+v", r)
			}
			if tt.want == "yes" && (r.Address != echo || r.Setup <= 0) {
				t.Errorf("record = %+v, want the address %v and a time", r, echo)
			}
		})
	}
}

// slow keeps everybody waiting until it is released.
type slow chan struct{}

func (s slow) Authenticate(context.Context, netip.Addr, auth.Credentials) (auth.Identity, error) {
	<-s
	return auth.Identity{Name: "alice"}, nil
}

func TestSlowPasswordsHoldNobodyElseUp(t *testing.T) {
	echo, hashing := echoServer(t), make(slow)
	o := newOnLoops(t, tunnelTo, mux.Limits{}, func(rt *Runtime) { rt.Auth = hashing })
	var waiting []*net.TCPConn
	for range 4 { // on both loops
		waiting = append(waiting, o.dial(t, "alice@"+echo.String()+"\n"))
	}
	for range 4 {
		if got, err := line(o.dial(t, echo.String()+"\n")); got != "yes" || err != nil {
			t.Errorf("beside it: %q, %v", got, err)
		}
	}
	close(hashing)
	for _, c := range waiting {
		if got, err := line(c); got != "yes" || err != nil {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	}
}

// TestLeaveLoop: the handler is called again off the loop, and what it gave back is still there.
func TestLeaveLoop(t *testing.T) {
	o := newOnLoops(t, handlerFunc(func(_ context.Context, s *Session) error {
		if s.OnLoop() {
			first, err := line(s.Conn())
			s.Conn().Unread([]byte("again " + first + "\n"))
			s.End(err)
			s.LeaveLoop("carried")
			return err
		}
		if s.Carried() != "carried" {
			return fmt.Errorf("carried %v", s.Carried())
		}
		s = s.Next(nil)
		got, err := line(s.Conn())
		if err == nil {
			_, err = io.WriteString(s.Conn(), got+"\n")
		}
		return err
	}), mux.Limits{}, nil)
	c := o.dial(t, "hello\n")
	if got, err := line(c); got != "again hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for range 2 {
		if r := <-o.records.ended; r.Err != nil {
			t.Errorf("record = %+v", r)
		}
	}
}

func TestPanicOnALoop(t *testing.T) {
	o := newOnLoops(t, handlerFunc(func(_ context.Context, s *Session) error {
		what, err := line(s.Conn())
		if what == "panic" {
			panic("boom")
		}
		_, werr := io.WriteString(s.Conn(), what+"\n")
		return errors.Join(err, werr)
	}), mux.Limits{}, nil)
	for range 3 {
		if got, err := line(o.dial(t, "panic\n")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %q, %v, want a reset", got, err)
		}
		if got, err := line(o.dial(t, "fine\n")); got != "fine" || err != nil {
			t.Errorf("the next one got %q, %v", got, err)
		}
	}
}

// TestKillOnLoops: sessions end in whatever they are waiting for.
func TestKillOnLoops(t *testing.T) {
	echo := echoServer(t)
	hang := make(slow)
	o := newOnLoops(t, tunnelTo, mux.Limits{}, func(rt *Runtime) { rt.Auth = hang })
	handshake := o.dial(t, "half a line")
	tunnel := o.dial(t, echo.String()+"\n")
	if got, err := line(tunnel); got != "yes" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	waitForSessions(t, o.Manager, 2)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if killed := o.Drain(now); killed != 2 {
		t.Errorf("%d sessions were ended, want 2", killed)
	}
	close(hang)
	for range 2 {
		if r := <-o.records.ended; r.Reason != string(mux.ShuttingDown) {
			t.Errorf("record = %+v, want reason %q", r, mux.ShuttingDown)
		}
	}
	for _, c := range []*net.TCPConn{handshake, tunnel} {
		if _, err := io.ReadAll(c); errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("the client's end is still open: %v", err)
		}
	}
}

func TestEvictedOnALoop(t *testing.T) {
	o := newOnLoops(t, tunnelTo, mux.Limits{UnfinishedPerClient: 2}, nil)
	first := o.dial(t, "half ")
	waitForSessions(t, o.Manager, 1)
	for range 2 {
		o.dial(t, "half ")
	}
	if r := <-o.records.ended; r.Reason != string(mux.Evicted) {
		t.Errorf("record = %+v, want reason %q", r, mux.Evicted)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the oldest reads %v, want a reset", err)
	}
}

// held is a resolver whose answers wait until they are released.
type held struct {
	asked, release chan struct{}
	answer         netip.Addr
}

func (h held) Lookup(context.Context, netip.Addr, string) ([]netip.Addr, error) {
	h.asked <- struct{}{}
	<-h.release
	return []netip.Addr{h.answer}, nil
}

// TestEvictedDuringALookup: what comes of it finds the client gone, and the session ends with everything that it had.
func TestEvictedDuringALookup(t *testing.T) {
	echo := echoServer(t)
	for name, onLoop := range map[string]bool{"a goroutine": false, "a loop": true} {
		t.Run(name, func(t *testing.T) {
			names := held{make(chan struct{}, 1), make(chan struct{}), echo.Addr()}
			o := newOnLoops(t, handlerFunc(func(ctx context.Context, s *Session) error {
				p, err := s.Authorize(ctx, mustParse(fmt.Sprint("echo.test:", echo.Port())))
				if err != nil {
					return err
				}
				c, err := s.Dial(ctx, p)
				if err != nil {
					return err
				}
				s.Relay(c) // without a word to the client, which would fail
				return nil
			}), mux.Limits{UnfinishedPerClient: 1}, func(rt *Runtime) {
				rt.OnLoop = map[string]bool{"test": onLoop}
				rt.Egress = egress.New(egress.Options{Policy: rt.Policy, Resolver: names})
			})
			first := o.dial(t, "hello")
			<-names.asked
			o.dial(t, "")
			if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the first reads %v, want a reset", err)
			}
			close(names.release)
			if r := <-o.records.ended; r.Reason != string(mux.Evicted) {
				t.Errorf("record = %+v, want reason %q", r, mux.Evicted)
			}
		})
	}
}

// broken is an authenticator with a fault.
type broken struct{}

func (broken) Authenticate(context.Context, netip.Addr, auth.Credentials) (auth.Identity, error) {
	panic("boom")
}

func TestPanickingAuthenticatorEndsItsSessionAlone(t *testing.T) {
	echo := echoServer(t)
	o := newOnLoops(t, tunnelTo, mux.Limits{}, func(rt *Runtime) { rt.Auth = broken{} })
	for range 2 { // on both loops
		if got, err := line(o.dial(t, "alice@"+echo.String()+"\n")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %q, %v, want a reset", got, err)
		}
		if r := <-o.records.ended; r.Err == nil || !strings.Contains(r.Err.Error(), "boom") {
			t.Errorf("record = %+v, want the panic", r)
		}
	}
	for range 2 {
		if got, err := line(o.dial(t, echo.String()+"\n")); got != "yes" || err != nil {
			t.Errorf("the next one got %q, %v", got, err)
		}
	}
}

// TestDrainWhileASessionLeavesItsLoop: one that waits for another request ends, wherever it is by the time it is told.
func TestDrainWhileASessionLeavesItsLoop(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin func(m *Manager)
	}{
		{"on its loop", (*Manager).BeginDrain},
		{"on the way", func(m *Manager) { go m.BeginDrain() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOnLoops(t, handlerFunc(func(_ context.Context, s *Session) error {
				if s.OnLoop() {
					_, err := line(s.Conn())
					s.End(err)
					s.LeaveLoop("carried")
					tt.begin(s.manager)
					return err
				}
				_, _ = s.Conn().Read(make([]byte, 1)) // until it is closed
				return nil
			}), mux.Limits{}, nil)
			c := o.dial(t, "hello\n")
			if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client reads %q, %v, want the end", got, err)
			}
			if r := <-o.records.ended; r.Err != nil {
				t.Errorf("record = %+v", r)
			}
		})
	}
}

// TestDrainSparesWhatHasBegun: a session that was idle when it was looked at is served to the end if its next exchange has begun
// by the time its loop is told.
func TestDrainSparesWhatHasBegun(t *testing.T) {
	o := newOnLoops(t, handlerFunc(func(_ context.Context, s *Session) error {
		if _, err := line(s.Conn()); err != nil {
			return err
		}
		s.End(nil)
		s.manager.BeginDrain()
		s = s.Next(nil)
		got, err := line(s.Conn()) // the loop is told meanwhile
		if err == nil {
			_, err = io.WriteString(s.Conn(), got+"\n")
		}
		return err
	}), mux.Limits{}, nil)
	c := o.dial(t, "first\n")
	<-o.records.ended
	if _, err := io.WriteString(c, "second\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := line(c); got != "second" || err != nil {
		t.Errorf("answer %q, %v, want %q", got, err, "second")
	}
	if r := <-o.records.ended; r.Err != nil {
		t.Errorf("record = %+v", r)
	}
}
