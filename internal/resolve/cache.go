package resolve

import (
	"net/netip"
	"sync"
	"time"
)

// entry is the outcome of a look-up.
type entry struct {
	addrs   []netip.Addr
	err     *Error        // nil when addrs has some
	life    time.Duration // 0: not to be kept
	expires time.Time     // set by put
}

func (e *entry) result() ([]netip.Addr, error) {
	if e.err != nil {
		return nil, e.err
	}
	return e.addrs, nil
}

// evictionSample is how many names are looked at to find one to give up.
const evictionSample = 16

// cache keeps entries until they expire, and never more than its size: when it
// is full, of a few random names the one that expires soonest goes. Failures live
// short, so a flood of names that do not exist hardly costs a good one its place.
type cache struct {
	size int

	mu      sync.RWMutex
	entries map[string]entry
}

// newCache makes a cache of size names; none if that is negative.
func newCache(size int) *cache {
	return &cache{size: size, entries: make(map[string]entry)}
}

func (c *cache) get(host string, now time.Time) (entry, bool) {
	c.mu.RLock()
	e, ok := c.entries[host]
	c.mu.RUnlock()
	return e, ok && now.Before(e.expires)
}

func (c *cache) put(host string, e entry, now time.Time) {
	if c.size <= 0 {
		return
	}
	e.expires = now.Add(e.life)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[host]; !ok && len(c.entries) >= c.size {
		c.evict()
	}
	c.entries[host] = e
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
