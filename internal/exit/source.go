package exit

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// Choose is how one address of a Source is chosen for a connection.
type Choose uint8

// The ways to choose. A client that has named a session (Wish.Session) keeps its address within it, whatever is chosen here.
const (
	Random        Choose = iota // any, each time anew
	StickyClient                // always the same for one address of a client
	StickyUser                  // always the same for one user; for a session without a user, as StickyClient
	StickySession               // always the same for one session of one user; without a session, as Random
)

var chooseNames = [...]string{"random", "sticky-client", "sticky-user", "sticky-session"}

// String returns the way as the configuration writes it.
func (c Choose) String() string {
	if int(c) < len(chooseNames) {
		return chooseNames[c]
	}
	return "invalid choice"
}

// ParseChoose reads what String writes; "" is Random.
func ParseChoose(s string) (Choose, error) {
	for i, name := range chooseNames {
		if s == name || s == "" {
			return Choose(i), nil
		}
	}
	return Random, fmt.Errorf("%q is no way to choose an address; write random, sticky-client, sticky-user or sticky-session", s)
}

// Key is by what a choice is made the same again.
type Key struct {
	Client  netip.Addr
	User    string // "" for none
	Session string // that User has named (Wish.Session); "" for none
}

// Source is what connections leave with. The zero Source leaves all to the system.
type Source struct {
	// Addresses are the addresses, unmapped, that connections leave from; an address is a prefix of its full length. Empty
	// leaves the address to the system. Each prefix is as likely as any other, however long it is.
	Addresses []netip.Prefix
	Choose    Choose
	Interface string // the name of a network interface, up to 15 bytes (SO_BINDTODEVICE); "" for any
	Mark      uint32 // of each packet, for the system's routing (SO_MARK); 0 for none
}

// Pick chooses the address that a connection leaves from, IPv6 where is6 says so, else IPv4. It costs no memory. A choice
// for a key stays the same over restarts, as long as Addresses does. Of an IPv4 prefix shorter than /31 the first and last
// address, the network's and broadcast (RFC 1122 section 3.2.1.3, RFC 3021), are never chosen, of an IPv6 prefix shorter than
// /127 never the first, the Subnet-Router anycast address (RFC 4291 section 2.6.1, RFC 6164). Where Addresses is empty, a
// is invalid and ok true: the system chooses. ok is false where Addresses has none of the family.
func (s *Source) Pick(is6 bool, key Key) (a netip.Addr, ok bool) {
	if s == nil || len(s.Addresses) == 0 {
		return netip.Addr{}, true
	}
	n := uint64(0)
	for _, p := range s.Addresses {
		if p.Addr().Is6() == is6 {
			n++
		}
	}
	if n == 0 {
		return netip.Addr{}, false
	}
	d := s.dice(&key)
	chosen := d.below(n)
	for _, p := range s.Addresses {
		if p.Addr().Is6() != is6 {
			continue
		}
		if chosen == 0 {
			return d.in(p), true
		}
		chosen--
	}
	return netip.Addr{}, false
}

// dice returns what a choice for key is made with.
func (s *Source) dice(key *Key) dice {
	h := hash(fnvOffset)
	switch {
	case key.Session != "":
		h = h.add("session").add(key.User).add(key.Session)
	case s.Choose == StickyUser && key.User != "":
		h = h.add("user").add(key.User)
	case (s.Choose == StickyClient || s.Choose == StickyUser) && key.Client.IsValid():
		b := key.Client.Unmap().As16()
		h = h.add("client").add(string(b[:]))
	default:
		return dice{random: true}
	}
	return dice{state: uint64(h)}
}

// hash is a running FNV-1a hash of 64 bits. That of hash/maphash would be another one after each start.
type hash uint64

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// add adds a text and where it ends.
func (h hash) add(s string) hash {
	for i := range len(s) {
		h = (h ^ hash(s[i])) * fnvPrime
	}
	return (h ^ hash(len(s))) * fnvPrime
}

// dice gives numbers: random ones, or always the same ones from the same state (SplitMix64).
type dice struct {
	state  uint64
	random bool
}

func (d *dice) next() uint64 {
	if d.random {
		return rand.Uint64()
	}
	d.state += 0x9e3779b97f4a7c15
	z := d.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number from 0 to n-1.
func (d *dice) below(n uint64) uint64 {
	hi, _ := bits.Mul64(d.next(), n)
	return hi
}

// in returns an address in p.
func (d *dice) in(p netip.Prefix) netip.Addr {
	p = p.Masked()
	free := p.Addr().BitLen() - p.Bits()
	if p.Addr().Is4() {
		b := p.Addr().As4()
		host := uint64(0)
		if free >= 2 {
			host = 1 + d.below(1<<free-2)
		} else {
			host = d.below(1 << free)
		}
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|uint32(host))
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	high, low := d.host6(free)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])|high)
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])|low)
	return netip.AddrFrom16(b)
}

// host6 returns the host part of an IPv6 address, which has this many bits.
func (d *dice) host6(free int) (high, low uint64) {
	switch {
	case free < 2:
		return 0, d.below(1 << free)
	case free < 64:
		return 0, 1 + d.below(1<<free-1)
	}
	high, low = d.next()>>(128-free), d.next()
	if high == 0 && low == 0 {
		low = 1
	}
	return high, low
}

// Has reports whether Pick would find an address of the family, or leaves it to the system.
func (s *Source) Has(is6 bool) bool {
	return len(s.Addresses) == 0 || slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() == is6 })
}
