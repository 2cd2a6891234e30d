package target

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// maxName and maxLabel are the limits of RFC 1035 section 2.3.4, in octets
	// of the text form without its trailing dot.
	maxName, maxLabel = 253, 63
	// maxInput bounds what is given to the IDNA tables, whose punycode is
	// quadratic: no name of 253 octets needs more UTF-8 than this.
	maxInput = 4 * (maxName + 1)
)

// lookup maps a name to A-labels by UTS #46, non-transitional, with the Bidi
// and joiner rules. Two of its own checks are off, since normalName judges
// the result: strict ASCII would refuse underscores, and the hyphen rule would
// refuse names that live ("r3---sn-x.example.com").
var lookup = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.StrictDomainName(false),
	idna.CheckHyphens(false),
)

// normalName returns the normal form of a name: lower case, A-labels, no
// trailing dot, letters, digits, hyphens and underscores only. The result may
// still be an IPv4 address in some spelling.
//
// Hyphens are allowed at the ends of inner labels, as the DNS has such hosts,
// but not in front of the name or of its last label: there no host has one,
// and some program would read an option or a signed number.
func normalName(host string) (string, error) {
	if len(host) > maxInput {
		return "", fault(host, "it is longer than a host name can be (253 octets)")
	}
	plain, err := scan(host)
	if err != nil {
		return "", err
	}
	name := host
	if plain {
		name = strings.ToLower(name) // allocates only where there is an upper-case letter
	} else if name, err = toASCII(host); err != nil {
		return "", err
	}
	name = strings.TrimSuffix(name, ".")
	if problem := checkLabels(name); problem != "" {
		return "", fault(host, problem)
	}
	return name, nil
}

// scan refuses ASCII that no host has, before anything is mapped, and reports
// whether the name is plain: it needs no IDNA.
func scan(host string) (plain bool, err error) {
	plain = true
	for i := range len(host) {
		c := host[i]
		switch {
		case c >= utf8.RuneSelf:
			plain = false
		case c != '.' && !isNameByte(lower(c)):
			return false, faultByte(host, c)
		case c|0x20 == 'x' && hasACE(host[i:]):
			plain = false
		}
	}
	if !plain && !utf8.ValidString(host) {
		return false, fault(host, "it is not valid UTF-8")
	}
	return plain, nil
}

// hasACE reports whether s begins with the prefix of an A-label, in any case.
// That it may stand inside a label only costs a needless look-up.
func hasACE(s string) bool { return len(s) >= 4 && strings.EqualFold(s[:4], "xn--") }

// toASCII maps host to A-labels. A result that maps on to something else is
// refused, so that a normal form is always its own normal form.
func toASCII(host string) (string, error) {
	name, err := lookup.ToASCII(host)
	if err != nil {
		return "", fault(host, "it is not a valid internationalised name (IDNA)")
	}
	if again, err := lookup.ToASCII(name); err != nil || again != name {
		return "", fault(host, "its internationalised form (IDNA) is ambiguous")
	}
	for i := range len(name) { // full-width forms map to any ASCII
		if name[i] != '.' && !isNameByte(name[i]) {
			return "", faultByte(host, name[i])
		}
	}
	return name, nil
}

// checkLabels says what is wrong with the length or the labels of a mapped
// name, or "".
func checkLabels(name string) string {
	switch {
	case name == "":
		return "it has no host"
	case len(name) > maxName:
		return "it is longer than a host name can be (253 octets)"
	case name[0] == '-':
		return "a host name cannot begin with a hyphen"
	}
	for rest := name; ; {
		label, tail, more := strings.Cut(rest, ".")
		switch {
		case label == "":
			return "it has an empty label (two dots in a row, or a dot in front)"
		case len(label) > maxLabel:
			return "it has a label of more than 63 octets"
		case !more && label[0] == '-':
			return "its last label cannot begin with a hyphen"
		case !more:
			return ""
		}
		rest = tail
	}
}

// isNameByte reports whether c may stand in a label of a normalised name:
// letters, digits, hyphen (RFC 1123 section 2.1) and the underscore, which
// service names and many real hosts use.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || isDigit(c) || c == '-' || c == '_'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// lower maps an ASCII letter to lower case.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// faultByte makes the Error of a host that holds c.
func faultByte(host string, c byte) *Error {
	switch {
	case c == '@':
		return fault(host, "a host cannot hold an @; user names and passwords are not allowed here")
	case c == '%':
		return fault(host, "a host cannot hold a percent sign: neither a zone nor percent-encoding is allowed")
	case c <= ' ' || c == 0x7f:
		return fault(host, "a host cannot hold spaces or control characters")
	}
	return fault(host, "a host cannot hold the character "+string(rune(c)))
}
