package egress

import (
	"strconv"
	"time"

	"polyport/internal/lease"
)

// Terms remembers when sessions of users (session-k3j in the user name) began to leave from an address of ours, so that they keep it for
// their time and get another one after it. How many it remembers is bounded, and shared out among the users (lease.Table). It is safe for
// concurrent use and outlives a reload.
type Terms struct{ begun *lease.Table[struct{}] }

// defaultTerm is how long a session lasts that does not say so.
const defaultTerm = 10 * time.Minute

// NewTerms makes one that remembers nothing yet.
func NewTerms() *Terms { return &Terms{lease.New[struct{}]()} }

// of returns what tells this term of a session from others of the same name: the session with the second in which the term
// began. Without a session, or on nil, it is the session as it is. A term lasts for a second at the least.
func (t *Terms) of(user, session string, ttl time.Duration, now time.Time) string {
	if t == nil || session == "" {
		return session
	}
	if ttl <= 0 {
		ttl = defaultTerm
	}
	n := t.begun.Name(user, []string{session})
	l := t.begun.Get(n, now)
	if l == nil {
		l = t.begun.Put(n, nil, struct{}{}, now, max(ttl, time.Second)) // two terms must not begin in one second
	}
	return session + "@" + strconv.FormatInt(l.Begun.Unix(), 10)
}
