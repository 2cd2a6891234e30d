package egress

import (
	"context"
	"net/netip"

	"polyport/acl"
)

// Authorize asks the policy, resolves and checks every address. Denied
// addresses are dropped; if none is left the request is denied. What is refused
// by name alone, and an IP address, cost no DNS query. The error is an *Error.
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
	dec, needAddress := d.policy.Decide(r)
	x.byName(dec, needAddress)
	if a, ok := r.Target.Addr(); ok {
		return d.authorizeLiteral(r, a, dec, x)
	}
	if !needAddress && dec.Action != acl.Allow {
		return nil, refusal(r.Target, dec)
	}
	addrs, err := d.lookup(ctx, r.Client, r.Target.Host())
	x.resolved(addrs, err)
	if err != nil {
		return nil, &Error{Reason: dnsReason(err), Target: r.Target, Err: err}
	}
	return d.authorizeAddrs(r, addrs, x)
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
	return p, nil
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
		v := d.judge(ap, d.policy.DecideAddr(r, a))
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
	return p, nil
}

// settleOrder puts the addresses into the order of RFC 8305 and makes the
// decision that of the first one: another rule may have admitted it.
func (d *Dialer) settleOrder(r acl.Request, p *Permit) {
	was := p.pinned.addrs[0]
	interleave(p.pinned.addrs)
	if first := p.pinned.addrs[0]; first != was {
		p.decision = d.policy.DecideAddr(r, first)
	}
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
