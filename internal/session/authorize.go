package session

import (
	"context"
	"errors"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/target"
	"polyport/internal/upstream"
)

// dialer is the way out, for the client's wish.
func (s *Session) dialer() *egress.Dialer { return s.runtime.Egress.Wishing(s.wish) }

// Authorize asks whether this session may reach t, by the rules and the guard.
// The error is an *egress.Error.
func (s *Session) Authorize(ctx context.Context, t target.Target) (*egress.Permit, error) {
	if _, literal := t.Addr(); literal {
		return s.permitted(s.authorizeLiteral(ctx, t))
	}
	return s.permitted(s.authorizeAside(ctx, s.request(t)))
}

// authorizeAside is Authorize for a name. What it shares with another goroutine moves to the heap.
func (s *Session) authorizeAside(ctx context.Context, r acl.Request) (p *egress.Permit, err error) {
	s.aside(func() { p, err = s.dialer().Authorize(ctx, r) })
	return p, err
}

// AuthorizeBackend asks whether this session may use a backend, by the rules on
// the name t alone. The error is an *egress.Error.
func (s *Session) AuthorizeBackend(ctx context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error) {
	s.record.Backend = b.Name()
	return s.permitted(s.dialer().AuthorizeBackend(ctx, s.request(t), b))
}

// AuthorizeSite is AuthorizeBackend for a request of HTTP to a web site of the owner's.
func (s *Session) AuthorizeSite(ctx context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error) {
	s.record.Backend = b.Name()
	return s.permitted(s.dialer().AuthorizeSite(ctx, s.request(t), b))
}

// request is what the policy is asked about this session.
func (s *Session) request(t target.Target) acl.Request {
	s.noteTarget(t)
	client := s.conn.Client()
	var now time.Time
	if s.runtime.Egress.LooksAtTime() {
		now = time.Now()
	}
	return acl.Request{
		Client:      client.Addr(),
		ClientPort:  client.Port(),
		Identity:    s.identity.Name,
		Groups:      s.identity.Groups,
		Protocol:    s.record.Protocol,
		Method:      s.record.Method,
		Listener:    s.conn.Listener(),
		RequireUser: s.listener.RequireUser,
		Target:      t,
		Time:        now,
	}
}

// noteTarget notes where the client asked to go.
func (s *Session) noteTarget(t target.Target) {
	if s.asked.target != t || s.asked.text == "" {
		s.asked = asked{target: t, text: t.String()}
	}
	s.record.Target = s.asked.text
}

// permitted notes what was decided. Who waits for a target that he may reach is
// past the handshake, and no flood of unfinished connections may push him out.
func (s *Session) permitted(p *egress.Permit, err error) (*egress.Permit, error) {
	if err != nil {
		s.failed(err)
		return nil, err
	}
	s.finishHandshake()
	s.record.Rule = p.Decision().Rule
	s.record.ByName = p.Route().ByName
	return p, nil
}

// failed notes why egress could not serve.
func (s *Session) failed(err error) {
	e, ok := asEgressError(err)
	if !ok {
		return
	}
	if e.Decision.Rule != "" {
		s.record.Rule = e.Decision.Rule
	}
	s.record.Reason = string(e.Reason)
	if e.Upstream != "" {
		s.record.Upstream = e.Upstream
	}
	if e.Server != "" {
		s.record.Server = e.Server
	}
	if e.Exit != "" {
		s.record.Exit = e.Exit
	}
	if errors.Is(err, egress.ErrWish) {
		s.record.Reason = reasonWish
		return
	}
	if e.Decision.Reason != "" && e.Decision.Action != acl.Allow {
		s.record.Reason = e.Decision.Reason
	}
}
