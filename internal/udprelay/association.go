package udprelay

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/mux"
)

// Counts is what has passed through an association.
type Counts struct {
	FromClient, FromTarget           int64 // datagrams that were passed on
	BytesFromClient, BytesFromTarget int64 // of their payload
	Denied                           int64 // to targets that the rules or the guard did not admit
	Fragmented                       int64 // FRAG was not 0
	Limited                          int64 // over a limit
	Dropped                          int64 // malformed, to names that have no address, from those not spoken to, or without room or a way
	Unreachable                      int64 // errors that came back for what was sent (ICMP)
	Targets                          int   // that were spoken to
}

// Association relays the datagrams of one client. Its methods are safe for concurrent use.
type Association struct {
	relay   *Relay
	request Request
	account *account
	filter  Filter
	targets int // the most
	idle    time.Duration
	own     *reactor.PacketConn // its own port; nil: it shares the listener's
	timer   reactor.Timer       // of request.Loop

	// With relay.mu held:
	peer   netip.AddrPort // what the client sends from; valid once it has
	used   bool           // a client has come
	mixed  bool           // it is in a group
	host   *Association   // whose guest it is; nil is none
	guests []*Association
	past   *Summary // of guests that have ended; nil is none
	closed sync.Once
	final  *Summary // once closed

	mu      sync.Mutex
	ended   bool
	socket  *mux.PacketSocket   // that is held: the listener's, or the one that front belongs to
	front   *reactor.PacketConn // that the client's last datagram came to
	local   netip.Addr          // our address that it was sent to
	back    netip.AddrPort      // and where it came from
	active  time.Duration       // when the last datagram passed, in loop time
	began   time.Duration       // when the clock was started
	outlets []*outlet
	flows   flows
	names   map[string]*name // by ATYP, DST.ADDR and DST.PORT
	asking  int              // of them are being looked up
	counts  Counts
	first   *egress.Permit // of the first target
	server  string         // of the upstream that it was reached through
	failed  error          // why the first one that was refused was
}

// Bound returns the address that the association's datagrams come to. Its IP address may be unspecified.
func (a *Association) Bound() netip.AddrPort {
	if a.own != nil {
		return a.own.Local()
	}
	return a.request.Socket.Addr()
}

// place is where datagrams of the client that nobody knows yet come from.
func (a *Association) place() place { return place{a.request.Socket.Door(), a.request.Client} }

// claimed is the socket that the client has said it sends from.
func (a *Association) claimed() peer {
	return peer{a.request.Socket.Door(), netip.AddrPortFrom(a.request.Client, a.request.Port)}
}

// Start starts the clock: only from here on may the association come to its end by itself.
func (a *Association) Start() {
	if a.idle <= 0 && a.request.Lifetime <= 0 {
		return
	}
	a.timer.Owner = a
	l := a.request.Loop
	l.Post(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ended {
			return
		}
		a.began = l.Now()
		a.active = max(a.active, a.began)
		left, _ := a.left(a.began)
		l.Set(&a.timer, left)
	})
}

// left returns how long the association may still last, and why no longer.
func (a *Association) left(now time.Duration) (left time.Duration, why End) {
	if a.idle > 0 {
		left = a.active + a.idle - now
	}
	if life := a.request.Lifetime; life > 0 && (a.idle <= 0 || a.began+life-now < left) {
		return a.began + life - now, Lifetime
	}
	return left, Idle
}

// Expire implements the owner of a reactor.Timer.
func (a *Association) Expire() {
	session, why, over := a.expired()
	switch {
	case !over || a.relay.retire(a):
	case why == Idle && a.relay.hosts(a): // they end by themselves when nothing passes
		a.request.Loop.Set(&a.timer, a.idle)
	default:
		session.AssociationEnded(why)
	}
}

// expired reports whether the association's time is over, and for whom; else the timer is set for when it will be.
func (a *Association) expired() (session Session, why End, over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return nil, 0, false
	}
	left, why := a.left(a.request.Loop.Now())
	if left <= 0 {
		return a.request.Session, why, true
	}
	a.request.Loop.Set(&a.timer, left)
	return nil, 0, false
}

