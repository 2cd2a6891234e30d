package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Prefix is a set of addresses: "10.0.0.0/8", or one address, "192.0.2.1".
// Host bits are a fault, since nobody can tell whether the host or its network was meant.
type Prefix struct{ netip.Prefix }

// UnmarshalText reads a prefix.
func (p *Prefix) UnmarshalText(text []byte) error {
	parsed, err := parsePrefix(string(text))
	if err != nil {
		return err
	}
	p.Prefix = parsed
	return nil
}

func (Prefix) wanted() string { return `an address or a prefix in quotes, such as "10.0.0.0/8"` }

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := parseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%s has a zone, and clients are compared without one: write %q", quote(s), a.WithZone(""))
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf(`%s is not a prefix: write an address and a length, such as "10.0.0.0/8" or "2001:db8::/32"`, quote(s))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, mappedPrefix(s, p)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has host bits set: write %q for the network, or %q for the one address", quote(s), p.Masked(), p.Addr())
	}
	return p, nil
}

// mappedPrefix refuses an IPv4-mapped prefix: clients and targets are compared
// as IPv4 addresses, so it would never match.
func mappedPrefix(s string, p netip.Prefix) error {
	const mappedBits = 96 // RFC 4291 section 2.5.5.2
	if p.Bits() < mappedBits {
		return fmt.Errorf("%s covers IPv4-mapped addresses, which are compared as IPv4: write an IPv4 prefix", quote(s))
	}
	v4 := netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits).Masked()
	return fmt.Errorf("%s is an IPv4-mapped prefix, which is compared as IPv4: write %q", quote(s), v4)
}

// parseAddr reads an address in its plain spelling.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf(`%s is not an IP address: write one such as "192.0.2.1" or "2001:db8::1"`, quote(s))
	}
	if a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is an IPv4-mapped address, which is compared as IPv4: write %q", quote(s), a.Unmap())
	}
	return a, nil
}

// PortRange is an inclusive range of ports: "80", or "8000-8999". The zero value is none, or in an AddrRange port 0.
type PortRange struct{ First, Last uint16 }

// IsZero reports whether the range is the zero value.
func (r PortRange) IsZero() bool { return r == PortRange{} }

// overlap returns the ports that two ranges share. Port 0 is nobody's.
func (r PortRange) overlap(o PortRange) (PortRange, bool) {
	shared := PortRange{max(r.First, o.First), min(r.Last, o.Last)}
	return shared, shared.First <= shared.Last && shared.Last != 0
}

// String returns the range as it is written.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// UnmarshalText reads a range of ports from 1 to 65535.
func (r *PortRange) UnmarshalText(text []byte) error {
	parsed, err := parsePorts(string(text))
	if err != nil {
		return err
	}
	if parsed.First == 0 {
		return fmt.Errorf("%s: port 0 is not a port that anyone can connect to", quote(string(text)))
	}
	*r = parsed
	return nil
}

func (PortRange) wanted() string { return `a port or a range of ports in quotes, such as "8000-8999"` }

func parsePorts(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	lo, err := parsePort(first)
	if err != nil {
		return PortRange{}, fmt.Errorf(`%s is not a port: write a number up to 65535, or a range such as "8000-8999"`, quote(s))
	}
	if !isRange {
		return PortRange{lo, lo}, nil
	}
	hi, err := parsePort(last)
	if err != nil {
		return PortRange{}, fmt.Errorf(`%s is not a range of ports: write two numbers up to 65535, such as "8000-8999"`, quote(s))
	}
	if hi < lo {
		return PortRange{}, fmt.Errorf("%s is a range that ends before it begins: write \"%d-%d\"", quote(s), hi, lo)
	}
	return PortRange{lo, hi}, nil
}

// parsePort reads digits and nothing else: no sign, no space.
func parsePort(s string) (uint16, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("not a number")
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

// AddrRange is an address to listen on with a port or a range of ports:
// "127.0.0.1:7659", "[::]:7659", "0.0.0.0:7000-7010". Port 0 lets the system choose.
type AddrRange struct {
	Addr  netip.Addr
	Ports PortRange
}

// String returns the range as it is written.
func (r AddrRange) String() string {
	if r.Addr.Is6() {
		return "[" + r.Addr.String() + "]:" + r.Ports.String()
	}
	return r.Addr.String() + ":" + r.Ports.String()
}

// UnmarshalText reads an address with ports.
func (r *AddrRange) UnmarshalText(text []byte) error {
	parsed, err := parseAddrRange(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

func (AddrRange) wanted() string { return `an address and a port in quotes, such as "127.0.0.1:7659"` }

func parseAddrRange(s string) (AddrRange, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return AddrRange{}, fmt.Errorf(`%s is not an address and a port: write one such as "127.0.0.1:7659"`, quote(s))
	}
	host, port := s[:i], s[i+1:]
	addr, err := parseListenHost(s, host, port)
	if err != nil {
		return AddrRange{}, err
	}
	ports, err := parsePorts(port)
	if err != nil {
		return AddrRange{}, fmt.Errorf("%s: %w", quote(s), err)
	}
	if ports.First == 0 && ports.Last != 0 {
		return AddrRange{}, fmt.Errorf("%s: port 0 lets the system choose one and cannot begin a range", quote(s))
	}
	return AddrRange{addr, ports}, nil
}

// parseListenHost reads the part before the port.
func parseListenHost(whole, host, port string) (netip.Addr, error) {
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		if inner, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return netip.Addr{}, fmt.Errorf("%s has an opening bracket and no closing one", quote(whole))
		}
	}
	switch {
	case host == "" || host == "*":
		return netip.Addr{}, fmt.Errorf("%s names no address: write %q, and %q for IPv6", quote(whole), "0.0.0.0:"+port, "[::]:"+port)
	case strings.EqualFold(host, "localhost"):
		return netip.Addr{}, fmt.Errorf("%s is a name, and a listener needs an address: write %q", quote(whole), "127.0.0.1:"+port)
	}
	a, err := parseAddr(inner)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: %w", quote(whole), err)
	}
	if a.Is6() != bracketed {
		return netip.Addr{}, fmt.Errorf("%s: only an IPv6 address stands in brackets, and always does, as in \"[::1]:7659\"", quote(whole))
	}
	return a, nil
}

// sockets returns the addresses of the range one by one.
func (r AddrRange) sockets() []netip.AddrPort {
	all := make([]netip.AddrPort, 0, int(r.Ports.Last)-int(r.Ports.First)+1)
	for p := int(r.Ports.First); p <= int(r.Ports.Last); p++ {
		all = append(all, netip.AddrPortFrom(r.Addr, uint16(p)))
	}
	return all
}
