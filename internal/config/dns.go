package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// DNS is the [dns] table.
type DNS struct {
	// Servers are asked as Mode says; none means the system's resolver.
	Servers []DNSServer `toml:"servers" reload:"live"`
	// Bootstrap holds the addresses of the names in Servers.
	Bootstrap map[string][]Addr `toml:"bootstrap" reload:"live"`
	// CA is the path of who is believed for tls:// and https:// servers, PEM; "" is the system's.
	CA string `toml:"ca" reload:"live"`
	// Mode is one of the Mode constants, Family one of the Family ones.
	Mode   string `toml:"mode" reload:"live"`
	Family string `toml:"family" reload:"live"`
	// Hosts holds names that are answered with these addresses and never asked for.
	Hosts map[string][]Addr `toml:"hosts" reload:"live"`
	// Cache is how many names are remembered; 0 is none.
	Cache int `toml:"cache" reload:"live"`
	// MinTTL and MaxTTL bound how long an answer is kept, NegativeTTL how long it is that a name does not exist.
	MinTTL      Duration `toml:"min_ttl" reload:"live"`
	MaxTTL      Duration `toml:"max_ttl" reload:"live"`
	NegativeTTL Duration `toml:"negative_ttl" reload:"live"`
	// ServeStale is how long after its end an answer serves while all servers fail (RFC 8767); 0 is not at all.
	ServeStale Duration `toml:"serve_stale" reload:"live"`
	// Prefetch looks names that are often asked for up again before they run out.
	Prefetch bool `toml:"prefetch" reload:"live"`
}

// Values of DNS.Mode.
const (
	ModeInOrder  = "in-order" // the next server when one fails
	ModeParallel = "parallel" // all at once; the first good answer counts
)

// Values of DNS.Family.
const (
	FamilyAny        = "any"
	FamilyPreferIPv4 = "prefer-ipv4"
	FamilyPreferIPv6 = "prefer-ipv6"
	FamilyOnlyIPv4   = "only-ipv4"
	FamilyOnlyIPv6   = "only-ipv6"
)

func defaultDNS() DNS {
	return DNS{
		Mode:        ModeInOrder,
		Family:      FamilyAny,
		Cache:       10_000,
		MinTTL:      seconds(1),
		MaxTTL:      Duration(time.Hour),
		NegativeTTL: seconds(5),
		ServeStale:  Duration(24 * time.Hour),
		Prefetch:    true,
	}
}

// Addr is an IP address in its plain spelling.
type Addr struct{ netip.Addr }

// UnmarshalText reads an address.
func (a *Addr) UnmarshalText(text []byte) error {
	parsed, err := parseAddr(string(text))
	if err != nil {
		return err
	}
	a.Addr = parsed
	return nil
}

func (Addr) wanted() string { return `an IP address in quotes, such as "192.0.2.1"` }

// DNSServer is a name server: "udp://192.0.2.53", "tcp://[2001:db8::53]:5353", "tls://dns.example" (RFC 7858),
// "https://dns.example/dns-query" (RFC 8484).
type DNSServer struct {
	Network string     // "udp", "tcp", "tls" or "https"
	Host    string     // a name in lower case, or an IP address without brackets
	Addr    netip.Addr // the address that Host is; invalid where it is a name, whose addresses are in DNS.Bootstrap
	Port    uint16     // 53, 853 or 443 where the file has none
	Path    string     // of https alone; "/dns-query" where the file has none
}

// String returns the server as it is written.
func (s DNSServer) String() string {
	return s.Network + "://" + net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) + s.Path
}

// Addrs returns where the server is: its own address, or those that bootstrap has for its name.
func (d DNS) Addrs(s DNSServer) []netip.AddrPort {
	if s.Addr.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(s.Addr, s.Port)}
	}
	var all []netip.AddrPort
	for name, addrs := range d.Bootstrap {
		if !strings.EqualFold(name, s.Host) {
			continue
		}
		for _, a := range addrs {
			all = append(all, netip.AddrPortFrom(a.Addr, s.Port))
		}
	}
	return all
}

// dnsNetworks are the schemes of name servers, with their default ports.
var dnsNetworks = map[string]uint16{"udp": 53, "tcp": 53, "tls": 853, "https": 443}

// defaultDNSPath is what most servers use; RFC 8484 leaves it to them.
const defaultDNSPath = "/dns-query"

// UnmarshalText reads a server.
func (s *DNSServer) UnmarshalText(text []byte) error {
	whole := string(text)
	network, rest, ok := strings.Cut(whole, "://")
	port, known := dnsNetworks[network]
	switch {
	case network == "system":
		return errors.New(`"system" is what holds when the list is empty: leave it out`)
	case !ok:
		return fmt.Errorf(`%s has no scheme: write one such as "udp://192.0.2.53:53"`, quote(whole))
	case network == "quic" || network == "h3":
		return fmt.Errorf("%s: %s is not supported by this version: write tls:// or https://", quote(whole), network)
	case !known:
		return fmt.Errorf("%s: unknown scheme %s%s", quote(whole), quote(network), oneOf(network, []string{"udp", "tcp", "tls", "https"}))
	}
	parsed := DNSServer{Network: network, Port: port}
	rest, err := parsed.cutPath(rest)
	if err == nil {
		err = parsed.setHost(rest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", quote(whole), err)
	}
	*s = parsed
	return nil
}

func (DNSServer) wanted() string { return `a name server in quotes, such as "udp://192.0.2.53:53"` }

// cutPath takes the path off and returns what stands before it.
func (s *DNSServer) cutPath(rest string) (host string, err error) {
	i := strings.IndexAny(rest, "/?#")
	if s.Network != "https" {
		if i >= 0 {
			return "", fmt.Errorf("only https:// has a path: leave %s out", quote(rest[i:]))
		}
		return rest, nil
	}
	if s.Path = defaultDNSPath; i < 0 || rest[i:] == "/" {
		return strings.TrimSuffix(rest, "/"), nil
	}
	s.Path = rest[i:]
	// The template of RFC 8484 section 4.1.1 is for GET, and the gateway asks by POST.
	if s.Path[0] != '/' || strings.ContainsAny(s.Path, "?#{}") || strings.ContainsFunc(s.Path, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s is not a path: write one such as %q, without a query", quote(s.Path), defaultDNSPath)
	}
	return rest[:i], nil
}

// setHost reads a name or an address, with an optional port.
func (s *DNSServer) setHost(text string) error {
	host := text
	if a, err := netip.ParseAddr(text); err != nil || a.Is4() {
		if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
			if host = text[:i]; s.setPort(text[i+1:]) != nil {
				return errors.New("what follows the last colon is not a port from 1 to 65535")
			}
		}
	}
	bare, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		bare, bracketed = strings.CutSuffix(bare, "]")
	}
	a, err := netip.ParseAddr(bare)
	if err == nil && (bracketed && a.Is4() || !bracketed && bare != host) || err != nil && strings.ContainsAny(host, "[]:") {
		return errors.New(`a name server is an IP address or a name with an optional port, such as "192.0.2.53:53" or "[2001:db8::53]:53"`)
	}
	if err != nil {
		s.Host = strings.ToLower(strings.TrimSuffix(host, "."))
		return checkHost(s.Host)
	}
	s.Addr = a.Unmap()
	s.Host = s.Addr.String()
	return nil
}

func (s *DNSServer) setPort(text string) error {
	n, err := parsePort(text)
	if err == nil && n == 0 {
		err = errors.New("port 0")
	}
	s.Port = n
	return err
}
