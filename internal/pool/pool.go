// Package pool chooses which of several servers the next connection goes to: by priority, health, weight, stickiness and
// load. It never dials and does not know what a server is: it hands out an index, and is told how the attempt went.
package pool

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// MaxServers is how many servers a pool may have.
const MaxServers = 256

// Pool chooses among servers. It is safe for concurrent use.
type Pool struct {
	o       Options
	kept    *kept // what the pools of this name share
	servers []*server
	members []*Member
	place   map[string]int // of each server, by name

	byPriority  []int // the indexes, the lowest priority first
	all         set
	ofCountry   map[string]set
	withTag     map[string]set
	seed        uint64
	serverSeeds []uint64

	mu   sync.Mutex // one rebuilds the view, the others wait for it
	view atomic.Pointer[view]
}

// New makes a pool that goes on with what m remembers of one of the same name; m nil: it remembers nothing.
// The error lists every fault, each "servers[i]: ..." or with the key that is at fault.
func New(o Options, m *Memory) (*Pool, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if m == nil {
		m = NewMemory()
	}
	p := &Pool{
		o: o, place: make(map[string]int), ofCountry: make(map[string]set), withTag: make(map[string]set),
		seed: hashString(0, o.Name),
	}
	p.kept, p.servers = m.recall(o.Name, o.Servers)
	for i := range o.Servers {
		s := &o.Servers[i]
		p.members = append(p.members, &Member{p: p, index: i})
		p.place[s.Name] = i
		p.serverSeeds = append(p.serverSeeds, hashString(p.seed, s.Name))
		p.byPriority = append(p.byPriority, i)
		p.all.add(i)
		if s.Country != "" {
			addTo(p.ofCountry, s.Country, i)
		}
		for _, tag := range s.Tags {
			addTo(p.withTag, tag, i)
		}
	}
	slices.SortStableFunc(p.byPriority, func(a, b int) int { return o.Servers[a].Priority - o.Servers[b].Priority })
	p.rebuild()
	return p, nil
}

// Members are the servers in the order of Options.Servers.
func (p *Pool) Members() []*Member { return p.members }

// Choose takes a server for r that is not in tried, which may be nil, and counts a connection on it. The caller then calls
// one of Succeeded, Failed and Abandoned for the attempt, and Release when the connection has ended or was not made.
// The error wraps ErrNone or ErrDown and says which servers there are and why they cannot be used.
func (p *Pool) Choose(r *Request, tried *Tried) (*Member, error) {
	v := p.current()
	fit := p.fits(r)
	want := fit.and(&v.usable)
	if tried != nil {
		want = want.without((*set)(tried))
	}
	var m *Member
	if r.Session == "" {
		m = p.take(v, want, r)
	} else {
		m = p.takeForSession(v, want, r)
	}
	if m == nil {
		return nil, p.unavailable(r, &fit, tried)
	}
	return m, nil
}

// take takes one of want; nil: there is none.
func (p *Pool) take(v *view, want set, r *Request) *Member {
	for {
		i := p.pick(v, &want, r, true)
		if i < 0 {
			return nil
		}
		if m := p.use(v, i); m != nil {
			return m
		}
		want.remove(i) // another connection was faster to its trial
	}
}

// use counts a connection on the server; nil: it may only be used for a trial, and that is under way.
func (p *Pool) use(v *view, i int) *Member {
	m := p.members[i]
	if v.trial.has(i) {
		if m = p.beginTrial(i); m == nil {
			return nil
		}
	}
	p.servers[i].connections.Add(1)
	return m
}

// fits is the set of the servers that the request allows, in whatever state.
func (p *Pool) fits(r *Request) set {
	fit := p.all
	if len(r.Countries) > 0 {
		fit = union(p.ofCountry, r.Countries)
	}
	if len(r.Tags) > 0 {
		tagged := union(p.withTag, r.Tags)
		fit = fit.and(&tagged)
	}
	return fit
}

// Fits reports whether there is a server that r might get, up or down.
func (p *Pool) Fits(r *Request) bool {
	s := p.fits(r)
	return !s.empty()
}

// Usable is how many servers Choose would still consider for r, those in tried left out. tried may be nil.
func (p *Pool) Usable(r *Request, tried *Tried) (n int) {
	want := p.fits(r)
	want = want.and(&p.current().usable)
	if tried != nil {
		want = want.without((*set)(tried))
	}
	for _, word := range want {
		n += bits.OnesCount64(word)
	}
	return n
}

// Sticky reports whether the balance holds on to clients, users or sessions.
func (p *Pool) Sticky() bool { return p.o.Balance >= StickyClient }
