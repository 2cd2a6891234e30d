package http2

import (
	"errors"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Head is the head of a request. It is valid by RFC 9113 sections 8.2 and 8.3, and so a
// CONNECT has an Authority only, unless it has a Protocol too (RFC 8441).
type Head struct {
	// The pseudo fields. Authority is that of the host field if there is no :authority.
	Method, Scheme, Authority, Path, Protocol string
	// Fields are the others in the order in which they came; cookie may be split into
	// several (RFC 9113 section 8.2.3), host is as it came.
	Fields []Field
	// Length is the content-length, or -1.
	Length int64
	// End says that there is no content: END_STREAM was on the head.
	End bool
}

// The faults of a head, for the log. They hold no byte of it.
var (
	errPseudoOrder     = errors.New("a pseudo field after a regular field")
	errPseudoUnknown   = errors.New("an unknown pseudo field")
	errPseudoTwice     = errors.New("a pseudo field twice")
	errPseudoMissing   = errors.New("a pseudo field is missing")
	errPseudoConnect   = errors.New("a pseudo field that CONNECT has not")
	errPseudoTrailer   = errors.New("a pseudo field in trailers")
	errMethod          = errors.New("a malformed :method")
	errScheme          = errors.New("a malformed :scheme")
	errAuthority       = errors.New("a malformed :authority")
	errPath            = errors.New("a malformed :path")
	errProtocol        = errors.New("a :protocol without CONNECT, or a malformed one")
	errName            = errors.New("a malformed field name")
	errValue           = errors.New("a malformed field value")
	errConnectionField = errors.New("a field of HTTP/1.1 connections")
	errTE              = errors.New("a te that is not trailers")
	errLength          = errors.New("a malformed content-length, or more than one")
	errLengthEnd       = errors.New("a content-length but no content")
	errLengthConnect   = errors.New("a content-length in CONNECT")
	errHost            = errors.New("a host that differs from :authority, or more than one")
)

// headParser puts together one Head.
type headParser struct {
	h       Head
	host    string
	hosts   int
	pseudos pseudo
}

// pseudo is a set of pseudo fields.
type pseudo uint8

const (
	pMethod pseudo = 1 << iota
	pScheme
	pAuthority
	pPath
	pProtocol
)

// parseHead makes the head of a request from its field lines, or says why it is
// malformed (RFC 9113 section 8.1.1).
func parseHead(lines []hpack.HeaderField, end bool) (Head, error) {
	p := headParser{h: Head{Length: -1, End: end}}
	regular := 0
	for regular < len(lines) && lines[regular].IsPseudo() {
		if err := p.pseudo(lines[regular]); err != nil {
			return Head{}, err
		}
		regular++
	}
	p.h.Fields = make([]Field, 0, len(lines)-regular)
	for _, f := range lines[regular:] {
		if err := p.field(f); err != nil {
			return Head{}, err
		}
	}
	return p.h, p.check()
}

// pseudo takes one pseudo field (RFC 9113 section 8.3.1).
func (p *headParser) pseudo(f hpack.HeaderField) error {
	var which pseudo
	var to *string
	valid := false
	var fault error
	switch f.Name {
	case ":method":
		which, to, valid, fault = pMethod, &p.h.Method, len(f.Value) > 0 && all(f.Value, tchar), errMethod
	case ":scheme":
		which, to, valid, fault = pScheme, &p.h.Scheme, validScheme(f.Value), errScheme
	case ":authority":
		which, to, valid, fault = pAuthority, &p.h.Authority, validAuthority(f.Value), errAuthority
	case ":path":
		which, to, valid, fault = pPath, &p.h.Path, len(f.Value) > 0 && all(f.Value, uriText), errPath
	case ":protocol":
		which, to, valid, fault = pProtocol, &p.h.Protocol, len(f.Value) > 0 && all(f.Value, tchar), errProtocol
	default:
		return errPseudoUnknown
	}
	if !valid {
		return fault
	}
	if p.pseudos&which != 0 {
		return errPseudoTwice
	}
	p.pseudos |= which
	*to = f.Value
	return nil
}

// validScheme follows RFC 3986 section 3.1.
func validScheme(s string) bool {
	return len(s) > 0 && all(s, schemeText) && (s[0]|0x20) >= 'a' && (s[0]|0x20) <= 'z'
}

// validAuthority refuses user information (RFC 9113 section 8.3.1) and what cannot stand
// in an authority. The rest is for who resolves it.
func validAuthority(s string) bool { return all(s, uriText) && !strings.ContainsAny(s, `@/?\`) }

// field takes one regular field (RFC 9113 section 8.2).
func (p *headParser) field(f hpack.HeaderField) error {
	if err := checkField(f.Name, f.Value); err != nil {
		return err
	}
	switch f.Name {
	case "te":
		if f.Value != "trailers" {
			return errTE
		}
	case "content-length":
		n, ok := parseLength(f.Value)
		if !ok || p.h.Length >= 0 {
			return errLength
		}
		p.h.Length = n
	case "host":
		p.host = f.Value
		p.hosts++
	}
	p.h.Fields = append(p.h.Fields, Field{f.Name, f.Value})
	return nil
}

// checkField is what holds for any field line of any message.
func checkField(name, value string) error {
	switch {
	case len(name) > 0 && name[0] == ':':
		return errPseudoOrder
	case !validName(name):
		return errName
	case !validValue(value):
		return errValue
	case isConnectionField(name):
		return errConnectionField
	}
	return nil
}

// isConnectionField reports whether a field is about a connection of HTTP/1.1 (RFC 9113
// section 8.2.2).
func isConnectionField(name string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// check looks at the head as a whole.
func (p *headParser) check() error {
	if err := p.checkPseudos(); err != nil {
		return err
	}
	h := &p.h
	switch {
	case h.Method == "CONNECT" && h.Length > 0:
		return errLengthConnect
	case h.End && h.Length > 0:
		return errLengthEnd
	case !p.checkHost():
		return errHost
	case h.Authority == "" && (h.Method == "CONNECT" || isHTTP(h.Scheme)):
		return errAuthority
	case h.Method == "CONNECT" && h.Protocol == "":
		return nil
	case isHTTP(h.Scheme) && h.Path[0] != '/' && (h.Path != "*" || h.Method != "OPTIONS"):
		return errPath
	}
	return nil
}

// checkPseudos follows RFC 9113 sections 8.3.1 and 8.5 and RFC 8441 section 4.
func (p *headParser) checkPseudos() error {
	const request, extended = pMethod | pScheme | pPath, pMethod | pScheme | pPath | pAuthority | pProtocol
	switch {
	case p.pseudos&pProtocol != 0 && p.h.Method != "CONNECT":
		return errProtocol
	case p.pseudos&pProtocol != 0 && p.pseudos != extended:
		return errPseudoMissing
	case p.pseudos&pProtocol != 0:
		return nil
	case p.h.Method == "CONNECT" && p.pseudos&^(pMethod|pAuthority) != 0:
		return errPseudoConnect
	case p.h.Method == "CONNECT" && p.pseudos != pMethod|pAuthority:
		return errPseudoMissing
	case p.h.Method != "CONNECT" && p.pseudos&request != request:
		return errPseudoMissing
	}
	return nil
}

// checkHost reports whether host names what :authority names (RFC 9113 section 8.3.1),
// and puts it in its place if there is none.
func (p *headParser) checkHost() bool {
	h := &p.h
	switch {
	case p.hosts > 1 || p.hosts == 1 && !validAuthority(p.host):
		return false
	case p.hosts == 0:
		return true
	case p.pseudos&pAuthority == 0:
		h.Authority = p.host
		return true
	}
	return strings.EqualFold(withoutPort(p.host, h.Scheme), withoutPort(h.Authority, h.Scheme))
}

// withoutPort returns an authority without the port that its scheme has anyway.
func withoutPort(authority, scheme string) string {
	switch {
	case strings.EqualFold(scheme, "http"):
		return strings.TrimSuffix(authority, ":80")
	case strings.EqualFold(scheme, "https"):
		return strings.TrimSuffix(authority, ":443")
	}
	return authority
}

func isHTTP(scheme string) bool {
	return strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
}

// parseTrailers makes trailers from their field lines (RFC 9113 section 8.1).
func parseTrailers(lines []hpack.HeaderField) ([]Field, error) {
	fields := make([]Field, 0, len(lines))
	for _, f := range lines {
		if f.IsPseudo() {
			return nil, errPseudoTrailer
		}
		if err := checkField(f.Name, f.Value); err != nil {
			return nil, err
		}
		fields = append(fields, Field{f.Name, f.Value})
	}
	return fields, nil
}

// checkHead is whether a status and fields may be written.
func checkHead(status int, fields []Field, end bool) bool {
	return status >= 100 && status <= 999 && status != 101 && (status >= 200 || !end) && checkFields(fields)
}

func checkFields(fields []Field) bool {
	for _, f := range fields {
		if checkField(f.Name, f.Value) != nil {
			return false
		}
	}
	return true
}
