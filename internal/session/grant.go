package session

import (
	"context"
	"slices"
	"time"

	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/target"
)

// grantTime is for how long an exchange may be given the permit of an earlier one. It is short since one thing that is
// looked at does not lie in the question: the addresses that this machine has at the moment.
const grantTime = time.Second

// grant is a permit, and all that the question for it was made of: whoever asks the same again, of
// the same rules, would hear the same. That is most exchanges of a kept-alive connection.
type grant struct {
	permit      *egress.Permit // nil is none
	at          time.Time
	runtime     *Runtime
	target      target.Target // an IP address: names are looked up each time, and may have moved
	user        string
	wish        exit.Wish
	groups      []string
	protocol    string
	method      string
	requireUser bool
}

// question is a grant without an answer.
func (s *Session) question(t target.Target) grant {
	return grant{
		at: s.record.Start, runtime: s.runtime, target: t, user: s.identity.Name, groups: s.identity.Groups, wish: s.wish,
		protocol: s.record.Protocol, method: s.record.Method, requireUser: s.listener.RequireUser,
	}
}

// answers reports whether g is still the answer to q.
func (g *grant) answers(q *grant) bool {
	return g.permit != nil && g.runtime == q.runtime && g.target == q.target && g.method == q.method && g.protocol == q.protocol &&
		g.requireUser == q.requireUser && g.user == q.user && g.wish == q.wish && slices.Equal(g.groups, q.groups) && q.at.Sub(g.at) < grantTime
}

// authorizeLiteral is Authorize for an IP address, for which nothing has to be looked up.
func (s *Session) authorizeLiteral(ctx context.Context, t target.Target) (*egress.Permit, error) {
	if !s.again || s.runtime.Egress.LooksAtTime() {
		return s.dialer().Authorize(ctx, s.request(t))
	}
	q := s.question(t)
	if s.grant == nil {
		s.grant = new(grant) // tunnels, which are many, never have any
	}
	if s.grant.answers(&q) {
		s.noteTarget(t)
		return s.grant.permit, nil
	}
	p, err := s.dialer().Authorize(ctx, s.request(t))
	q.permit = p
	*s.grant = q
	return p, err
}
