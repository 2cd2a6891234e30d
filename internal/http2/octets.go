package http2

// octet is the set of grammar rules that a byte belongs to.
type octet uint8

const (
	nameText  octet = 1 << iota // tchar without upper case (RFC 9113 section 8.2.1)
	tchar                       // RFC 9110 section 5.6.2
	valueText                   // what a field value may hold; stricter than RFC 9113: no control bytes
	uriText                     // visible US-ASCII but "#": no fragment is sent (RFC 9113 section 8.3.1)
	schemeText
)

var octets = classifyOctets()

func classifyOctets() (t [256]octet) {
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	add := func(s string, o octet) {
		for i := range len(s) {
			t[s[i]] |= o
		}
	}
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= valueText
		}
		if c > ' ' && c < 0x7f && c != '#' {
			t[c] |= uriText
		}
	}
	add(lower+digits+"!#$%&'*+-.^_`|~", nameText|tchar)
	add(upper, tchar)
	add(lower+upper+digits+"+-.", schemeText)
	return t
}

// all reports whether every byte of s belongs to the rule o.
func all(s string, o octet) bool {
	for i := range len(s) {
		if octets[s[i]]&o == 0 {
			return false
		}
	}
	return true
}

// validName reports whether s may be the name of a field.
func validName(s string) bool { return len(s) > 0 && all(s, nameText) }

// validValue reports whether s may be the value of a field: there is no white space
// around it (RFC 9113 section 8.2.1).
func validValue(s string) bool {
	return len(s) == 0 || all(s, valueText) && !isSpace(s[0]) && !isSpace(s[len(s)-1])
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// parseLength returns the value of a content-length: 1*DIGIT, at most 18 of them.
func parseLength(s string) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
