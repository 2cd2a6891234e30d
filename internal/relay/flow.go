package relay

import (
	"sync/atomic"
	"time"
)

// flowState is where a direction stands. Tunnel.mu guards it.
type flowState uint8

const (
	fresh flowState = iota
	running
	over
)

// flow is one direction of a tunnel.
type flow struct {
	delivered atomic.Int64 // bytes that the destination's socket has taken
	moved     atomic.Int64 // when it last took some: nanoseconds since Tunnel.begun
	writing   atomic.Bool  // copied flows: a Write is under way, or its failure not yet reported
	pending   []byte       // to be delivered before anything is read; belongs to the flow's goroutine
	state     flowState
	cut       bool // it ended with bytes in hand
	pumped
}

// deliver counts n bytes that the destination has taken.
func (t *Tunnel) deliver(d, n int) {
	f := &t.flows[d]
	f.delivered.Add(int64(n))
	f.moved.Store(int64(t.now()))
}

// epoch is what goroutines count time from.
var epoch = time.Now()

// now is the time since Start.
func (t *Tunnel) now() time.Duration {
	if t.isLooped() {
		return t.loopTime() - t.begun
	}
	return time.Since(epoch) - t.begun
}
