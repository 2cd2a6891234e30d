package acl

import "net/netip"

// Policy is an immutable, compiled list of rules. It is safe for concurrent
// use. The nil and the zero Policy deny everything.
type Policy struct {
	rules    []rule
	hasUsers bool
	timed    bool // some rule looks at the time
	located  bool // some rule looks at a country
}

// LooksAtTime reports whether some rule does, so that Request.Time has to be set.
func (p *Policy) LooksAtTime() bool { return p != nil && p.timed }

// LooksAtCountry reports whether some rule looks at the country of the client or the target, so that
// Request.ClientCountry and Request.TargetCountry have to be set.
func (p *Policy) LooksAtCountry() bool { return p != nil && p.located }

// Decide decides by name. needAddress is true when a rule that looks at the
// target's address comes before the one that would decide, and the address
// could make the answer Allow: then the Decision means nothing, and DecideAddr
// is to be asked for each resolved address. Where no address could help, the
// request is refused without one, so nobody without permission makes the gateway
// look up names: with a Challenge if one of the rules in question needs a user,
// else with the deny of the first rule that decides whatever the address is.
//
// An Allow for a name is the rules' answer; the guard is asked by DecideAddr. A
// request whose target is an IP literal is decided at once, guard included.
func (p *Policy) Decide(r Request) (d Decision, needAddress bool) {
	q := newQuery(&r, netip.Addr{})
	return p.decide(&q)
}

// DecideAddr runs the whole list again for one resolved address of r.Target,
// guard included. An invalid address is denied.
func (p *Policy) DecideAddr(r Request, a netip.Addr) Decision {
	if !a.IsValid() {
		return Decision{Reason: ReasonNoRule}
	}
	q := newQuery(&r, a)
	d, _ := p.decide(&q)
	return d
}

// DecideName decides by name alone, for what is handed to a backend: the SNI,
// or the name of a raw row. Prefixes and countries in rules match nothing, and there is
// no address to guard, unless r.Target is itself an IP literal.
func (p *Policy) DecideName(r Request) Decision {
	q := newQuery(&r, netip.Addr{})
	q.nameOnly = true
	d, _ := p.decide(&q)
	return d
}

// newQuery looks at r with the target's address a, if that is valid.
func newQuery(r *Request, a netip.Addr) query {
	q := query{Request: r, client: normalAddr(r.Client), addr: normalAddr(a)}
	if literal, ok := r.Target.Addr(); !ok {
		q.host = r.Target.Host()
	} else if !a.IsValid() {
		q.addr = literal
	}
	return q
}

// normalAddr unmaps a and drops its zone: bart and netip match neither.
func normalAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// decide walks the list. It is the only walk that decides; needAddress can only
// be true while q has no address.
func (p *Policy) decide(q *query) (d Decision, needAddress bool) {
	if p == nil || !q.Target.IsValid() {
		return Decision{Reason: ReasonNoRule}, false
	}
	var pending Decision // of the rules that an address could make decide; none of them allows
	for i := range p.rules {
		r := &p.rules[i]
		switch s, _ := r.match(q); s {
		case matched:
			return settle(p.outcome(r, q), pending)
		case needsAddress:
			o := p.outcome(r, q)
			if o.Action == Allow {
				return Decision{}, true
			}
			if pending.Action != Challenge {
				pending = o
			}
		}
	}
	return settle(Decision{Reason: ReasonNoRule}, pending)
}

// settle weighs the decision that stands at the end of the walk against one
// that some address might have brought about before.
func settle(last, pending Decision) (d Decision, needAddress bool) {
	switch {
	case pending.Reason == "":
		return last, false
	case last.Action == Allow:
		return Decision{}, true
	case pending.Action == Challenge:
		return pending, false
	}
	return last, false
}

// outcome is what r, which has matched, decides.
func (p *Policy) outcome(r *rule, q *query) Decision {
	if q.Identity == "" && r.needsUser(q.RequireUser) {
		d := Decision{Action: Deny, Rule: r.name, Reason: ReasonNeedsUser}
		if p.hasUsers {
			d.Action = Challenge
		}
		return d
	}
	if r.action == Allow && q.addr.IsValid() && guarded(q.addr, &r.target.prefixes) {
		return Decision{Action: Deny, Rule: r.name, Reason: ReasonGuard}
	}
	return Decision{Action: r.action, Rule: r.name, Reason: ReasonRule, Way: r.way}
}
