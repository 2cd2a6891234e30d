package pool

import (
	"slices"
	"sync"
	"sync/atomic"

	"polyport/internal/lease"
)

// Memory is what outlives a reload, by the names of the pools and the servers: health, ejections, counts of connections,
// sessions. It is safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	pools map[string]*kept
}

// kept is what is remembered of the pools of one name.
type kept struct {
	version  atomic.Uint64 // grows with each change of the health of a server
	sessions *sessions
	turns    [64]turn

	mu      sync.Mutex // orders the changes of health
	servers map[string]*server
	newest  []string // the servers of the pool that was made last
}

// server is what is remembered of one server.
type server struct {
	connections atomic.Int64
	strikes     atomic.Uint64 // failures in a row; above failureBits, ejections in a row
	health      atomic.Pointer[health]
	answers     atomic.Uint64 // attempts that succeeded
	good, bad   int           // active checks in a row; under kept.mu

	_ [16]byte // each server's counts on a cache line of its own
}

// NewMemory makes an empty Memory.
func NewMemory() *Memory { return &Memory{pools: make(map[string]*kept)} }

// Retain forgets the pools that are not in names, and of the others the servers that the newest pool of the name lacks.
// Pools that are still in use keep what they have. A server that comes back is a new one, without a past; the sessions that were not used
// while it was away are still its own, which a pool that comes back has none of.
func (m *Memory) Retain(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, k := range m.pools {
		if !slices.Contains(names, name) {
			delete(m.pools, name)
			continue
		}
		k.forgetOthers()
	}
}

func (k *kept) forgetOthers() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.servers {
		if !slices.Contains(k.newest, name) {
			delete(k.servers, name)
		}
	}
}

// recall gives what is remembered of the pool and of each of its servers, and begins to remember what is new.
func (m *Memory) recall(pool string, servers []Server) (*kept, []*server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.pools[pool]
	if k == nil {
		k = &kept{servers: make(map[string]*server), sessions: lease.New[string]()}
		m.pools[pool] = k
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.newest = nil
	all := make([]*server, 0, len(servers))
	for _, s := range servers {
		if k.servers[s.Name] == nil {
			k.servers[s.Name] = new(server)
			k.servers[s.Name].health.Store(new(health))
		}
		k.newest = append(k.newest, s.Name)
		all = append(all, k.servers[s.Name])
	}
	return k, all
}
