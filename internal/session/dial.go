package session

import (
	"context"
	"net"
	"net/netip"
	"time"

	"polyport/internal/egress"
)

// Dial opens the connection that the permit is for, on the session's loop if it has one and the permit does not Block. The caller closes it, or
// gives it to Relay. The error is an *egress.Error.
func (s *Session) Dial(ctx context.Context, p *egress.Permit) (net.Conn, error) {
	link, err := s.Open(ctx, p, egress.OpenOptions{})
	if err != nil {
		return nil, err
	}
	s.KeepLink(link) // in the place of that of an earlier try
	return link.Conn, nil
}

// KeepLink has the session release l when it ends, for a connection that Relay is given and Dial has not opened.
func (s *Session) KeepLink(l egress.Link) {
	s.link.Release()
	s.link = l
}

// Open is Dial for requests of HTTP, as o says but for Loop and Header, which are the session's. The caller releases the Link too.
func (s *Session) Open(ctx context.Context, p *egress.Permit, o egress.OpenOptions) (egress.Link, error) {
	o.Loop, o.Header = s.conn.Loop(), s.header(p)
	link, err := s.runtime.Egress.Open(ctx, p, o)
	for try := 0; err != nil && try < roomTries && isOutOfRoom(err) && s.makeRoom(ctx); try++ {
		link, err = s.runtime.Egress.Open(ctx, p, o)
	}
	if err != nil {
		s.record.Address, s.record.Server = netip.AddrPort{}, "" // of an earlier try, of which err says nothing
		s.failed(err)
		return egress.Link{}, err
	}
	s.SetLink(link)
	return link, nil
}

// SetLink notes the way of a connection that was dialled for an earlier exchange. Dial notes its own.
func (s *Session) SetLink(l egress.Link) {
	s.record.Address, s.record.Upstream, s.record.Server, s.record.Exit = l.Address, l.Upstream, l.Server, l.Exit
}

// SetALPN notes the protocol that is spoken inside TLS which passes through, for backends that ask for it.
func (s *Session) SetALPN(protocol string) { s.alpn = protocol }

// header is what a backend is told of the client.
func (s *Session) header(p *egress.Permit) egress.Header {
	if !p.WantsHeader() {
		return egress.Header{}
	}
	h := egress.Header{Client: s.conn.Client(), Local: s.conn.Local(), ALPN: s.alpn, ID: s.ID()}
	if st := s.conn.TLS(); st != nil {
		h.ALPN = st.NegotiatedProtocol
	}
	if _, literal := p.Target().Addr(); !literal && p.Target().Port() != 0 {
		h.Authority = p.Target().Host()
	}
	return h
}

const (
	roomTries = 3                    // how often a dial without a descriptor is tried again
	roomPause = 5 * time.Millisecond // what it takes to close one
)

// isOutOfRoom reports whether this machine has nothing left to dial with.
func isOutOfRoom(err error) bool {
	e, ok := asEgressError(err)
	return ok && e.OutOfRoom()
}

// makeRoom closes an unfinished connection for the sake of this session, which is
// past its handshake. False means that there is none, or nobody waits any more.
func (s *Session) makeRoom(ctx context.Context) bool {
	if !s.conn.MakeRoom() {
		return false
	}
	made := false
	s.aside(func() {
		t := time.NewTimer(roomPause)
		defer t.Stop()
		select {
		case <-t.C:
			made = true
		case <-ctx.Done():
		}
	})
	return made
}
