package egress

import (
	"context"
	"net/netip"

	"polyport/acl"
	"polyport/internal/reactor"
)

// AuthorizePacket is Authorize for datagrams. They cannot be raced as connections are, so the Permit pins those addresses alone to
// which this machine has a way: the first is to be tried, and the others by Rest. The error is an *Error.
func (d *Dialer) AuthorizePacket(ctx context.Context, r acl.Request) (*Permit, error) {
	p, err := d.authorize(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	if len(p.pinned.addrs) == 1 {
		return p, nil
	}
	var failed failures
	var ways []netip.Addr
	for _, a := range p.pinned.addrs {
		to := netip.AddrPortFrom(a, p.pinned.port)
		if _, err := routeTo(a); err != nil {
			failed.add(&Error{Reason: connectReason(err), Address: to, Err: err})
			continue
		}
		ways = append(ways, a)
	}
	if len(ways) == 0 {
		return nil, failed.worst().of(p)
	}
	p.pinned.addrs = ways
	p.decision = d.policy.DecideAddr(r, ways[0]) // another rule may have admitted it
	return p, nil
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
	if dec := d.policy.MayReach(r); dec.Action != acl.Allow {
		return refusal(r.Target, dec)
	}
	return nil
}

// Destination is an address that datagrams may go to. Only a Permit makes one.
type Destination struct{ to netip.AddrPort }

// Destination returns the first of the checked addresses; false for a backend's.
func (p *Permit) Destination() (Destination, bool) {
	if p.backend != nil || len(p.pinned.addrs) == 0 {
		return Destination{}, false
	}
	return Destination{netip.AddrPortFrom(p.pinned.addrs[0], p.pinned.port)}, true
}

// AddrPort returns the address.
func (d Destination) AddrPort() netip.AddrPort { return d.to }

// PacketConn is the way out for the datagrams of one client: a UDP socket with a port of its own, whose family is that of the Destination
// that it was opened for. Its methods are for its loop, and for whoever sees to it that it is not closed meanwhile.
type PacketConn struct{ conn *reactor.PacketConn }

// packetBuffer is what the system is asked to hold of one client's datagrams, each way.
const packetBuffer = 1 << 20

// OpenPacket opens the way out on a loop, where owner hears what arrives, from whomever. The caller closes it. The error is an
// *Error.
func (d *Dialer) OpenPacket(l *reactor.Loop, p *Permit, owner reactor.PacketOwner) (*PacketConn, error) {
	to, ok := p.Destination()
	if !ok {
		return nil, &Error{Reason: InternalError, Err: errNoPermit}
	}
	local := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if to.to.Addr().Is6() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	conn, err := reactor.OpenPacket(local, reactor.PacketOptions{Errors: true, Buffer: packetBuffer})
	if err == nil {
		err = conn.Watch(l, owner)
	}
	if err != nil {
		return nil, (&Error{Reason: connectReason(err), Err: err}).of(p)
	}
	return &PacketConn{conn}, nil
}

// Send takes a datagram to be sent from a loop l; see reactor.PacketConn.
func (c *PacketConn) Send(l *reactor.Loop, to Destination, payload []byte) {
	if to.to.Addr().Is6() != c.conn.Local().Addr().Is6() {
		return // the other family's socket is for it
	}
	c.conn.Send(l, to.to, netip.Addr{}, nil, payload)
}

// Flush sends what Send has taken.
func (c *PacketConn) Flush(l *reactor.Loop) reactor.Sent { return c.conn.Flush(l) }

// Close has the socket closed, from any goroutine.
func (c *PacketConn) Close() { c.conn.Loop().Post(func() { _ = c.conn.Close() }) } // fails only where the loop has closed it
