package pool

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// The kinds of sticky keys: the user "7" is nobody's session, and not the client with that number.
const (
	clientKey uint64 = 0x243f6a8885a308d3 * (iota + 1)
	userKey
	sessionKey
)

// mix turns each bit of x over with a chance of one half for every bit of the answer (MurmurHash3's finalizer with the
// constants of Stafford's variant 13).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashString is the same in every process: which server a key sticks to must not change with a restart.
func hashString(seed uint64, s string) uint64 {
	h := mix(seed ^ uint64(len(s))*0x9e3779b97f4a7c15)
	for ; len(s) >= 8; s = s[8:] {
		h = mix(h ^ (uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56))
	}
	last := uint64(0)
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	return mix(h ^ last)
}

// hashClient takes the /64 of an IPv6 address: hosts change the rest of it by themselves (RFC 8981).
func hashClient(seed uint64, a netip.Addr) uint64 {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return mix(mix(seed^clientKey) ^ uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return mix(mix(seed^clientKey^1) ^ binary.BigEndian.Uint64(b[:8]))
}

// stickyKey is what r sticks by, from the narrowest thing that the balance looks at and r has.
func (p *Pool) stickyKey(r *Request) uint64 {
	switch {
	case p.o.Balance == StickySession && r.Session != "":
		return hashString(hashString(p.seed^sessionKey, r.User), r.Session)
	case p.o.Balance != StickyClient && r.User != "":
		return hashString(p.seed^userKey, r.User)
	}
	return hashClient(p.seed, r.Client)
}

// logTable holds log2(1 + i/256) with 32 bits after the point.
var logTable = func() (t [257]uint64) {
	for i := range t {
		t[i] = uint64(math.Round(math.Log2(1+float64(i)/256) * (1 << 32)))
	}
	return t
}()

// negLog2 is -log2(x / 2^64) with 32 bits after the point, to within 3e-6: 0 to 64, as x goes from 2^64 to 1.
func negLog2(x uint64) uint64 {
	x |= 1 // zero has no logarithm
	zeros := bits.LeadingZeros64(x)
	fraction := x << (zeros + 1)
	i, between := fraction>>56, fraction<<8>>32
	return uint64(zeros+1)<<32 - (logTable[i] + (logTable[i+1]-logTable[i])*between>>32)
}

// score ranks a server for a key by weighted rendezvous hashing: the lowest wins. -log(u)/weight with u uniform is
// exponentially distributed, and the least of such variables is each one with the chance that its weight says.
// inverse is 2^64 / weight.
func score(key, serverSeed, inverse uint64) uint64 {
	hi, _ := bits.Mul64(negLog2(mix(key^serverSeed))<<25, inverse)
	return hi
}
