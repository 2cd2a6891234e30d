// Package resolve turns host names into addresses: by the system's resolver, or
// by name servers of the operator's choice, over UDP and TCP (RFC 1035, RFC 7766), TLS
// (RFC 7858) or HTTPS (RFC 8484). It caches, serves what has run out while the servers
// fail (RFC 8767), asks each name only once at a time and bounds everything that a
// client's choice of names could use up. It does not validate DNSSEC.
//
// A name is always looked up as it stands: search domains are off, so that a
// client's "intranet" never becomes some "intranet.example.com". The hosts file
// is respected in the way in which the system's nsswitch.conf says. Names below
// localhost that it does not hold are loopback addresses and those below onion
// do not exist; neither is ever asked of a name server (RFC 6761 section 6.3,
// RFC 7686 section 2).
//
// The package judges no address: whether one may be reached is for the policy.
package resolve

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultTimeout    = 5 * time.Second
	defaultLookups    = 256
	defaultPerAsker   = 32
	defaultCacheSize  = 10_000
	defaultMinimumTTL = time.Second
	defaultMaximumTTL = time.Hour
	// defaultNegativeTTL is the longest life of the news that a name has no address.
	defaultNegativeTTL = 5 * time.Second

	// systemTTL is the life of the system resolver's answers, which tell none.
	systemTTL = 30 * time.Second
	// failureTTL is the life of any other failure: the least that RFC 9520
	// section 3.2 allows, since a good answer may come at any time.
	failureTTL = time.Second
)

// answer is what a source found.
type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	half  bool // the other address family failed or is late: more may be found soon
}

// source looks up one valid name in normal form. Its errors are *Error.
type source func(ctx context.Context, host string) (answer, error)

// Resolver resolves names. It is safe for concurrent use.
type Resolver struct {
	source   source
	release  func() // what source holds; nil for nothing
	hosts    map[string]*entry
	family   Family
	timeout  time.Duration
	minimum  time.Duration
	maximum  time.Duration
	negative time.Duration
	cache    *cache

	slots   chan struct{} // one for each look-up that runs
	shares  *shares       // of slots, by asker
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	flights  map[string]*flight
	renewals map[string]*renewal

	hits, misses, lookups, failures, timeouts, stale, prefetched atomic.Uint64
}

// New makes a Resolver. Close it to stop what it runs.
func New(o Options) *Resolver {
	r := &Resolver{
		hosts:    hostEntries(o.Hosts, o.Family),
		family:   o.Family,
		timeout:  orDefault(o.Timeout, defaultTimeout),
		minimum:  orZero(o.MinimumTTL, defaultMinimumTTL),
		maximum:  orDefault(o.MaximumTTL, defaultMaximumTTL),
		negative: orZero(o.NegativeTTL, defaultNegativeTTL),
		slots:    make(chan struct{}, orDefault(o.Lookups, defaultLookups)),
		shares:   newShares(orDefault(o.LookupsPerAsker, defaultPerAsker)),
		flights:  make(map[string]*flight),
		renewals: make(map[string]*renewal),
	}
	size := o.CacheSize
	if size == 0 {
		size = defaultCacheSize
	}
	r.cache = newCache(size)
	r.cache.stale, r.cache.noPrefetch = max(o.ServeStale, 0), o.NoPrefetch
	r.ctx, r.stop = context.WithCancel(context.Background())
	if len(o.Servers) == 0 {
		s := newSystem(o.Family)
		r.source, r.release = s.lookup, s.close
	} else {
		s := newServers(o, r.timeout)
		r.source, r.release = s.lookup, s.close
	}
	return r
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// orZero is orDefault for what may be nothing: that is a negative v.
func orZero(v, def time.Duration) time.Duration {
	if v < 0 {
		return 0
	}
	return orDefault(v, def)
}

// Lookup returns the addresses of host: at most 16, unmapped, without zones,
// none twice, in the order of preference of their source, or of the family that Options
// prefer. The slice is shared
// with others: it must not be changed. asker is the client for whom it is asked; the
// zero Addr stands for the gateway itself. The error is an *Error.
func (r *Resolver) Lookup(ctx context.Context, asker netip.Addr, host string) ([]netip.Addr, error) {
	host, err := normalName(host)
	if err != nil {
		return nil, err
	}
	if e := r.hosts[host]; e != nil {
		r.hits.Add(1)
		return e.result()
	}
	now := time.Now()
	e, fresh := r.cache.get(host, now)
	if fresh {
		return r.hit(asker, host, e, now)
	}
	r.misses.Add(1)
	if e != nil && now.Before(e.usable) {
		return r.revalidate(ctx, asker, host, e)
	}
	return r.miss(ctx, asker, host)
}

// hit answers from the cache.
func (r *Resolver) hit(asker netip.Addr, host string, e *entry, now time.Time) ([]netip.Addr, error) {
	r.hits.Add(1)
	if e.stale {
		r.stale.Add(1)
	}
	if e.toPrefetch(now) && !r.prefetch(asker, host) {
		e.prefetched.Store(false)
	}
	return e.result()
}

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	return Stats{
		Hits:       r.hits.Load(),
		Misses:     r.misses.Load(),
		Lookups:    r.lookups.Load(),
		Failures:   r.failures.Load(),
		Timeouts:   r.timeouts.Load(),
		Stale:      r.stale.Load(),
		Prefetched: r.prefetched.Load(),
		Cached:     r.cache.len(),
		Running:    len(r.slots),
	}
}

// Close ends the look-ups that run and waits for them. Those that wait for one
// get ErrClosed, as does every later call that the cache cannot answer. It may
// be called more than once.
func (r *Resolver) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.running.Wait()
	if r.release != nil {
		r.release()
	}
	return nil
}
