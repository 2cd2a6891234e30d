package certificate

import (
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

const (
	// ticketKeyLife is how long a key seals new tickets.
	ticketKeyLife = 12 * time.Hour
	// ticketKeyKept is how long a key opens tickets: one lives for 36 hours at
	// least and for 48 at most. RFC 8446 section 4.6.1 allows seven days, but whoever
	// gets a key reads the TLS 1.2 sessions of all that time.
	ticketKeyKept = 48 * time.Hour
)

// Tickets has the keys that session tickets are sealed with. It is safe for
// concurrent use and has nothing to close: a key is replaced when it is asked for.
type Tickets struct {
	mu   sync.Mutex
	keys []ticketKey // the newest first
	seal *tls.Config // has these keys, and nothing else
}

type ticketKey struct {
	key  [32]byte
	born time.Time
}

// NewTickets returns fresh keys.
func NewTickets() *Tickets { return &Tickets{} }

// current returns a configuration that has the keys of this moment.
func (t *Tickets) current(now time.Time) *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := len(t.keys) == 0 || now.Sub(t.keys[0].born) >= ticketKeyLife
	kept := slices.IndexFunc(t.keys, func(k ticketKey) bool { return now.Sub(k.born) >= ticketKeyKept })
	if !fresh && kept < 0 {
		return t.seal
	}
	if kept >= 0 {
		t.keys = t.keys[:kept]
	}
	if fresh {
		k := ticketKey{born: now}
		rand.Read(k.key[:]) // never fails
		t.keys = slices.Insert(t.keys, 0, k)
	}
	keys := make([][32]byte, len(t.keys))
	for i, k := range t.keys {
		keys[i] = k.key
	}
	t.seal = &tls.Config{}
	t.seal.SetSessionTicketKeys(keys)
	return t.seal
}

// wrap seals a session. Its binding says for whom the ticket is good.
func (t *Tickets) wrap(cs tls.ConnectionState, s *tls.SessionState, binding []byte) ([]byte, error) {
	s.Extra = [][]byte{binding}
	return t.current(time.Now()).EncryptTicket(cs, s)
}

// unwrap opens a ticket. One of another binding is none: a whole handshake follows.
func (t *Tickets) unwrap(ticket []byte, cs tls.ConnectionState, binding []byte) (*tls.SessionState, error) {
	s, err := t.current(time.Now()).DecryptTicket(ticket, cs)
	if err != nil || s == nil || len(s.Extra) != 1 || string(s.Extra[0]) != string(binding) {
		return nil, err
	}
	return s, nil
}
