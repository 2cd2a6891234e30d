package resolve

import (
	"net/netip"
	"slices"
)

// maxAddrs is how many addresses of one name are kept: more than a client
// would wait for, and few enough for a hostile name not to cost much.
const maxAddrs = 16

// arrange returns the addresses that the family allows, in the order that it wants.
func (f Family) arrange(in []netip.Addr) []netip.Addr {
	if f == Any {
		return in
	}
	out := slices.Clone(in)
	switch f {
	case OnlyIPv4, PreferIPv4:
		slices.SortStableFunc(out, func(a, b netip.Addr) int { return familyOf(a.Unmap()) - familyOf(b.Unmap()) })
	case OnlyIPv6, PreferIPv6:
		slices.SortStableFunc(out, func(a, b netip.Addr) int { return familyOf(b.Unmap()) - familyOf(a.Unmap()) })
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool {
		four := a.Unmap().Is4()
		return f == OnlyIPv4 && !four || f == OnlyIPv6 && four
	})
}

// sanitise returns at most maxAddrs addresses, in normal form and none twice. Of a
// long list each family keeps at least half of the places, if it can fill them.
func sanitise(in []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, min(len(in), maxAddrs))
	count := [2]int{} // IPv4, IPv6
	for _, a := range in {
		if a.IsValid() {
			count[familyOf(a.Unmap())]++
		}
	}
	var room [2]int
	room[0] = min(count[0], max(maxAddrs/2, maxAddrs-count[1]))
	room[1] = min(count[1], maxAddrs-room[0])
	for _, a := range in {
		a = a.Unmap().WithZone("")
		if !a.IsValid() || room[familyOf(a)] == 0 || contains(out, a) {
			continue
		}
		room[familyOf(a)]--
		out = append(out, a)
	}
	return out
}

// familyOf is 0 for IPv4 and 1 for IPv6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func contains(s []netip.Addr, a netip.Addr) bool {
	for i := range s {
		if s[i] == a {
			return true
		}
	}
	return false
}
