// Package target holds the normalised destination of a session: a host name
// or an IP address, and a port. Everything that decides or dials works on this
// one spelling, so no two parts of the gateway can disagree about where a
// client asked to go.
//
// The normal form of a name is lower case, without the trailing dot, in
// A-labels (RFC 5890 section 2.3.2.1, mapped by UTS #46). The normal form of
// an address is a netip.Addr, unmapped and without a zone, whichever spelling
// of inet_aton or of RFC 4291 the client chose. The package never resolves.
package target

import (
	"net/netip"
	"strconv"
	"strings"
)

// Target is where a client asked to go. It is a comparable value; the zero
// value is invalid.
type Target struct {
	host string     // lower case, no trailing dot, A-labels; "" when addr is set
	addr netip.Addr // unmapped, no zone; invalid when host is set
	port uint16
}

// Parse reads "host:port" as it stands in a CONNECT request (RFC 9110 section
// 9.3.6). The port is required and an IPv6 address needs its brackets. The
// error is an *Error.
func Parse(hostport string) (Target, error) {
	host, port, err := splitAuthority(hostport)
	if err != nil {
		return Target{}, err
	}
	if port == "" {
		return Target{}, fault(hostport, "it has no port; write host:port, such as example.com:443")
	}
	return join(hostport, host, port)
}

// ParseAuthority reads the authority of an absolute URI (RFC 3986 section 3.2),
// whose port may be absent or empty: then it is defaultPort, the scheme's own.
// User information is refused (RFC 9110 section 4.2.4). The error is an *Error.
func ParseAuthority(authority string, defaultPort uint16) (Target, error) {
	host, port, err := splitAuthority(authority)
	if err != nil {
		return Target{}, err
	}
	if port == "" {
		return New(host, defaultPort)
	}
	return join(authority, host, port)
}

// New normalises host (a name, or an IP address in any spelling that some
// system resolver would accept; IPv6 with or without brackets) and joins it
// with port, which must not be 0. The error is an *Error.
//
// Refused are a zone ("fe80::1%eth0": it names an interface of the client's
// machine, not of ours), brackets around anything but IPv6, and a name whose
// last label is a number without being an IPv4 address.
func New(host string, port uint16) (Target, error) {
	if port == 0 {
		return Target{}, fault(host, "port 0 cannot be connected to; ports are 1 to 65535")
	}
	return NewPeer(host, port)
}

// NewPeer is New for somebody who is to connect to us (BIND, RFC 1928 section 4): port 0 says that the client
// does not know from which port, and an unspecified address that it does not know who.
func NewPeer(host string, port uint16) (Target, error) {
	if strings.IndexByte(host, '@') >= 0 {
		return Target{}, faultByte(host, '@')
	}
	if strings.IndexByte(host, ':') >= 0 || strings.HasPrefix(host, "[") {
		a, err := parseIPv6(host)
		if err != nil {
			return Target{}, err
		}
		return Target{addr: a, port: port}, nil
	}
	name, err := normalName(host)
	if err != nil {
		return Target{}, err
	}
	if !endsInNumber(name) {
		return Target{host: name, port: port}, nil
	}
	a, ok := parseIPv4(name)
	if !ok {
		return Target{}, fault(host, "its last label is a number, but it is not an IPv4 address")
	}
	return Target{addr: a, port: port}, nil
}

// FromAddrPort makes a Target of an address, unmapped and without its zone. An
// invalid address makes the zero Target.
func FromAddrPort(ap netip.AddrPort) Target {
	if !ap.Addr().IsValid() {
		return Target{}
	}
	return Target{addr: ap.Addr().Unmap().WithZone(""), port: ap.Port()}
}

// Name makes a Target of a name that is not a DNS name: a raw row's name, port
// 0. The name is taken as it is.
func Name(row string) Target { return Target{host: row} }

// IsValid reports whether t is not the zero value.
func (t Target) IsValid() bool { return t.host != "" || t.addr.IsValid() }

// Host returns the name, or the address without brackets.
func (t Target) Host() string {
	if t.addr.IsValid() {
		return t.addr.String()
	}
	return t.host
}

// Addr returns the address and true if the client asked for an IP address.
func (t Target) Addr() (netip.Addr, bool) { return t.addr, t.addr.IsValid() }

// Port returns the port in host order; 0 only for a Name, and for a peer whose port nobody knows.
func (t Target) Port() uint16 { return t.port }

// String returns "host:port", IPv6 in brackets: the form that Parse reads. A
// name without a port is returned as it is; the zero Target is "".
func (t Target) String() string {
	switch {
	case t.addr.IsValid():
		return netip.AddrPortFrom(t.addr, t.port).String()
	case t.port == 0:
		return t.host
	}
	return t.host + ":" + strconv.Itoa(int(t.port))
}

// join makes a Target of the two halves of an authority.
func join(authority, host, port string) (Target, error) {
	n, ok := parsePort(port)
	if !ok {
		return Target{}, fault(authority, "its port is not a number from 1 to 65535")
	}
	return New(host, n)
}

// splitAuthority cuts "host", "host:port" or "[ipv6]:port" in two. The host
// keeps its brackets; the port is "" when there is none.
func splitAuthority(s string) (host, port string, err error) {
	switch {
	case s == "":
		return "", "", fault(s, "it is empty")
	case strings.IndexByte(s, '@') >= 0:
		return "", "", faultByte(s, '@')
	case s[0] == '[':
		return splitBrackets(s)
	}
	host, port, _ = strings.Cut(s, ":")
	if strings.IndexByte(port, ':') >= 0 {
		return "", "", fault(s, "it has more than one colon; an IPv6 address needs brackets, such as [2001:db8::1]:443")
	}
	if host == "" {
		return "", "", fault(s, "it has no host")
	}
	return host, port, nil
}

// splitBrackets cuts "[ipv6]" or "[ipv6]:port" in two.
func splitBrackets(s string) (host, port string, err error) {
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return "", "", fault(s, "its opening bracket is never closed")
	}
	host, rest := s[:end+1], s[end+1:]
	if rest == "" {
		return host, "", nil
	}
	if rest[0] != ':' {
		return "", "", fault(s, "only a colon and a port may follow the closing bracket")
	}
	return host, rest[1:], nil
}

// parsePort reads one to five decimal digits; anything else, and 0, is refused.
// strconv would take a sign and underscores.
func parsePort(s string) (port uint16, ok bool) {
	if s == "" || len(s) > 5 {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return uint16(n), n >= 1 && n <= 65535
}
