package session

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/relay"
	"polyport/internal/udprelay"
	"polyport/mux"
)

// Options configures a Manager.
type Options struct {
	// Observers see every session. Nil is none.
	Observers []Observer
	// Log gets failed authentications and panics. Nil is slog.Default().
	Log *slog.Logger
	// Loops move the bytes of tunnels. Nil has goroutines do it. They are closed by their
	// owner, once Drain has returned.
	Loops *reactor.Group
	// Inject finds the row that the inside of a secured connection speaks, as mux.Server.Inject does. Nil finds none.
	Inject func(c *mux.Conn, row string) (mux.Cause, error)
	// UDP relays datagrams. Nil relays none.
	UDP *udprelay.Relay
}

// Manager owns the sessions that are alive. It is safe for concurrent use.
type Manager struct {
	observers []Observer
	log       *slog.Logger
	loops     *reactor.Group
	udp       *udprelay.Relay
	classify  func(c *mux.Conn, row string) (mux.Cause, error)
	runtime   atomic.Pointer[Runtime]
	previous  atomic.Pointer[Runtime] // the one before; see runtimeFor
	draining  atomic.Bool
	base      context.Context // of every session; ended when sessions are killed
	kill      context.CancelFunc

	idPrefix string
	idCount  atomic.Uint64

	mu    sync.Mutex
	alive map[*Session]struct{}
	empty chan struct{} // closed when the last session ends; nil when nobody waits
}

// NewManager makes a Manager that serves sessions under rt.
func NewManager(rt *Runtime, o Options) *Manager {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	m := &Manager{observers: o.Observers, log: o.Log, loops: o.Loops, udp: o.UDP, classify: o.Inject, alive: map[*Session]struct{}{}}
	if m.classify == nil {
		m.classify = func(*mux.Conn, string) (mux.Cause, error) { return mux.ClosedEarly, nil }
	}
	m.base, m.kill = context.WithCancel(context.Background())
	m.runtime.Store(rt)
	var b [5]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	m.idPrefix = strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-"
	return m
}

// Runtime returns the current one.
func (m *Manager) Runtime() *Runtime { return m.runtime.Load() }

// SetRuntime replaces the Runtime for sessions that begin from now on, and
// retires the handlers of the old one. Those who run keep it to their end.
func (m *Manager) SetRuntime(rt *Runtime) {
	old := m.runtime.Swap(rt)
	m.previous.Store(old)
	retired := map[Retirer]bool{} // one handler may serve several rows
	for _, h := range old.Handlers {
		if r, ok := h.(Retirer); ok && !retired[r] {
			retired[r] = true
			r.Retire()
		}
	}
}

// Count returns how many client connections are with their handlers or in a tunnel.
func (m *Manager) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.alive)
}

func (m *Manager) nextID() ID { return ID{m.idPrefix, m.idCount.Add(1)} }

// runtimeFor returns the Runtime that c's session begins with: the current one, or
// the one before where a reload has just taken away the listener or the row that c was
// classified under.
func (m *Manager) runtimeFor(c *mux.Conn) *Runtime {
	rt := m.runtime.Load()
	if !rt.serves(c) {
		if old := m.previous.Load(); old != nil && old.serves(c) {
			return old
		}
	}
	return rt
}

// Handle takes a classified connection over and serves it in a goroutine of its
// own. Drain waits for it from the moment that Handle returns.
func (m *Manager) Handle(c *mux.Conn) {
	s := m.register(c)
	go m.serve(s)
}

// Serve serves a classified connection to its end, or until it has become a
// tunnel that goes on by itself. It closes c.
func (m *Manager) Serve(c *mux.Conn) { m.serve(m.register(c)) }

// OnLoop reports whether a classified connection may be served in a task of its loop.
func (m *Manager) OnLoop(c *mux.Conn) bool { return m.runtimeFor(c).OnLoop[c.Row()] }

// register makes the session of a connection and counts it as alive.
func (m *Manager) register(c *mux.Conn) *Session {
	s := &Session{manager: m, conn: c, listener: unknownListener}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive[s] = struct{}{}
	return s
}

