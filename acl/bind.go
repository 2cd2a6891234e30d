package acl

import (
	"net/netip"
	"strings"
)

// MethodBind is the Method of SOCKS' command BIND (RFC 1928 section 4), by which a client has the gateway listen
// for a connection from outside. Only a rule that names it in its method list, or "*", allows it; a deny needs no list.
const MethodBind = "BIND"

// isBind reports whether a method is BIND, in any case.
func isBind(method string) bool { return strings.EqualFold(method, MethodBind) }

// matchesMethod reports whether the rule's method key matches.
func (r *rule) matchesMethod(method string) bool {
	if r.method.named() {
		return r.method.containsFold(method)
	}
	return r.action != Allow || !isBind(method)
}

// MayBind decides a BIND whose client does not know who will connect (DST.ADDR is unspecified): whether some address
// could be admitted if it connected, so that nobody without permission holds a port. Like Decide with a name of which nothing
// is known it can say Allow where every address will turn out to be denied, never the other way
// round, and its Way is then nil unless one rule decides whoever connects; DecideAddr is asked about each that connects. The address of r.Target is not looked at, but its port is.
func (p *Policy) MayBind(r Request) Decision {
	q := bindQuery(&r)
	d, needAddress := p.decide(&q)
	if needAddress {
		return Decision{Action: Allow, Reason: ReasonRule}
	}
	return d
}

// ExplainBind is Explain for MayBind.
func (p *Policy) ExplainBind(r Request) Explanation {
	q := bindQuery(&r)
	return p.explain(&q)
}

// bindQuery looks at r without its target's address.
func bindQuery(r *Request) query {
	q := newQuery(r, netip.Addr{})
	q.addr = netip.Addr{}
	return q
}
