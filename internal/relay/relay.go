// Package relay joins two byte streams into a tunnel (RFC 9110 section 3.7).
//
// Each direction is a stream of its own: the end of one is passed on as a
// half-close and the other goes on for as long as it likes. A reset is passed
// on as a reset, but not before the other side has what was already delivered.
// Between two bare TCP connections on Linux the bytes stay in the kernel
// (splice), nothing is held while nothing moves, and a quiet tunnel is parked on an
// epoll loop without any goroutine. Everything else is copied.
//
// The package knows no protocol and no policy, and looks at no byte.
package relay

import (
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	defaultIdleTimeout = 2*time.Hour + 4*time.Minute
	defaultParkAfter   = time.Second
)

// Options configures a tunnel. The zero value is usable.
type Options struct {
	// IdleTimeout ends the tunnel when neither side has sent a byte for this long.
	// On Linux what a slow receiver's system still acknowledges counts too, and a tunnel
	// that is stuck with undelivered bytes ends after at most twice this time.
	// Zero means 2 h 4 min (RFC 5382 REQ-5, written for NATs); negative means never.
	IdleTimeout time.Duration
	// Lifetime ends the tunnel this long after it began, whatever it carries.
	// Zero and negative mean never.
	Lifetime time.Duration
	// ParkAfter is how long a direction has to be quiet before its goroutine
	// is given up and its socket is watched by an epoll loop; bytes, a
	// half-close or a reset wake it. It matters for zero-copy tunnels
	// alone. Zero means 1 s; negative means never.
	ParkAfter time.Duration
	// FromClient is what the caller has already read from the client and the
	// target has not seen. It is delivered first, and counted. The tunnel keeps the slice.
	FromClient []byte
}

// End says why a tunnel ended.
type End uint8

const (
	// EndEOF: both sides finished. A side that had ended its own stream may have
	// closed without waiting for the other's last words, as most TLS clients
	// do; the other side still gets a reset.
	EndEOF      End = iota
	EndReset        // one side was reset; the reset was passed on
	EndIdle         // IdleTimeout
	EndLifetime     // Lifetime
	EndClosed       // Close was called
	EndError        // anything else; Result.Err has it
)

// Result is what a tunnel leaves.
type Result struct {
	BytesFromClient int64 // delivered to the target
	BytesFromTarget int64 // delivered to the client
	End             End
	// Err says which side failed and how. It is set for EndError and for
	// EndReset, where it wraps what the system said (ECONNRESET, EPIPE).
	Err error
}

// fromClient and fromTarget number the two sides, and the two directions after
// the side that they come from.
const (
	fromClient = iota
	fromTarget
)

// sideNames are for errors.
var sideNames = [2]string{"client", "target"}

// Tunnel is two byte streams joined. Its methods are safe for concurrent use.
type Tunnel struct {
	ends  [2]net.Conn
	raw   [2]syscall.RawConn // set when both ends are bare TCP and this system can splice
	flows [2]flow            // flows[i] carries what ends[i] sends
	begun time.Time          // when Start was called; stamps count from here

	idle, lifetime, parkAfter time.Duration // <= 0: never

	mu        sync.Mutex // guards what follows, and the deadlines of both ends
	done      func(Result)
	timer     *time.Timer // calls tick; nil while the tunnel is parked
	live      int         // flows that have not ended
	stopping  bool        // no flow may go on; end says why
	concluded bool        // done is being called
	end       End
	err       error
	hungUp    bool          // err is a reset by a side that had ended its own stream
	broken    [2]bool       // the side has failed: nothing more can be delivered to it
	told      [2]bool       // the other side's half-close has been passed on to this one
	touched   time.Duration // when a waiting queue was last seen to have changed
	queued    queues        // the queues at that time
	drain     drain         // after a reset: what the other side has yet to take in
	park      parking       // where its quiet flows are watched
}

// New makes a tunnel of two connections, which it owns from Start on: both are
// closed before done is called. Each should be a *net.TCPConn for zero-copy;
// any other net.Conn with CloseWrite is copied. One without CloseWrite cannot
// be half-closed, so the first end of file ends the whole tunnel.
func New(client, target net.Conn, o Options) *Tunnel {
	t := &Tunnel{ends: [2]net.Conn{client, target}, idle: o.IdleTimeout, lifetime: o.Lifetime, parkAfter: o.ParkAfter}
	if t.idle == 0 {
		t.idle = defaultIdleTimeout
	}
	if t.parkAfter == 0 {
		t.parkAfter = defaultParkAfter
	}
	t.flows[fromClient].pending = o.FromClient
	return t
}

// Start relays. It may return before the tunnel has ended; done is called
// exactly once, when both directions have ended and both ends are closed. Start
// must be called once only, even after Close, since it is what closes both ends.
// Deadlines that are set on them are cleared.
func (t *Tunnel) Start(done func(Result)) {
	t.mu.Lock()
	if t.done != nil {
		t.mu.Unlock()
		panic("relay: Start called twice")
	}
	t.done, t.begun = done, time.Now()
	if t.stopping {
		t.mu.Unlock()
		t.conclude()
		return
	}
	for _, c := range t.ends {
		// An error here means that the connection is dead; the first read says so better.
		_ = c.SetDeadline(time.Time{})
	}
	t.raw = bare(t.ends)
	if t.raw[0] == nil {
		t.parkAfter = -1 // a copied connection may hold bytes that epoll does not see
	}
	t.live = 2
	t.flows[fromClient].state, t.flows[fromTarget].state = running, running
	t.schedule(t.nextCheck(0))
	t.mu.Unlock()
	go t.run(fromTarget)
	t.run(fromClient)
}

// Close ends the tunnel at once; done gets EndClosed, unless the tunnel
// was already ending for another reason. Close does not wait for done. What has been delivered is
// still sent, except to a side whose stream is cut in the middle: that side is
// reset, so that it cannot take what it got for the whole.
func (t *Tunnel) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drain.on && !t.concluded {
		go t.conclude()
		return
	}
	t.stopFromOutside(EndClosed)
}

// Bytes returns what has been delivered so far.
func (t *Tunnel) Bytes() (fromClient, fromTarget int64) {
	return t.flows[0].delivered.Load(), t.flows[1].delivered.Load()
}

// run carries one direction until it ends or is parked.
func (t *Tunnel) run(d int) {
	if t.raw[0] != nil {
		t.carry(d)
		return
	}
	t.copy(d)
}
