package pool

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"
)

// maxSessions is how many sessions a pool remembers; the oldest make room for new ones.
const maxSessions = 65536

// sessionName is a hash of 128 bits with seeds that nobody outside knows, so that no user can name the session of another.
type sessionName [2]uint64

// session is which server a session keeps, and until when.
type session struct {
	name  sessionName
	kept  *server
	until time.Time
	age   *list.Element // in sessions.oldest
}

// sessions is a table that many read at once: readers lock a shard to read, writers all of it.
type sessions struct {
	seeds  [2]maphash.Seed
	shards [64]shard

	mu     sync.Mutex
	oldest list.List // of *session, the oldest first
}

type shard struct {
	mu sync.RWMutex
	m  map[sessionName]*session
	_  [32]byte
}

func newSessions() *sessions {
	s := &sessions{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range s.shards {
		s.shards[i].m = make(map[sessionName]*session)
	}
	return s
}

// name tells apart the sessions of different users, and those of one user that ask for different servers.
func (s *sessions) name(r *Request) (n sessionName) {
	for i, seed := range s.seeds {
		var h maphash.Hash
		h.SetSeed(seed)
		writeString(&h, r.User)
		writeString(&h, r.Session)
		writeStrings(&h, r.Countries)
		writeStrings(&h, r.Tags)
		n[i] = h.Sum64()
	}
	return n
}

// writeString writes the length too: "ab", "c" is not "a", "bc".
func writeString(h *maphash.Hash, s string) {
	writeLength(h, len(s))
	h.WriteString(s)
}

func writeStrings(h *maphash.Hash, all []string) {
	writeLength(h, len(all))
	for _, s := range all {
		writeString(h, s)
	}
}

func writeLength(h *maphash.Hash, n int) {
	for range 4 {
		h.WriteByte(byte(n))
		n >>= 8
	}
}

func (s *sessions) shard(n sessionName) *shard { return &s.shards[n[0]%uint64(len(s.shards))] }

// get is the session with that name; nil: there is none, or its time is over.
func (s *sessions) get(n sessionName, now time.Time) *session {
	sh := s.shard(n)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if e := sh.m[n]; e != nil && now.Before(e.until) {
		return e
	}
	return nil
}

// put gives the session a server in place of old, which is what get said. If another connection was faster, what that
// one put there stays. The session that is now in the table is returned.
func (s *sessions) put(n sessionName, old *session, server *server, now time.Time, ttl time.Duration) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.get(n, now); e != nil && e != old {
		return e
	}
	e := &session{name: n, kept: server, until: now.Add(ttl)}
	s.forget(s.shard(n).m[n])
	e.age = s.oldest.PushBack(e)
	sh := s.shard(n)
	sh.mu.Lock()
	sh.m[n] = e
	sh.mu.Unlock()
	// Two that are over go for one that comes, so that a table of dead sessions shrinks.
	for range 2 {
		if first := s.oldest.Front().Value.(*session); s.oldest.Len() > maxSessions || !now.Before(first.until) {
			s.forget(first)
		}
	}
	return e
}

// forget takes e, if there is one, out of the table. s.mu is held.
func (s *sessions) forget(e *session) {
	if e == nil {
		return
	}
	s.oldest.Remove(e.age)
	sh := s.shard(e.name)
	sh.mu.Lock()
	delete(sh.m, e.name)
	sh.mu.Unlock()
}

// takeForSession takes the server that the session keeps, and another of want, which then is the one, if it may not be used.
func (p *Pool) takeForSession(v *view, want set, r *Request) *Member {
	n, now := p.kept.sessions.name(r), time.Now()
	old := p.kept.sessions.get(n, now)
	if m := p.useKept(v, &want, old); m != nil {
		return m
	}
	m := p.take(v, want, r)
	if m == nil {
		return nil
	}
	e := p.kept.sessions.put(n, old, m.server(), now, sessionTTL(r.TTL))
	if e.kept == m.server() {
		return m
	}
	faster := p.useKept(v, &want, e)
	if faster == nil {
		return m
	}
	m.Release()
	return faster
}

// useKept is use for the server of a session; nil: there is no session, or its server is not one of want.
func (p *Pool) useKept(v *view, want *set, e *session) *Member {
	if e == nil {
		return nil
	}
	if i, ok := p.place[e.kept]; ok && want.has(i) {
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
