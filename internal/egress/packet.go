package egress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/socks"
	"polyport/internal/upstream"
)

// ErrNoUDP is the cause of an Error when datagrams are to leave through an upstream that has no way for them.
var ErrNoUDP = errors.New("no server that carries UDP")

// AuthorizePacket is Authorize for datagrams. They cannot be raced as connections are, so the Permit pins those addresses alone to
// which this machine has a way: the first is to be tried, and the others by Rest. An upstream has to have a server that carries UDP, else
// the cause is ErrNoUDP: never do datagrams leave by another way than their rule's. The error is an *Error.
func (d *Dialer) AuthorizePacket(ctx context.Context, r acl.Request) (*Permit, error) {
	p, err := d.authorize(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	if err := p.way.mayCarryUDP(); err != nil {
		return nil, err.of(p)
	}
	if len(p.pinned.addrs) < 2 {
		return p, nil
	}
	r.ClientCountry = d.Country(r.Client)
	if err := d.orderPacket(r, p); err != nil {
		return nil, err
	}
	return p, nil
}

// orderPacket puts the addresses of a name into the order in which datagrams are to try them.
func (d *Dialer) orderPacket(r acl.Request, p *Permit) *Error {
	switch w := p.way; {
	case w != nil && w.upstream != nil:
		// No ICMP error comes back through a relay to say that it has no way to the first one, and IPv4 is what most have.
		slices.SortStableFunc(p.pinned.addrs, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	case w != nil && w.source.Interface != "", w != nil && w.source.Mark != 0:
		return nil // the way that the system would take says nothing of theirs
	default:
		if err := p.keepRouted(); err != nil {
			return err
		}
	}
	p.decision = d.decideAddr(r, p.pinned.addrs[0]) // another rule may have admitted it
	return nil
}

// keepRouted drops the addresses to which this machine has no way.
func (p *Permit) keepRouted() *Error {
	var failed failures
	var ways []netip.Addr
	for _, a := range p.pinned.addrs {
		if _, err := routeTo(a); err != nil {
			failed.add(&Error{Reason: connectReason(err), Address: netip.AddrPortFrom(a, p.pinned.port), Err: err})
			continue
		}
		ways = append(ways, a)
	}
	if len(ways) == 0 {
		return failed.worst().of(p)
	}
	p.pinned.addrs = ways
	return nil
}

// Rest returns the permit without its first address, for when nobody is there; false is that there is no other.
func (p *Permit) Rest() (*Permit, bool) {
	if p.backend != nil || len(p.pinned.addrs) < 2 {
		return nil, false
	}
	rest := *p
	rest.pinned.addrs = p.pinned.addrs[1:]
	return &rest, true
}

// MayReach says why no datagram of a client could be admitted, whatever its target; nil if some could. The error is an *Error.
func (d *Dialer) MayReach(r acl.Request) error {
	r.ClientCountry = d.Country(r.Client)
	if dec := d.policy.MayReach(r); dec.Action != acl.Allow {
		return refusal(r.Target, dec)
	}
	return nil
}

// mayCarryUDP says why datagrams cannot take a way; nil if they can.
func (w *way) mayCarryUDP() *Error {
	if w == nil || w.upstream == nil || carriesUDP(w.upstream) {
		return nil
	}
	return through(w.upstream, &Error{Reason: ConfigurationError, Err: fmt.Errorf("upstream %s has %w", w.upstream.Name(), ErrNoUDP)})
}

// carriesUDP reports whether datagrams can go through an upstream: one of its proxies is for it, and reached directly. The datagrams of
// those behind others would not take that way.
func carriesUDP(u *upstream.Upstream) bool {
	if u.Via() != nil {
		return false
	}
	for i := range u.Pool().Members() {
		if relaysUDP(u.Proxy(i)) {
			return true
		}
	}
	return false
}

// relaysUDP reports whether a proxy is for datagrams. SOCKS5 in TLS is not: they would cross the network in the clear, beside it.
func relaysUDP(p *upstream.Proxy) bool { return p.Scheme() == upstream.SOCKS5 }

// withoutUDP returns the proxies of an upstream that are not for datagrams.
func withoutUDP(u *upstream.Upstream) (t pool.Tried) {
	for i := range u.Pool().Members() {
		if !relaysUDP(u.Proxy(i)) {
			t.Add(i)
		}
	}
	return t
}

// Destination is where datagrams may go to. Only a Permit makes one.
type Destination struct {
	to   netip.AddrPort // invalid where an upstream is told a name
	port uint16
	// header is what stands in front of each datagram to an upstream's relay (RFC 1928 section 7); nil where it goes to the target itself.
	header []byte
}

// Destination returns the first of the checked addresses, or the name that an upstream is told; false for a backend's.
func (p *Permit) Destination() (Destination, bool) {
	through := p.way != nil && p.way.upstream != nil
	switch {
	case p.backend != nil, p.bind != nil:
		return Destination{}, false
	case through && p.way.byName:
		return Destination{header: socks.AppendNameHeader(nil, p.target.Host(), p.target.Port()), port: p.target.Port()}, true
	case len(p.pinned.addrs) == 0:
		return Destination{}, false
	}
	d := Destination{to: netip.AddrPortFrom(p.pinned.addrs[0], p.pinned.port), port: p.pinned.port}
	if through {
		d.header = socks.AppendHeader(nil, d.to)
	}
	return d, true
}

// AddrPort returns the address; invalid where an upstream is told a name.
func (d Destination) AddrPort() netip.AddrPort { return d.to }

// Port returns the port of the address, or beside the name.
func (d Destination) Port() uint16 { return d.port }

// PacketWay tells the ways out of datagrams apart: permits with the same one can share a PacketConn for one client. It may be compared.
type PacketWay struct {
	upstream *upstream.Upstream
	source   *exit.Source
	exit     string
	wish     exit.Wish
	is6      bool // of the targets, where there is no upstream
}

// PacketWay returns the way out for datagrams of the permit.
func (p *Permit) PacketWay() PacketWay {
	var w PacketWay
	if p.way != nil {
		w = PacketWay{upstream: p.way.upstream, source: p.way.source, exit: p.way.exit, wish: p.way.wish}
	}
	if w.upstream == nil && len(p.pinned.addrs) > 0 {
		w.is6 = p.pinned.addrs[0].Is6()
	}
	return w
}

// Waits reports whether OpenPacket waits, for a proxy.
func (w PacketWay) Waits() bool { return w.upstream != nil }
