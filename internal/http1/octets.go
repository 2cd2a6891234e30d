package http1

import "encoding/binary"

// octet is the set of grammar rules that a byte belongs to.
type octet uint8

const (
	tchar     octet = 1 << iota // RFC 9110 section 5.6.2
	fieldText                   // field-vchar, SP and HTAB (RFC 9110 section 5.5)
	uriText                     // visible US-ASCII, what a request-target is made of
	hostText                    // unreserved and sub-delims (RFC 3986 section 3.2.2)
	hexDigit
	schemeText // RFC 3986 section 3.1, behind the first letter
)

var (
	octets = classifyOctets()
	lower  = lowerOctets()
)

func classifyOctets() (t [256]octet) {
	add := func(s string, o octet) {
		for i := range len(s) {
			t[s[i]] |= o
		}
	}
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= fieldText
		}
		if c > ' ' && c < 0x7f {
			t[c] |= uriText
		}
	}
	const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	add(alphanumeric+"!#$%&'*+-.^_`|~", tchar)
	add(alphanumeric+"-._~!$&'()*+,;=", hostText)
	add(alphanumeric+"+-.", schemeText)
	add("0123456789abcdefABCDEF", hexDigit)
	return t
}

func lowerOctets() (t [256]byte) {
	for c := range t {
		t[c] = byte(c)
		if c >= 'A' && c <= 'Z' {
			t[c] = byte(c) + 'a' - 'A'
		}
	}
	return t
}

// all reports whether every byte of b belongs to the rule o.
func all[T string | []byte](b T, o octet) bool {
	for i := range len(b) {
		if octets[b[i]]&o == 0 {
			return false
		}
	}
	return true
}

// validValue reports whether every byte of b may stand in a field value. It is all(b,
// fieldText), eight bytes at a time: most of a head is values.
func validValue(b []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		del := v ^ 0x7f*ones // a DEL becomes 0
		suspect := (v-' '*ones)&^v | (del-ones)&^del
		if suspect&tops != 0 && !all(b[:8], fieldText) {
			return false
		}
	}
	return all(b, fieldText)
}

// isToken reports whether b is a token (RFC 9110 section 5.6.2).
func isToken[T string | []byte](b T) bool { return len(b) > 0 && all(b, tchar) }

// trim returns b without the optional white space around it (RFC 9110 section 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// parseDigits returns the value of 1*DIGIT, at most 19 of them. ok is false for
// anything else and for what exceeds an int64.
func parseDigits(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var u uint64 // 19 digits always fit
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	return int64(u), u <= 1<<63-1
}
