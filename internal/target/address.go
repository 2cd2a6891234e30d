package target

import (
	"net/netip"
	"strings"
)

// parseIPv6 reads an IPv6 address (RFC 4291 section 2.2), in brackets or not. A
// mapped IPv4 address is unmapped. The error is an *Error.
func parseIPv6(host string) (netip.Addr, error) {
	bare := host
	if strings.HasPrefix(host, "[") {
		bare = strings.TrimSuffix(host[1:], "]")
		if len(bare) != len(host)-2 {
			return netip.Addr{}, fault(host, "its opening bracket is never closed")
		}
	}
	if strings.IndexByte(bare, '%') >= 0 {
		return netip.Addr{}, fault(host, "a zone (the part behind %) names an interface of one machine and is not allowed")
	}
	// Brackets around anything but IPv6 are no spelling of it (RFC 3986 section
	// 3.2.2); accepting them has let hosts slip past rules elsewhere.
	a, err := netip.ParseAddr(bare)
	if err != nil || !a.Is6() {
		return netip.Addr{}, fault(host, "it is not a valid IPv6 address")
	}
	return a.Unmap(), nil
}

// endsInNumber reports whether the last label of a normalised name is all
// digits or a hexadecimal number. No such top-level domain can exist (RFC 3696
// section 2), but resolvers read such names as addresses.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		for i := range len(hex) {
			if _, ok := digit(hex[i], 16); !ok {
				return false
			}
		}
		return true
	}
	for i := range len(last) {
		if !isDigit(last[i]) {
			return false
		}
	}
	return true
}

// parseIPv4 reads the spellings of inet_aton (POSIX inet_addr): one to four
// numbers in decimal, octal (0177) or hexadecimal (0x7f), of which the last
// fills all octets that are left. What implementations disagree on (an
// overflow, an 8 in an octal number, a bare 0x) is refused.
func parseIPv4(name string) (netip.Addr, bool) {
	var v uint64
	rest := name
	for part := 1; ; part++ {
		s, tail, more := strings.Cut(rest, ".")
		n, ok := number(s)
		switch {
		case !ok:
			return netip.Addr{}, false
		case !more:
			free := 8 * (5 - part) // bits that are left to the last number
			if n >= 1<<free {
				return netip.Addr{}, false
			}
			v = v<<free | n
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
		case n > 255 || part == 4:
			return netip.Addr{}, false
		}
		v = v<<8 | n
		rest = tail
	}
}

// number reads one number of an IPv4 address, of at most 32 bits.
func number(s string) (n uint64, ok bool) {
	base := uint64(10)
	switch {
	case strings.HasPrefix(s, "0x"):
		base, s = 16, s[2:]
	case len(s) > 1 && s[0] == '0':
		base, s = 8, s[1:]
	}
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		d, ok := digit(s[i], base)
		if !ok {
			return 0, false
		}
		if n = n*base + d; n > 1<<32-1 {
			return 0, false
		}
	}
	return n, true
}

// digit returns the value of a lower-case digit in base.
func digit(c byte, base uint64) (uint64, bool) {
	d := uint64(base)
	switch {
	case isDigit(c):
		d = uint64(c - '0')
	case 'a' <= c && c <= 'f':
		d = uint64(c-'a') + 10
	}
	return d, d < base
}
