// Package lease remembers for a while what sessions of users have been given: the server of a pool, the address that connections leave
// from. It keeps a bounded number of them, and shares it out: where there is no room the user with the most loses one.
package lease

import (
	"container/heap"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// parts is how many parts a table has, each with a lock of its own.
	parts = 64
	// perPart is how many leases there is room for in each. The names fall on the parts by chance.
	perPart = 1024
)

// Table remembers leases: up to 65,536, in 64 parts. A part that is full drops the oldest lease of the user who has the most in it, so that
// one who takes thousands pushes out his own, and none of those who have a few. It is safe for concurrent use.
type Table[V any] struct {
	seeds [2]maphash.Seed
	parts [parts]part[V]
}

// Name names a lease by hashes with seeds that nobody outside knows, so that no user can name that of another.
type Name struct {
	user uint64
	id   [2]uint64 // of the user too
}

// Lease is what has been given, from when and until when. None of that changes.
type Lease[V any] struct {
	Value        V
	Begun, Until time.Time

	name   Name
	holder *holder[V]
	links  [2]links[V]
}

// part is some of the leases.
type part[V any] struct {
	mu      sync.RWMutex
	leases  map[Name]*Lease[V]    // nil until the first
	holders map[uint64]*holder[V] // those who have any, by user
	heap    byCount[V]            // the same, the one with the most first
	all     ring[V]

	_ [40]byte // each lock on a cache line of its own
}

// holder is a user's leases in one part.
type holder[V any] struct {
	user uint64
	own  ring[V]
	at   int // in the heap
}

// New makes a Table that remembers nothing yet.
func New[V any]() *Table[V] {
	return &Table[V]{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// Name tells apart the leases of different users, and those of one user that differ in anything else.
func (t *Table[V]) Name(user string, rest ...[]string) (n Name) {
	for i, seed := range t.seeds {
		var h maphash.Hash
		h.SetSeed(seed)
		writeString(&h, user)
		if i == 0 {
			n.user = h.Sum64()
		}
		for _, texts := range rest {
			writeLength(&h, len(texts))
			for _, s := range texts {
				writeString(&h, s)
			}
		}
		n.id[i] = h.Sum64()
	}
	return n
}

// writeString writes the length too: "ab", "c" is not "a", "bc".
func writeString(h *maphash.Hash, s string) {
	writeLength(h, len(s))
	h.WriteString(s)
}

func writeLength(h *maphash.Hash, n int) {
	for range 4 {
		h.WriteByte(byte(n))
		n >>= 8
	}
}

func (t *Table[V]) part(n Name) *part[V] { return &t.parts[n.id[0]%parts] }

// Get returns the lease with that name; nil: there is none, or its time is over.
func (t *Table[V]) Get(n Name, now time.Time) *Lease[V] {
	p := t.part(n)
	p.mu.RLock()
	defer p.mu.RUnlock()
	if l := p.leases[n]; l != nil && now.Before(l.Until) {
		return l
	}
	return nil
}

// Put gives a lease in place of old, which is what Get returned. If somebody else was faster, what he has put there stays. The
// lease that is now in the table is returned. ttl must be positive.
func (t *Table[V]) Put(n Name, old *Lease[V], v V, now time.Time, ttl time.Duration) *Lease[V] {
	p := t.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.leases[n]; l != nil {
		if l != old && now.Before(l.Until) {
			return l
		}
		p.drop(l)
	}
	l := &Lease[V]{Value: v, Begun: now, Until: now.Add(ttl), name: n}
	p.add(l)
	// Two that are over go for one that comes, so that a table of dead leases shrinks.
	for range 2 {
		if first := p.all.oldest; !now.Before(first.Until) {
			p.drop(first)
		}
	}
	if len(p.leases) > perPart {
		p.drop(p.surplus(l.holder))
	}
	return l
}

// add takes in a lease of a name that there is none of. p.mu is held.
func (p *part[V]) add(l *Lease[V]) {
	if p.leases == nil {
		p.leases, p.holders = make(map[Name]*Lease[V]), make(map[uint64]*holder[V])
	}
	h := p.holders[l.name.user]
	if h == nil {
		h = &holder[V]{user: l.name.user}
		p.holders[h.user] = h
		heap.Push(&p.heap, h)
	}
	l.holder = h
	p.leases[l.name] = l
	p.all.push(ofAll, l)
	h.own.push(ofHolder, l)
	heap.Fix(&p.heap, h.at)
}

// drop takes a lease out. p.mu is held.
func (p *part[V]) drop(l *Lease[V]) {
	h := l.holder
	delete(p.leases, l.name)
	p.all.remove(ofAll, l)
	if h.own.remove(ofHolder, l); h.own.count > 0 {
		heap.Fix(&p.heap, h.at)
		return
	}
	heap.Remove(&p.heap, h.at)
	delete(p.holders, h.user)
}

// surplus is the lease that makes room for one that newcomer has taken: his own oldest where nobody has more than he. p.mu is held.
func (p *part[V]) surplus(newcomer *holder[V]) *Lease[V] {
	switch most := p.heap[0]; most.own.count {
	case 1: // and all others have one too
		return p.all.oldest
	case newcomer.own.count:
		return newcomer.own.oldest
	default:
		return most.own.oldest
	}
}
