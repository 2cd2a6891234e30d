package session

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"polyport/internal/egress"
	"polyport/mux"
)

// serveOn serves a connection that came through a listener, on a row.
func (h *harness) serveOn(t *testing.T, listener, row string) *net.TCPConn {
	t.Helper()
	client, server := tcpPair(t)
	h.Handle(mux.NewConn(server, listener, row, nil))
	t.Cleanup(func() { client.Close() })
	_ = client.SetDeadline(time.Now().Add(30 * time.Second))
	return client
}

// answerOf ends the client's side and returns all that comes back.
func answerOf(c *net.TCPConn) (string, error) {
	_ = c.CloseWrite()
	got, err := io.ReadAll(c)
	return string(got), err
}

// saying answers with a word.
func saying(word string) Handler {
	return handlerFunc(func(_ context.Context, s *Session) error {
		anonymous, _ := s.UserMethods()
		if anonymous {
			word += " to anybody"
		}
		_, err := io.WriteString(s.Conn(), word)
		return err
	})
}

func TestSessionsOfAListenerThatAReloadTookAway(t *testing.T) {
	tests := []struct{ name, listener, row, want string }{
		{"both are there", "main", "test", "new"},
		{"the listener is gone", "old", "test", "old"},
		{"the row is gone", "main", "raw", "raw"},
		{"nobody knows the listener", "never", "test", "new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, saying("old"), func(rt *Runtime) {
				rt.Handlers["raw"] = saying("raw")
				rt.Listeners = map[string]Listener{"main": {RequireUser: true}, "old": {RequireUser: true}}
			})
			next := *h.Runtime()
			next.Handlers = map[string]Handler{"test": saying("new")}
			next.Listeners = map[string]Listener{"main": {RequireUser: true}}
			h.SetRuntime(&next)
			if got, err := answerOf(h.serveOn(t, tt.listener, tt.row)); err != nil || got != tt.want+" to anybody" {
				t.Errorf("got %q, %v; want %q", got, err, tt.want+" to anybody") // the rule "loopback" is for anybody
			}
			h.Drain(t.Context())
		})
	}
}

func TestUnknownListenerLetsNobodyPassWithoutAUser(t *testing.T) {
	h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
		if !s.request(mustTarget(t, "127.0.0.1:80")).RequireUser {
			t.Error("a session of an unknown listener needs no user")
		}
		return nil
	}), nil)
	h.serveOn(t, "never", "test")
	<-h.records.ended
	h.Drain(t.Context())
}

// panicking is an observer with a fault.
type panicking struct{}

func (panicking) SessionStarted(Record) { panic("started") }
func (panicking) SessionEnded(Record)   { panic("ended") }

func TestPanickingObserverHarmsNobody(t *testing.T) {
	h := newHarness(t, saying("fine"), nil)
	h.observers = []Observer{panicking{}, h.records}
	if got, err := answerOf(h.serveOn(t, "main", "test")); err != nil || got != "fine to anybody" {
		t.Errorf("got %q, %v", got, err)
	}
	if r := <-h.records.ended; r.Err != nil {
		t.Errorf("record = %+v", r)
	}
	h.Drain(t.Context())
	if log := h.log.String(); !strings.Contains(log, `"panic":"started"`) || !strings.Contains(log, `"panic":"ended"`) {
		t.Errorf("the log lacks the panics: %s", log)
	}
}

func TestPanicInTheMiddleOfAnAnswerIsAReset(t *testing.T) {
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		_, _ = io.WriteString(s.Conn(), "half an ans")
		panic("boom")
	}), nil)
	if got, err := io.ReadAll(h.serveOn(t, "main", "test")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %q, %v; want a reset, so that it is not taken for the whole", got, err)
	}
	h.Drain(t.Context())
}

func TestKilledExchangeIsAResetAndSaysWhy(t *testing.T) {
	began := make(chan struct{})
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		s.Established()
		_, _ = io.WriteString(s.Conn(), "half an ans")
		close(began)
		_, err := io.ReadAll(s.Conn())
		s.SetReason("connection_terminated")
		return err
	}), nil)
	c := h.serveOn(t, "main", "test")
	<-began
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if killed := h.Drain(now); killed != 1 {
		t.Errorf("Drain ended %d sessions, want 1", killed)
	}
	if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %q, %v; want a reset", got, err)
	}
	if r := <-h.records.ended; r.Reason != string(mux.ShuttingDown) || r.Err == nil {
		t.Errorf("record = %+v, want reason %q", r, mux.ShuttingDown)
	}
}

