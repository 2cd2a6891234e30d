package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Warnings are what is legal in the rules but hardly meant, for `polyport
// check`: rules that can never decide, rules that look as if they lifted the guard
// and do not, rules that lift it for this machine itself, names that stand twice. Each
// begins with "rule[i]" or "rule[i].key", i counting from 0.
func (p *Policy) Warnings() []string {
	if p == nil {
		return nil
	}
	var out []string
	seen := map[string]int{}
	for i := range p.rules {
		r := &p.rules[i]
		if first, twice := seen[r.name]; twice {
			out = append(out, fmt.Sprintf("rule[%d].name: rule[%d] is called %q as well, so logs do not tell them apart", i, first, r.name))
		} else {
			seen[r.name] = i
		}
		if w := p.hidden(i); w != "" {
			out = append(out, w)
		}
		if r.action == Allow {
			out = append(out, r.guardWarnings(i)...)
		}
	}
	return out
}

// hidden says which rule before p.rules[i] leaves it nothing to decide.
func (p *Policy) hidden(i int) string {
	r := &p.rules[i]
	for j := range p.rules[:i] {
		before := &p.rules[j]
		switch {
		case !before.coversRequests(r):
		case !before.matchesMethod(MethodBind) && r.matchesMethod(MethodBind):
			if !r.method.named() && before.coversUsers(r) {
				return fmt.Sprintf("rule[%d]: %q is reached by the method %s alone, since rule[%d] %q matches everything else that it matches; remove it or put it in front",
					i, r.name, MethodBind, j, before.name)
			}
		case before.coversUsers(r):
			return fmt.Sprintf("rule[%d]: %q can never be reached, since rule[%d] %q matches everything that it matches; remove it or put it in front",
				i, r.name, j, before.name)
		case r.anonymous:
			return fmt.Sprintf("rule[%d].anonymous: rule[%d] %q comes first, names users and so asks a session without one to log in; put %q in front of it",
				i, j, before.name, r.name)
		}
	}
	return ""
}

// guardWarnings are about the target prefixes of a rule that allows.
func (r *rule) guardWarnings(i int) []string {
	var out []string
	for _, p := range r.target.prefixes.list {
		if inside := specialsInside(p); len(inside) > 0 {
			out = append(out, fmt.Sprintf("rule[%d].target: %v does not lift the guard from the special-purpose ranges inside it (%s); name those that are meant",
				i, p, some(inside)))
		}
		if what := opens(p); what != "" {
			out = append(out, fmt.Sprintf("rule[%d].target: %v opens %s to whoever the rule admits", i, p, what))
		}
	}
	if r.target.names.contains("localhost") && !r.target.prefixes.contains(loopback4) && !r.target.prefixes.contains(netip.IPv6Loopback()) {
		out = append(out, fmt.Sprintf("rule[%d].target: localhost is a loopback address, which the guard denies to a name; name 127.0.0.1 and ::1 as well", i))
	}
	return out
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// specialsInside returns the special ranges that p holds whole without lying
// inside them: the guard stays over those.
func specialsInside(p netip.Prefix) []string {
	var out []string
	for i := range specialRanges {
		if s := specialRanges[i].prefix; s.Bits() > p.Bits() && p.Contains(s.Addr()) {
			out = append(out, s.String())
		}
	}
	return out
}

// opens says which dangerous special-purpose range p lies inside, or "".
func opens(p netip.Prefix) string {
	v := judge(p.Addr())
	if v.need == 0 || p.Bits() < v.need {
		return ""
	}
	switch purpose := v.what.purpose; {
	case strings.HasPrefix(purpose, "cloud metadata"):
		return "the metadata service, which hands out this machine's credentials,"
	case strings.HasPrefix(purpose, "loopback"), strings.HasPrefix(purpose, "this network"), strings.HasPrefix(purpose, "the unspecified"):
		return "the services of this machine itself" // 0.0.0.0 connects there, too
	}
	return ""
}

// some joins the first few texts.
func some(list []string) string {
	const most = 3
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// coversRequests reports whether r matches whatever o matches, the identity apart.
// It may say no where the answer is yes, never the other way round.
func (r *rule) coversRequests(o *rule) bool {
	return r.protocol.covers(&o.protocol) && r.listener.covers(&o.listener) && r.coversBackends(o) && r.method.covers(&o.method) &&
		r.port.covers(o.port) && r.clientPort.covers(o.clientPort) &&
		(r.client.empty() || !o.client.empty() && r.client.covers(&o.client)) &&
		r.clientCountry.covers(&o.clientCountry) && r.country.covers(&o.country) &&
		(r.time == nil || o.time != nil && r.time.text == o.time.text) &&
		r.target.covers(&o.target)
}

// coversUsers reports whether r decides for every identity for which o could.
func (r *rule) coversUsers(o *rule) bool {
	switch {
	case !r.user.named() && !r.group.named(), r.user.any && !r.group.named():
		// A session that r challenges is decided as well.
		return true
	case !o.user.named() && !o.group.named():
		return false
	}
	return r.user.covers(&o.user) && r.group.covers(&o.group)
}

// coversBackends is for lists of which "*" is not everything: what is handed to no backend matches no list.
func (r *rule) coversBackends(o *rule) bool {
	return !r.backend.named() || o.backend.named() && r.backend.covers(&o.backend)
}

func (w *words) covers(o *words) bool {
	if !w.named() || w.any {
		return true
	}
	return o.named() && !o.any && !slices.ContainsFunc(o.list, func(s string) bool { return !w.contains(s) })
}

func (ps ports) covers(o ports) bool {
	if len(ps) == 0 {
		return true
	}
	return len(o) > 0 && !slices.ContainsFunc(o, func(b PortRange) bool {
		return !slices.ContainsFunc(ps, func(a PortRange) bool { return a.First <= b.First && b.Last <= a.Last })
	})
}

// covers reports whether every prefix of o lies in a prefix of p.
func (p *prefixes) covers(o *prefixes) bool {
	return !slices.ContainsFunc(o.list, func(b netip.Prefix) bool {
		return !slices.ContainsFunc(p.list, func(a netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) })
	})
}

func (n *names) covers(o *names) bool {
	below := func(apex string) bool {
		return slices.Contains(n.below, apex) || slices.ContainsFunc(n.below, func(a string) bool { return isBelow(apex, a) })
	}
	return !slices.ContainsFunc(o.exact, func(s string) bool { return !n.contains(s) }) &&
		!slices.ContainsFunc(o.below, func(s string) bool { return !below(s) })
}

func (t *targets) covers(o *targets) bool {
	if !t.named || t.any {
		return true
	}
	return o.named && !o.any && t.names.covers(&o.names) && t.prefixes.covers(&o.prefixes)
}
