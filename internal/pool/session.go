package pool

import (
	"slices"
	"time"

	"polyport/internal/lease"
)

// sessions are the servers that sessions keep, by name: one that a reload takes out and the next puts back is still theirs.
type sessions = lease.Table[string]

// sessionName tells apart the sessions of different users, and those of one user that ask for different servers. In which order the
// countries and tags are written makes no difference.
func (p *Pool) sessionName(r *Request) lease.Name {
	return p.kept.sessions.Name(r.User, []string{r.Session}, sorted(r.Countries), sorted(r.Tags))
}

// sorted is texts, which stay as they are, in order.
func sorted(texts []string) []string {
	if slices.IsSorted(texts) {
		return texts
	}
	return slices.Sorted(slices.Values(texts))
}

// session is the session of r; nil: it names none, or that keeps no server.
func (p *Pool) session(r *Request, now time.Time) *lease.Lease[string] {
	if r.Session == "" {
		return nil
	}
	return p.kept.sessions.Get(p.sessionName(r), now)
}

// takeForSession takes the server that the session keeps, and another of want, which then is the one, if it may not be used.
func (p *Pool) takeForSession(v *view, want set, r *Request) *Member {
	n, now := p.sessionName(r), time.Now()
	old := p.kept.sessions.Get(n, now)
	if m := p.useKept(v, &want, old); m != nil {
		return m
	}
	m := p.take(v, want, r)
	if m == nil {
		return nil
	}
	l := p.kept.sessions.Put(n, old, m.Name(), now, sessionTTL(r.TTL))
	if l.Value == m.Name() {
		return m
	}
	faster := p.useKept(v, &want, l)
	if faster == nil {
		return m
	}
	m.Release()
	return faster
}

// useKept is use for the server of a session; nil: there is no session, or its server is not one of want.
func (p *Pool) useKept(v *view, want *set, l *lease.Lease[string]) *Member {
	if l == nil {
		return nil
	}
	if i, ok := p.place[l.Value]; ok && want.has(i) {
		return p.use(v, i)
	}
	return nil
}

func sessionTTL(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return defaultSessionTTL
	}
	return min(ttl, maxSessionTTL)
}
