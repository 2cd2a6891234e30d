package resolve

import (
	"errors"
	"strings"
)

// The longest name and label in octets (RFC 1035 section 2.3.4), the name
// without its trailing dot.
const maxName, maxLabel = 253, 63

// normalName returns host in lower case and without its trailing dot. What the
// DNS cannot hold is an *Error; what merely should not be a host name (an
// underscore) is allowed, since such names live.
func normalName(host string) (string, error) {
	name := strings.TrimSuffix(host, ".")
	if problem := nameProblem(name); problem != "" {
		return "", &Error{Host: host, Kind: ErrName, Err: errors.New(problem)}
	}
	return strings.ToLower(name), nil // allocates only where there is an upper-case letter
}

func nameProblem(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > maxName:
		return "it is longer than 253 octets"
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		switch {
		case i == len(name) || name[i] == '.':
			if i == start {
				return "it has an empty label"
			}
			if i-start > maxLabel {
				return "it has a label of more than 63 octets"
			}
			start = i + 1
		case !isNameByte(name[i]):
			return "it holds a character that no host name has"
		}
	}
	return ""
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// IsLocalhost reports whether a name in normal form is one of this machine's wherever it is resolved (RFC 6761 section 6.3).
func IsLocalhost(host string) bool { return below(host, "localhost") }

// below reports whether name is zone or lies below it.
func below(name, zone string) bool {
	rest, ok := strings.CutSuffix(name, zone)
	return ok && (rest == "" || rest[len(rest)-1] == '.')
}
