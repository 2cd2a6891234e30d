package acl

import (
	"net/netip"
	"slices"
)

// AdmitsAnonymous reports whether some request of a session without a user could be
// admitted from this client, with its country as in Request.ClientCountry, on this row and listener. It looks at what is
// known before the request is: so it can say yes where the request itself, its
// target or its time, will turn out to be denied, but never no where it would be
// admitted. What backends get is not looked at: they need no handshake in which a user could be named.
func (p *Policy) AdmitsAnonymous(client netip.Addr, clientCountry, protocol, listener string, requireUser bool) bool {
	if p == nil {
		return false
	}
	client = normalAddr(client)
	onlyBind := false // earlier rules decide every other method
	for i := range p.rules {
		r := &p.rules[i]
		switch {
		case r.protocol.named() && !r.protocol.contains(protocol),
			r.listener.named() && !r.listener.contains(listener),
			!r.client.empty() && !r.client.contains(client),
			r.backend.named(),
			r.clientCountry.named() && !r.clientCountry.contains(clientCountry):
			continue
		case r.admitsAnonymous(requireUser) && (!onlyBind || r.matchesMethod(MethodBind)):
			return true
		case r.matchesEveryRequest():
			if r.matchesMethod(MethodBind) {
				return false
			}
			onlyBind = true
		}
	}
	return false
}

// MayReach decides a request whose target is not known yet, as that for a UDP association of SOCKS5: whether some target could
// be admitted. It can say Allow where each one will turn out to be denied, but never no where one would be admitted. The target of
// r is not looked at.
func (p *Policy) MayReach(r Request) Decision {
	d := Decision{Reason: ReasonNoRule}
	if p == nil {
		return d
	}
	q := query{Request: &r, client: normalAddr(r.Client), anyPort: true}
	var challenge Decision
	for i := range p.rules {
		r := &p.rules[i]
		if r.missedKey(&q) != keyNone {
			continue
		}
		o := p.outcome(r, &q)
		switch {
		case o.Action == Allow:
			return o
		case o.Action == Challenge && challenge.Action != Challenge:
			challenge = o
		}
		if len(r.port) == 0 && r.namesAnyTarget() {
			d = o // whatever the target is
			break
		}
	}
	if challenge.Action == Challenge {
		return challenge
	}
	return d
}

// OpenTo answers whether a listener is an open proxy, for whoever refuses to
// start one: whether a rule that allows can be reached without a user from every
// public address of IPv4 or of IPv6, and which rule it is. Client prefixes are
// added up, within a rule and over the rules, so 0.0.0.0/1 with 128.0.0.0/1 is as open
// as 0.0.0.0/0. Rules for some targets, times or protocols count as well: who means them to serve everybody has to say so.
// So do rules for clients of some countries, however few: what addresses those have is not known here, and no country is a
// list of one's own clients. A rule that names backends says so itself: it opens the owner's servers, and no proxy.
func (p *Policy) OpenTo(listener string, requireUser bool) (rule string, open bool) {
	if p == nil {
		return "", false
	}
	admitted := make([]netip.Prefix, 0, len(specialRanges))
	for i := range specialRanges { // no client comes from there over the Internet
		admitted = append(admitted, specialRanges[i].prefix)
	}
	closed, onlyBind := map[family]bool{}, map[family]bool{} // what earlier rules refuse whole, or but for BIND
	for i := range p.rules {
		r := &p.rules[i]
		if r.listener.named() && !r.listener.contains(listener) || r.backend.named() {
			continue
		}
		if r.admitsAnonymous(requireUser) {
			admitted = append(admitted, r.clients()...)
			for _, f := range families {
				if !closed[f] && (!onlyBind[f] || r.matchesMethod(MethodBind)) && f.covered(admitted) {
					return r.name, true
				}
			}
			continue
		}
		if r.matchesEveryRequest() && !(r.protocol.named() && !r.protocol.any) && !r.clientCountry.named() {
			refused := closed
			if !r.matchesMethod(MethodBind) {
				refused = onlyBind
			}
			for _, f := range families {
				refused[f] = refused[f] || f.covered(r.clients())
			}
		}
	}
	return "", false
}

// admitsAnonymous reports whether the rule admits a session without a user.
func (r *rule) admitsAnonymous(requireUser bool) bool {
	return r.action == Allow && !r.needsUser(requireUser)
}

// matchesEveryRequest reports whether the rule names nothing of what a request
// brings with it; client, its country, row and listener are known before. Whether it matches
// BIND too is for matchesMethod.
func (r *rule) matchesEveryRequest() bool {
	return len(r.clientPort) == 0 && len(r.port) == 0 && r.time == nil &&
		(!r.method.named() || r.method.any) && r.namesAnyTarget()
}

// clients returns the prefixes of the clients that the rule names, all of them
// where it names none.
func (r *rule) clients() []netip.Prefix {
	if r.client.empty() {
		return []netip.Prefix{families[0].all, families[1].all}
	}
	return r.client.list
}

// family is all addresses of one version of IP.
type family struct{ all netip.Prefix }

var families = [...]family{
	{netip.MustParsePrefix("0.0.0.0/0")},
	{netip.MustParsePrefix("::/0")},
}

// covered reports whether the prefixes together hold every address of f.
func (f family) covered(list []netip.Prefix) bool {
	list = slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool {
		return p.Addr().BitLen() != f.all.Addr().BitLen()
	})
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	next := f.all.Addr() // the first address that is not covered yet
	for _, p := range list {
		if p.Addr().Compare(next) > 0 {
			return false
		}
		if last := lastAddr(p); last.Compare(next) >= 0 {
			if next = last.Next(); !next.IsValid() {
				return true
			}
		}
	}
	return false
}

// lastAddr returns the last address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
