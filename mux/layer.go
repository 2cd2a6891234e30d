package mux

import (
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
)

// Secure says that all that is read and written from now on goes through layer, which lies over Beneath
// and whose handshake is done. RawTCP is false then, and Close closes layer.
func (c *Conn) Secure(layer *tls.Conn) {
	state := layer.ConnectionState()
	c.secured = &state
	under, ok := layer.NetConn().(*beneath)
	if ok {
		under.ear = nil
	}
	c.nc, c.tcp = &secured{Conn: layer, bare: c.bareConn(), under: under}, nil
}

// TLS returns the state of the layer that the connection is secured by; nil if it is none.
func (c *Conn) TLS() *tls.ConnectionState { return c.secured }

// secured is a TLS connection that can be reset.
type secured struct {
	*tls.Conn
	bare  net.Conn
	under *beneath // nil if something else lies beneath
	abort atomic.Bool
}

// Read reads some content: that of one record, and of all further ones that are there already and fit, since whoever
// passes it on does so in one call of the system then.
func (s *secured) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	for more := n; more > 0 && len(p)-n >= maxRecord && s.under != nil && s.under.holdsRecord(); n += more {
		s.under.hasty = true
		more, _ = s.Conn.Read(p[n:]) // an error that is to stay comes again
		s.under.hasty = false
	}
	return n, err
}

// Write writes p. One goroutine at a time may. What makes more than one record of TLS goes out at once: each by itself would be a
// packet, and a call of the system, of its own.
func (s *secured) Write(p []byte) (int, error) {
	if len(p) <= maxRecord || s.under == nil {
		return s.Conn.Write(p)
	}
	s.under.hold()
	n, err := s.Conn.Write(p)
	if e := s.under.release(); e != nil && err == nil {
		n, err = 0, e // nobody knows how much of it the client will get
	}
	return n, err
}

// CloseWrite says that nothing more comes (close_notify). It waits as long as the write deadline lets it; package tls
// would give it 5 s, and a client that takes nothing for so long may still want to go on.
func (s *secured) CloseWrite() error {
	if s.under != nil {
		s.under.patient.Store(true)
		defer s.under.patient.Store(false)
	}
	return s.Conn.CloseWrite()
}

// SetLinger is that of a TCP connection: with 0 the coming Close is a reset.
func (s *secured) SetLinger(sec int) error {
	l, ok := s.bare.(interface{ SetLinger(int) error })
	if !ok {
		return errors.ErrUnsupported
	}
	s.abort.Store(sec == 0)
	return l.SetLinger(sec)
}

// Close says that nothing more comes, unless the connection is to be reset: then that would pass for a good end.
func (s *secured) Close() error {
	if s.abort.Load() {
		return s.bare.Close()
	}
	return s.Conn.Close()
}

// Inject finds the row that the inside of a secured connection speaks; row, when not "", is what the layer
// has agreed on (ALPN). It blocks as long as sniffing may last. A Cause other than "" says why there is
// none; the connection stays the caller's to close.
func (s *Server) Inject(c *Conn, row string) (Cause, error) {
	sn := s.newSniffer(c)
	if row != "" {
		if !hasRow(sn.rows, row) {
			row = RowReject
		}
		c.row = row
		return "", nil
	}
	found, cause, err := sn.sniff()
	if cause != "" {
		return cause, err
	}
	c.row = found
	return "", nil
}

// Stream makes a connection of one of many streams that run at once inside c. It has a place of its own
// in the caps, as a connection of c's client, and is closed apart from c. A Cause other
// than "" says that it found no place; nc stays the caller's then.
func (c *Conn) Stream(nc net.Conn) (*Conn, Cause) {
	st := &Conn{nc: nc, client: c.client, local: c.Local(), listener: c.listener, row: c.row, secured: c.secured, within: c}
	if c.slot.caps == nil {
		return st, ""
	}
	st.slot.within = &c.slot
	evicted, refused := c.slot.caps.take(&st.slot, nc, c.client.Addr())
	pushOut(evicted...)
	if refused != "" {
		return nil, refused
	}
	st.slot.waiting.Store(false)
	return st, ""
}

// Within returns the connection that this one is a stream of; nil if it is none.
func (c *Conn) Within() *Conn { return c.within }
