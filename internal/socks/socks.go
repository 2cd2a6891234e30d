// Package socks is the SOCKS protocol on the wire: version 4 as in the memo
// "SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee), 4a as in
// "SOCKS 4A: A Simple Extension to SOCKS 4 Protocol" (the same author), version 5
// (RFC 1928) and its username/password authentication (RFC 1929). It encodes and
// decodes every message in both directions, for our server side, for upstreams and for
// the doctor.
//
// Each message has a Parse function, which is pure: it looks at the bytes that have come,
// says how many of them the message took, and never takes more. Reader drives them over a
// connection. The package knows no policy, dials nothing and resolves nothing.
// ParseHeader and AppendHeader are for the datagrams of UDP ASSOCIATE. GSSAPI (RFC 1961) is not part of the package.
package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// VER of a SOCKS5 message (RFC 1928 section 3), VN of a SOCKS4 request (the memo).
const (
	Version4 = 0x04
	Version5 = 0x05
)

// Errors of the Parse functions; test with errors.Is.
var (
	// ErrShort says that the message is not complete yet. It comes unwrapped, and the
	// int beside it is the least length in octets that the message can still have.
	ErrShort = errors.New("the message is incomplete")
	// ErrMalformed says that no further octet can make these octets a message.
	ErrMalformed = errors.New("malformed SOCKS message")
	// ErrAddressType says that ATYP is none of 1, 3 and 4, which RFC 1928 section 6
	// answers with REP 08. It is an ErrMalformed too, since the message's end is unknown.
	ErrAddressType = fmt.Errorf("%w: unknown address type", ErrMalformed)
)

// malformed makes an ErrMalformed that says what is wrong.
func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// Command is CMD of a SOCKS5 request (RFC 1928 section 4) and CD of a SOCKS4
// request (the memo), which agree in the two that both have.
type Command byte

// The commands.
const (
	Connect      Command = 0x01
	Bind         Command = 0x02
	UDPAssociate Command = 0x03 // SOCKS5 only
)

// String returns the command as rules and logs name it: "CONNECT", "BIND" or
// "UDP", or "0xf0" for one that no standard knows.
func (c Command) String() string {
	switch c {
	case Connect:
		return "CONNECT"
	case Bind:
		return "BIND"
	case UDPAssociate:
		return "UDP"
	}
	return fmt.Sprintf("%#02x", byte(c))
}

// Address is DST.ADDR with DST.PORT or BND.ADDR with BND.PORT. Either Name or IP
// is set. It is a comparable value; the zero value cannot be encoded.
type Address struct {
	// Name is a domain name as the client wrote it, 1 to 255 octets without NUL and
	// control characters. Nothing else is known about it.
	Name string
	// IP is an address without a zone. It is as it was on the wire: an IPv4 address mapped
	// into IPv6 stays one.
	IP netip.Addr
	// Port is in host order.
	Port uint16
}

// Host returns the name, or the address in its usual spelling.
func (a Address) Host() string {
	if a.IP.IsValid() {
		return a.IP.String()
	}
	return a.Name
}

// String returns "host:port", for messages. A name stands as the client wrote it,
// so quote what goes to a person.
func (a Address) String() string {
	if a.IP.IsValid() {
		return netip.AddrPortFrom(a.IP, a.Port).String()
	}
	return fmt.Sprintf("%s:%d", a.Name, a.Port)
}

// ATYP (RFC 1928 section 5).
const (
	addrIPv4 = 0x01
	addrName = 0x03
	addrIPv6 = 0x04
)

// Lengths in octets.
const (
	// MaxName is the longest domain name: SOCKS5 gives its length one octet, and
	// SOCKS4a, which sets no bound, is held to the same.
	MaxName = 255
	// MaxUserID is the longest USERID of SOCKS4, which sets no bound itself.
	MaxUserID = 255
	// maxMessage is the longest of all messages, a SOCKS4a request.
	maxMessage = 8 + MaxUserID + 1 + MaxName + 1
)

// parseAddress reads ATYP, address and port (RFC 1928 section 5). With ErrShort the
// int is the least length.
func parseAddress(b []byte) (a Address, n int, err error) {
	// Five octets are less than the shortest form has, so asking for them at once
	// never reads beyond the message.
	if len(b) < 2 {
		if len(b) == 1 && b[0] != addrIPv4 && b[0] != addrName && b[0] != addrIPv6 {
			return a, 0, ErrAddressType
		}
		return a, 5, ErrShort
	}
	host := 1 // where the address begins
	switch b[0] {
	case addrIPv4:
		n = 1 + 4 + 2
	case addrIPv6:
		n = 1 + 16 + 2
	case addrName:
		if b[1] == 0 {
			return a, 0, malformed("the domain name has length zero")
		}
		host, n = 2, 2+int(b[1])+2
	default:
		return a, 0, ErrAddressType
	}
	if len(b) < n {
		return a, n, ErrShort
	}
	switch octets := b[host : n-2]; b[0] {
	case addrName:
		if hasControl(octets) {
			return a, 0, malformed("the domain name holds NUL or a control character")
		}
		a.Name = string(octets)
	default:
		a.IP, _ = netip.AddrFromSlice(octets)
	}
	a.Port = binary.BigEndian.Uint16(b[n-2:])
	return a, n, nil
}

// appendAddress appends ATYP, address and port.
func appendAddress(dst []byte, a Address) ([]byte, error) {
	switch {
	case a.IP.IsValid() && a.Name != "":
		return nil, errors.New("encode a SOCKS address: it has both a name and an IP address")
	case a.IP.Is4():
		v4 := a.IP.As4()
		dst = append(append(dst, addrIPv4), v4[:]...)
	case a.IP.IsValid():
		v6 := a.IP.As16()
		dst = append(append(dst, addrIPv6), v6[:]...)
	default:
		if err := checkName(a.Name); err != nil {
			return nil, err
		}
		dst = append(append(dst, addrName, byte(len(a.Name))), a.Name...)
	}
	return binary.BigEndian.AppendUint16(dst, a.Port), nil
}

// checkName says why a name cannot be sent.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("encode a SOCKS address: it has neither a name nor an IP address")
	case len(name) > MaxName:
		return fmt.Errorf("encode a SOCKS address: the name has %d octets, the most is %d", len(name), MaxName)
	case hasControl(name):
		return fmt.Errorf("encode a SOCKS address: the name %q holds a control character", name)
	}
	return nil
}

// Bound returns the local address of a connection as a reply names it: without a zone, and
// IPv4 as IPv4. It is the zero AddrPort for what is not TCP.
func Bound(c net.Conn) netip.AddrPort { return plain(c.LocalAddr()) }

// Peer returns the remote address of a connection in the same way, for the second reply to BIND.
func Peer(c net.Conn) netip.AddrPort { return plain(c.RemoteAddr()) }

func plain(addr net.Addr) netip.AddrPort {
	a, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// hasControl reports whether s holds NUL, another control character of ASCII, or DEL.
func hasControl[S string | []byte](s S) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}
