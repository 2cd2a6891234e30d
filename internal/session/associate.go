package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/reactor"
	"polyport/internal/relay"
	"polyport/internal/target"
	"polyport/internal/udprelay"
)

// Associate opens an association for the client's datagrams (RFC 1928 section 7), for SOCKS5's UDP ASSOCIATE: from is DST.ADDR
// and DST.PORT of the request, of which the port is believed if the address is the client's own or unspecified; else something between us
// has changed both. It returns the address that the client is to send to. Once the handler has returned without an error
// the session lasts as long as the association: until the client's connection ends, or nothing has passed for too long. The error is
// one of package udprelay's, or an *egress.Error where the rules admit no datagram of this client.
func (s *Session) Associate(from netip.AddrPort) (netip.AddrPort, error) {
	m := s.manager
	if m.udp == nil || s.conn.Packets() == nil {
		return netip.AddrPort{}, udprelay.ErrUnsupported
	}
	client := s.conn.Client()
	p := &packets{session: s, request: s.request(target.Target{}), wish: s.wish}
	if err := s.runtime.Egress.MayReach(p.request); err != nil {
		s.failed(err)
		return netip.AddrPort{}, err
	}
	q := udprelay.Request{
		Session: p, Client: client.Addr(), Identity: s.identity.Name,
		Socket: s.conn.Packets(), Loop: s.conn.Loop(), Lifetime: s.runtime.Timeouts.Lifetime,
	}
	if a := from.Addr().Unmap(); a == client.Addr() || a.IsUnspecified() {
		q.Port = from.Port()
	}
	if q.Loop == nil {
		q.Loop = m.loops.Next()
	}
	a, err := m.udp.Open(q)
	if err != nil {
		if !errors.Is(err, udprelay.ErrUnsupported) { // the socket has just been closed
			s.SetReason(string(egress.LimitReached))
		}
		return netip.AddrPort{}, err
	}
	s.association = a
	return s.advertised(a.Bound()), nil
}

// advertised returns what the client is told of the address that its datagrams are to come to.
func (s *Session) advertised(bound netip.AddrPort) netip.AddrPort {
	local := s.conn.Local()
	shared := bound.Port() == s.conn.Packets().Addr().Port()
	at := netip.AddrPortFrom(local.Addr(), bound.Port())
	for i, a := range s.listener.UDPAddress {
		same := a.Addr().Is4() == local.Addr().Is4()
		if i > 0 && !same {
			continue
		}
		at = netip.AddrPortFrom(a.Addr(), bound.Port())
		if shared && a.Port() != 0 {
			at = netip.AddrPortFrom(a.Addr(), a.Port())
		}
		if same {
			break
		}
	}
	return at
}

// packets is what an association asks of its session. It looks at nothing that changes after Associate.
type packets struct {
	session *Session
	request acl.Request
	wish    exit.Wish
}

var errQuestionPanicked = errors.New("the rules or a look-up panicked")

// AuthorizePacket implements udprelay.Session. It asks the rules of now: an association may last for days, and each new target
// is like a new request. It is called apart from the handler, so a panic is for it to catch: none may end other sessions.
func (p *packets) AuthorizePacket(ctx context.Context, t target.Target) (permit *egress.Permit, err error) {
	defer func() {
		if v := recover(); v != nil {
			permit, err = nil, p.panicked(t, v)
		}
	}()
	rt, r := p.session.manager.Runtime(), p.request
	r.Target = t
	if l, ok := rt.Listeners[r.Listener]; ok {
		r.RequireUser = l.RequireUser
	}
	if rt.Egress.LooksAtTime() {
		r.Time = time.Now()
	}
	return rt.Egress.Wishing(p.wish).AuthorizePacket(ctx, r)
}

