package socks

import (
	"encoding/binary"
	"net/netip"
)

// Header is what stands in front of each datagram between a client and its UDP relay (RFC 1928 section 7). Decoding one
// allocates nothing.
type Header struct {
	// Frag is FRAG: 0 for a datagram of its own, else the position in a sequence of fragments, which few implement.
	Frag byte
	// IP is DST.ADDR without a zone, as it was on the wire; invalid where Name is set.
	IP netip.Addr
	// Name is DST.ADDR as the client wrote it, 1 to 255 octets without NUL and control characters. It lies in the
	// datagram.
	Name []byte
	// Port is DST.PORT, in host order.
	Port uint16
	// Address is ATYP, DST.ADDR and DST.PORT as they are on the wire. It lies in the datagram, and may serve as a key.
	Address []byte
}

// headerStart is the length of RSV and FRAG.
const headerStart = 3

// ParseHeader decodes RSV, FRAG, ATYP, DST.ADDR and DST.PORT. n is their length; the payload, which may be empty, is the
// rest. The error is an ErrMalformed, or ErrAddressType: a datagram comes whole or not at all.
func ParseHeader(b []byte) (h Header, n int, err error) {
	if len(b) < headerStart+2 {
		return h, 0, errShortHeader
	}
	if b[0] != 0 || b[1] != 0 {
		return h, 0, errReserved
	}
	h.Frag = b[2]
	host, end := headerStart+1, 0 // where the address stands
	switch b[headerStart] {
	case addrIPv4:
		end = host + 4
	case addrIPv6:
		end = host + 16
	case addrName:
		host++
		end = host + int(b[host-1])
	default:
		return h, 0, ErrAddressType
	}
	if n = end + 2; len(b) < n {
		return h, 0, errShortHeader
	}
	switch octets := b[host:end]; {
	case b[headerStart] != addrName:
		h.IP, _ = netip.AddrFromSlice(octets)
	case len(octets) == 0:
		return h, 0, errNoName
	case hasControl(octets):
		return h, 0, errControl
	default:
		h.Name = octets
	}
	h.Port = binary.BigEndian.Uint16(b[end:])
	h.Address = b[headerStart:n]
	return h, n, nil
}

// Faults of a header. Whoever floods us with them must not cost an allocation each.
var (
	errShortHeader = malformed("the datagram ends within its header")
	errReserved    = malformed("RSV of the datagram is not 0")
	errNoName      = malformed("the domain name has length zero")
	errControl     = malformed("the domain name holds NUL or a control character")
)

// AppendHeader encodes the header of a datagram from or to an address, whose zone is left out. FRAG is 0.
func AppendHeader(dst []byte, a netip.AddrPort) []byte {
	dst = append(dst, 0, 0, 0)
	if ip := a.Addr(); ip.Is4() {
		v4 := ip.As4()
		dst = append(append(dst, addrIPv4), v4[:]...)
	} else {
		v6 := ip.As16()
		dst = append(append(dst, addrIPv6), v6[:]...)
	}
	return binary.BigEndian.AppendUint16(dst, a.Port())
}

// AppendNameHeader is AppendHeader for a name of 1 to MaxName octets, which the relay resolves.
func AppendNameHeader(dst []byte, name string, port uint16) []byte {
	dst = append(dst, 0, 0, 0, addrName, byte(len(name)))
	return binary.BigEndian.AppendUint16(append(dst, name...), port)
}