// serve is the life of a session, up to the tunnel.
func (m *Manager) serve(s *Session) {
	c := s.conn
	rt := m.runtimeFor(c)
	s.begin(rt)
	_ = c.SetDeadline(time.Now().Add(rt.Timeouts.Handshake)) // fails only on a closed connection
	m.end(s, m.run(s))
}

// leave goes on with a session in a goroutine, off its loop.
func (m *Manager) leave(s *Session) {
	s.leaving = false
	// If that fails the connection is closed, and the handler finds it so; it has things to give back.
	_ = s.conn.LeaveLoop()
	go func() { m.end(s, m.run(s)) }()
}

// end closes a session whose handler has returned, unless it goes on as a tunnel or elsewhere.
func (m *Manager) end(s *Session, err error) {
	c := s.conn
	switch {
	case err != nil:
	case s.leaving:
		m.leave(s)
		return
	case s.injecting:
		m.inject(s)
		return
	}
	if s.association != nil {
		if err == nil {
			m.associated(s)
			return
		}
		s.association.Close()
	}
	if s.target != nil {
		if err == nil {
			m.relay(s)
			return
		}
		_ = s.target.Close()
	}
	if !s.ended {
		s.finish(err)
	}
	if errors.Is(err, errPanicked) {
		c.Abort() // nobody knows what the client has got
	} else {
		c.CloseGently()
	}
	m.remove(s)
}

// Faults of ours.
var (
	errNoHandler = errors.New("no handler serves this row")
	errPanicked  = errors.New("a handler panicked")
)

// run calls the handler and turns its panic into an error of this session alone.
func (m *Manager) run(s *Session) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("a handler panicked; its session ends, the others go on",
				slog.String("id", s.ID()), slog.String("protocol", s.record.Protocol),
				slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
			s.record.Reason = string(egress.InternalError)
			err = fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	h := s.Handler()
	if h == nil {
		return fmt.Errorf("%w: %q", errNoHandler, s.conn.Row())
	}
	return h.ServeSession(m.base, s)
}

// relay joins both ends. The session ends when the tunnel does, in whatever
// goroutine that happens.
func (m *Manager) relay(s *Session) {
	s.conn.Finished() // the relay clears the deadlines
	ahead := s.conn.TakePrefix()
	if p, ok := s.target.(interface{ TakePrefix() ([]byte, net.Conn) }); ok {
		s.ahead, s.target = p.TakePrefix() // what is left may be zero-copy, and on a loop
	}
	if rc, ok := s.conn.OnLoop(); ok {
		if target, same := s.target.(*reactor.Conn); same && target.Loop() == rc.Loop() {
			m.tunnel(s, rc, ahead).StartHere(s.tunnelEnded)
			return
		}
		// What comes with goroutines of its own, such as TLS to a proxy, nothing on a loop may wait for.
		_ = s.conn.LeaveLoop() // if that fails the connection is closed, and the tunnel finds it so
		go m.relayHere(s, ahead)
		return
	}
	m.relayHere(s, ahead)
}

// relayHere is relay for a client that is on no loop.
func (m *Manager) relayHere(s *Session, ahead []byte) {
	var client net.Conn = s.conn
	if tcp, ok := s.conn.RawTCP(); ok {
		client = tcp
	}
	m.tunnel(s, client, ahead).Start(s.tunnelEnded)
}

// tunnel makes the tunnel of a session, whose client has sent something ahead.
func (m *Manager) tunnel(s *Session, client net.Conn, ahead []byte) *relay.Tunnel {
	t := relay.New(client, s.target, relay.Options{
		IdleTimeout: s.runtime.Timeouts.Idle,
		Lifetime:    s.runtime.Timeouts.Lifetime,
		FromClient:  ahead,
		FromTarget:  s.ahead,
		Loop:        m.loops.Next(),
	})
	s.ahead = nil // for its memory
	s.tunnel.Store(t)
	if m.base.Err() != nil { // killed before the tunnel could be seen
		t.Close()
	}
	return t
}

// tunnelEnded closes the session of a tunnel.
func (s *Session) tunnelEnded(r relay.Result) {
	s.AddBytes(r.BytesFromClient, r.BytesFromTarget)
	s.SetReason(endReason(r.End, r.Err))
	s.finish(r.Err)
	_ = s.conn.Close() // the relay has closed the socket; this frees its place in the caps
	s.manager.remove(s)
}

