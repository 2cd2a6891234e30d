package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// outcome is how one direction ended.
type outcome uint8

const (
	finished    outcome = iota // the source's end of file was passed on
	readFailed                 // the source is broken
	writeFailed                // the destination is broken
	unpassable                 // end of file, but the destination cannot be half-closed
)

// over ends a direction. The goroutine that ends the last one closes the tunnel.
func (t *Tunnel) over(d int, o outcome, err error) {
	t.mu.Lock()
	f := &t.flows[d]
	f.state = over
	f.cut = f.cut || len(f.pending) > 0
	f.pending = nil
	t.live--
	if !t.stopping {
		switch o {
		case finished:
		case readFailed:
			t.fail(d, "read from", err)
			t.stop()
		case writeFailed:
			// What the destination has sent before it broke may still wait in its socket: the
			// other direction delivers that, then finds the end by itself.
			t.hungUp = t.err == nil && isReset(err) && t.told[d] // it had said all that it had to say
			t.fail(1-d, "write to", err)
			t.broke = t.now() // the other direction gets drainPatience to move something
			t.schedule(t.nextCheck(t.broke))
			if !isReset(err) && !isDead(t.ends[1-d]) {
				t.stop() // a read may never say that this connection is of no more use
			}
		case unpassable:
			t.stop() // closing is the only way to say it
		}
	}
	last := t.live == 0
	t.mu.Unlock()
	if last {
		t.settle()
	}
}

// fail notes that a side is broken. The first failure is the one that is reported.
func (t *Tunnel) fail(side int, act string, err error) {
	t.broken[side] = true
	if t.err != nil {
		return
	}
	t.end, t.err = EndError, fmt.Errorf("%s the %s: %w", act, sideNames[side], err)
	if isReset(err) {
		t.end = EndReset
	}
}

// stop lets no flow go on: on a loop they end here, and deadlines wake goroutines.
func (t *Tunnel) stop() {
	if t.stopping {
		return
	}
	t.stopping = true
	if t.isLooped() {
		t.stopFlows()
		return
	}
	for _, c := range t.ends {
		if err := c.SetDeadline(longPast); err != nil {
			_ = c.Close() // it cannot be woken in another way
		}
	}
}

// stopFromOutside stops a tunnel whose flows did not ask for it. If none is left that could close the
// tunnel it is closed apart, since the caller may hold locks that done needs.
func (t *Tunnel) stopFromOutside(e End) {
	if t.stopping || t.flowing && t.live == 0 {
		return // it is ending already
	}
	if t.err == nil {
		t.end = e
	}
	t.stop()
	if t.flowing && t.live == 0 {
		t.apart(t.settle)
	}
}

// endOfFile passes the end of a direction on to its destination.
func (t *Tunnel) endOfFile(d int) {
	reset := t.hasReset(d)
	t.mu.Lock()
	switch {
	case t.stopping || t.broken[0] || t.broken[1]:
		// A broken source's last bytes are delivered; a clean end would be a lie.
		t.mu.Unlock()
		t.over(d, finished, nil)
		return
	case reset && !t.told[d]:
		// A write has taken the error that this read should have got, and its
		// flow has not reported it yet.
		t.mu.Unlock()
		t.over(d, readFailed, syscall.ECONNRESET)
		return
	}
	t.told[1-d] = true
	both := t.told[d]
	t.mu.Unlock()
	if both && t.isLooped() {
		t.over(d, finished, nil) // closing, which comes now, says it as well
		return
	}
	err := closeWrite(t.ends[1-d])
	switch {
	case err == nil:
		t.over(d, finished, nil)
	case errors.Is(err, syscall.ENOTCONN) || isReset(err):
		t.over(d, writeFailed, syscall.ECONNRESET) // the half-close says only that nobody is connected any more
	default:
		t.over(d, unpassable, nil)
	}
}

// settle closes the tunnel, or waits until a side has what was delivered to it.
func (t *Tunnel) settle() {
	t.mu.Lock()
	t.unschedule()
	wait := t.draining()
	t.mu.Unlock()
	if !wait {
		t.conclude()
	}
}

// conclude closes both ends and reports. Only the first call does.
func (t *Tunnel) conclude() {
	t.mu.Lock()
	if t.concluded {
		t.mu.Unlock()
		return
	}
	t.concluded = true
	t.unschedule()
	abort := t.aborted()
	r := Result{t.flows[0].delivered.Load(), t.flows[1].delivered.Load(), t.end, t.err}
	if t.hungUp {
		r.End, r.Err = EndEOF, nil
	}
	t.mu.Unlock()
	for i, c := range t.ends {
		if abort[i] {
			setAbort(c)
		}
		_ = c.Close() // what was not delivered is known by now
	}
	t.done(r)
}

// aborted says which sides must get a reset instead of an end of file.
func (t *Tunnel) aborted() (abort [2]bool) {
	switch {
	case t.err != nil:
		return [2]bool{true, true}
	case t.end == EndEOF:
		return abort
	}
	for d := range t.flows {
		f := &t.flows[d]
		if !t.told[1-d] && (f.cut || len(f.pending) > 0 || unread(t.ends[d]) > 0) {
			abort[1-d] = true
		}
	}
	return abort
}

// isReset reports whether an error means that the peer has aborted the
// connection, or closed it while we still had something to say.
func isReset(err error) bool {
	for _, r := range resets {
		if errors.Is(err, r) {
			return true
		}
	}
	return errors.Is(err, io.ErrClosedPipe)
}

// closeWrite half-closes a connection.
func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// setAbort makes the coming Close send a reset. It may look through a layer such as TLS,
// which no byte of the tunnel ever does.
func setAbort(c net.Conn) {
	for {
		if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
			_ = l.SetLinger(0) // on failure the connection is gone already
			return
		}
		u, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		c = u.NetConn()
	}
}

// drainPatience is how long a send queue may stand still after a reset.
var drainPatience = 3 * time.Second

const (
	drainLimit   = 30 * time.Second       // how long it may take in all
	drainUnknown = 200 * time.Millisecond // what a queue gets that cannot be looked at
	drainStep    = time.Millisecond       // the first look; each further one waits twice as long
	drainMaxStep = 100 * time.Millisecond
)

// drain is the wait between a reset of one side and that of the other. A
// reset throws away what the other side's socket still has to send, though the tunnel has
// counted it as delivered; so it is held back until that queue is empty.
type drain struct {
	on       bool
	side     int
	left     int           // the queue at the last look
	progress time.Duration // when it last shrank
	since    time.Duration
	step     time.Duration
}

// draining reports whether the reset has to be held back, and sets the next tick if so.
func (t *Tunnel) draining() bool {
	if t.err == nil || t.broken[0] == t.broken[1] || t.closed {
		return false
	}
	now := t.now()
	w := &t.drain
	if !w.on {
		w.side = 0
		if t.broken[0] {
			w.side = 1
		}
		w.since, w.progress, w.step = now, now, drainStep
	}
	left, known := unsent(t.ends[w.side])
	if !known {
		last := time.Duration(t.flows[1-w.side].moved.Load())
		if t.flows[1-w.side].delivered.Load() == 0 || now-last >= drainUnknown {
			return false
		}
		left = 1
	}
	if left == 0 || now-w.since >= drainLimit {
		return false
	}
	if !w.on || left < w.left {
		w.on, w.left, w.progress = true, left, now
	}
	if now-w.progress >= drainPatience {
		return false
	}
	t.schedule(now + w.step)
	w.step = min(2*w.step, drainMaxStep)
	return true
}