func TestDrainWaitsForWhatHandleHasTaken(t *testing.T) {
	release := make(chan struct{})
	h := newHarness(t, handlerFunc(func(context.Context, *Session) error { <-release; return nil }), nil)
	h.serveOn(t, "main", "test")
	if n := h.Count(); n != 1 {
		t.Errorf("%d sessions once Handle has returned, want 1", n)
	}
	close(release)
	if killed := h.Drain(t.Context()); killed != 0 {
		t.Errorf("Drain ended %d sessions, want none", killed)
	}
}

// A tunnel that begins while the others are being killed ends too.
func TestTunnelThatBeginsDuringTheKill(t *testing.T) {
	theirs, ours := tcpPair(t)
	defer theirs.Close()
	h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
		<-ctx.Done() // killed
		s.Relay(ours)
		return nil
	}), nil)
	h.serveOn(t, "main", "test")
	now, cancel := context.WithCancel(t.Context())
	cancel()
	h.Drain(now)
	<-h.records.ended
	if n := h.Count(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	_ = theirs.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := theirs.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the target's end read %d bytes, %v; want it closed", n, err)
	}
}

// Who has a permit cannot be evicted any more; who was refused can.
func TestPermitEndsTheHandshake(t *testing.T) {
	for _, tt := range []struct {
		name, target string
		unfinished   int
	}{{"permitted", "127.0.0.1:80", 0}, {"denied", "127.0.0.1:23", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			var server *mux.Server
			counted := make(chan int, 1)
			h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
				_, err := s.Authorize(ctx, mustTarget(t, tt.target))
				_, unfinished := server.Connections()
				counted <- unfinished
				return err
			}), nil)
			server = mux.NewServer(mux.Options{Rows: []string{"test"}, Handle: h.Handle})
			server.SetTable(mux.Table{"main": {{Name: "test", Match: func([]byte) mux.Verdict { return mux.Match }}}})
			c := dialServer(t, server)
			_, _ = io.WriteString(c, "x")
			if got := <-counted; got != tt.unfinished {
				t.Errorf("%d connections are unfinished, want %d", got, tt.unfinished)
			}
			if err := server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			h.Drain(t.Context())
		})
	}
}

// dialServer lets a server listen and connects to it.
func dialServer(t *testing.T, server *mux.Server) *net.TCPConn {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Add(mux.Listener{Name: "main", Socket: ln}); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEvictedSessionSaysSo(t *testing.T) {
	entered := make(chan struct{})
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		b := make([]byte, 1)
		_, _ = io.ReadFull(s.Conn(), b)
		if b[0] == 'y' {
			s.Conn().MakeRoom() // as a session does that finds no descriptor
			return nil
		}
		close(entered)
		_, err := io.ReadFull(s.Conn(), b)
		s.SetReason("handshake_timeout")
		return err
	}), nil)
	server := mux.NewServer(mux.Options{Rows: []string{"test"}, Handle: h.Handle})
	server.SetTable(mux.Table{"main": {{Name: "test", Match: func([]byte) mux.Verdict { return mux.Match }}}})
	first := dialServer(t, server)
	_, _ = io.WriteString(first, "x")
	<-entered
	_, _ = io.WriteString(dialServer(t, server), "y")
	for range 2 {
		r := <-h.records.ended
		if r.Err != nil && r.Reason != string(mux.Evicted) {
			t.Errorf("record = %+v, want reason %q", r, mux.Evicted)
		}
		if r.Err == nil && r.Reason != "" {
			t.Errorf("record = %+v of the one that stayed, want no reason", r)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	h.Drain(t.Context())
}

func TestOnlyWantOfRoomMakesRoom(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&egress.Error{Reason: egress.LimitReached, Err: syscall.EMFILE}, true},
		{&egress.Error{Reason: egress.LimitReached, Err: errors.New("a proxy wants fewer requests")}, false},
		{&egress.Error{Reason: egress.ConnectionRefused}, false},
		{errors.New("else"), false},
	} {
		if got := isOutOfRoom(tt.err); got != tt.want {
			t.Errorf("isOutOfRoom(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}
