package httpproxy

import (
	"sync"
	"time"

	"polyport/internal/egress"
)

// poolOptions bounds what a pool holds. The zero value is usable.
type poolOptions struct {
	// perKey bounds the idle connections of one key. Zero means 128.
	perKey int
	// all bounds the idle connections of all keys. Zero means 4096.
	all int
	// idleTime is how long a connection is kept. Zero means 30 s, which is less than what
	// most origins grant.
	idleTime time.Duration
}

// pool keeps idle connections to origins, the newest on top. A connection is lent
// only under a permit whose key it was dialled under and which covers its peer.
// It has no goroutine: one timer runs while it is not empty.
type pool struct {
	o poolOptions

	mu      sync.Mutex
	retired bool
	byKey   map[string][]*origin // each in the order of idleSince
	oldest  *origin              // the list of all, by idleSince
	newest  *origin
	count   int
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
	return &pool{o: o, byKey: map[string][]*origin{}}
}

// get takes out a live connection that may be used under permit, whose key is
// key; nil if there is none. maxIdle, when not 0, is how long it may have been idle:
// the shorter, the less likely that the origin closes it in this very moment.
func (p *pool) get(permit *egress.Permit, key string, maxIdle time.Duration) *origin {
	for {
		o := p.take(permit, key, maxIdle)
		if o == nil || !o.stale() {
			return o
		}
		o.close()
	}
}

// take takes out the newest connection that the permit covers, dead or alive.
func (p *pool) take(permit *egress.Permit, key string, maxIdle time.Duration) *origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.byKey[key]
	for i := len(list) - 1; i >= 0; i-- {
		o := list[i]
		if maxIdle > 0 && time.Since(o.idleSince) > maxIdle {
			return nil // and all below are older
		}
		if permit.Covers(o.peer) {
			p.remove(o, i)
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
	out := p.insert(o)
	if out != nil {
		out.close()
	}
}

// insert returns the connection that has to go.
func (p *pool) insert(o *origin) (out *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired {
		return o
	}
	list := p.byKey[o.key]
	switch {
	case len(list) >= p.o.perKey:
		out = list[0]
		p.remove(out, 0)
	case p.count >= p.o.all:
		out = p.oldest
		p.remove(out, 0)
	}
	o.idleSince, o.reused = time.Now(), true
	p.byKey[o.key] = append(p.byKey[o.key], o)
	o.prev, o.next = p.newest, nil
	if p.newest != nil {
		p.newest.next = o
	} else {
		p.oldest = o
	}
	p.newest = o
	p.count++
	p.tick()
	return out
}

// remove takes o, which is at index i of its key's list, out of both lists.
func (p *pool) remove(o *origin, i int) {
	list := p.byKey[o.key]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(p.byKey, o.key)
	} else {
		p.byKey[o.key] = list
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		p.oldest = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		p.newest = o.prev
	}
	o.prev, o.next = nil, nil
	p.count--
}

// tick makes sure that the timer runs while there is something to wait for.
func (p *pool) tick() {
	if p.ticking || p.oldest == nil {
		return
	}
	p.ticking = true
	wait := time.Until(p.oldest.idleSince.Add(p.o.idleTime))
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
	for o := p.oldest; o != nil && now.Sub(o.idleSince) >= p.o.idleTime; o = p.oldest {
		p.remove(o, 0) // the oldest of all is the oldest of its key
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
	for p.oldest != nil {
		o := p.oldest
		p.remove(o, 0)
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
	return p.count
}
