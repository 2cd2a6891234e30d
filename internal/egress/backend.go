package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"polyport/acl"
	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// AuthorizeBackend asks the policy by name alone (the SNI, or the name of a raw
// row) and permits the backend's own servers, which the owner wrote and which
// are exempt from the guard and from the check for loops. A rule that looks at
// the target's address does not match (acl.Policy.DecideName). It never
// resolves and never waits. What the rule says of the way out holds for the address that connections leave from; a backend is never reached
// through an upstream. The error is an *Error.
func (d *Dialer) AuthorizeBackend(_ context.Context, r acl.Request, b *upstream.Backend) (*Permit, error) {
	if !r.Target.IsValid() {
		return nil, &Error{Reason: InternalError, Err: errNoTarget}
	}
	if b == nil {
		return nil, &Error{Reason: DestinationUnavailable, Target: r.Target, Err: errNoServer}
	}
	r.ClientCountry, r.Backend = d.Country(r.Client), b.Name()
	dec := d.policy.DecideName(r)
	if dec.Action != acl.Allow {
		return nil, refusal(r.Target, dec)
	}
	w, err := d.wayOf(r, dec)
	if err != nil {
		return nil, err
	}
	if w == nil {
		w = d.newWay(r)
	}
	w.upstream, w.request.Countries, w.request.Tags = nil, nil, nil
	p := d.newPermit(r, dec)
	p.backend, p.way = b, w
	return p, nil
}

// AuthorizeSite is AuthorizeBackend for requests of HTTP, each of which is authorized: connections may be lent to others
// whose permit has the same Key.
func (d *Dialer) AuthorizeSite(ctx context.Context, r acl.Request, b *upstream.Backend) (*Permit, error) {
	p, err := d.AuthorizeBackend(ctx, r, b)
	if err != nil {
		return nil, err
	}
	p.shared = b.Header() == upstream.NoHeader // else what it says of one client would stand for others
	return p, nil
}

// openBackend connects to one of the backend's servers, as its pool says. The next one is tried as long as they fail.
func (d *Dialer) openBackend(ctx context.Context, p *Permit, deadline time.Time, o OpenOptions) (Link, *Error) {
	b := p.backend
	tried := avoiding(b.Pool(), &p.way.request, o.Avoid.servers)
	var failed failures
	for {
		m, err := b.Pool().Choose(&p.way.request, &tried)
		if err != nil {
			if len(failed) == 0 {
				failed.add(noServer(err))
			}
			return Link{}, failed.worst()
		}
		tried.Add(m.Index())
		c, fail := d.tryServer(ctx, p, m, o.Header, attemptUntil(deadline, 1+b.Pool().Usable(&p.way.request, &tried)))
		if fail == nil {
			return Link{Conn: c, Address: peerOf(c), Server: m.Name(), members: []*pool.Member{m}}, nil
		}
		if failed.add(fail); failed.final(ctx) || isOver(deadline) {
			return Link{}, failed.worst()
		}
	}
}

// tryServer connects to a server of the backend that has been chosen, and tells the pool how that went.
func (d *Dialer) tryServer(ctx context.Context, p *Permit, m *pool.Member, h Header, until time.Time) (c net.Conn, fail *Error) {
	ok, begun := false, time.Now()
	defer func() {
		if !ok { // also after a panic
			m.Release()
		}
	}()
	if c, fail = d.dialServer(ctx, p.backend.Server(m.Index()), p.way.from(), until); fail == nil {
		fail = writeHeader(c, p.backend.Header(), h, until)
	}
	switch {
	case fail == nil:
		m.Succeeded()
		ok = true
		return c, nil
	case ctx.Err() != nil, fail.OutOfRoom(), isOurs(fail.Err), d.hurried(fail, begun, until):
		m.Abandoned()
	default:
		m.Failed(fail.forOthers())
	}
	return nil, fail
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
func (d *Dialer) dialServer(ctx context.Context, s upstream.Server, from *origin, deadline time.Time) (net.Conn, *Error) {
	set := dialSet{port: s.Port, from: from}
	if s.Addr.IsValid() {
		set.addrs = []netip.Addr{s.Addr}
		return d.dialSet(ctx, &set, deadline)
	}
	var fail *Error
	if set.addrs, fail = d.lookupServer(ctx, s.Name, deadline); fail != nil {
		return nil, fail
	}
	if set.addrs, fail = d.withoutOwn(set.addrs, s.Port); fail != nil {
		return nil, fail
	}
	c, fail := d.dialSet(ctx, &set, deadline)
	if fail == nil {
		d.remember(s.Name, &set, peerOf(c).Addr().Is6())
	}
	return c, fail
}

// withoutOwn drops the gateway's own sockets from the addresses of a server's name, which may come to lead here. What stands in the
// configuration as an address was judged there.
func (d *Dialer) withoutOwn(addrs []netip.Addr, port uint16) ([]netip.Addr, *Error) {
	if d.own == nil {
		return addrs, nil
	}
	var own netip.AddrPort
	others := slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		at := netip.AddrPortFrom(a.WithZone(""), port)
		if !d.own(at) {
			return false
		}
		own = at
		return true
	})
	if len(others) == 0 {
		return nil, &Error{Reason: LoopDetected, Address: own, Err: ErrDenied}
	}
	return others, nil
}

// lookupServer returns the addresses of a server's name in the order in which they are tried.
func (d *Dialer) lookupServer(ctx context.Context, name string, deadline time.Time) ([]netip.Addr, *Error) {
	found, err := d.lookupUntil(ctx, name, deadline)
	if err != nil {
		return nil, &Error{Reason: dnsReason(err), Err: fmt.Errorf("server %s: %w", name, err)}
	}
	addrs := make([]netip.Addr, len(found))
	for i, a := range found {
		addrs[i] = a.Unmap()
	}
	interleave(addrs, d.firstFamily(name))
	return addrs, nil
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
