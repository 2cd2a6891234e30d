package egress

import (
	"context"
	"net/netip"

	"polyport/acl"
	"polyport/internal/resolve"
)

// Authorize asks the policy, resolves and checks every address. Denied
// addresses are dropped; if none is left the request is denied. What is refused
// by name alone, and an IP address, cost no DNS query; nor does a name that goes to an upstream which resolves names: then
// only the name is checked. The error is an *Error.
func (d *Dialer) Authorize(ctx context.Context, r acl.Request) (*Permit, error) {
	p, err := d.authorize(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// LooksAtTime reports whether the policy does, so that the Time of a request has to be set.
func (d *Dialer) LooksAtTime() bool { return d.policy.LooksAtTime() }

// authorize is Authorize; what it finds on its way is noted in x, unless that is nil.
func (d *Dialer) authorize(ctx context.Context, r acl.Request, x *Explanation) (*Permit, *Error) {
	if !r.Target.IsValid() {
		return nil, &Error{Reason: InternalError, Err: errNoTarget}
	}
	r.ClientCountry = d.Country(r.Client)
	a, literal := r.Target.Addr()
	if literal {
		r.TargetCountry = d.Country(a)
	}
	dec, needAddress := d.policy.Decide(r)
	x.byName(dec, needAddress)
	if literal {
		return d.authorizeLiteral(r, a, dec, x)
	}
	if !needAddress && dec.Action != acl.Allow {
		return nil, refusal(r.Target, dec)
	}
	if p, err := d.authorizeName(r, dec, needAddress); p != nil || err != nil {
		return p, err
	}
	addrs, err := d.lookup(ctx, r.Client, r.Target.Host())
	x.resolved(addrs, err)
	if err != nil {
		return nil, &Error{Reason: dnsReason(err), Target: r.Target, Err: err}
	}
	return d.authorizeAddrs(r, addrs, x)
}

// authorizeName permits a name that goes to its upstream unresolved. Neither a permit nor an error is a name that has to
// be resolved here.
func (d *Dialer) authorizeName(r acl.Request, dec acl.Decision, needAddress bool) (*Permit, *Error) {
	if !d.sendsNames || resolve.IsLocalhost(r.Target.Host()) { // an upstream would take it for itself, past the guard
		return nil, nil
	}
	if needAddress {
		dec = d.policy.DecideName(r)
		if dec.Action != acl.Allow {
			return nil, nil
		}
	}
	w, err := d.wayOf(r, dec)
	switch {
	case err != nil && needAddress:
		return nil, nil // the rule that knows the address may lead elsewhere
	case err != nil:
		return nil, err
	case !w.sendsName():
		return nil, nil
	}
	p := d.newPermit(r, dec)
	w.byName = true
	p.way = w
	return p, nil
}

// authorizeLiteral pins the one address of a request that names it.
func (d *Dialer) authorizeLiteral(r acl.Request, a netip.Addr, dec acl.Decision, x *Explanation) (*Permit, *Error) {
	v := d.judge(netip.AddrPortFrom(a, r.Target.Port()), dec)
	x.judged(v)
	if v.refused() {
		return nil, v.err(r.Target)
	}
	p := d.newPermit(r, v.Decision)
	p.one[0] = a
	p.pinned.addrs = p.one[:]
	return d.leaving(r, p)
}

// authorizeAddrs checks every address of a name and pins those that pass.
func (d *Dialer) authorizeAddrs(r acl.Request, addrs []netip.Addr, x *Explanation) (*Permit, *Error) {
	var p *Permit
	var no refusals
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		ap := netip.AddrPortFrom(a, r.Target.Port())
		if p != nil && p.pinned.covers(ap) {
			continue
		}
		v := d.judge(ap, d.decideAddr(r, a))
		x.judged(v)
		if v.refused() {
			no.add(v)
			continue
		}
		if p == nil {
			p = d.newPermit(r, v.Decision)
			p.pinned.addrs = p.one[:0]
		}
		p.pinned.addrs = append(p.pinned.addrs, a)
	}
	if p == nil {
		return nil, no.worst.err(r.Target)
	}
	if len(p.pinned.addrs) > 1 {
		d.settleOrder(r, p)
	}
	return d.leaving(r, p)
}

// decideAddr asks the policy about one address.
func (d *Dialer) decideAddr(r acl.Request, a netip.Addr) acl.Decision {
	r.TargetCountry = d.Country(a)
	return d.policy.DecideAddr(r, a)
}

// settleOrder puts the addresses into the order of RFC 8305 and makes the
// decision that of the first one: another rule may have admitted it. Addresses that another rule would have leave by another way
// are dropped: a race has one way.
func (d *Dialer) settleOrder(r acl.Request, p *Permit) {
	was := p.pinned.addrs[0]
	interleave(p.pinned.addrs, d.firstFamily(r.Target.Host()))
	if first := p.pinned.addrs[0]; first != was {
		p.decision = d.decideAddr(r, first)
	}
	if !d.hasWays {
		return
	}
	kept := p.pinned.addrs[:1]
	for _, a := range p.pinned.addrs[1:] {
		if sameWay(d.decideAddr(r, a).Way, p.decision.Way) {
			kept = append(kept, a)
		}
	}
	p.pinned.addrs = kept
}

// leaving completes a permit with the way out. Addresses of a family that the way has no address of ours for are dropped.
func (d *Dialer) leaving(r acl.Request, p *Permit) (*Permit, *Error) {
	w, err := d.wayOf(r, p.decision)
	if err != nil || w == nil {
		return p.orNot(err)
	}
	p.way = w
	if w.upstream != nil || w.source == nil {
		return p, nil
	}
	p.pinned.from = w.from()
	was := p.pinned.addrs[0]
	kept := p.pinned.addrs[:0]
	for _, a := range p.pinned.addrs {
		if w.source.Has(a.Is6()) {
			kept = append(kept, a)
		}
	}
	if p.pinned.addrs = kept; len(kept) == 0 {
		return nil, &Error{Reason: DestinationUnroutable, Target: r.Target, Exit: w.exit, Decision: p.decision, Err: errNoSource(w.exit)}
	}
	if kept[0] != was {
		p.decision = d.decideAddr(r, kept[0]) // of the same way, but perhaps by another rule
	}
	return p, nil
}

// orNot returns the permit unless there is an error.
func (p *Permit) orNot(err *Error) (*Permit, *Error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (d *Dialer) newPermit(r acl.Request, dec acl.Decision) *Permit {
	return &Permit{
		target: r.Target, decision: dec, generation: d.generation,
		pinned: dialSet{port: r.Target.Port()},
	}
}

// lookup asks the resolver. No address and no error is an error.
func (d *Dialer) lookup(ctx context.Context, asker netip.Addr, host string) ([]netip.Addr, error) {
	if d.resolver == nil {
		return nil, errNoResolver
	}
	addrs, err := d.resolver.Lookup(ctx, asker, host)
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	return addrs, err
}
