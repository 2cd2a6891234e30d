package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/target"
	"polyport/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records keeps what an observer sees.
type records struct {
	mu      sync.Mutex
	started int
	ended   chan Record
}

func newRecords() *records { return &records{ended: make(chan Record, 100)} }

func (r *records) SessionStarted(Record)   { r.mu.Lock(); r.started++; r.mu.Unlock() }
func (r *records) SessionEnded(rec Record) { r.ended <- rec }

// handlerFunc is a Handler of one function.
type handlerFunc func(ctx context.Context, s *Session) error

func (f handlerFunc) ServeSession(ctx context.Context, s *Session) error { return f(ctx, s) }

// oneUser knows one pair.
type oneUser struct{}

func (oneUser) Authenticate(_ context.Context, _ netip.Addr, c auth.Credentials) (auth.Identity, error) {
	if c.User == "alice" && c.Password == "right" {
		return auth.Identity{Name: "alice", Groups: []string{"staff"}}, nil
	}
	return auth.Identity{}, auth.ErrBadCredentials
}

// harness is a manager with one row, "test", on the listener "main".
type harness struct {
	*Manager
	records *records
	log     bytes.Buffer
}

func newHarness(t *testing.T, h Handler, change func(*Runtime)) *harness {
	t.Helper()
	policy, err := acl.New(acl.Options{HasUsers: true, Rules: []acl.Rule{
		{Name: "no telnet", Action: acl.Deny, Port: []acl.PortRange{{First: 23, Last: 23}}},
		{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}, Anonymous: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	rt := &Runtime{
		Policy:    policy,
		Auth:      oneUser{},
		Egress:    egress.New(egress.Options{Policy: policy}),
		Handlers:  map[string]Handler{"test": h},
		Listeners: map[string]Listener{"main": {Loopback: true, HelpPage: true, Rows: map[string]bool{"test": true}}},
		Timeouts:  Timeouts{Handshake: time.Minute, Idle: -1, KeepAlive: time.Minute},
	}
	if change != nil {
		change(rt)
	}
	hn := &harness{records: newRecords()}
	hn.Manager = NewManager(rt, Options{Observers: []Observer{hn.records}, Log: slog.New(slog.NewJSONHandler(&hn.log, nil))})
	return hn
}

// connect returns the client's end of a connection that the manager serves.
func (h *harness) connect(t *testing.T, prefix string) *net.TCPConn {
	t.Helper()
	client, server := tcpPair(t)
	go h.Serve(mux.NewConn(server, "main", "test", []byte(prefix)))
	t.Cleanup(func() { client.Close() })
	_ = client.SetDeadline(time.Now().Add(30 * time.Second))
	return client
}

func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// waitForSessions waits until so many sessions have begun.
func waitForSessions(t *testing.T, m *Manager, n int) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); m.Count() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d sessions have begun, want %d", m.Count(), n)
		}
	}
}

func mustTarget(t *testing.T, s string) target.Target {
	t.Helper()
	tgt, err := target.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

func TestRecordOfATunnel(t *testing.T) {
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		c, err := echo.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		c.Close()
	}()
	h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
		s.SetMethod("CONNECT")
		p, err := s.Authorize(ctx, mustTarget(t, echo.Addr().String()))
		if err != nil {
			return err
		}
		c, err := s.Dial(ctx, p)
		if err != nil {
			return err
		}
		s.Conn().Unread([]byte("early "))
		s.Relay(c)
		return nil
	}), nil)
	c := h.connect(t, "")
	_, _ = io.WriteString(c, "data")
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "early data" {
		t.Errorf("the tunnel gave %q, %v; want %q", got, err, "early data")
	}
	r := <-h.records.ended
	if r.BytesFromClient != 10 || r.BytesFromTarget != 10 {
		t.Errorf("bytes = %d, %d; want 10, 10", r.BytesFromClient, r.BytesFromTarget)
	}
	if r.Rule != "loopback" || r.Reason != "" || r.Err != nil || r.Target != echo.Addr().String() || r.Address.String() != echo.Addr().String() {
		t.Errorf("record = %+v", r)
	}
	if r.ID == (ID{}) || r.Setup <= 0 || r.Duration < r.Setup || r.Method != "CONNECT" || r.Protocol != "test" || r.Listener != "main" {
		t.Errorf("record = %+v", r)
	}
	if killed := h.Drain(t.Context()); killed != 0 {
		t.Errorf("Drain ended %d sessions, want none left", killed)
	}
}

func TestDeniedSessionKeepsItsReason(t *testing.T) {
	tests := []struct{ name, target, rule, reason string }{
		{"by a rule", "127.0.0.1:23", "no telnet", acl.ReasonRule},
		{"by no rule", "192.0.2.1:80", "", acl.ReasonNoRule},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
				_, err := s.Authorize(ctx, mustTarget(t, tt.target))
				s.SetReason("later")
				return err
			}), nil)
			h.connect(t, "x")
			r := <-h.records.ended
			if r.Rule != tt.rule || r.Reason != tt.reason || !errors.Is(r.Err, egress.ErrDenied) || r.Target != tt.target {
				t.Errorf("record = %+v, want rule %q and reason %q", r, tt.rule, tt.reason)
			}
			h.Drain(t.Context())
		})
	}
}

