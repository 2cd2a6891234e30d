package acl

import (
	"slices"
	"strings"
)

// names is a set of domain patterns, normalised by package target. The zero
// value is the empty set.
type names struct {
	exact []string // "example.com": that name
	below []string // "example.com": any depth below it, not the name itself
	// The same as sets; nil while the lists are short.
	exactSet, belowSet map[string]struct{}
}

// seal prepares the set for look-ups.
func (n *names) seal() {
	if len(n.exact) > longList {
		n.exactSet = setOf(n.exact)
	}
	if len(n.below) > longList {
		n.belowSet = setOf(n.below)
	}
}

// contains reports whether host, a normal form, is in the set.
func (n *names) contains(host string) bool {
	if n.exactSet != nil {
		if _, ok := n.exactSet[host]; ok {
			return true
		}
	} else if slices.Contains(n.exact, host) {
		return true
	}
	if n.belowSet != nil {
		return n.belowContains(host)
	}
	for _, apex := range n.below {
		if isBelow(host, apex) {
			return true
		}
	}
	return false
}

// belowContains asks the set for every parent of host.
func (n *names) belowContains(host string) bool {
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return false
		}
		if _, ok := n.belowSet[parent]; ok {
			return true
		}
		host = parent
	}
}

// isBelow reports whether host is a name below apex.
func isBelow(host, apex string) bool {
	i := len(host) - len(apex) - 1
	return i > 0 && host[i] == '.' && host[i+1:] == apex
}

// words is a list of which one has to be equal. The zero value restricts
// nothing.
type words struct {
	list []string
	set  map[string]struct{} // nil while the list is short
	any  bool                // "*" stands in the list
}

// newWords makes a list of words; "*" makes it hold every word.
func newWords(list []string) words {
	w := words{list: list, any: slices.Contains(list, "*")}
	if len(list) > longList {
		w.set = setOf(list)
	}
	return w
}

// named reports whether the rule names the key at all.
func (w *words) named() bool { return len(w.list) > 0 }

// contains reports whether s is in the list; of an empty list nothing is.
func (w *words) contains(s string) bool {
	if w.any {
		return true
	}
	if w.set != nil {
		_, ok := w.set[s]
		return ok
	}
	return slices.Contains(w.list, s)
}

// containsFold is contains in any case. Methods are case-sensitive (RFC 9110
// section 9.1), but a rule that denies CONNECT must not miss what some server
// takes for it.
func (w *words) containsFold(s string) bool {
	return w.any || slices.ContainsFunc(w.list, func(have string) bool { return strings.EqualFold(have, s) })
}

func setOf(list []string) map[string]struct{} {
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return set
}
