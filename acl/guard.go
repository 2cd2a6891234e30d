package acl

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// guarded reports whether a, unmapped and without a zone, is special-purpose and
// no prefix in lift lies inside every special range that makes it so.
func guarded(a netip.Addr, lift *prefixes) bool {
	v := judge(a)
	return v.need > 0 && lift.longest(a) < v.need
}

// Special says what makes a special-purpose, such as "private use (RFC 1918)" or
// "the 6to4 form of 10.0.0.1: private use (RFC 1918)", and whether it is so. Those are the
// addresses that the guard denies.
func Special(a netip.Addr) (what string, special bool) {
	v := judge(normalAddr(a))
	if v.need == 0 {
		return "", false
	}
	if v.form != "" {
		return "the " + v.form + " form of " + v.hidden.String() + ": " + v.what.purpose, true
	}
	return v.what.purpose, true
}

// verdict is what the guard found in an address. The zero verdict is a public one.
type verdict struct {
	// need is how long a prefix that contains the address must be to lie inside
	// the special range. A prefix that contains the address and is at least as
	// long as the range has all its addresses in the range; where the range is
	// one of hidden IPv4 addresses, it starts at the bit at which those begin.
	need   int
	what   *special
	form   string     // how the special address is hidden; "" if it is not
	hidden netip.Addr // the hidden address; invalid if form is ""
}

// judge looks at a and at every IPv4 address hidden in it. All findings have to
// be lifted, so the longest prefix that one of them needs is what counts; a
// hidden address gives the name where there is one, since it says more.
func judge(a netip.Addr) verdict {
	var v verdict
	if s, ok := specials.Lookup(a); ok {
		v = verdict{need: s.bits, what: s}
	}
	if a.Is4() || !a.IsValid() {
		return v
	}
	b := a.As16()
	for i := range embeddings {
		e := &embeddings[i]
		if !e.holds(a, &b) {
			continue
		}
		h := e.extract(&b)
		s, ok := specials.Lookup(h)
		if !ok {
			continue
		}
		if need := e.offset*8 + s.bits; need > v.need {
			v = verdict{need: need, what: s, form: e.form, hidden: h}
		}
	}
	return v
}

// embedding is one way of hiding an IPv4 address in an IPv6 address.
type embedding struct {
	form     string
	prefix   netip.Prefix // where it is used; invalid for ISATAP, which any prefix may have
	offset   int          // of the IPv4 address, in octets
	inverted bool         // its bits are flipped (RFC 4380 section 4)
}

// embeddings are all ways that a host or a router on the way may turn back into
// IPv4. Mapped addresses (::ffff:0:0/96) are not here: they are unmapped before.
//
// Of the local-use NAT64 prefix only the /96 form is read (RFC 6052 section
// 2.2 has more); the others read so give addresses in 0.0.0.0/8, which are
// denied until a rule names the very addresses.
var embeddings = [...]embedding{
	{form: "IPv4-compatible", prefix: netip.MustParsePrefix("::/96"), offset: 12},           // RFC 4291 section 2.5.5.1
	{form: "IPv4-translated", prefix: netip.MustParsePrefix("::ffff:0:0:0/96"), offset: 12}, // RFC 2765 section 2.1
	{form: "NAT64", prefix: netip.MustParsePrefix("64:ff9b::/96"), offset: 12},              // RFC 6052 section 2.1
	{form: "local-use NAT64", prefix: netip.MustParsePrefix("64:ff9b:1::/48"), offset: 12},  // RFC 8215
	{form: "6to4", prefix: netip.MustParsePrefix("2002::/16"), offset: 2},                   // RFC 3056 section 2
	{form: "Teredo server", prefix: netip.MustParsePrefix("2001::/32"), offset: 4},          // RFC 4380 section 4
	{form: "Teredo client", prefix: netip.MustParsePrefix("2001::/32"), offset: 12, inverted: true},
	{form: "ISATAP", offset: 12}, // RFC 5214 section 6.1
}

// holds reports whether a has this form.
func (e *embedding) holds(a netip.Addr, b *[16]byte) bool {
	if e.prefix.IsValid() {
		return e.prefix.Contains(a)
	}
	// The interface identifier 0000:5efe or, globally unique, 0200:5efe; the
	// group bit has no meaning in it and is looked past.
	return b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// extract returns the hidden address.
func (e *embedding) extract(b *[16]byte) netip.Addr {
	v4 := [4]byte(b[e.offset : e.offset+4])
	if e.inverted {
		for i := range v4 {
			v4[i] ^= 0xff
		}
	}
	return netip.AddrFrom4(v4)
}

// special is one special-purpose range.
type special struct {
	prefix  netip.Prefix
	purpose string // for a person, with the document that sets it aside
	bits    int    // of prefix
}

// specials finds the most specific special range of an address.
var specials = specialTable()

func specialTable() *bart.Table[*special] {
	t := new(bart.Table[*special])
	for i := range specialRanges {
		s := &specialRanges[i]
		s.bits = s.prefix.Bits()
		t.Insert(s.prefix, s)
	}
	return t
}
