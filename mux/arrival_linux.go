package mux

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"polyport/internal/reactor"
)

// arrival is a connection on a loop whose row is looked for. All but admission runs on the loop.
type arrival struct {
	sniffer
	server *Server
	sock   atomic.Pointer[reactor.Conn] // nil until the loop watches it
	timer  reactor.Timer
	soon   error // what the timer means
}

// acceptedSocket takes in a connection that a loop is to classify.
func (s *Server) acceptedSocket(fd int, peer netip.AddrPort, l *Listener) {
	if l.isBalancer(peer.Addr()) {
		s.acceptedForGoroutine(fd, peer, l)
		return
	}
	c := &Conn{client: peer, listener: l.Name, packets: l.Packets, loop: s.opts.Loops.Next()}
	a := &arrival{server: s, sniffer: s.newSniffer(c)}
	c.arrival, a.timer.Owner = a, a
	if refused := s.admit(c, c, false); refused != "" {
		s.opts.Refused(Refusal{Cause: refused, Client: c.client, Listener: c.listener})
		reactor.Reset(fd)
		return
	}
	var until time.Time
	until, a.soon = a.until()
	if err := c.loop.Watch(fd, peer, a, &a.timer, until.Sub(a.start)); err != nil {
		s.opts.Refused(Refusal{Cause: ClosedEarly, Client: c.client, Listener: c.listener, Err: err})
		c.slot.free()
		s.sniffing.done()
		reactor.Reset(fd)
		return
	}
	if c.Evicted() { // before it could be told so
		c.abort()
	}
}

// acceptedForGoroutine takes in a socket that a goroutine is to classify.
func (s *Server) acceptedForGoroutine(fd int, peer netip.AddrPort, l *Listener) {
	nc, err := reactor.NetConn(fd)
	if err != nil {
		s.opts.Refused(Refusal{Cause: ClosedEarly, Client: peer, Listener: l.Name, Err: err})
		return
	}
	s.accepted(nc, l)
}

// Watched implements reactor.Owner.
func (a *arrival) Watched(c *reactor.Conn) {
	a.c.nc = c
	a.sock.Store(c)
}

// abort ends a connection that has to make room. One that is not watched yet has only just come.
func (a *arrival) abort() {
	if a.sock.Load() != nil {
		a.refused(ClosedEarly, net.ErrClosed)
	}
}

// Happened implements reactor.Owner: it reads what has arrived, to the end of it, and decides.
func (a *arrival) Happened(*reactor.Conn, reactor.Event) {
	for a.c.arrival == a {
		if len(a.c.prefix) >= sniffSize {
			a.judged(errFull)
			return
		}
		n, err := a.sock.Load().TryRead(a.c.grow())
		a.c.took(n)
		a.c.releaseEmpty()
		if err == reactor.ErrWait {
			a.c.tuck()
			return
		}
		a.judged(err)
	}
}

// Expire is what the timer calls.
func (a *arrival) Expire() {
	if a.c.arrival != a {
		return // it has been decided, or pushed out before the timer was set
	}
	if a.soon == nil {
		a.soon = os.ErrDeadlineExceeded
	}
	a.judged(a.soon)
}

// judged acts on what a read, or the timer, has brought.
func (a *arrival) judged(more error) {
	row, cause, err := a.judge(more)
	switch {
	case cause != "":
		a.refused(cause, err)
	case row != "":
		a.end()
		a.server.classified(a.c, row)
		a.server.serveOnLoop(a.c)
	default:
		var until time.Time
		until, a.soon = a.until()
		a.c.loop.Set(&a.timer, time.Until(until))
	}
}

// end lets the connection go.
func (a *arrival) end() {
	a.c.loop.Stop(&a.timer)
	a.c.arrival = nil
	a.sock.Load().Own(nil)
}

// refused ends a connection that does not become a session.
func (a *arrival) refused(cause Cause, err error) {
	a.end()
	a.server.refuse(a.c, cause, err)
	a.server.sniffing.done()
}

// serveOnLoop hands a classified connection to its handler, in a task of the loop or, by cmux, in a goroutine.
func (s *Server) serveOnLoop(c *Conn) {
	if s.opts.OnLoop != nil && s.opts.OnLoop(c) {
		c.loop.Go(func() {
			s.opts.Serve(c)
		})
		s.sniffing.done()
		return
	}
	if err := c.LeaveLoop(); err != nil {
		s.refuse(c, ClosedEarly, err)
		s.sniffing.done()
		return
	}
	go func() {
		defer s.sniffing.done()
		s.feedCmux(c)
	}()
}

// tuckedSize is up to how many first bytes are kept without a sniff buffer.
const tuckedSize = 64

// tuck moves few first bytes of a client that lets us wait for more to a place of
// their size: thousands of such clients must not hold thousands of buffers.
func (c *Conn) tuck() {
	if c.buf != nil && len(c.prefix) <= tuckedSize {
		p := append(make([]byte, 0, len(c.prefix)), c.prefix...)
		c.dropBuffer()
		c.prefix = p
	}
}
