package resolve

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// flight is one look-up that runs, with everyone who waits for it. It does not
// end with the client that began it but with the last one who waits. (That, and
// that only the first of a flight takes a slot, is what singleflight lacks.)
type flight struct {
	waiters int // guarded by Resolver.mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when entry is set
	entry   entry
}

// miss answers what the cache cannot.
func (r *Resolver) miss(ctx context.Context, asker netip.Addr, host string) ([]netip.Addr, error) {
	if f := r.joinRunning(host); f != nil {
		return r.wait(ctx, host, f)
	}
	until := time.Now().Add(r.timeout)
	share := r.shares.of(asker)
	if err := r.acquire(ctx, host, share.slots, until); err != nil {
		r.shares.leave(share, false)
		return nil, err
	}
	defer r.shares.leave(share, true)
	f, err := r.join(host, false)
	if f == nil && err == nil {
		if err := r.acquire(ctx, host, r.slots, until); err != nil {
			return nil, err
		}
		if e, ok := r.cache.get(host, time.Now()); ok { // others did not sleep meanwhile
			<-r.slots
			return e.result()
		}
		f, err = r.join(host, true)
	}
	if err != nil {
		return nil, err
	}
	return r.wait(ctx, host, f)
}

// joinRunning adds a waiter to the flight for host; nil if there is none.
func (r *Resolver) joinRunning(host string) *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flights[host]
	if f != nil {
		f.waiters++
	}
	return f
}

// join adds a waiter to the flight for host, which is begun if there is none
// and a slot is free, or the caller has one. Neither a flight nor an error means
// that there is no slot. A slot of the caller's is used or given back.
func (r *Resolver) join(host string, haveSlot bool) (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flights[host]
	if f == nil && !haveSlot && !r.closed {
		select {
		case r.slots <- struct{}{}:
			haveSlot = true
		default:
			return nil, nil
		}
	}
	if haveSlot && (f != nil || r.closed) {
		<-r.slots
	}
	switch {
	case r.closed:
		return nil, &Error{Host: host, Kind: ErrClosed}
	case f != nil:
		f.waiters++
		return f, nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.timeout)
	f = &flight{waiters: 1, cancel: cancel, done: make(chan struct{})}
	r.flights[host] = f
	r.running.Add(1)
	go r.run(ctx, f, host)
	return f, nil
}

// acquire waits for a slot.
func (r *Resolver) acquire(ctx context.Context, host string, slots chan struct{}, until time.Time) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	patience := time.NewTimer(time.Until(until))
	defer patience.Stop()
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{Host: host, Kind: abandoned(ctx), Err: ctx.Err()}
	case <-r.ctx.Done():
		return &Error{Host: host, Kind: ErrClosed}
	case <-patience.C:
		return &Error{Host: host, Kind: ErrTimeout, Err: errors.New("too many names are being looked up at once")}
	}
}

// wait waits for a flight that the caller has joined.
func (r *Resolver) wait(ctx context.Context, host string, f *flight) ([]netip.Addr, error) {
	select {
	case <-f.done:
		return f.entry.result()
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		r.forget(host, f) // a later asker shall not join what has been cancelled
	}
	return nil, &Error{Host: host, Kind: abandoned(ctx), Err: ctx.Err()}
}

// forget removes a flight, unless another has taken its place. Resolver.mu is held.
func (r *Resolver) forget(host string, f *flight) {
	if r.flights[host] == f {
		delete(r.flights, host)
	}
}

// run makes the look-up of a flight. It ends when the source does, at the latest
// with the timeout or Close.
func (r *Resolver) run(ctx context.Context, f *flight, host string) {
	defer r.running.Done()
	defer f.cancel()
	r.lookups.Add(1)
	a, err := r.source(ctx, host)
	f.entry = r.settle(ctx, host, a, err)
	if f.entry.life > 0 {
		r.cache.put(host, f.entry, time.Now())
	}
	r.mu.Lock()
	r.forget(host, f)
	r.mu.Unlock()
	close(f.done)
	<-r.slots
}

// settle turns what a source said into what is told and kept.
func (r *Resolver) settle(ctx context.Context, host string, a answer, err error) entry {
	addrs := sanitise(a.addrs)
	if err == nil && len(addrs) > 0 {
		return entry{addrs: addrs, life: min(max(a.ttl, r.minimum), r.maximum)}
	}
	e := failure(host, err)
	switch {
	case r.ctx.Err() != nil:
		return entry{err: &Error{Host: host, Kind: ErrClosed}}
	case errors.Is(ctx.Err(), context.Canceled):
		return entry{err: e} // nobody waits any more, and it says nothing of the name
	}
	r.failures.Add(1)
	if e.Timeout() {
		r.timeouts.Add(1)
	}
	if errors.Is(e, ErrNotFound) {
		return entry{err: e, life: notFoundTTL}
	}
	return entry{err: e, life: failureTTL}
}

// sanitise returns at most maxAddrs addresses, in normal form and none twice. Of a
// long list each family keeps at least half of the places, if it can fill them.
func sanitise(in []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, min(len(in), maxAddrs))
	count := [2]int{} // IPv4, IPv6
	for _, a := range in {
		if a.IsValid() {
			count[family(a.Unmap())]++
		}
	}
	var room [2]int
	room[0] = min(count[0], max(maxAddrs/2, maxAddrs-count[1]))
	room[1] = min(count[1], maxAddrs-room[0])
	for _, a := range in {
		a = a.Unmap().WithZone("")
		if !a.IsValid() || room[family(a)] == 0 || contains(out, a) {
			continue
		}
		room[family(a)]--
		out = append(out, a)
	}
	return out
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func contains(s []netip.Addr, a netip.Addr) bool {
	for i := range s {
		if s[i] == a {
			return true
		}
	}
	return false
}