// Summary is what is to be said of an association in the end.
type Summary struct {
	Counts
	First  *egress.Permit // of the first target; nil if there was none
	Server string         // the server of the upstream that First names; "" is none
	Failed error          // why the first target that was refused was; nil if none was
}

// add adds what has passed elsewhere.
func (s *Summary) add(o Summary) {
	s.Counts.add(o.Counts)
	if s.First == nil {
		s.First, s.Server = o.First, o.Server
	}
	if s.Failed == nil {
		s.Failed = o.Failed
	}
}

func (c *Counts) add(o Counts) {
	c.FromClient += o.FromClient
	c.FromTarget += o.FromTarget
	c.BytesFromClient += o.BytesFromClient
	c.BytesFromTarget += o.BytesFromTarget
	c.Denied += o.Denied
	c.Fragmented += o.Fragmented
	c.Limited += o.Limited
	c.Dropped += o.Dropped
	c.Unreachable += o.Unreachable
	c.Targets += o.Targets
}

// take returns what has passed since it was taken last.
func (a *Association) take() Summary {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken()
}

// taken is take with a.mu held.
func (a *Association) taken() Summary {
	s := Summary{Counts: a.counts, First: a.first, Server: a.server, Failed: a.failed}
	a.counts = Counts{}
	return s
}

// Close ends the association for its session, and says what has passed. Nothing passes any more once it has returned, unless nobody knows
// whether the client is this session's or that of another one of the same identity, which goes on with it (see group). It may be
// called more than once.
func (a *Association) Close() Summary {
	a.closed.Do(func() {
		s, ending := a.relay.close(a)
		for _, it := range ending {
			s.add(it.end())
		}
		a.relay.leave(a)
		a.final = &s
	})
	return *a.final
}

// end ends the association, and returns what has passed since it was taken last.
func (a *Association) end() Summary {
	a.mu.Lock()
	if a.ended {
		defer a.mu.Unlock()
		return a.taken()
	}
	a.ended = true
	outlets, socket := a.outlets, a.socket
	for _, n := range a.names {
		if n.asking {
			n.cancel()
		}
		a.counts.Dropped += int64(len(n.waiting))
	}
	for _, o := range outlets {
		if o.opening {
			o.cancel()
		}
		a.counts.Dropped += int64(len(o.waiting))
		if o.conn != nil {
			o.conn.Close()
			o.conn = nil
		}
	}
	s := a.taken()
	a.flows, a.names, a.outlets = flows{}, nil, nil
	a.mu.Unlock()

	a.relay.forget(a)
	own, l := a.own, a.request.Loop
	l.Post(func() {
		l.Stop(&a.timer)
		if own != nil {
			_ = own.Close() // fails only where the loop has closed it
			a.relay.opened(own.Local(), false)
		}
	})
	socket.Release()
	return s
}

// ownBuffer is what the system is asked to hold of one client's datagrams, each way.
const ownBuffer = 1 << 20

// maxTries bounds the ports that are tried for one association: each that is taken costs some system calls, and this is a loop.
const maxTries = 1024

// openPort gets the association a port of its own. False is that none is free, as far as was looked.
func (a *Association) openPort(first, last uint16) bool {
	size := int(last) - int(first) + 1
	start := rand.IntN(size)
	for i := range min(size, maxTries) {
		at := netip.AddrPortFrom(a.request.Socket.Addr().Addr(), first+uint16((start+i)%size))
		c, err := reactor.OpenPacket(at, reactor.PacketOptions{Destination: true, Buffer: ownBuffer})
		if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
			continue
		}
		if err != nil { // such as no descriptors: no other port is better
			return false
		}
		a.relay.opened(at, true) // before the first datagram
		a.own = c
		if c.Watch(a.request.Loop, (*ownPort)(a)) == nil {
			return true
		}
		a.relay.opened(at, false)
		a.own = nil
	}
	return false
}
