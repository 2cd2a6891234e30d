package httpproxy

import (
	"sync"
	"time"

	"polyport/internal/egress"
	"polyport/internal/reactor"
)

// poolOptions bounds what a pool holds. The zero value is usable.
type poolOptions struct {
	// perKey bounds the idle connections of one key that one loop, or goroutines, may use. Zero means 128.
	perKey int
	// all bounds the idle connections of all keys. Zero means 4096.
	all int
	// idleTime is how long a connection is kept. Zero means 30 s, which is less than what
	// most origins grant.
	idleTime time.Duration
}

// ring is a list of idle connections in the order of their idleSince. Each
// connection is in two: that of its key and that of all.
type ring struct {
	oldest, newest *origin
	count          int
}

// links are a connection's neighbours in a ring.
type links struct{ older, newer *origin }

// which selects the links of one of the two rings.
type which uint8

const (
	ofKey which = iota
	ofAll
)

// push adds o as the newest.
func (r *ring) push(w which, o *origin) {
	o.links[w] = links{older: r.newest}
	if r.newest != nil {
		r.newest.links[w].newer = o
	} else {
		r.oldest = o
	}
	r.newest = o
	r.count++
}

// poolKey is which connections an exchange may be lent: those of the same permits, on its own loop.
type poolKey struct {
	permit string
	on     *reactor.Loop // nil for goroutines
}

// ringFor returns the ring of a key, which may be empty until something is put there.
func (p *pool) ringFor(key poolKey) *ring {
	r := p.byKey[key]
	if r == nil {
		if r = p.spare; r == nil {
			r = new(ring)
		}
		p.spare = nil
		p.byKey[key] = r
	}
	return r
}

// remove takes o out.
func (r *ring) remove(w which, o *origin) {
	l := o.links[w]
	if l.older != nil {
		l.older.links[w].newer = l.newer
	} else {
		r.oldest = l.newer
	}
	if l.newer != nil {
		l.newer.links[w].older = l.older
	} else {
		r.newest = l.older
	}
	o.links[w] = links{}
	r.count--
}

// pool keeps idle connections to origins, the newest on top. A connection is lent
// only under a permit whose key it was dialled under and which covers its address.
// It has no goroutine: one timer runs while it is not empty.
type pool struct {
	o poolOptions

	mu      sync.Mutex
	retired bool
	byKey   map[poolKey]*ring // one for each key that has connections
	spare   *ring             // an empty one, for the next key
	all     ring
	timer   *time.Timer // nil until first needed
	ticking bool
}

func newPool(o poolOptions) *pool {
	if o.perKey == 0 {
		o.perKey = 128
	}
	if o.all == 0 {
		o.all = 4096
	}
	if o.idleTime == 0 {
		o.idleTime = 30 * time.Second
	}
	return &pool{o: o, byKey: map[poolKey]*ring{}}
}

// get takes out a live connection that may be used under permit, whose key is
// key; nil if there is none. It closes those that it finds dead, and those to a server that a new one would not
// lead to now. maxIdle, when not 0, is how long it may have been idle:
// the shorter, the less likely that the origin closes it in this very moment.
// on is the loop that asks, whose connections no other may use; nil for goroutines.
func (p *pool) get(permit *egress.Permit, key string, on *reactor.Loop, maxIdle time.Duration) *origin {
	for {
		p.mu.Lock()
		o := p.take(permit, poolKey{key, on}, maxIdle)
		p.mu.Unlock()
		if o == nil || permit.Keeps(&o.link) && !o.stale() {
			return o
		}
		o.close()
	}
}

// take takes out the newest connection that the permit covers, dead or alive. p.mu is held.
func (p *pool) take(permit *egress.Permit, key poolKey, maxIdle time.Duration) *origin {
	ring := p.byKey[key]
	if ring == nil {
		return nil
	}
	for o := ring.newest; o != nil; o = o.links[ofKey].older {
		if maxIdle > 0 && time.Since(o.idleSince) > maxIdle {
			return nil // and all that follow are older
		}
		if permit.Covers(o.link.Address) {
			p.remove(o)
			return o
		}
	}
	return nil
}

// put takes over a connection that is fit for another exchange. One that finds no
// place, or pushes an older one out, costs that connection.
func (p *pool) put(o *origin) {
	o.watcher = nil
	o.r.Release()
	o.w.Release()
	o.idleSince, o.reused = o.beginIdle(), true // not with the lock held, for which others wait
	p.mu.Lock()
	out := p.insert(o)
	p.mu.Unlock()
	if out != nil {
		out.close()
	}
}

// insert returns the connection that has to go. p.mu is held.
func (p *pool) insert(o *origin) (out *origin) {
	if p.retired {
		return o
	}
	key := poolKey{o.key, o.loop()}
	ring := p.ringFor(key)
	switch {
	case ring.count >= p.o.perKey:
		out = ring.oldest
	case p.all.count >= p.o.all:
		out = p.all.oldest
	}
	if out != nil {
		p.remove(out)
		ring = p.ringFor(key) // that may have been its last
	}
	ring.push(ofKey, o)
	o.ring = ring
	p.all.push(ofAll, o)
	p.tick()
	return out
}

// remove takes o out of both of its rings.
func (p *pool) remove(o *origin) {
	if o.ring.remove(ofKey, o); o.ring.count == 0 {
		delete(p.byKey, poolKey{o.key, o.loop()})
		p.spare = o.ring
	}
	o.ring = nil
	p.all.remove(ofAll, o)
}

// tick makes sure that the timer runs while there is something to wait for.
func (p *pool) tick() {
	if p.ticking || p.all.count == 0 {
		return
	}
	p.ticking = true
	wait := time.Until(p.all.oldest.idleSince.Add(p.o.idleTime))
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.sweep)
	} else {
		p.timer.Reset(wait)
	}
}

// sweep closes what has been idle for too long.
func (p *pool) sweep() {
	for _, o := range p.expired() {
		o.close()
	}
}

func (p *pool) expired() (out []*origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for o := p.all.oldest; o != nil && now.Sub(o.idleSince) >= p.o.idleTime; o = p.all.oldest {
		p.remove(o)
		out = append(out, o)
	}
	p.ticking = false
	p.tick()
	return out
}

// retire closes all connections and those that are put from now on.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	var out []*origin
	for o := p.all.oldest; o != nil; o = p.all.oldest {
		p.remove(o)
		out = append(out, o)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	for _, o := range out {
		o.close()
	}
}

// size returns how many connections lie idle.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.count
}
