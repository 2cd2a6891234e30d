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
	entry   *entry
}

// errNoTurn says that all slots were taken for too long.
var errNoTurn = errors.New("too many names are being looked up at once")

// miss answers what the cache cannot. It waits for a turn no longer than for a look-up.
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
	return r.inTurn(ctx, host, until)
}

// inTurn is miss for who has a slot of a share.
func (r *Resolver) inTurn(ctx context.Context, host string, until time.Time) ([]netip.Addr, error) {
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
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{Host: host, Kind: abandoned(ctx), Err: ctx.Err()}
	case <-r.ctx.Done():
		return &Error{Host: host, Kind: ErrClosed}
	case <-late.C:
		return &Error{Host: host, Kind: ErrTimeout, Err: errNoTurn}
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
	r.keep(host, f.entry)
	r.mu.Lock()
	r.forget(host, f)
	r.mu.Unlock()
	close(f.done)
	<-r.slots
}

// settle turns what a source said into what is told and kept.
func (r *Resolver) settle(ctx context.Context, host string, a answer, err error) *entry {
	addrs := sanitise(r.family.arrange(a.addrs))
	if err == nil && len(addrs) > 0 {
		life := min(max(a.ttl, r.minimum), r.maximum)
		if a.half {
			life = min(life, failureTTL)
		}
		return &entry{addrs: addrs, life: life}
	}
	e := failure(host, err)
	switch {
	case r.ctx.Err() != nil:
		return &entry{err: &Error{Host: host, Kind: ErrClosed}}
	case errors.Is(ctx.Err(), context.Canceled):
		return &entry{err: e} // nobody waits any more, and it says nothing of the name
	}
	r.failures.Add(1)
	if e.Timeout() {
		r.timeouts.Add(1)
	}
	if errors.Is(e, ErrNotFound) {
		return &entry{err: e, life: r.negativeLife(e)}
	}
	return &entry{err: e, life: failureTTL}
}

// negativeLife is for how long it is kept that a name has no address.
func (r *Resolver) negativeLife(e *Error) time.Duration {
	if !e.lives {
		return r.negative
	}
	return min(max(e.life, r.minimum), r.negative)
}
