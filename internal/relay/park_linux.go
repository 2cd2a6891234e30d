package relay

import (
	"math"
	"sync/atomic"
	"syscall"
	"time"
)

// parking is where a tunnel's quiet flows are watched. Tunnel.mu guards it;
// due belongs to the loop.
type parking struct {
	loop  *loop
	watch [2]int32 // the loop's number for each side plus one; 0: not watched
	due   int32    // the place among the loop's deadlines plus one; 0: none
}

// nextLoop deals tunnels out to the loops in turn.
var nextLoop atomic.Uint32

// parkFlow gives a quiet flow's goroutine up: its source is watched instead. On
// false the goroutine has to stay.
func (t *Tunnel) parkFlow(d int) bool {
	p := &t.park
	if p.loop == nil {
		p.loop = &loops[nextLoop.Add(1)%uint32(len(loops))]
	}
	if p.watch[d] == 0 && !p.loop.watch(t, d, readable) {
		return false
	}
	t.flows[d].state = parked
	t.parkWhole()
	return true
}

// parkWhole gives the timer up once no goroutine is left. A side whose end of file was
// passed on is not asked for bytes any more; it is watched for a reset alone.
func (t *Tunnel) parkWhole() {
	if t.stopping || !t.fullyParked() {
		return
	}
	for side := range t.flows {
		if t.flows[side].state == over && t.park.watch[side] == 0 {
			t.park.loop.watch(t, side, resetOnly) // if that fails, the next write to it tells
		}
	}
	t.unschedule()
	t.schedule(t.nextCheck(t.now()))
}

// wake is called by the loop when a watched side has something to say. It may come
// late, for a watch that stands no longer; then there is nothing to do.
func (t *Tunnel) wake(side int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return
	}
	f := &t.flows[side]
	if f.state != parked {
		// Once our own end has been sent too a connection dies in order.
		if f.state == over && t.live > 0 && !t.told[side] && isDead(t.raw[side]) {
			t.fail(side, "read from", syscall.ECONNRESET)
			t.stopFromOutside(EndReset)
		}
		return
	}
	t.park.remove(t, side)
	f.state = running
	t.unschedule()
	t.schedule(t.nextCheck(t.now()))
	go t.run(side)
}

// remove ends the watch of a side, if there is one.
func (p *parking) remove(t *Tunnel, side int) {
	if p.watch[side] != 0 {
		p.loop.unwatch(t, side)
	}
}

// schedule has the loop call tick at a time counted from Start.
func (p *parking) schedule(t *Tunnel, at time.Duration) {
	if at != math.MaxInt64 {
		p.loop.schedule(t, at-t.now())
	}
}

// unschedule takes schedule back.
func (p *parking) unschedule(t *Tunnel) {
	if p.loop != nil {
		p.loop.unschedule(t)
	}
}