// endReason is how the record names the end of a tunnel; "" is the plain one.
func endReason(e relay.End, err error) string {
	var stream interface{ Cancelled() bool }
	switch e {
	case relay.EndEOF:
		return ""
	case relay.EndReset:
		if errors.As(err, &stream) && stream.Cancelled() {
			return "cancelled" // as browsers end every tunnel of HTTP/2
		}
		return "reset"
	case relay.EndIdle:
		return "idle_timeout"
	case relay.EndLifetime:
		return "lifetime"
	case relay.EndClosed:
		return string(mux.ShuttingDown)
	}
	return string(egress.ConnectionTerminated)
}

// started and ended tell an observer of a session. A panic there must not end the
// process, nor keep the other observers from hearing of it.
func (m *Manager) started(o Observer, r Record) {
	defer m.recoverObserver()
	o.SessionStarted(r)
}

func (m *Manager) ended(o Observer, r Record) {
	defer m.recoverObserver()
	o.SessionEnded(r)
}

func (m *Manager) recoverObserver() {
	if p := recover(); p != nil {
		m.log.Error("an observer of sessions panicked; it has missed one",
			slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
	}
}

// authFailed writes the one line that fail2ban and the like match. What it logs
// of the client is quoted by the log's own format; the password is never there.
func (m *Manager) authFailed(s *Session, user string, err error) {
	reason := "bad_credentials"
	switch {
	case errors.Is(err, auth.ErrLockedOut):
		reason = "locked_out"
	case errors.Is(err, auth.ErrBusy):
		reason = "busy"
	case errors.Is(err, context.Canceled):
		return
	}
	s.SetReason(reason)
	const longest = 64
	if len(user) > longest {
		user = user[:longest]
	}
	m.log.Warn("authentication failed",
		slog.String("client", s.record.Client.Addr().String()),
		slog.String("user", strings.ToValidUTF8(user, "?")),
		slog.String("protocol", s.record.Protocol), slog.String("listener", s.record.Listener),
		slog.String("reason", reason), slog.String("id", s.ID()))
}

func asEgressError(err error) (*egress.Error, bool) {
	var e *egress.Error
	ok := errors.As(err, &e)
	return e, ok
}

func (m *Manager) remove(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.alive, s)
	if len(m.alive) == 0 && m.empty != nil {
		close(m.empty)
		m.empty = nil
	}
}

// BeginDrain ends the connections that are between two exchanges, and lets all
// others end after the exchange or tunnel that is under way.
func (m *Manager) BeginDrain() {
	m.draining.Store(true)
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.alive {
		s.conn.Outside(s.closeIdle)
	}
}

// closeIdle closes a connection that is between two exchanges, and has one of many streams ended.
func (s *Session) closeIdle() {
	switch {
	case !s.idle.Load():
	case s.conn.TLS() != nil:
		go s.conn.Close() // TLS says that it is the end, for which it waits up to 5 s for room; the caller holds the lock of all
	default:
		_ = s.conn.Close()
	}
	if f := s.drain.Load(); f != nil {
		(*f)()
	}
}

// Drain lets the sessions that are under way end by themselves until ctx does,
// then ends the rest. It returns how many had to be ended.
func (m *Manager) Drain(ctx context.Context) (killed int) {
	m.BeginDrain()
	if m.wait(ctx) {
		return 0
	}
	m.kill()
	m.loops.Kill()
	m.mu.Lock()
	for s := range m.alive {
		killed++
		if t := s.tunnel.Load(); t != nil {
			t.Close()
		} else {
			s.conn.Abort() // what the client got of an answer must not look whole
		}
	}
	m.mu.Unlock()
	last, cancel := context.WithTimeout(context.Background(), killGrace)
	defer cancel()
	m.wait(last)
	return killed
}

// killGrace is what killed sessions get to write their records.
const killGrace = 2 * time.Second

// wait returns true when no session is left, false when ctx ended first.
func (m *Manager) wait(ctx context.Context) bool {
	m.mu.Lock()
	if len(m.alive) == 0 {
		m.mu.Unlock()
		return true
	}
	if m.empty == nil {
		m.empty = make(chan struct{})
	}
	empty := m.empty
	m.mu.Unlock()
	select {
	case <-empty:
		return true
	case <-ctx.Done():
		return false
	}
}
