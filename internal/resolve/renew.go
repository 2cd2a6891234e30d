package resolve

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

const (
	// staleTTL is the life of an answer that had run out (RFC 8767 section 4). It is the
	// failure recheck timer of its section 5 too: before its end nobody asks again.
	staleTTL = 30 * time.Second
	// clientResponse is how long a client waits for a fresh answer while there is a stale
	// one (RFC 8767 section 5).
	clientResponse = 1800 * time.Millisecond
)

// renewal is a look-up in the background of a name that the cache holds. It ends as every
// look-up does, not with a client.
type renewal struct {
	began time.Time
	done  chan struct{} // closed when the outcome is set
	addrs []netip.Addr
	err   error
}

// renewing returns the renewal of host that runs; nil for none.
func (r *Resolver) renewing(host string) *renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.renewals[host]
}

// renew begins a renewal of host, or joins the one that runs. It is nil if too many run, or the
// Resolver is closed. The caller has a slot of share, which the renewal keeps or gives back: it
// holds one for as long as it is known, lest an asker without any makes others wait for his.
// patience is how long it waits for a turn.
func (r *Resolver) renew(share *share, host string, patience time.Duration) *renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.renewals[host]
	if n != nil || r.closed || len(r.renewals) >= cap(r.slots) {
		r.shares.leave(share, true)
		return n
	}
	n = &renewal{began: time.Now(), done: make(chan struct{})}
	r.renewals[host] = n
	r.running.Add(1)
	go r.runRenewal(n, share, host, patience)
	return n
}

// runRenewal makes the look-up of a renewal.
func (r *Resolver) runRenewal(n *renewal, share *share, host string, patience time.Duration) {
	defer r.running.Done()
	n.addrs, n.err = r.inTurn(r.ctx, host, time.Now().Add(patience))
	r.shares.leave(share, true)
	if patience == 0 && !errors.Is(n.err, errNoTurn) {
		r.prefetched.Add(1)
	}
	r.mu.Lock()
	delete(r.renewals, host)
	r.mu.Unlock()
	close(n.done)
}

// prefetch looks up a name that is about to run out, if there is a turn for it at once. It
// reports whether the next asker need not try.
func (r *Resolver) prefetch(asker netip.Addr, host string) bool {
	share := r.shares.of(asker)
	select {
	case share.slots <- struct{}{}:
		return r.renew(share, host, 0) != nil
	default:
		r.shares.leave(share, false)
		return false
	}
}

// revalidate answers with what has run out, unless a look-up gives better in time. That
// there is no such name is better; that the servers fail is not.
func (r *Resolver) revalidate(ctx context.Context, asker netip.Addr, host string, e *entry) ([]netip.Addr, error) {
	until := staleFrom(ctx)
	n := r.renewing(host)
	if n == nil {
		share := r.shares.of(asker)
		if err := r.acquire(ctx, host, share.slots, until); err == nil {
			n = r.renew(share, host, r.timeout)
		} else if r.shares.leave(share, false); ctx.Err() != nil {
			return nil, err
		}
	}
	if n != nil {
		if began := n.began.Add(clientResponse); began.Before(until) {
			until = began
		}
		late := time.NewTimer(time.Until(until))
		defer late.Stop()
		select {
		case <-n.done:
			if n.err == nil || errors.Is(n.err, ErrNotFound) {
				return n.addrs, n.err
			}
		case <-late.C:
		case <-ctx.Done():
			return nil, &Error{Host: host, Kind: abandoned(ctx), Err: ctx.Err()}
		}
	}
	r.stale.Add(1)
	return e.addrs, nil
}

// staleFrom is when a client that asks now gets what has run out: while there is time to use it.
func staleFrom(ctx context.Context) time.Time {
	wait := clientResponse
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	return time.Now().Add(wait)
}

// keep puts the outcome of a look-up into the cache. A failure does not displace an
// answer that is still of use.
func (r *Resolver) keep(host string, e *entry) {
	now := time.Now()
	notFound := e.err != nil && e.err.Kind == ErrNotFound
	switch {
	case e.life <= 0 && (e.err == nil || notFound):
		r.cache.drop(host) // what was kept before is no longer true
	case e.life <= 0:
	case e.err != nil && !notFound && r.cache.prolong(host, now):
	default:
		r.cache.put(host, e, now)
	}
}
