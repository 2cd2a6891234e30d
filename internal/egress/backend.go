package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"polyport/acl"
	"polyport/internal/upstream"
)

// AuthorizeBackend asks the policy by name alone (the SNI, or the name of a raw
// row) and permits the backend's own servers, which the owner wrote and which
// are exempt from the guard and from the check for loops. A rule that looks at
// the target's address does not match (acl.Policy.DecideName). It never
// resolves and never waits. The error is an *Error.
func (d *Dialer) AuthorizeBackend(_ context.Context, r acl.Request, b *upstream.Backend) (*Permit, error) {
	if !r.Target.IsValid() {
		return nil, &Error{Reason: InternalError, Err: errNoTarget}
	}
	if b == nil || len(b.Servers) == 0 {
		return nil, &Error{Reason: DestinationUnavailable, Target: r.Target, Err: errNoServer}
	}
	dec := d.policy.DecideName(r)
	if dec.Action != acl.Allow {
		return nil, refusal(r.Target, dec)
	}
	p := d.newPermit(r, dec)
	p.backend = b
	return p, nil
}

// dialBackend tries the backend's servers in turn, those that failed lately
// last. Each gets an equal share of the time that is left, so that one that
// hangs cannot use up that of the others.
func (d *Dialer) dialBackend(ctx context.Context, p *Permit, deadline time.Time) (net.Conn, error) {
	var buf [8]int
	b := p.backend
	order := b.AppendOrder(buf[:0], time.Now())
	var failed failures
	for i, server := range order {
		c, err := d.dialServer(ctx, b.Servers[server], share(deadline, len(order)-i))
		if err == nil {
			b.Succeeded(server)
			return c, nil
		}
		failed.add(err)
		if failed.final(ctx) {
			break // not the server's fault
		}
		b.Failed(server, time.Now())
	}
	return nil, failed.worst().of(p)
}

// share is the moment until which the first of n servers may use the time left.
func share(deadline time.Time, n int) time.Time {
	if deadline.IsZero() || n <= 1 {
		return deadline
	}
	now := time.Now()
	return now.Add(deadline.Sub(now) / time.Duration(n))
}

// dialServer connects to one server: an address at once, a name by whatever it
// resolves to now. The name's addresses are not guarded, but they alone are dialled.
func (d *Dialer) dialServer(ctx context.Context, server string, deadline time.Time) (net.Conn, *Error) {
	s, err := upstream.ParseServer(server)
	if err != nil {
		return nil, &Error{Reason: DestinationUnavailable, Err: err}
	}
	set := dialSet{port: s.Port}
	if s.Addr.IsValid() {
		set.addrs = []netip.Addr{s.Addr}
		return d.dialSet(ctx, &set, deadline)
	}
	addrs, err := d.lookupUntil(ctx, s.Name, deadline)
	if err != nil {
		return nil, &Error{Reason: dnsReason(err), Err: fmt.Errorf("server %s: %w", s.Name, err)}
	}
	set.addrs = make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		set.addrs[i] = a.Unmap()
	}
	interleave(set.addrs)
	return d.dialSet(ctx, &set, deadline)
}

func (d *Dialer) lookupUntil(ctx context.Context, host string, deadline time.Time) ([]netip.Addr, error) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	if d.loop == nil {
		return d.lookup(ctx, netip.Addr{}, host)
	}
	var addrs []netip.Addr
	var err error
	d.loop.Aside(func() { addrs, err = d.lookup(ctx, netip.Addr{}, host) })
	return addrs, err
}
