package resolve

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// The transports to a name server.
const (
	// UDP is RFC 1035 section 4.2.1; an answer that was truncated is asked for again over TCP.
	UDP = "udp"
	// TCP is RFC 7766.
	TCP = "tcp"
	// TLS is RFC 7858 with strict privacy (RFC 8310 section 5).
	TLS = "tls"
	// HTTPS is RFC 8484, by POST.
	HTTPS = "https"
)

// Server is a recursive name server.
type Server struct {
	// Network is UDP, TCP, TLS or HTTPS; "" is UDP. By any other it is never asked.
	Network string
	// Addrs are its addresses, with their ports. They are tried in turn, first the one that
	// answered last. A server without any never answers.
	Addrs []netip.AddrPort
	// Name is what the certificate of a TLS or HTTPS server must be for, and the Host of
	// HTTPS. Empty means the address itself.
	Name string
	// Path is that of HTTPS, escaped as in a URL. Empty means /dns-query.
	Path string
}

// String is the URL of the server, or just its first address if it is asked over UDP.
func (s Server) String() string {
	var addr string
	if len(s.Addrs) > 0 {
		addr = s.Addrs[0].String()
	}
	switch {
	case s.Network == UDP || s.Network == "":
		return addr
	case s.Name != "" && len(s.Addrs) > 0:
		addr = net.JoinHostPort(s.Name, strconv.Itoa(int(s.Addrs[0].Port())))
	case s.Name != "":
		addr = s.Name
	}
	return s.Network + "://" + addr
}

// Mode says which of several servers are asked.
type Mode int

// The modes.
const (
	// InOrder asks them one after the other, first the one that answered last.
	InOrder Mode = iota
	// Parallel asks all at once. The first answer counts, be it addresses or that
	// there are none; a failure counts only if all fail.
	Parallel
)

// Family says which address families are asked for, and which come first.
type Family int

// The families.
const (
	Any        Family = iota // both, in the order of the source
	PreferIPv4               // both, IPv4 first
	PreferIPv6               // both, IPv6 first
	OnlyIPv4                 // AAAA is never asked for
	OnlyIPv6                 // A is never asked for
)

// Options configures a Resolver. The zero value is usable.
type Options struct {
	// Servers are the recursive name servers to ask. Empty means the system's resolver.
	Servers []Server
	// Mode says which of Servers are asked.
	Mode Mode
	// RootCAs are whom TLS and HTTPS servers are believed for; nil means the system's.
	RootCAs *x509.CertPool
	// Hosts are names that are never looked up, with their addresses. They count more than
	// the hosts file. A name with an empty list has no address.
	Hosts map[string][]netip.Addr
	// Family says which addresses are wanted.
	Family Family
	// Timeout bounds one look-up in total, and before it the wait for a turn.
	// Zero and negative mean 5 s.
	Timeout time.Duration
	// Lookups is how many look-ups may run at once; further ones wait for their
	// turn. Zero and negative mean 256.
	Lookups int
	// LookupsPerAsker is how many of them may be one asker's, an IPv4 address or
	// an IPv6 /64. Zero and negative mean 32.
	LookupsPerAsker int
	// CacheSize is how many names are kept. Zero means 10,000; negative means none.
	CacheSize int
	// MinimumTTL and MaximumTTL bound for how long an answer is kept, whatever
	// time to live it states. Zero means 1 s and 1 h. A negative MinimumTTL is no bound: an
	// answer without life is for those who waited for it. A negative MaximumTTL means 1 h.
	// An answer of the system's resolver, which tells no time to live, counts as one of 30 s.
	MinimumTTL, MaximumTTL time.Duration
	// NegativeTTL is for how long it is kept at most that a name has no address; the SOA
	// record that says so may state less (RFC 2308 section 5). Zero means 5 s; negative
	// means not at all. Any other failure is kept for 1 s.
	NegativeTTL time.Duration
	// ServeStale is for how long after its end an answer still serves when the servers fail,
	// or take more than 1.8 s (RFC 8767). Zero and negative mean not at all.
	ServeStale time.Duration
	// NoPrefetch lets every name run out. Else one that was asked for three times in its life
	// is looked up again when a tenth of that is left.
	NoPrefetch bool
}

// Stats counts what a Resolver has done since it was made.
type Stats struct {
	Hits       uint64 // answered from the cache, failures included, or from Hosts
	Misses     uint64 // not in the cache: looked up, or joined with a look-up that ran
	Lookups    uint64 // look-ups that were made
	Failures   uint64 // look-ups without an address
	Timeouts   uint64 // of Failures: those for want of an answer in time
	Stale      uint64 // of Hits and Misses: answered with what had run out
	Prefetched uint64 // of Lookups: those of names that were about to run out
	Cached     int    // names in the cache now, those that have run out included
	Running    int    // look-ups that run now
}
