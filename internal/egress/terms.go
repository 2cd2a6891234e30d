package egress

import (
	"hash/maphash"
	"strconv"
	"sync/atomic"
	"time"
)

// Terms remembers when sessions of users (session-k3j in the user name) began to leave from an address of ours, so that they keep it for
// their time and get another one after it. It is of a fixed size: sessions that fall into one place push each other out. It is safe for
// concurrent use and outlives a reload.
type Terms struct {
	seed   maphash.Seed
	places [termPlaces]atomic.Uint64 // the upper half is of the session, the lower one when it began, in seconds since 1970
}

const (
	termPlaces = 1 << 15
	// defaultTerm is how long a session lasts that does not say so.
	defaultTerm = 10 * time.Minute
)

// NewTerms makes one that remembers nothing yet.
func NewTerms() *Terms { return &Terms{seed: maphash.MakeSeed()} }

// of returns what tells this term of a session from others of the same name: the session with the moment at which the term
// began. Without a session, or on nil, it is the session as it is.
func (t *Terms) of(user, session string, ttl time.Duration, now time.Time) string {
	if t == nil || session == "" {
		return session
	}
	if ttl <= 0 {
		ttl = defaultTerm
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(user) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(session)
	sum := h.Sum64()
	at, name := &t.places[sum%termPlaces], sum>>32<<32
	for {
		v := at.Load()
		age := time.Duration(now.Unix()-int64(uint32(v))) * time.Second
		if v != 0 && v>>32<<32 == name && age >= 0 && age <= ttl { // to the second, and none too early
			return session + "@" + strconv.FormatUint(uint64(uint32(v)), 10)
		}
		fresh := name | uint64(uint32(now.Unix()))
		if at.CompareAndSwap(v, fresh) {
			return session + "@" + strconv.FormatInt(now.Unix(), 10)
		}
	}
}
