package udprelay

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"polyport/internal/egress"
	"polyport/internal/reactor"
)

// maxOutlets bounds the ways out that an association has at once.
const maxOutlets = 16

// outlet is a way out of an association: a socket that speaks to targets of one family, or to the relay of an upstream, which takes a while to
// get. The association's lock guards it.
type outlet struct {
	a       *Association
	way     egress.PacketWay
	conn    *egress.PacketConn // nil while it is opened, and once it has ended
	relay   netip.AddrPort     // of an upstream: the only one that answers; invalid where targets do
	opening bool
	cancel  context.CancelFunc // ends the opening
	waiting []parcel           // for the opening
	octets  int                // in them
	opened  time.Duration
	until   time.Duration // once it has ended: the first moment at which there may be another one
	denied  bool          // what is sent to it until then counts as
	used    time.Duration
	lost    int // errors that have come back from an upstream's relay since it has last sent something

	addresses map[netip.Addr]int // how many flows there are to each; nil until somebody asks
	ports     map[uint16]int     // likewise of names that have been spoken to
}

// parcel is a datagram that waits.
type parcel struct {
	flow    *flow
	payload []byte
}

// outletOf finds the outlet of a way; nil is none.
func (a *Association) outletOf(way egress.PacketWay) *outlet {
	for _, o := range a.outlets {
		if o.way == way {
			return o
		}
	}
	return nil
}

// isOver reports whether an outlet has ended, for long enough that another one may be opened in its place: then it is forgotten, and
// where its flows led is asked anew.
func (w *writer) isOver(o *outlet) bool {
	if o.conn != nil || o.opening || w.loop.Now() < o.until {
		return false
	}
	w.a.drop(o)
	return true
}

// drop forgets an outlet that has ended.
func (a *Association) drop(o *outlet) {
	a.outlets = slices.DeleteFunc(a.outlets, func(other *outlet) bool { return other == o })
	a.flows.dropAll(o)
	for _, n := range a.names {
		if n.flow != nil && n.flow.out == o {
			n.flow.gone = true
		}
	}
}

// openOutlet opens the way out of a permit; nil is that there is none, which is counted.
func (w *writer) openOutlet(p *egress.Permit) *outlet {
	a := w.a
	if len(a.outlets) >= maxOutlets && !w.makeRoom() {
		a.counts.Limited++
		return nil
	}
	o := &outlet{a: a, way: p.PacketWay(), used: w.loop.Now()}
	if o.way.Waits() {
		var ctx context.Context
		ctx, o.cancel = context.WithCancel(background)
		o.opening = true
		s, l := a.request.Session, w.loop
		l.Post(func() { l.Go(func() { o.open(ctx, s, l, p) }) })
	} else {
		c, err := a.request.Session.OpenPacket(background, w.loop, p, o)
		if err != nil {
			a.refused(err)
			return nil
		}
		o.conn = c
		a.note(p, o)
	}
	a.outlets = append(a.outlets, o)
	return o
}

// note keeps the first permit by which something could be sent.
func (a *Association) note(p *egress.Permit, o *outlet) {
	if a.first == nil {
		a.first, a.server = p, o.conn.Server()
	}
}

// makeRoom closes an outlet that has long not been used, if there is one.
func (w *writer) makeRoom() bool {
	w.flush() // what waits may be for the one that is closed
	a, since := w.a, w.loop.Now()-flowLife
	for _, o := range a.outlets {
		if o.opening || o.conn != nil && o.used > since || w.loop.Now() < o.until {
			continue
		}
		if o.conn != nil {
			o.conn.Close()
			o.conn = nil
		}
		a.drop(o)
		return true
	}
	return false
}

// open opens the way through an upstream, in a task of the loop, and sends what has waited for it.
func (o *outlet) open(ctx context.Context, s Session, l *reactor.Loop, p *egress.Permit) {
	c, err := s.OpenPacket(ctx, l, p, o)
	o.cancel()
	a := o.a
	a.mu.Lock()
	defer a.mu.Unlock()
	o.opening, o.opened, o.used = false, l.Now(), l.Now()
	o.until = o.opened + refusedFor
	waiting := o.waiting
	a.account.keep(-o.octets)
	o.waiting, o.octets = nil, 0
	switch {
	case a.ended && err == nil:
		c.Close()
		return
	case a.ended:
		return
	case err != nil:
		o.denied = isDenied(err)
		for range waiting {
			a.refused(err)
		}
		return
	}
	o.conn, o.relay = c, withoutZone(c.Relay())
	a.note(p, o)
	w := a.writer(l)
	for _, it := range waiting {
		w.send(it.flow, it.payload)
	}
	w.flush()
}

// keep keeps a datagram until the outlet is open, within bounds.
func (o *outlet) keep(f *flow, payload []byte) {
	a := o.a
	switch {
	case !o.opening:
		a.countRefused(o.denied)
	case len(o.waiting) >= maxWaiting || o.octets+len(payload) > maxWaitFor || !a.account.keep(len(payload)):
		a.counts.Dropped++
	default:
		o.waiting = append(o.waiting, parcel{f, slices.Clone(payload)})
		o.octets += len(payload)
	}
}

// Ended implements egress.PacketOwner.
func (o *outlet) Ended(c *egress.PacketConn) {
	o.a.mu.Lock()
	defer o.a.mu.Unlock()
	if o.conn == c {
		o.stop()
	}
}

// stop ends an outlet whose upstream, or network interface, serves it no longer. Others may be opened in its place, but not faster than refusals are asked about:
// else a server that ends all that it has begun would have us begin for each datagram.
func (o *outlet) stop() {
	if o.conn == nil {
		return
	}
	o.conn.Close()
	o.conn, o.until = nil, o.opened+refusedFor
}

// Arrived implements reactor.PacketOwner.
func (o *outlet) Arrived(c *reactor.PacketConn) {
	c.ReceiveAll(func(batch []reactor.Datagram) { o.arrived(c.Loop(), batch) })
}

// maxLost is how many errors say that a relay is not there. One may say that the way there is too narrow, and who sends nothing back
// need not be gone.
const maxLost = 3

// Unreachable implements reactor.PacketOwner.
func (o *outlet) Unreachable(_ *reactor.PacketConn, to netip.AddrPort) {
	o.a.mu.Lock()
	defer o.a.mu.Unlock()
	o.a.counts.Unreachable++
	if !o.relay.IsValid() {
		o.a.leave(o, to)
		return
	}
	if o.lost++; o.lost >= maxLost {
		o.stop() // the relay is not there
	}
}
