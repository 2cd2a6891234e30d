package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// UDP is the [udp] table: what holds for UDP ASSOCIATE of SOCKS5 (RFC 1928 section 7) on every listener that serves it.
type UDP struct {
	// Advertise is the host name or the IP address, with or without a port, that replies name in place of the
	// address that the client connected to; "" is none. See File.Advertise.
	Advertise string `toml:"advertise" reload:"live"`
	// Ports holds the ports of associations that get one of their own. The zero value is none: every association
	// then uses the port number of its listener.
	Ports PortRange `toml:"ports" reload:"live"`
	// Filter is one of the Filter constants.
	Filter string `toml:"filter" reload:"live"`
	// Idle ends an association on which no datagram passes. Positive.
	Idle Duration `toml:"idle" reload:"live"`
	// Associations bounds those of the process, AssociationsPerClient those of one client address. At least 1.
	Associations          int `toml:"associations" reload:"live"`
	AssociationsPerClient int `toml:"associations_per_client" reload:"live"`
	// Targets bounds the targets that one association speaks to. At least 1.
	Targets int `toml:"targets" reload:"live"`
	// DatagramsPerSecond and BytesPerSecond bound what one client address sends and gets, both together; 0 is no limit.
	DatagramsPerSecond int  `toml:"datagrams_per_second" reload:"live"`
	BytesPerSecond     Size `toml:"bytes_per_second" reload:"live"`
}

// Values of UDP.Filter: whose datagrams reach the client (RFC 4787 section 5).
const (
	FilterEndpoint    = "endpoint"             // of exactly the addresses and ports that it spoke to
	FilterAddress     = "address"              // of any port of the addresses that it spoke to
	FilterIndependent = "endpoint-independent" // of everybody
)

// Serves reports whether the listener serves a row of the protocol table.
func (l Listener) Serves(row string) bool {
	return slices.Contains(l.Protocols, "*") || slices.Contains(l.Protocols, row)
}

// ServesUDP reports whether the listener serves UDP, on the port numbers of its addresses: what the file says, and
// only where the listener serves the row socks5.
func (f *File) ServesUDP(listener string) bool {
	l := f.Listen[listener]
	return l.UDP && l.Serves("socks5")
}

// Advertise returns what replies to UDP ASSOCIATE on the listener name as the gateway's address: [udp] advertise, else
// the listener's public_address. The host is a name or an IP address without brackets; "" means the address that the
// client connected to. The port stands for the listener's own and never for one of [udp] ports; 0 means no other than
// the one that is used. What Validate has refused gives "".
func (f *File) Advertise(listener string) (host string, port uint16) {
	s := f.UDP.Advertise
	if s == "" {
		s = f.Listen[listener].PublicAddress
	}
	if s == "" {
		return "", 0
	}
	host, port, err := parseAdvertised(s)
	if err != nil {
		return "", 0
	}
	return host, port
}

// parseAdvertised reads a host with or without a port. An IPv6 address stands in brackets if it has a port.
func parseAdvertised(s string) (host string, port uint16, err error) {
	bare := s
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		bare = "[" + s + "]"
	} else if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		if port, err = parsePort(s[i+1:]); err != nil || port == 0 {
			return "", 0, fmt.Errorf("%s does not end in a port from 1 to 65535", quote(s))
		}
		bare = s[:i]
	}
	if bare == "" {
		return "", 0, errors.New("there is no host before the port")
	}
	if err := checkHost(bare); err != nil {
		return "", 0, err
	}
	host = strings.TrimSuffix(strings.TrimPrefix(bare, "["), "]")
	return host, port, checkReachable(host)
}

// checkReachable refuses addresses that no client can send to. Of names nothing is known before they are resolved.
func checkReachable(host string) error {
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return nil
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone, which means nothing on another machine: write %q", quote(host), a.WithZone(""))
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped address: write %q", quote(host), a.Unmap())
	case a.IsUnspecified():
		return fmt.Errorf("%s is no address that a client could send to: write the one under which clients reach the gateway", quote(host))
	case a.IsMulticast():
		return fmt.Errorf("%s is a multicast address: write the one under which clients reach the gateway", quote(host))
	}
	return nil
}

func (f *File) checkUDP(errs *faults) {
	p, u := root.key("udp"), f.UDP
	if u.Advertise != "" {
		if _, _, err := parseAdvertised(u.Advertise); err != nil {
			errs.add(p.key("advertise"), err)
		}
	}
	checkEnum(errs, p.key("filter"), u.Filter, FilterEndpoint, FilterAddress, FilterIndependent)
	if u.Idle <= 0 {
		errs.addf(p.key("idle"), "this must be longer than 0: RFC 4787 (REQ-5) recommends 5 minutes")
	}
	checkCount(errs, p.key("associations"), u.Associations)
	checkCount(errs, p.key("associations_per_client"), u.AssociationsPerClient)
	checkCount(errs, p.key("targets"), u.Targets)
	if u.DatagramsPerSecond < 0 {
		errs.addf(p.key("datagrams_per_second"), "%d is negative: write 0 for no limit", u.DatagramsPerSecond)
	}
	f.checkUDPPorts(errs)
}

// checkUDPPorts refuses a range that holds the port of a listener, whose UDP socket has it already.
func (f *File) checkUDPPorts(errs *faults) {
	if f.UDP.Ports.IsZero() {
		return
	}
	for _, name := range f.ListenerNames() {
		if !f.ServesUDP(name) {
			continue
		}
		for i, a := range f.Listen[name].Address {
			if shared, ok := a.Ports.overlap(f.UDP.Ports); ok {
				errs.addf(root.key("udp").key("ports"), "%q and %q of %s share port %s: write a range that holds no port of a listener with UDP",
					f.UDP.Ports, a, root.key("listen").key(name).key("address").at(i), shared)
				return
			}
		}
	}
}