func TestPanicEndsItsSessionAlone(t *testing.T) {
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		if string(s.Conn().Prefix()) == "bad" {
			panic("boom")
		}
		_, err := io.WriteString(s.Conn(), "fine")
		return err
	}), nil)
	if got, _ := io.ReadAll(h.connect(t, "bad")); len(got) != 0 {
		t.Errorf("the panicking session answered %q", got)
	}
	if r := <-h.records.ended; r.Err == nil || r.Reason != string(egress.InternalError) {
		t.Errorf("record = %+v, want an error", r)
	}
	good := h.connect(t, "good")
	if got, err := io.ReadAll(good); err != nil || string(got) != "fine" {
		t.Errorf("the next session gave %q, %v", got, err)
	}
	good.Close()
	h.Drain(t.Context())
	if !strings.Contains(h.log.String(), "boom") {
		t.Error("the panic is not in the log")
	}
}

func TestPanicAfterDialClosesTheTarget(t *testing.T) {
	ours, theirs := net.Pipe()
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		s.Relay(ours)
		panic("boom")
	}), nil)
	h.connect(t, "x")
	<-h.records.ended
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the target's end: %v, want EOF", err)
	}
	h.Drain(t.Context())
}

func TestExchangesOnOneConnection(t *testing.T) {
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(s.Conn(), b); err != nil {
				return nil
			}
			if s.Next(nil); b[0] == 'e' {
				return errors.New("an ending")
			}
			s.SetMethod(string(b))
			s.End(nil)
		}
	}), nil)
	c := h.connect(t, "ab")
	_, _ = io.WriteString(c, "e")
	var methods []string
	ids := map[string]bool{}
	var last Record
	for range 4 {
		last = <-h.records.ended
		methods = append(methods, last.Method)
		ids[last.ID.String()] = true
	}
	if got := strings.Join(methods, ","); got != ",a,b," || len(ids) != 4 {
		t.Errorf("methods %q with %d ids, want %q with 4", got, len(ids), ",a,b,")
	}
	if last.Err == nil {
		t.Error("the last exchange lost its error")
	}
	c.Close()
	h.Drain(t.Context())
}

func TestNextTakesTheCurrentRuntime(t *testing.T) {
	running, reloaded := make(chan struct{}), make(chan struct{})
	got := make(chan [2]uint64, 1)
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		before := s.runtime.Generation
		close(running)
		<-reloaded
		s.Next(nil)
		got <- [2]uint64{before, s.runtime.Generation}
		return nil
	}), func(rt *Runtime) { rt.Generation = 1 })
	c := h.connect(t, "x")
	<-running
	next := *h.Runtime()
	next.Generation = 2
	h.SetRuntime(&next)
	close(reloaded)
	if g := <-got; g != [2]uint64{1, 2} {
		t.Errorf("generations = %v, want 1 then 2", g)
	}
	c.Close()
	h.Drain(t.Context())
}

func TestAuthenticate(t *testing.T) {
	for _, tt := range []struct {
		name, user, password string
		want                 error
	}{
		{"right", "alice", "right", nil},
		{"wrong", "alice\n\x1b[31m" + strings.Repeat("x", 100), "s3cret", auth.ErrBadCredentials},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
				_, err := s.Authenticate(ctx, auth.Credentials{User: tt.user, Password: tt.password})
				return err
			}), nil)
			h.connect(t, "x")
			r := <-h.records.ended
			if !errors.Is(r.Err, tt.want) || (r.Identity == "alice") != (tt.want == nil) {
				t.Errorf("record = %+v, want error %v", r, tt.want)
			}
			h.Drain(t.Context())
			log := h.log.String()
			if strings.Contains(log, "s3cret") || strings.Count(log, "\n") > 1 || strings.Contains(log, "\x1b") {
				t.Errorf("log = %q", log)
			}
			if got := strings.Contains(log, `"msg":"authentication failed"`); got != (tt.want != nil) {
				t.Errorf("log = %q", log)
			}
		})
	}
}

func TestDrainEndsIdleConnectionsAtOnce(t *testing.T) {
	idle := make(chan struct{})
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		s.Established()
		s.End(nil)
		close(idle)
		_, err := io.ReadAll(s.Conn())
		return err
	}), nil)
	h.connect(t, "")
	<-idle
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if killed := h.Drain(ctx); killed != 0 {
		t.Errorf("%d sessions had to be killed", killed)
	}
}

func TestDrainKillsWhatDoesNotEnd(t *testing.T) {
	h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
		s.Established()
		_, err := io.ReadAll(s.Conn())
		return err
	}), nil)
	c := h.connect(t, "")
	waitForSessions(t, h.Manager, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if killed := h.Drain(ctx); killed != 1 {
		t.Errorf("Drain ended %d sessions, want 1", killed)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the killed session's connection is open")
	}
}

func TestAnswerSurvivesUnreadBytes(t *testing.T) {
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		_, err := io.WriteString(s.Conn(), "refused")
		return err
	}), nil)
	c := h.connect(t, "")
	_, _ = c.Write(bytes.Repeat([]byte("x"), 64<<10))
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "refused" {
		t.Errorf("got %q, %v; want the answer, not a reset", got, err)
	}
	h.Drain(t.Context())
}

// mustParse is target.Parse for handlers, which have no test to fail.
func mustParse(s string) target.Target {
	t, err := target.Parse(s)
	if err != nil {
		panic(err)
	}
	return t
}
