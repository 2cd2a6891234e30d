// Package session is one use of the proxy by one client, from the first byte
// to the one accounting line that it leaves. Handlers speak a protocol and ask
// the session for everything else: identity, permission, the way out, the tunnel.
package session

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/relay"
	"polyport/internal/target"
	"polyport/internal/udprelay"
	"polyport/mux"
)

// A Handler speaks one protocol. It reads the request, asks the session, answers
// and returns; it never logs, never dials by itself and never closes the client's
// connection. The error says why the session failed, for the record; nil is a
// session that ended as its protocol means it to.
type Handler interface {
	ServeSession(ctx context.Context, s *Session) error
}

// Retirer is what a Handler may implement to let go of what it holds (idle
// upstream connections) once a reload has replaced it.
type Retirer interface{ Retire() }

// Session is one use of the proxy by one client. It belongs to the goroutine
// that serves it; only the Manager may look at it from elsewhere, through atomics.
type Session struct {
	manager     *Manager
	runtime     *Runtime
	listener    Listener
	handler     Handler // of the row; nil is none
	conn        *mux.Conn
	record      Record
	identity    auth.Identity
	asked       asked
	grant       *grant                 // nil until a second exchange asks
	again       bool                   // this is not the first exchange of the connection
	finished    bool                   // the connection no longer counts as unfinished
	target      net.Conn               // what Relay was given
	ahead       []byte                 // what target had sent before the tunnel
	link        egress.Link            // what Dial has opened, or KeepLink was given, until its connection is closed
	wish        exit.Wish              // what the user has added to his name
	alpn        string                 // the protocol that the client has agreed on, or offers, in TLS that passes
	leaving     bool                   // LeaveLoop was called
	carried     any                    // what LeaveLoop or Stream was given
	certified   *certified             // by the client's certificate; nil outside TLS
	injecting   bool                   // Inject was called
	inner       string                 // with this row
	within      ID                     // the session of the connection that this is a stream of
	stream      uint32                 // its number there; 0 for none
	drain       atomic.Pointer[func()] // what OnDrain was given
	ended       bool                   // the record is closed
	idle        atomic.Bool            // between two exchanges
	tunnel      atomic.Pointer[relay.Tunnel]
	association *udprelay.Association // what Associate has opened; nil is none
	dissociated atomic.Bool
}

// asked is the target that was asked for last: one client mostly asks for the same again.
type asked struct {
	target target.Target
	text   string
}

// ID returns the session's identifier, the one in the access log.
func (s *Session) ID() string { return s.record.ID.String() }

// Conn returns the client's connection. The session closes it.
func (s *Session) Conn() *mux.Conn { return s.conn }

// Timeouts returns the deadlines that hold for this session. When ServeSession
// is called a deadline of Handshake is already set on Conn for reads and writes.
func (s *Session) Timeouts() Timeouts { return s.runtime.Timeouts }

// Established says that the handshake is over: the deadline on Conn is cleared
// and the connection no longer counts as unfinished. Relay implies it.
func (s *Session) Established() {
	s.finishHandshake()
	_ = s.conn.SetDeadline(time.Time{}) // fails only on a closed connection, which the next read tells
}

// finishHandshake says once that the connection no longer counts as unfinished: every
// connection of the gateway counts under one lock.
func (s *Session) finishHandshake() {
	if !s.finished {
		s.finished = true
		s.conn.Finished()
	}
}

// Loopback reports whether the listener is bound to loopback addresses alone,
// so that an error page may name rules to its reader.
func (s *Session) Loopback() bool { return s.listener.Loopback }

// HelpPage reports whether this listener shows a help page, and the "host:port"
// under which clients reach it.
func (s *Session) HelpPage() (address string, on bool) {
	if address = s.listener.PublicAddress; address == "" {
		address = s.conn.Local().String()
	}
	return address, s.listener.HelpPage
}

// Allows reports whether the listener serves a row of the protocol table. The
// handler of the rows http and connect asks for each exchange.
func (s *Session) Allows(row string) bool {
	return s.listener.Rows == nil || s.listener.Rows[row]
}

// Draining reports whether the gateway is shutting down: an HTTP connection
// then ends after the exchange that is under way.
func (s *Session) Draining() bool { return s.manager.draining.Load() }

// SetProtocol replaces the row's name in the record and in what the policy is
// asked: a CONNECT on a connection that began with GET is "connect".
func (s *Session) SetProtocol(row string) { s.record.Protocol = row }

// SetMethod notes the method for the policy and the record.
func (s *Session) SetMethod(method string) { s.record.Method = method }

// SetVersion notes the protocol's version for the record: "HTTP/1.1", "SOCKS4a".
func (s *Session) SetVersion(v string) { s.record.Version = v }

// SetServerName notes the name that the client sent for the gateway itself (SNI). Secure notes it too.
func (s *Session) SetServerName(name string) { s.record.ServerName = name }

// SetURL notes the HTTP request target for the record. It must hold no credentials.
func (s *Session) SetURL(u string) { s.record.URL = u }

