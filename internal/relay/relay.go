// Package relay joins two byte streams into a tunnel (RFC 9110 section 3.7).
//
// Each direction is a stream of its own: the end of one is passed on as a
// half-close and the other goes on for as long as it likes. A reset is passed
// on as a reset, but not before the other side has what was already delivered.
// Between two bare TCP connections on Linux an event loop moves the bytes: they stay in
// the kernel (splice) once there are many of them, and a tunnel has no goroutine, no timer of
// the runtime, and while nothing moves no buffer and no pipe. Everything else is copied by goroutines.
//
// The package knows no protocol and no policy, and looks at no byte.
package relay

import (
	"net"
	"sync"
	"time"

	"polyport/internal/reactor"
)

const defaultIdleTimeout = 2*time.Hour + 4*time.Minute

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
	// Loop moves the bytes between two *net.TCPConn. Nil has goroutines copy them. It does not matter
	// for two connections that are on a loop already.
	Loop *reactor.Loop
	// FromClient is what the caller has already read from the client and the
	// target has not seen. It is delivered first, and counted. The tunnel keeps the slice.
	FromClient []byte
	// FromTarget is the same the other way.
	FromTarget []byte
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
	flows [2]flow       // flows[i] carries what ends[i] sends
	begun time.Duration // when Start was called, by the clock that is used; stamps count from here
	looped

	idle, lifetime time.Duration // <= 0: never

	mu        sync.Mutex // guards what follows, and the deadlines of both ends
	done      func(Result)
	ticker    *time.Timer // calls tick; nil on a loop
	flowing   bool        // Start has let the flows run
	live      int         // flows that have not ended
	stopping  bool        // no flow may go on; end says why
	concluded bool        // done is being called
	end       End
	err       error
	hungUp    bool          // err is a reset by a side that had ended its own stream
	broken    [2]bool       // the side has failed: nothing more can be delivered to it
	broke     time.Duration // when it did, if the other direction went on; 0 is never
	closed    bool          // Close was called: nothing is waited for any more
	told      [2]bool       // the other side's half-close has been passed on to this one
	touched   time.Duration // when a waiting queue was last seen to have changed
	queued    queues        // the queues at that time
	drain     drain         // after a reset: what the other side has yet to take in
}

// New makes a tunnel of two connections, which it owns from now on: both are
// closed before done is called. For zero-copy both should be *net.TCPConn, with a Loop, or connections of one
// loop; any other net.Conn with CloseWrite is copied. One without CloseWrite cannot
// be half-closed, so the first end of file ends the whole tunnel.
func New(client, target net.Conn, o Options) *Tunnel {
	t := &Tunnel{ends: [2]net.Conn{client, target}, idle: o.IdleTimeout, lifetime: o.Lifetime}
	if t.idle == 0 {
		t.idle = defaultIdleTimeout
	}
	t.flows[fromClient].pending, t.flows[fromTarget].pending = o.FromClient, o.FromTarget
	t.onLoop(o.Loop)
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
	t.done = done
	if t.isLooped() {
		t.mu.Unlock()
		t.post(t.startOnLoop)
		return
	}
	t.begun = time.Since(epoch)
	if t.stopping {
		t.mu.Unlock()
		t.conclude()
		return
	}
	for _, c := range t.ends {
		// An error here means that the connection is dead; the first read says so better.
		_ = c.SetDeadline(time.Time{})
	}
	t.begin()
	t.mu.Unlock()
	go t.copy(fromTarget)
	t.copy(fromClient)
}

// StartHere is Start for a caller who runs on the loop of both connections already.
func (t *Tunnel) StartHere(done func(Result)) {
	t.done = done
	t.startOnLoop()
}

// begin lets both flows run. t.mu is held.
func (t *Tunnel) begin() {
	t.flowing, t.live = true, 2
	t.flows[fromClient].state, t.flows[fromTarget].state = running, running
	t.schedule(t.nextCheck(0))
}

// Close ends the tunnel at once; done gets EndClosed, unless the tunnel
// was already ending for another reason. Close does not wait for done. What has been delivered is
// still sent, except to a side whose stream is cut in the middle: that side is
// reset, so that it cannot take what it got for the whole.
func (t *Tunnel) Close() {
	if t.isLooped() {
		t.post(t.close)
		return
	}
	t.close()
}

func (t *Tunnel) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.drain.on && !t.concluded {
		t.apart(t.conclude)
		return
	}
	t.stopFromOutside(EndClosed)
}

// apart has f called by nobody who holds locks that done may need.
func (t *Tunnel) apart(f func()) {
	if t.isLooped() {
		t.later(f)
		return
	}
	go f()
}

// Bytes returns what has been delivered so far.
func (t *Tunnel) Bytes() (fromClient, fromTarget int64) {
	return t.flows[0].delivered.Load(), t.flows[1].delivered.Load()
}
