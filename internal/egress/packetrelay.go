package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"polyport/acl"
	"polyport/internal/reactor"
	"polyport/internal/upstream"
)

var errOwnRelay = errors.New("its relay for UDP is one of this gateway's own sockets")

// openRelay opens an association with one of the servers of the permit's upstream (RFC 1928 section 7), and the socket for its relay.
func (d *Dialer) openRelay(ctx context.Context, l *reactor.Loop, p *Permit, owner PacketOwner) (*PacketConn, *Error) {
	limit := d.timeout
	if limit <= 0 {
		limit = defaultConnectTimeout // nobody is there to lose patience
	}
	w := p.way
	c := &PacketConn{link: Link{Upstream: w.upstream.Name()}}
	t := tunneling{d: d.on(l), way: w, relay: &c.relay}
	if ctx.Err() != nil {
		return nil, &Error{Reason: ConnectionTerminated, Err: ctx.Err()}
	}
	control, err := t.pass(ctx, w.upstream, &w.request, &c.link, upstream.Destination{}, time.Now().Add(limit))
	if err != nil {
		c.link.Release()
		return nil, err
	}
	c.control = control.(*reactor.Conn) // a loop dials no others
	if err := c.openToRelay(l, w.from(), owner); err != nil {
		_ = control.Close() // the error is why
		c.link.Release()
		return nil, through(w.upstream, err)
	}
	c.watchControl(l, owner)
	return c, nil
}

// openToRelay opens the socket that speaks to the relay, from the address of the control connection: many servers take datagrams from
// nowhere else.
func (c *PacketConn) openToRelay(l *reactor.Loop, from *origin, owner PacketOwner) *Error {
	local, is6 := addrOf(c.control.LocalAddr()), c.relay.Addr().Is6()
	if !local.IsValid() || local.Is6() != is6 || local.IsLinkLocalUnicast() {
		var err *Error
		if local, err = from.local(is6); err != nil {
			return err
		}
	}
	c.device = from.device()
	var err error
	if c.conn, err = openSocket(l, from, local, owner); err != nil {
		return &Error{Reason: connectReason(err), Err: err}
	}
	return nil
}

// addrOf returns the IP address of a TCP address, unmapped; invalid for another one.
func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// associate asks a proxy for an association, and notes where its relay is to be found.
func (t *tunneling) associate(ctx context.Context, proxy *upstream.Proxy, deadline time.Time, dial upstream.DialFunc) (net.Conn, error) {
	c, relay, err := proxy.Associate(ctx, deadline, dial, netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	server := peerOf(c).Addr()
	*t.relay = relayAt(relay, server)
	if t.d.own != nil && !sameAddr(t.relay.Addr(), server) && t.d.own(*t.relay) {
		_ = c.Close() // the error is why
		return nil, &upstream.Error{Reason: string(LoopDetected), Server: true, Heard: true, Proxy: proxy.String(), Err: errOwnRelay}
	}
	return c, nil
}

// relayAt returns where a relay really is. A server may have it at another address than its own; but where that means something in some
// network alone, such as the server's own network behind a NAT, or ours, which is none of its business, it is not believed: then its
// port counts, at the address that the server was reached at.
func relayAt(named netip.AddrPort, server netip.Addr) netip.AddrPort {
	server = server.Unmap()
	if sameAddr(named.Addr(), server) {
		return netip.AddrPortFrom(server, named.Port()) // with its zone
	}
	if what, special := acl.Special(named.Addr()); special {
		if ours, _ := acl.Special(server); ours != what {
			return netip.AddrPortFrom(server, named.Port())
		}
	}
	return netip.AddrPortFrom(named.Addr().Unmap(), named.Port())
}

// sameAddr compares addresses but for their zones.
func sameAddr(a, b netip.Addr) bool { return a.Unmap().WithZone("") == b.Unmap().WithZone("") }

// watchControl has the owner hear of the end of the control connection, also where the proxy is gone without a word: nobody says
// anything on it that could fail.
func (c *PacketConn) watchControl(l *reactor.Loop, owner PacketOwner) {
	_ = c.control.KeepAlive() // it fails for a closed connection alone
	w := &controlWatch{c, owner}
	c.control.Own(w)
	l.Defer(func() { w.Happened(c.control, reactor.Readable) }) // not before the owner has got c
}

// maxControl is how many octets a proxy may send on a control connection, where it has nothing to say.
const maxControl = 4 << 10

// ended tells the owner, once, unless he is who has ended it.
func (c *PacketConn) ended(owner PacketOwner) {
	if !c.closed && !c.over {
		c.over = true
		owner.Ended(c)
	}
}

// controlWatch hears of the end of a control connection on a loop.
type controlWatch struct {
	conn  *PacketConn
	owner PacketOwner
}

// Watched implements reactor.Owner.
func (w *controlWatch) Watched(*reactor.Conn) {}

// Happened implements reactor.Owner.
func (w *controlWatch) Happened(c *reactor.Conn, _ reactor.Event) {
	for {
		n, err := c.TryRead(c.Loop().Scratch()[:maxControl])
		if err == reactor.ErrWait {
			return
		}
		if w.conn.said += n; err != nil || w.conn.said > maxControl {
			w.conn.ended(w.owner)
			return
		}
	}
}
