// Package resolve turns host names into addresses: by the system's resolver, or
// by name servers of the operator's choice (RFC 1035 over UDP, and over TCP
// where an answer was truncated). It caches, asks each name only once at a time
// and bounds everything that a client's choice of names could use up.
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

	// systemTTL is the life of the system resolver's answers, which tell none.
	systemTTL = 30 * time.Second
	// notFoundTTL is the life of the news that a name has no address.
	notFoundTTL = 5 * time.Second
	// failureTTL is the life of any other failure: the least that RFC 9520
	// section 3.2 allows, since a good answer may come at any time.
	failureTTL = time.Second
	// maxAddrs is how many addresses of one name are kept: more than a client
	// would wait for, and few enough for a hostile name not to cost much.
	maxAddrs = 16
)

// Server is a recursive name server.
type Server struct {
	Addr netip.AddrPort
	// TCP asks it over TCP alone (RFC 7766). Else it is asked over UDP, and over
	// TCP where an answer was truncated.
	TCP bool
}

// Options configures a Resolver. The zero value is usable.
type Options struct {
	// Servers are the recursive name servers to ask, in order; the one that
	// answered last is asked first. Empty means the system's resolver.
	Servers []Server
	// Timeout bounds one look-up in total, and before it the wait for a turn.
	// Zero and negative mean 5 s.
	Timeout time.Duration
	// Lookups is how many look-ups may run at once; further ones wait for their
	// turn. Zero and negative mean 256.
	Lookups int
	// LookupsPerAsker is how many of them may be one asker's, an IPv4 address or
	// an IPv6 /64. Zero and negative mean 32.
	LookupsPerAsker int
	// CacheSize is how many names are kept. Zero means 10,000; negative means none.
	CacheSize int
	// MinimumTTL and MaximumTTL bound for how long an answer is kept, whatever
	// time to live it states. Zero and negative mean 1 s and 1 h. An answer of
	// the system's resolver, which tells no time to live, counts as one of 30 s.
	// That a name has no address is kept for 5 s, any other failure for 1 s.
	MinimumTTL, MaximumTTL time.Duration
}

// Stats counts what a Resolver has done since it was made.
type Stats struct {
	Hits     uint64 // answered from the cache, failures included
	Misses   uint64 // not in the cache: looked up, or joined with a look-up that ran
	Lookups  uint64 // look-ups that were made
	Failures uint64 // look-ups without an address
	Timeouts uint64 // of Failures: those for want of an answer in time
	Cached   int    // names in the cache now
	Running  int    // look-ups that run now
}

// answer is what a source found.
type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
}

// source looks up one valid name in normal form. Its errors are *Error.
type source func(ctx context.Context, host string) (answer, error)

// Resolver resolves names. It is safe for concurrent use.
type Resolver struct {
	source  source
	timeout time.Duration
	minimum time.Duration
	maximum time.Duration
	cache   *cache

	slots   chan struct{} // one for each look-up that runs
	shares  *shares       // of slots, by asker
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	flights map[string]*flight

	hits, misses, lookups, failures, timeouts atomic.Uint64
}

// New makes a Resolver. Close it to stop what it runs.
func New(o Options) *Resolver {
	r := &Resolver{
		timeout: orDefault(o.Timeout, defaultTimeout),
		minimum: orDefault(o.MinimumTTL, defaultMinimumTTL),
		maximum: orDefault(o.MaximumTTL, defaultMaximumTTL),
		slots:   make(chan struct{}, orDefault(o.Lookups, defaultLookups)),
		shares:  newShares(orDefault(o.LookupsPerAsker, defaultPerAsker)),
		flights: make(map[string]*flight),
	}
	size := o.CacheSize
	if size == 0 {
		size = defaultCacheSize
	}
	r.cache = newCache(size)
	r.ctx, r.stop = context.WithCancel(context.Background())
	if len(o.Servers) == 0 {
		r.source = newSystem().lookup
	} else {
		r.source = newServers(o.Servers, r.timeout).lookup
	}
	return r
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Lookup returns the addresses of host: at most 16, unmapped, without zones,
// none twice, in the order of preference of their source. The slice is shared
// with others: it must not be changed. asker is the client for whom it is asked; the
// zero Addr stands for the gateway itself. The error is an *Error.
func (r *Resolver) Lookup(ctx context.Context, asker netip.Addr, host string) ([]netip.Addr, error) {
	host, err := normalName(host)
	if err != nil {
		return nil, err
	}
	if e, ok := r.cache.get(host, time.Now()); ok {
		r.hits.Add(1)
		return e.result()
	}
	r.misses.Add(1)
	return r.miss(ctx, asker, host)
}

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	return Stats{
		Hits:     r.hits.Load(),
		Misses:   r.misses.Load(),
		Lookups:  r.lookups.Load(),
		Failures: r.failures.Load(),
		Timeouts: r.timeouts.Load(),
		Cached:   r.cache.len(),
		Running:  len(r.slots),
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
	return nil
}
