package acl

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// longList is how many entries a list may have before it is looked up in a
// table instead of being walked: below it, walking is the faster of the two.
const longList = 16

// prefixes is a set of prefixes. The zero value is the empty set.
type prefixes struct {
	list  []netip.Prefix
	table *bart.Lite // of the same prefixes; nil while the list is short
}

// newPrefixes makes a set of prefixes that normalPrefix has returned.
func newPrefixes(list []netip.Prefix) prefixes {
	p := prefixes{list: list}
	if len(list) > longList {
		p.table = new(bart.Lite)
		for _, pfx := range list {
			p.table.Insert(pfx)
		}
	}
	return p
}

func (p *prefixes) empty() bool { return len(p.list) == 0 }

// contains reports whether a, unmapped and without a zone, lies in the set.
func (p *prefixes) contains(a netip.Addr) bool {
	if p.table != nil {
		return p.table.Contains(a)
	}
	for _, pfx := range p.list {
		if pfx.Contains(a) {
			return true
		}
	}
	return false
}

// longest returns the length in bits of the longest prefix that contains a, or
// -1 for none.
func (p *prefixes) longest(a netip.Addr) int {
	if p.table != nil {
		pfx, ok := p.table.LookupPrefixLPM(netip.PrefixFrom(a, a.BitLen()))
		if !ok {
			return -1
		}
		return pfx.Bits()
	}
	bits := -1
	for _, pfx := range p.list {
		if pfx.Bits() > bits && pfx.Contains(a) {
			bits = pfx.Bits()
		}
	}
	return bits
}

// normalPrefix unmaps p and refuses one that no address can match, or that
// says more than its length: 10.1.2.3/8 may be meant as either of two things.
func normalPrefix(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, fmt.Errorf("it is not a valid prefix; write one such as 10.0.0.0/8 or 192.0.2.1/32")
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return p, fmt.Errorf("%v has bits behind its length; write %v for the whole range or %v/%d for the one address",
			p, m, p.Addr(), p.Addr().BitLen())
	}
	return p, nil
}
