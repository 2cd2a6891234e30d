package http2

import (
	"sync"
	"time"
)

// deadline is a read or a write deadline. Its methods want the lock of the Cond that its
// waiters wait for. One timer serves it for ever: relays move deadlines often.
type deadline struct {
	at     time.Time
	timer  *time.Timer
	passed bool
}

// set moves the deadline, as net.Conn's are set.
func (d *deadline) set(t time.Time, wake *sync.Cond) {
	d.at, d.passed = t, false
	d.stop()
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	switch {
	case wait <= 0:
		d.passed = true
		wake.Broadcast()
	case d.timer == nil:
		d.timer = time.AfterFunc(wait, func() { d.fire(wake) })
	default:
		d.timer.Reset(wait)
	}
}

// fire is called by the timer, which may be late by one set.
func (d *deadline) fire(wake *sync.Cond) {
	wake.L.Lock()
	defer wake.L.Unlock()
	if d.at.IsZero() || d.passed {
		return
	}
	if wait := time.Until(d.at); wait > 0 {
		d.timer.Reset(wait)
		return
	}
	d.passed = true
	wake.Broadcast()
}

// stop leaves nothing running. It is no harm if fire runs once more.
func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
