package relay

import (
	"math"
	"time"
)

// longPast is a deadline that wakes every read or write that waits.
var longPast = time.Unix(1, 0)

// queues are the bytes that wait in the sockets of both ends, which the relay
// does not see move: unread ones, and delivered ones that the other
// end of the connection has not acknowledged.
type queues struct{ unread, unacked [2]int }

// tick is the tunnel's only clock: it looks at the limits and, after a reset, watches the other side's send queue.
func (t *Tunnel) tick() {
	t.mu.Lock()
	switch {
	case t.concluded:
	case t.drain.on:
		if !t.draining() {
			t.mu.Unlock()
			t.conclude()
			return
		}
	case !t.stopping && t.live > 0:
		t.checkLimits()
	}
	t.mu.Unlock()
}

// checkLimits ends the tunnel or sets the next tick.
func (t *Tunnel) checkLimits() {
	now := t.now()
	if t.lifetime > 0 && now >= t.lifetime {
		t.stopFromOutside(EndLifetime)
		return
	}
	if t.broke > 0 && now-max(t.broke, t.lastMoved()) >= drainPatience {
		// What the broken side had sent waits for the other one, which takes nothing: it may well
		// wait for the broken side to take something.
		t.stopFromOutside(EndReset)
		return
	}
	if t.idle > 0 && now-t.lastMoved() >= t.idle {
		q := t.queues()
		if q == (queues{}) || q == t.queued {
			t.stopFromOutside(EndIdle)
			return
		}
		// Bytes have arrived that no flow has seen yet, or a slow receiver has taken
		// some in since the last look, less than wakes a writer.
		t.queued, t.touched = q, now
	}
	t.keepAlive(now)
	t.schedule(t.nextCheck(now))
}

// lastMoved is when a byte was last seen to move, either way.
func (t *Tunnel) lastMoved() time.Duration {
	return max(t.touched, time.Duration(t.flows[0].moved.Load()), time.Duration(t.flows[1].moved.Load()))
}

// nextCheck is when to tick next, counted from Start; it is never before now.
func (t *Tunnel) nextCheck(now time.Duration) time.Duration {
	next := time.Duration(math.MaxInt64)
	if t.lifetime > 0 {
		next = t.lifetime
	}
	if t.idle > 0 {
		next = min(next, t.lastMoved()+t.idle)
	}
	if t.broke > 0 {
		next = min(next, max(t.broke, t.lastMoved())+drainPatience)
	}
	if at := t.nextKeepAlive(); at > 0 {
		next = min(next, at)
	}
	return max(next, now)
}

// schedule sets the next tick. Of a loop's tunnels the loop keeps the time.
func (t *Tunnel) schedule(at time.Duration) {
	switch {
	case at == math.MaxInt64:
	case t.isLooped():
		t.setTimer(at)
	case t.ticker == nil:
		t.ticker = time.AfterFunc(at-t.now(), t.tick)
	default:
		t.ticker.Reset(at - t.now())
	}
}

// unschedule gives the clock up. A tick that is already under way finds nothing to do.
func (t *Tunnel) unschedule() {
	if t.ticker != nil {
		t.ticker.Stop()
		t.ticker = nil
	}
	t.stopTimer()
}
