package http1

import (
	"bytes"
	"net/netip"
)

// Form is the form of a request-target (RFC 9112 section 3.2).
type Form uint8

// The four forms.
const (
	OriginForm    Form = iota // "/where?q=now"
	AbsoluteForm              // "http://www.example.org/pub"
	AuthorityForm             // "www.example.com:80", CONNECT only
	AsteriskForm              // "*", OPTIONS only
)

// String returns the RFC's name of the form.
func (f Form) String() string {
	switch f {
	case OriginForm:
		return "origin-form"
	case AbsoluteForm:
		return "absolute-form"
	case AuthorityForm:
		return "authority-form"
	case AsteriskForm:
		return "asterisk-form"
	}
	return "invalid form"
}

// Target is a request-target, split. Its slices point into what was parsed (of a
// Request: the buffer of its Reader, see Fields). Nothing is decoded or normalised.
type Target struct {
	Form Form
	// Raw is the request-target as it was sent.
	Raw []byte
	// Scheme is the scheme as it was sent, in any case; absolute-form only.
	Scheme []byte
	// Authority is host and port as they were sent; absolute-form and
	// authority-form. There is never userinfo in it: a target that has any is
	// refused (RFC 9110 section 4.2.4), since it serves only to deceive.
	Authority []byte
	// Host is the host of the authority, never empty there; an IPv6 literal keeps
	// its brackets.
	Host []byte
	// Port is the digits behind the host. It is empty if none were sent, which only
	// absolute-form allows, and at most 65535.
	Port []byte
	// PathQuery is what follows the authority: "", "/path", "?query" or
	// "/path?query"; in origin-form all of the target.
	PathQuery []byte
}

var (
	errTargetBytes     = &ParseError{400, "the request target has a byte that is not visible US-ASCII, or a fragment"}
	errTargetForm      = &ParseError{400, "the request target is neither a path, nor an absolute URI, nor an asterisk for OPTIONS"}
	errTargetAuthority = &ParseError{400, "the authority of the request target is malformed"}
	errTargetUserinfo  = &ParseError{400, "the request target carries a user name or password, which belong in a header"}
	errConnectTarget   = &ParseError{400, "the target of CONNECT is not host:port"}
)

// ParseTarget splits the request-target of a request with that method. Malformed
// percent-encodings and characters that a URI should encode pass: origins are asked
// with them every day and they separate nothing. A fragment does not pass. The error is
// a *ParseError.
func ParseTarget(method string, raw []byte) (Target, error) {
	t := Target{Raw: raw}
	if len(raw) == 0 || !all(raw, uriText) || bytes.IndexByte(raw, '#') >= 0 {
		return Target{}, errTargetBytes
	}
	switch {
	case method == "CONNECT":
		return t.parseAuthorityForm()
	case raw[0] == '/':
		t.PathQuery = raw
		return t, nil
	case method == "OPTIONS" && len(raw) == 1 && raw[0] == '*':
		t.Form = AsteriskForm
		return t, nil
	}
	return t.parseAbsoluteForm()
}

func (t Target) parseAuthorityForm() (Target, error) {
	host, port, ok := SplitHostPort(t.Raw)
	if !ok || len(host) == 0 || len(port) == 0 {
		return Target{}, errConnectTarget
	}
	t.Form, t.Authority, t.Host, t.Port = AuthorityForm, t.Raw, host, port
	return t, nil
}

func (t Target) parseAbsoluteForm() (Target, error) {
	scheme, rest, ok := bytes.Cut(t.Raw, []byte("://"))
	if !ok || !isScheme(scheme) {
		return Target{}, errTargetForm
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority := rest[:end:end]
	if bytes.IndexByte(authority, '@') >= 0 {
		return Target{}, errTargetUserinfo
	}
	if t.Host, t.Port, ok = SplitHostPort(authority); !ok || len(t.Host) == 0 {
		return Target{}, errTargetAuthority
	}
	t.Form, t.Scheme, t.Authority, t.PathQuery = AbsoluteForm, scheme, authority, rest[end:]
	return t, nil
}

// isScheme checks a scheme (RFC 3986 section 3.1).
func isScheme(b []byte) bool {
	return len(b) > 0 && lower[b[0]] >= 'a' && lower[b[0]] <= 'z' && all(b, schemeText)
}

// PortOr returns the port as a number, or def if the target names none.
func (t *Target) PortOr(def uint16) uint16 {
	if n, ok := parseDigits(t.Port); ok {
		return uint16(n)
	}
	return def
}

// AppendOriginForm appends to b what an origin is sent (RFC 9112 section 3.2.4): path
// and query, "/" for an empty path, "*" for OPTIONS with neither.
func (t *Target) AppendOriginForm(b []byte, method string) []byte {
	switch {
	case t.Form == AsteriskForm || len(t.PathQuery) == 0 && method == "OPTIONS":
		return append(b, '*')
	case len(t.PathQuery) == 0:
		return append(b, '/')
	case t.PathQuery[0] == '?':
		b = append(b, '/')
	}
	return append(b, t.PathQuery...)
}

// SplitHostPort splits "host", "host:" or "host:port" as it may stand in a Host field.
// An IPv6 literal keeps its brackets. ok is false for anything that is not an authority
// without userinfo; an empty value is fine and has an empty host. Percent-encoding is
// refused in a name: no name that can be resolved needs it.
func SplitHostPort(value []byte) (host, port []byte, ok bool) {
	end := bytes.IndexByte(value, ':')
	if len(value) > 0 && value[0] == '[' {
		end = bytes.IndexByte(value, ']') + 1
		if end == 0 || !isIPv6(value[1:end-1]) {
			return nil, nil, false
		}
	} else {
		if end < 0 {
			end = len(value)
		}
		if !all(value[:end], hostText) {
			return nil, nil, false
		}
	}
	host, port = value[:end:end], value[end:]
	if len(port) == 0 {
		return host, nil, true
	}
	if port[0] != ':' || len(host) == 0 {
		return nil, nil, false
	}
	if port = port[1:]; len(port) == 0 {
		return host, nil, true
	}
	n, ok := parseDigits(port)
	if !ok || len(port) > 5 || n > 65535 {
		return nil, nil, false
	}
	return host, port, true
}

// isIPv6 checks what stands between brackets: an IPv6 address, perhaps with a zone (RFC
// 6874). The IPvFuture of RFC 3986 never came.
func isIPv6(b []byte) bool {
	addr, zone, hasZone := bytes.Cut(b, []byte("%25"))
	if hasZone && (len(zone) == 0 || !all(zone, hostText)) {
		return false
	}
	a, err := netip.ParseAddr(string(addr))
	return err == nil && a.Is6() && a.Zone() == ""
}
