package egress

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Families remembers for a while which family of IP connected for a name, so that a race begins with it (RFC 8305 section 4). It
// is of a fixed size: names that fall into one place push each other out. It is safe for concurrent use and outlives a reload.
type Families struct {
	seed   maphash.Seed
	places [familyPlaces]atomic.Uint64
}

const (
	familyPlaces = 4096
	// familyMemory is how long it is believed: a network that has been mended is noticed then.
	familyMemory = 10 * time.Minute
	// familyBit is 1 for IPv6, minuteBits count since 1970; the rest is of the name.
	familyBit, minuteBits = 1, 32
)

// NewFamilies makes one that remembers nothing yet.
func NewFamilies() *Families { return &Families{seed: maphash.MakeSeed()} }

// place returns where a name is remembered, and its part of what stands there.
func (f *Families) place(host string) (*atomic.Uint64, uint64) {
	h := maphash.String(f.seed, host)
	return &f.places[h%familyPlaces], h >> (minuteBits + familyBit) << (minuteBits + familyBit)
}

// won notes which family has connected.
func (f *Families) won(host string, is6 bool, now time.Time) {
	if f == nil || host == "" {
		return
	}
	// What is believed still, and right, keeps its time: else a name that is in use would never be tried anew.
	if was, known := f.last(host, now); known && was == is6 {
		return
	}
	at, name := f.place(host)
	v := name | uint64(uint32(now.Unix()/60))<<familyBit
	if is6 {
		v |= familyBit
	}
	at.Store(v)
}

// last returns which family connected last, if that is remembered.
func (f *Families) last(host string, now time.Time) (is6, known bool) {
	if f == nil {
		return false, false
	}
	at, name := f.place(host)
	v := at.Load()
	if v == 0 || v>>(minuteBits+familyBit)<<(minuteBits+familyBit) != name {
		return false, false
	}
	age := now.Unix()/60 - int64(uint32(v>>familyBit))
	return v&familyBit == 1, age >= 0 && age <= int64(familyMemory/time.Minute)
}

// remember notes which family has connected for a name, if the other one could have.
func (d *Dialer) remember(host string, set *dialSet, is6 bool) {
	if set.from != nil && !(set.from.source.Has(true) && set.from.source.Has(false)) {
		return // the exit has decided that, and others leave by another one
	}
	if slices.ContainsFunc(set.addrs, func(a netip.Addr) bool { return a.Is6() != is6 }) {
		d.families.won(host, is6, time.Now())
	}
}

// firstFamily reports whether IPv6 is the family that a race for a name begins with.
func (d *Dialer) firstFamily(host string) (first6 bool) {
	if is6, known := d.families.last(host, time.Now()); known {
		return is6
	}
	return !d.prefer4
}
