package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"polyport/internal/target"
)

// targets is what a rule's target key matches. The zero value restricts nothing.
type targets struct {
	named    bool // the rule has the key
	any      bool // "*" stands in it
	names    names
	prefixes prefixes
	patterns []string // as written, for people
}

// newTargets compiles patterns. The faults are one for each bad pattern.
func newTargets(patterns []string) (t targets, faults []error) {
	var list []netip.Prefix
	t.named, t.patterns = len(patterns) > 0, slices.Clone(patterns)
	for _, s := range patterns {
		if err := t.add(s, &list); err != nil {
			faults = append(faults, err)
		}
	}
	t.prefixes = newPrefixes(list)
	t.names.seal()
	return t, faults
}

// add reads one pattern into t, prefixes into list.
func (t *targets) add(pattern string, list *[]netip.Prefix) error {
	switch {
	case pattern == "*":
		t.any = true
		return nil
	case strings.Contains(pattern, "/"):
		p, err := parsePrefix(pattern)
		if err != nil {
			return err
		}
		*list = append(*list, p)
		return nil
	}
	name, below, both := cutWildcard(pattern)
	// Any port will do: a pattern is a host in the spelling of package target.
	h, err := target.New(name, 1)
	if err != nil {
		return fmt.Errorf("%q is no name, address or prefix: %w", pattern, err)
	}
	a, isAddr := h.Addr()
	switch {
	case isAddr && below:
		return fmt.Errorf("%q is an address behind a wildcard; write a prefix such as 10.0.0.0/8", pattern)
	case isAddr:
		*list = append(*list, netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	if below {
		t.names.below = append(t.names.below, h.Host())
	}
	if !below || both {
		t.names.exact = append(t.names.exact, h.Host())
	}
	return nil
}

// cutWildcard returns the name of a pattern, whether it means what is below the
// name, and whether it then means the name as well.
func cutWildcard(pattern string) (name string, below, both bool) {
	if name, ok := strings.CutPrefix(pattern, "*."); ok {
		return name, true, false
	}
	if name, ok := strings.CutPrefix(pattern, "."); ok {
		return name, true, true
	}
	return pattern, false, false
}

// parsePrefix reads "10.0.0.0/8".
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a valid prefix; write one such as 10.0.0.0/8 or 2001:db8::/32", s)
	}
	return normalPrefix(p)
}

// match judges the target of q: missed, matched, or needsAddress where only
// the address, which q does not know, could tell.
func (t *targets) match(q *query) state {
	switch {
	case !t.named || t.any:
		return matched
	case q.host != "" && t.names.contains(q.host):
		return matched
	case t.prefixes.empty():
		return missed
	case q.addr.IsValid():
		if t.prefixes.contains(q.addr) {
			return matched
		}
	case !q.nameOnly:
		return needsAddress
	}
	return missed
}
