package resolve

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// prefetchAsks is how often a name must be asked for in its life to be looked up
	// again before that ends, and prefetchPart the part of its life that is left then.
	prefetchAsks, prefetchPart = 3, 10
	// prefetchLife is the shortest life of which a tenth is worth it.
	prefetchLife = time.Second
)

// entry is the outcome of a look-up. What the cache holds is shared: only its atomics change.
type entry struct {
	addrs []netip.Addr
	err   *Error        // nil when addrs has some
	life  time.Duration // 0: not to be kept
	stale bool          // had run out, and was prolonged for want of an answer

	// Set by the cache.
	expires time.Time
	due     time.Time // from when on it is looked up again if many ask; expires for never
	usable  time.Time // until when it serves if the servers fail

	asks       atomic.Uint32 // up to prefetchAsks
	prefetched atomic.Bool
}

func (e *entry) result() ([]netip.Addr, error) {
	if e.err != nil {
		return nil, e.err
	}
	return e.addrs, nil
}

// toPrefetch counts an ask, and reports whether it is the one to look the name up again.
func (e *entry) toPrefetch(now time.Time) bool {
	if e.asks.Load() < prefetchAsks { // later ones only read, so that the cores need not take turns
		e.asks.Add(1)
	}
	return now.After(e.due) && e.asks.Load() >= prefetchAsks && e.prefetched.CompareAndSwap(false, true)
}

// evictionSample is how many names are looked at to find one to give up.
const evictionSample = 16

// cache keeps entries until they expire, and never more than its size: when it
// is full, of a few random names the one that expires soonest goes. Failures live
// short, so a flood of names that do not exist hardly costs a good one its place.
type cache struct {
	size       int
	stale      time.Duration // for how long after their end answers are of use
	noPrefetch bool

	mu      sync.RWMutex
	entries map[string]*entry
}

// newCache makes a cache of size names; none if that is negative.
func newCache(size int) *cache {
	return &cache{size: size, entries: make(map[string]*entry)}
}

// get returns the entry of host, nil for none, and whether it has not run out.
func (c *cache) get(host string, now time.Time) (e *entry, fresh bool) {
	c.mu.RLock()
	e = c.entries[host]
	c.mu.RUnlock()
	return e, e != nil && now.Before(e.expires)
}

func (c *cache) put(host string, e *entry, now time.Time) {
	if c.size <= 0 {
		return
	}
	e.expires = now.Add(e.life)
	e.due, e.usable = e.expires, e.expires
	if e.err == nil {
		e.usable = e.expires.Add(c.stale)
		if !c.noPrefetch && e.life >= prefetchLife {
			e.due = e.expires.Add(-e.life / prefetchPart)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[host]; !ok && len(c.entries) >= c.size {
		c.evict()
	}
	c.entries[host] = e
}

// prolong keeps what is known of host when a look-up has failed, and reports
// whether it is of use still.
func (c *cache) prolong(host string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[host]
	switch {
	case e == nil || e.err != nil || !now.Before(e.usable):
		return false
	case now.Before(e.expires):
		return true
	}
	p := &entry{addrs: e.addrs, life: staleTTL, stale: true, expires: now.Add(staleTTL), usable: e.usable}
	if e.usable.Before(p.expires) {
		p.expires = e.usable
	}
	p.due = p.expires
	c.entries[host] = p
	return true
}

// drop removes host.
func (c *cache) drop(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, host)
}

// evict makes room for one entry. The order of a map's iteration is random.
func (c *cache) evict() {
	var victim string
	var soonest time.Time
	seen := 0
	for host, e := range c.entries {
		if seen == 0 || e.expires.Before(soonest) {
			victim, soonest = host, e.expires
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	delete(c.entries, victim)
}

func (c *cache) len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}
