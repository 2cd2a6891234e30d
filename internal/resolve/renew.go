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

// renew begins a renewal of host in the name of asker, or joins the one that runs. It is
// nil if too many run, or the Resolver is closed. patience is how long it waits for a turn.
func (r *Resolver) renew(asker netip.Addr, host string, patience time.Duration) *renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.renewals[host]; n != nil {
		return n
	}
	if r.closed || len(r.renewals) >= cap(r.slots) {
		return nil
	}
	n := &renewal{began: time.Now(), done: make(chan struct{})}
	r.renewals[host] = n
	r.running.Add(1)
	go r.runRenewal(n, asker, host, patience)
	return n
}

// runRenewal makes the look-up of a renewal.
func (r *Resolver) runRenewal(n *renewal, asker netip.Addr, host string, patience time.Duration) {
	defer r.running.Done()
	n.addrs, n.err = r.miss(r.ctx, asker, host, patience)
	if patience == 0 && !errors.Is(n.err, errNoTurn) {
		r.prefetched.Add(1)
	}
	r.mu.Lock()
	delete(r.renewals, host)
	r.mu.Unlock()
	close(n.done)
}

// prefetch looks up a name that is about to run out, if there is a turn for it at once.
func (r *Resolver) prefetch(asker netip.Addr, host string) {
	r.renew(asker, host, 0)
}

// revalidate answers with what has run out, unless a look-up gives better in time. That
// there is no such name is better; that the servers fail is not.
func (r *Resolver) revalidate(ctx context.Context, asker netip.Addr, host string, e *entry) ([]netip.Addr, error) {
	if n := r.renew(asker, host, r.timeout); n != nil {
		late := time.NewTimer(time.Until(n.began.Add(clientResponse)))
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

// keep puts the outcome of a look-up into the cache. A failure does not displace an
// answer that is still of use.
func (r *Resolver) keep(host string, e *entry) {
	now := time.Now()
	notFound := e.err != nil && e.err.Kind == ErrNotFound
	switch {
	case e.life <= 0 && notFound:
		r.cache.drop(host)
	case e.life <= 0:
	case e.err != nil && !notFound && r.cache.prolong(host, now):
	default:
		r.cache.put(host, e, now)
	}
}
