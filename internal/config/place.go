package config

import (
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// place is where a value stands: a path of keys and indexes. Nil is the top of the file.
type place struct {
	up    *place
	name  string // a key; "" in an index
	index int    // -1 in a key
}

// root is the top of the file.
var root *place

func (p *place) key(name string) *place { return &place{p, name, -1} }
func (p *place) at(i int) *place        { return &place{p, "", i} }

// String returns the place as a user would write it: rule[1].target[0].
func (p *place) String() string {
	if p == nil {
		return ""
	}
	above := p.up.String()
	switch {
	case p.index >= 0:
		return above + "[" + strconv.Itoa(p.index) + "]"
	case above == "":
		return keyName(p.name)
	}
	return above + "." + keyName(p.name)
}

// keyName returns a key as it is written in TOML, quoted where that is needed
// and then harmless on a terminal.
func keyName(name string) string {
	if name != "" && isBare(name) {
		return name
	}
	return quote(name)
}

func isBare(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
}

// keys returns the keys on the way to the place; false if one is an index.
func (p *place) keys() (toml.Key, bool) {
	if p == nil {
		return nil, true
	}
	above, ok := p.up.keys()
	return append(above, p.name), ok && p.index < 0
}

// top returns the first two steps of the place: a key of the top level and what
// follows it. The second is nil if there is none.
func (p *place) top() (first, second *place) {
	for ; p != nil; p = p.up {
		first, second = p, first
	}
	return first, second
}

// parsePlace reads what String writes, quoted keys excepted.
func parsePlace(s string) (p *place, ok bool) {
	if s == "" {
		return root, true
	}
	for step := range strings.SplitSeq(s, ".") {
		name, indexes, indexed := strings.Cut(step, "[")
		if name == "" || !isBare(name) || indexed && indexes == "" {
			return nil, false
		}
		p = p.key(name)
		for indexes != "" {
			number, rest, closed := strings.Cut(indexes, "]")
			i, err := strconv.ParseUint(number, 10, 31)
			if err != nil || !closed || rest != "" && rest[0] != '[' {
				return nil, false
			}
			p = p.at(int(i))
			indexes = strings.TrimPrefix(rest, "[")
		}
	}
	return p, true
}
