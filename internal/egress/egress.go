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
	// Bind is how BIND is served; the zero value refuses it.
	Bind BindOptions
}

// Dialer authorizes and dials. It is safe for concurrent use.
type Dialer struct {
	policy     *acl.Policy // nil denies
	resolver   Resolver
	own        func(netip.AddrPort) bool
	timeout    time.Duration // <= 0: none
	generation uint64        // no two Dialers of one process share one
	net        *net.Dialer
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
		bind:       o.Bind,
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
	d.net = newNetDialer(o.KeepAlive)
	d.dial = d.dialTCP
	return d
}
