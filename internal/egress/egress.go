// Package egress is the only way out: policy, names, addresses, dialling.
// Nothing can be dialled or sent to, and nobody is waited for (BIND), without a Permit, and only Authorize,
// AuthorizePacket, AuthorizeBackend and AuthorizeBind make one. A Permit pins the addresses that were checked, so
// that a name which changes its mind between the check and the connection (DNS
// rebinding) gains nothing. It speaks no protocol and keeps no connection.
package egress

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/reactor"
)

const (
	defaultConnectTimeout = 10 * time.Second
	defaultKeepAlive      = 60 * time.Second
)

// Resolver resolves a name to addresses for an asker, so that none can use it up
// for the others: the client, or the zero Addr for the servers of a backend, which the
// owner wrote. Addresses may come in any order; an error whose Timeout method
// returns true means that no answer came in time.
type Resolver interface {
	Lookup(ctx context.Context, asker netip.Addr, host string) ([]netip.Addr, error)
}

// Options makes a Dialer.
type Options struct {
	// Policy decides. Nil denies everything.
	Policy *acl.Policy
	// Resolver resolves names. Nil fails every name with dns_error.
	Resolver Resolver
	// Own reports whether an address is one of the gateway's own listening
	// sockets; those are denied whatever the rules say, with LoopDetected. It
	// is asked for addresses that the policy has allowed, unmapped and without
	// a zone, and must count an unspecified address (0.0.0.0, ::) as this
	// machine. Nil means none is.
	Own func(netip.AddrPort) bool
	// ConnectTimeout bounds one Dial in total. Zero means 10 s; negative means
	// no bound but the context's.
	ConnectTimeout time.Duration
	// KeepAlive is the idle time before TCP keep-alive probes. Zero means 60 s;
	// negative turns them off.
	KeepAlive time.Duration
	// Ways are the ways out beside the direct one.
	Ways Ways
	// Country tells the country of an address in lower-case ISO 3166-1 alpha-2, "" for an unknown one, for rules that look at
	// it. Nil knows none.
	Country func(netip.Addr) string
	// Families remembers which family of IP has worked for a name. Nil remembers nothing.
	Families *Families
	// Terms remembers for how long sessions of users have left from their address of ours. Nil remembers nothing: they keep it for ever.
	Terms *Terms
	// PreferIPv4 tries the IPv4 addresses of a name first; else it is the IPv6 ones (RFC 8305 section 4).
	PreferIPv4 bool
	// Bind is how BIND is served; the zero value refuses it.
	Bind BindOptions
	// Via is the Via field of CONNECT to proxies (RFC 9110 section 7.6.3) where OpenOptions have none, as for clients of SOCKS and for
	// health checks. "" sends none.
	Via string
}

// Dialer authorizes and dials. It is safe for concurrent use.
type Dialer struct {
	policy     *acl.Policy // nil denies
	resolver   Resolver
	own        func(netip.AddrPort) bool
	timeout    time.Duration // <= 0: none
	generation uint64        // no two Dialers of one process share one
	net        *net.Dialer
	ways       Ways
	countryOf  func(netip.Addr) string // nil knows none
	families   *Families               // nil remembers nothing
	terms      *Terms                  // nil likewise
	prefer4    bool
	via        string        // for CONNECT; "" is none
	hasWays    bool          // there are some beside the direct one
	sendsNames bool          // some upstream resolves names
	wish       exit.Wish     // of the client
	bind       BindOptions   // no zero that means a default
	dial       dialFunc      // opens one connection; tests put their own here
	loop       *reactor.Loop // where a Dial is under way that was given one
}

// generations numbers the Dialers, so that connections that were admitted by an
// older policy are never shared with sessions of a newer one.
var generations atomic.Uint64

// New makes a Dialer.
func New(o Options) *Dialer {
	d := &Dialer{
		policy:     o.Policy,
		resolver:   o.Resolver,
		own:        o.Own,
		timeout:    o.ConnectTimeout,
		generation: generations.Add(1),
		ways:       o.Ways,
		countryOf:  o.Country,
		families:   o.Families,
		terms:      o.Terms,
		prefer4:    o.PreferIPv4,
		bind:       o.Bind,
		via:        o.Via,
	}
	if d.bind.Timeout <= 0 {
		d.bind.Timeout = defaultBindTimeout
	}
	if d.bind.PerClient <= 0 {
		d.bind.PerClient = defaultBindPerClient
	}
	if d.timeout == 0 {
		d.timeout = defaultConnectTimeout
	}
	d.hasWays = len(o.Ways.Upstreams)+len(o.Ways.Exits) > 0
	for _, u := range o.Ways.Upstreams {
		d.sendsNames = d.sendsNames || u.ResolvesNames()
	}
	d.net = newNetDialer(o.KeepAlive)
	d.dial = d.dialTCP
	return d
}