// SetUserID notes what a SOCKS4 client says of itself.
func (s *Session) SetUserID(id string) { s.record.UserID = id }

// SetStatus notes the HTTP status or SOCKS reply code that the client got.
func (s *Session) SetStatus(code int) { s.record.Status = code }

// SetReason notes why the session ended as it did, unless Authorize or Dial
// have already noted a reason of their own.
func (s *Session) SetReason(reason string) {
	if s.record.Reason == "" {
		s.record.Reason = reason
	}
}

// SetTarget notes where the client asked to go when the session ends before
// Authorize has been asked.
func (s *Session) SetTarget(t target.Target) { s.record.Target = t.String() }

// Responded notes the moment at which the target had answered (HTTP: the
// response head). Relay implies it.
func (s *Session) Responded() {
	if s.record.Setup == 0 {
		s.record.Setup = time.Since(s.record.Start)
	}
}

// AddBytes adds to the record's counts.
func (s *Session) AddBytes(fromClient, fromTarget int64) {
	s.record.BytesFromClient += fromClient
	s.record.BytesFromTarget += fromTarget
}

// RequiresTLS reports whether the listener serves nobody outside TLS, and this session is outside.
func (s *Session) RequiresTLS() bool { return s.OnlyTLS() && s.conn.TLS() == nil }

// OnlyTLS reports whether the listener serves nobody outside TLS.
func (s *Session) OnlyTLS() bool { return s.listener.RequireTLS }

// aside calls f, which may block: apart from the loop, if this session is served by one.
func (s *Session) aside(f func()) {
	if l := s.conn.Loop(); l != nil {
		l.Aside(f)
		return
	}
	f()
}

// OnLoop reports whether the session is served by an event loop.
func (s *Session) OnLoop() bool { return s.conn.Loop() != nil }

// LeaveLoop has the handler called once more when it has returned without an error, in a goroutine, for what a loop
// cannot serve. carry is for Carried then, and must not be nil. Deadlines of the connection are gone.
func (s *Session) LeaveLoop(carry any) { s.leaving, s.carried = true, carry }

// Carried returns what LeaveLoop or Stream was given; nil where the handler is called for a connection for the first time.
func (s *Session) Carried() any { return s.carried }

// Relay joins the client and target into a tunnel and takes ownership of both.
// It begins when the handler returns, which it should do at once; the record
// ends when the tunnel does. What the handler has read of the client beyond its
// handshake must have been given back by Conn().Unread.
func (s *Session) Relay(target net.Conn) {
	s.Responded()
	s.target = target
}

// Next ends this exchange's record, with err or nil, and begins one for the
// next exchange on the same connection, under the current Runtime. Call it once
// the next request has begun to arrive, not before: each record is one
// exchange. The old *Session must not be used any more.
func (s *Session) Next(err error) *Session {
	s.End(err)
	s.idle.Store(false)
	s.again = true
	s.begin(s.manager.runtime.Load())
	return s
}

// End ends this exchange's record without beginning another, for a connection
// that waits for its next request. Next after End only begins. When the gateway is shutting
// down the connection is closed: the next read fails.
func (s *Session) End(err error) {
	if s.ended {
		return
	}
	s.finish(err)
	s.idle.Store(true)
	if s.Draining() {
		_ = s.conn.Close()
	}
}

// Handler returns the handler of this row in the session's own Runtime: after
// Next it may be a newer one than the one that is running.
func (s *Session) Handler() Handler { return s.handler }

// begin opens a record under rt.
func (s *Session) begin(rt *Runtime) {
	if rt != s.runtime {
		if l, ok := rt.Listeners[s.conn.Listener()]; ok {
			s.listener = l
		} // else a reload took it away, and it keeps what it had
		s.runtime, s.handler = rt, rt.Handlers[s.conn.Row()]
	}
	s.ended = false
	s.record = Record{
		ID:         s.manager.nextID(),
		Start:      time.Now(),
		Client:     s.conn.Client(),
		Listener:   s.conn.Listener(),
		Protocol:   s.conn.Row(),
		Connection: s.within,
		Stream:     s.stream,
	}
	s.identify(s.certified.under(rt))
	s.noteTLS()
	for _, o := range s.manager.observers {
		s.manager.started(o, s.record)
	}
}

// finish closes the record and shows it.
func (s *Session) finish(err error) {
	s.ended = true
	s.link.Release()
	s.link = egress.Link{}
	s.record.Duration = time.Since(s.record.Start)
	s.record.Err = err
	if err != nil {
		s.foreignEnd()
	}
	for _, o := range s.manager.observers {
		s.manager.ended(o, s.record)
	}
}

// foreignEnd corrects the reason of a session that failed since we had closed its
// connection under its hands.
func (s *Session) foreignEnd() {
	switch {
	case s.conn.Evicted():
		s.record.Reason = string(mux.Evicted)
	case s.manager.base.Err() != nil:
		s.record.Reason = string(mux.ShuttingDown)
	}
}