// panicked logs a panic, and is the error in its place.
func (p *packets) panicked(t target.Target, v any) error {
	p.session.manager.log.Error("the rules, a look-up or an upstream panicked; datagrams are lost, the sessions go on", slog.String("id", p.session.ID()),
		slog.String("target", t.String()), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
	return &egress.Error{Reason: egress.InternalError, Target: t, Err: errQuestionPanicked}
}

// OpenPacket implements udprelay.Session. It is called as AuthorizePacket is, and with what that has admitted, so the configuration is that of now too.
func (p *packets) OpenPacket(ctx context.Context, l *reactor.Loop, permit *egress.Permit, owner egress.PacketOwner) (c *egress.PacketConn, err error) {
	defer func() {
		if v := recover(); v != nil {
			c, err = nil, p.panicked(permit.Target(), v)
		}
	}()
	return p.session.manager.Runtime().Egress.OpenPacket(ctx, l, permit, owner)
}

// AssociationEnded implements udprelay.Session.
func (p *packets) AssociationEnded(why udprelay.End) {
	s, reason := p.session, endReason(relay.EndIdle, nil)
	if why == udprelay.Lifetime {
		reason = endReason(relay.EndLifetime, nil)
	}
	if s.OnLoop() {
		s.conn.Outside(func() { s.dissociate(reason, nil) })
		return
	}
	go s.dissociate(reason, nil) // TLS waits for room to say that it is the end, and this is a loop
}

// associated goes on with a session that has an association: it lasts until the client's connection ends. What the client sends there
// means nothing (RFC 1928 section 7).
func (m *Manager) associated(s *Session) {
	s.Established()
	s.Responded()
	s.conn.TakePrefix()
	if rc, ok := s.conn.OnLoop(); ok {
		h := &parked{s}
		rc.Own(h)
		h.Happened(rc, reactor.Readable)
	} else {
		go s.awaitEnd()
	}
	s.association.Start() // not before: the record has been the handler's
}

// awaitEnd reads a client that has nothing more to say to its end, in a goroutine.
func (s *Session) awaitEnd() {
	var b [256]byte // few send anything
	for {
		if _, err := s.conn.Read(b[:]); err != nil {
			if err == io.EOF {
				err = nil
			}
			s.dissociate("", err)
			return
		}
	}
}

// parked hears of the end of a connection on a loop that has nothing more to say.
type parked struct{ session *Session }

// Watched implements reactor.Owner.
func (h *parked) Watched(*reactor.Conn) {}

// Happened implements reactor.Owner.
func (h *parked) Happened(c *reactor.Conn, _ reactor.Event) {
	const fairReads = 16 // then the others of the loop have their turn
	for range fairReads {
		_, err := c.TryRead(c.Loop().Scratch())
		switch {
		case err == reactor.ErrWait:
			return
		case err == io.EOF:
			err = nil
			fallthrough
		case err != nil:
			h.session.dissociate("", err)
			return
		}
	}
	c.Loop().Defer(func() { h.Happened(c, reactor.Readable) })
}

// dissociate ends a session that has an association, once.
func (s *Session) dissociate(reason string, err error) {
	if !s.dissociated.CompareAndSwap(false, true) {
		return
	}
	sum := s.association.Close()
	s.AddBytes(sum.BytesFromClient, sum.BytesFromTarget)
	s.record.Datagrams = &Datagrams{
		FromClient: sum.FromClient, FromTarget: sum.FromTarget, Denied: sum.Denied, Fragmented: sum.Fragmented,
		Limited: sum.Limited, Dropped: sum.Dropped, Unreachable: sum.Unreachable, Targets: sum.Targets,
	}
	switch {
	case sum.First != nil:
		s.noteTarget(sum.First.Target())
		s.record.Rule = sum.First.Decision().Rule
		if to, ok := sum.First.Destination(); ok {
			s.record.Address = to.AddrPort()
		}
		way := sum.First.Route()
		s.record.Exit, s.record.Upstream, s.record.Server, s.record.ByName = way.Exit, way.Upstream, sum.Server, way.ByName
	case sum.Failed != nil: // nothing went anywhere: why says more than how it ended
		s.noteFailed(sum.Failed)
		err = sum.Failed
	}
	if reason == "" && err != nil {
		reason = endReason(relay.EndReset, nil)
	}
	s.SetReason(reason)
	s.finish(err)
	_ = s.conn.Close() // it may be closed already; this frees its place in the caps
	s.manager.remove(s)
}

// noteFailed notes the first target, to which nothing could be sent.
func (s *Session) noteFailed(err error) {
	if e, ok := asEgressError(err); ok {
		s.noteTarget(e.Target)
	}
	s.failed(err)
}
