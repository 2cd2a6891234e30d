package session

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"polyport/internal/auth"
	"polyport/mux"
)

// Secure says that the connection is secured by layer, which lies over Conn().Beneath() and whose handshake is
// done. identity is who the client's certificate has proved to be; the zero Identity is nobody. It holds
// for every exchange and stream inside, in which credentials of the inner protocol may replace it, until a reload: then
// the certificate is judged anew.
func (s *Session) Secure(layer *tls.Conn, identity auth.Identity) {
	s.conn.Secure(layer)
	s.certified = &certified{state: layer.ConnectionState(), runtime: s.runtime, identity: identity}
	s.identify(identity)
	s.noteTLS()
}

// certified is who the certificate of a connection proves its client to be. Its streams share it.
type certified struct {
	state tls.ConnectionState

	mu       sync.Mutex
	runtime  *Runtime // under which identity holds
	identity auth.Identity
}

// under returns the identity under rt.
func (c *certified) under(rt *Runtime) auth.Identity {
	if c == nil {
		return auth.Identity{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runtime != rt {
		c.runtime, c.identity = rt, auth.Identity{}
		if rt.Certified != nil && len(c.state.PeerCertificates) > 0 {
			c.identity = rt.Certified(c.state)
		}
	}
	return c.identity
}

// noteTLS notes in the record what the connection is secured by.
func (s *Session) noteTLS() {
	if state := s.conn.TLS(); state != nil {
		s.record.TLS, s.record.ServerName = tls.VersionName(state.Version), state.ServerName
	}
}

// Inject has the inside of a secured connection served, once the handler has returned without an error: the session goes on
// under the row that the inside speaks. row, when not "", is the row that the layer has agreed on.
func (s *Session) Inject(row string) { s.injecting, s.inner = true, row }

// inject goes on with the inside of a secured connection.
func (m *Manager) inject(s *Session) {
	s.injecting, s.carried = false, nil
	cause, err := m.classify(s.conn, s.inner)
	if cause != "" {
		s.SetReason(string(cause))
		m.end(s, fmt.Errorf("find out what the client speaks inside TLS: %w", or(err, errNothing)))
		return
	}
	s.record.Protocol, s.record.Version = s.conn.Row(), ""
	s.handler = s.runtime.Handlers[s.conn.Row()]
	_ = s.conn.SetDeadline(time.Now().Add(s.runtime.Timeouts.Handshake)) // fails only on a closed connection
	m.end(s, m.run(s))
}

// errNothing is for causes without an error: they say all themselves.
var errNothing = errors.New("nothing that is known came in time")

func or(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Stream serves one of many streams that run at once inside the session's connection (HTTP/2), with a session of its own: own
// record, own place in the caps, the Runtime of now. The handler of the connection's row is called for it
// with carry for Carried. Stream returns once the handler has returned; a tunnel may go on
// from there, to whose end nc is closed. A Cause other than "" says that a cap refused it; nc is the caller's then.
func (s *Session) Stream(id uint32, nc net.Conn, carry any) mux.Cause {
	c, refused := s.conn.Stream(nc)
	if refused != "" {
		return refused
	}
	m := s.manager
	st := m.register(c)
	st.listener, st.carried = s.listener, carry
	st.certified, st.within, st.stream = s.certified, s.record.ID, id
	m.serve(st)
	return ""
}

// OnDrain has f called once the gateway shuts down, at once if it already does: it lets the client end its
// streams. f is called from another goroutine and must not block.
func (s *Session) OnDrain(f func()) {
	s.drain.Store(&f)
	if s.Draining() {
		f()
	}
}
