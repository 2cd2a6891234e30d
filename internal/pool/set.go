package pool

import "math/bits"

// Tried is the set of the servers that a connection has tried, by index.
type Tried [MaxServers / 64]uint64

// Add puts the server with index i into the set.
func (t *Tried) Add(i int) { (*set)(t).add(i) }

// Has reports whether the server with index i is in the set.
func (t *Tried) Has(i int) bool { return (*set)(t).has(i) }

// set is a set of servers by index.
type set [MaxServers / 64]uint64

func (s *set) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s *set) remove(i int)   { s[i>>6] &^= 1 << (i & 63) }
func (s *set) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func (s *set) empty() bool    { return s[0]|s[1]|s[2]|s[3] == 0 }

func (s *set) and(o *set) set {
	return set{s[0] & o[0], s[1] & o[1], s[2] & o[2], s[3] & o[3]}
}

func (s *set) without(o *set) set {
	return set{s[0] &^ o[0], s[1] &^ o[1], s[2] &^ o[2], s[3] &^ o[3]}
}

// next is the first of the set from i on; -1: there is none.
func (s *set) next(i int) int {
	for word := i >> 6; word < len(s); word++ {
		if rest := s[word] >> (i & 63); rest != 0 {
			return i + bits.TrailingZeros64(rest)
		}
		i = (word + 1) << 6
	}
	return -1
}

// hash tells sets apart.
func (s *set) hash() uint64 {
	h := uint64(0)
	for _, word := range s {
		h = mix(h ^ word)
	}
	return h
}

// addTo adds i to the set of key.
func addTo(sets map[string]set, key string, i int) {
	s := sets[key]
	s.add(i)
	sets[key] = s
}

// union is what is in the set of any of keys.
func union(sets map[string]set, keys []string) (all set) {
	for _, key := range keys {
		s := sets[key]
		for i := range all {
			all[i] |= s[i]
		}
	}
	return all
}
