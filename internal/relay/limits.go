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

// tick is the tunnel's only clock: it looks at the limits, asks quiet flows to
// park and, after a reset, watches the other side's send queue.
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
	t.rouseQuiet(now)
	t.schedule(t.nextCheck(now))
}

// lastMoved is when a byte was last seen to move, either way.
func (t *Tunnel) lastMoved() time.Duration {
	return max(t.touched, time.Duration(t.flows[0].moved.Load()), time.Duration(t.flows[1].moved.Load()))
}

// rouseQuiet makes flows look up that have been quiet long enough to park. A read
// deadline is the one way to wake them; it loses nothing. A flow that waits for
// its receiver does not notice until it reads again.
func (t *Tunnel) rouseQuiet(now time.Duration) {
	if t.parkAfter <= 0 {
		return
	}
	for i := range t.flows {
		f := &t.flows[i]
		if f.state == running && !f.rousing && f.quiet(now) >= t.parkAfter {
			f.rousing = true
			_ = t.ends[i].SetReadDeadline(longPast) // fails on a dead connection only: its flow is about to end
		}
	}
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
	if t.parkAfter > 0 {
		for i := range t.flows {
			if t.flows[i].state != running {
				continue
			}
			due := time.Duration(t.flows[i].moved.Load()) + t.parkAfter
			if due <= now {
				due = now + t.parkAfter // it has been asked already
			}
			next = min(next, due)
		}
	}
	return max(next, now)
}

// schedule sets the next tick. A tunnel without a goroutine has no timer
// either: the loop that watches it keeps the time for all of its tunnels.
func (t *Tunnel) schedule(at time.Duration) {
	if at == math.MaxInt64 {
		return
	}
	if t.fullyParked() {
		t.park.schedule(t, at)
		return
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(at-t.now(), t.tick)
		return
	}
	t.timer.Reset(at - t.now())
}

// unschedule gives the clock up. A tick that is already under way finds nothing to do.
func (t *Tunnel) unschedule() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.park.unschedule(t)
}

// fullyParked reports whether no goroutine carries anything, though the tunnel stands.
func (t *Tunnel) fullyParked() bool {
	n := 0
	for i := range t.flows {
		if t.flows[i].state == parked {
			n++
		}
	}
	return n > 0 && n == t.live
}

// roused answers a flow whose read deadline has fired.
func (t *Tunnel) roused(d int) (goOn bool, parked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return false, false
	}
	f := &t.flows[d]
	f.rousing = false
	_ = t.ends[d].SetReadDeadline(time.Time{}) // as above
	if t.parkAfter > 0 && f.quiet(t.now()) >= t.parkAfter && t.parkFlow(d) {
		return false, true
	}
	return true, false
}
