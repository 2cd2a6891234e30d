package egress

import (
	"context"
	"net/netip"

	"polyport/internal/reactor"
)

// PacketConn is the way out for the datagrams of one client: a UDP socket with a port of its own, whose family is that of the Destination
// that it was opened for, or one that speaks to an upstream's relay. Its methods are for its loop, and for whoever sees to it that
// it is not closed meanwhile.
type PacketConn struct {
	conn    *reactor.PacketConn
	device  string         // the network interface that it leaves by; "" for any
	relay   netip.AddrPort // of an upstream; invalid where datagrams go to their targets
	control *reactor.Conn  // whose end is that of the relay; nil: there is none
	link    Link           // of control
	said    int            // octets that the proxy has sent on control
	over    bool           // the owner has been told of the end
	closed  bool
}

// A PacketOwner hears of a PacketConn, on its loop. It must not block.
type PacketOwner interface {
	reactor.PacketOwner
	// Ended says that the proxy has ended its association: nothing passes any more. The PacketConn has still to be closed.
	Ended(c *PacketConn)
}

// packetBuffer is what the system is asked to hold of one client's datagrams, each way.
const packetBuffer = 1 << 20

// OpenPacket opens the way out on a loop, where owner hears what arrives, from whomever. Where the permit's PacketWay Waits it is for
// a task of that loop, and takes as long as Open may at the most; ctx ends it only before it dials. The caller closes it. The error is an *Error.
func (d *Dialer) OpenPacket(ctx context.Context, l *reactor.Loop, p *Permit, owner PacketOwner) (*PacketConn, error) {
	to, ok := p.Destination()
	if !ok {
		return nil, &Error{Reason: InternalError, Err: errNoPermit}
	}
	var c *PacketConn
	var err *Error
	if to.header != nil {
		c, err = d.openRelay(ctx, l, p, owner)
	} else {
		c, err = openTargets(l, p.way.from(), to.to.Addr().Is6(), owner)
	}
	if err != nil {
		return nil, err.of(p)
	}
	return c, nil
}

// openTargets opens the way straight to targets of a family.
func openTargets(l *reactor.Loop, from *origin, is6 bool, owner PacketOwner) (*PacketConn, *Error) {
	local, no := from.local(is6)
	if no != nil {
		return nil, no
	}
	conn, err := openSocket(l, from, local, owner)
	if err != nil {
		return nil, &Error{Reason: connectReason(err), Err: err}
	}
	return &PacketConn{conn: conn, device: from.device()}, nil
}

// device names the network interface that sockets leave by; "" is any.
func (o *origin) device() string {
	if o == nil {
		return ""
	}
	return o.source.Interface
}

// local returns the address of a family that a socket is to have: the unspecified one leaves that to the system.
func (o *origin) local(is6 bool) (netip.Addr, *Error) {
	unset := netip.IPv4Unspecified()
	if is6 {
		unset = netip.IPv6Unspecified()
	}
	if o == nil {
		return unset, nil
	}
	switch a, ok := o.source.Pick(is6, o.key); {
	case !ok:
		return unset, &Error{Reason: DestinationUnroutable, Err: errNoSource(o.exit)}
	case a.IsValid():
		return a, nil
	}
	return unset, nil
}

// openSocket opens a UDP socket that leaves from an address, and otherwise as from says; nil says nothing.
func openSocket(l *reactor.Loop, from *origin, local netip.Addr, owner reactor.PacketOwner) (*reactor.PacketConn, error) {
	o := reactor.PacketOptions{Errors: true, Buffer: packetBuffer}
	if from != nil {
		o.Prepare = func(fd int) error {
			if err := from.leaveBy(fd); err != nil || !from.ranges(local) {
				return err
			}
			return bindAnywhere(fd)
		}
	}
	conn, err := reactor.OpenPacket(netip.AddrPortFrom(local, 0), o)
	if err != nil {
		if from != nil && !local.IsUnspecified() && !isSourceError(err) {
			err = from.notFrom(local, bare(err))
		}
		return nil, err
	}
	if err := conn.Watch(l, owner); err != nil {
		return nil, err
	}
	return conn, nil
}

// Relay returns the address of the upstream's relay, from which alone answers come; invalid where they come from targets.
func (c *PacketConn) Relay() netip.AddrPort { return c.relay }

// Server returns the server of the upstream; "" where there is none.
func (c *PacketConn) Server() string { return c.link.Server }

// Send takes a datagram to be sent from a loop l; see reactor.PacketConn. What is not for this way out goes nowhere.
func (c *PacketConn) Send(l *reactor.Loop, to Destination, payload []byte) {
	switch through := to.header != nil; {
	case through != c.relay.IsValid():
	case through:
		c.conn.Send(l, c.relay, netip.Addr{}, to.header, payload)
	case to.to.Addr().Is6() == c.conn.Local().Addr().Is6(): // else the other family's socket is for it
		c.conn.Send(l, to.to, netip.Addr{}, nil, payload)
	}
}

// Flush sends what Send has taken.
func (c *PacketConn) Flush(l *reactor.Loop) reactor.Sent { return c.conn.Flush(l) }

// Lost reports whether the network interface that it leaves by has gone since it was opened. Nothing passes then, even if one of that name
// has come in its place. It is for when Flush could send nothing.
func (c *PacketConn) Lost() bool {
	if c.device == "" {
		return false
	}
	now, err := c.conn.Device()
	return err != nil || now != c.device
}

// Close has the socket closed, and the association with an upstream, from any goroutine.
func (c *PacketConn) Close() {
	c.conn.Loop().Post(func() {
		if c.closed {
			return
		}
		c.closed = true
		_ = c.conn.Close() // fails only where the loop has closed it
		if c.control != nil {
			_ = c.control.Close() // likewise
			c.link.Release()
		}
	})
}
