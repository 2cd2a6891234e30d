package relay

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"polyport/internal/reactor"
)

const (
	fairRoom = 256 << 10 // room in the destination that is worth a splice, though it is less than a third
	fairTurn = 4 << 20   // how many bytes a flow moves, about, before others have their turn: what fills a socket
)

// looped is what a tunnel on an event loop has besides. Whatever touches it runs on the loop.
type looped struct {
	loop  *reactor.Loop // nil: goroutines copy
	socks [2]*reactor.Conn
	timer reactor.Timer
	kept  bool // keep-alive is set
}

// pumped is what a flow on an event loop has besides.
type pumped struct {
	bulk   bool  // splice, since reads fill the buffer
	copies bool  // never splice: this socket cannot
	joined bool  // counted as a user of the pipe pool
	queued bool  // it has used up its turn and will get another one
	held   *pipe // with bytes that the destination has no room for, to be delivered before anything is read
	left   int   // how many are in held
}

// keepAliveAfter is when a tunnel gets keep-alive for its target: most have ended by then, and need not pay for it. The client's
// side has it from its listening socket.
const keepAliveAfter = 20 * time.Second

// onLoop puts both ends on a loop where it can: they are there already, or l is not nil and
// both are bare TCP, which is the one thing whose bytes may stay in the kernel.
func (t *Tunnel) onLoop(l *reactor.Loop) {
	client, ok1 := t.ends[fromClient].(*reactor.Conn)
	target, ok2 := t.ends[fromTarget].(*reactor.Conn)
	if !ok1 || !ok2 {
		c, ok1 := t.ends[fromClient].(*net.TCPConn)
		s, ok2 := t.ends[fromTarget].(*net.TCPConn)
		if l == nil || !ok1 || !ok2 {
			return
		}
		adopted, err := l.Adopt(c, s)
		if err != nil {
			return // no descriptor is left, perhaps: goroutines copy as well
		}
		client, target = adopted[0], adopted[1]
	}
	t.loop, t.socks = client.Loop(), [2]*reactor.Conn{client, target}
	t.ends = [2]net.Conn{client, target}
	t.timer.Owner = (*clock)(t)
}

// clock is a tunnel as its timer sees it.
type clock Tunnel

// Expire looks at the limits.
func (c *clock) Expire() { (*Tunnel)(c).tick() }

// Watched implements reactor.Owner. The tunnel has its connections already.
func (t *Tunnel) Watched(*reactor.Conn) {}

// Happened implements reactor.Owner.
func (t *Tunnel) Happened(c *reactor.Conn, e reactor.Event) {
	side := fromClient
	if c == t.socks[fromTarget] {
		side = fromTarget
	}
	if back := &t.flows[1-side]; e&reactor.Writable != 0 && (back.bulk || back.held != nil || len(back.pending) > 0) {
		t.pump(1 - side) // which may have waited for room
	}
	if e&(reactor.Readable|reactor.Failed) != 0 {
		t.pump(side)
	}
	if e&reactor.Failed != 0 {
		t.hangUp(side)
	}
}

// hangUp ends the tunnel if a side is reset whose stream had ended before, so that no read finds out. Once our own end
// has been sent too a connection dies in order.
func (t *Tunnel) hangUp(side int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := &t.flows[side]; f.state != over || t.stopping || t.live == 0 || t.told[side] || !isDead(t.socks[side]) {
		return
	}
	t.hungUp = t.err == nil // it had said all that it had to say
	t.fail(side, "read from", syscall.ECONNRESET)
	t.stopFromOutside(EndReset)
}

// startOnLoop begins to relay, on the loop.
func (t *Tunnel) startOnLoop() {
	t.mu.Lock()
	t.begun = t.loop.Now()
	if t.stopping {
		t.mu.Unlock()
		t.conclude()
		return
	}
	t.begin()
	t.mu.Unlock()
	for _, c := range t.socks {
		c.Own(t)
	}
	t.pump(fromClient)
	t.pump(fromTarget)
}

// pump moves bytes of one direction until it would have to wait, has had its turn, or ends.
func (t *Tunnel) pump(d int) {
	f := &t.flows[d]
	for begun := f.delivered.Load(); f.delivered.Load()-begun < fairTurn; {
		if f.state != running {
			return
		}
		o, err := t.step(d)
		switch {
		case err == nil:
		case err == reactor.ErrWait:
			return
		case err == io.EOF && o == readFailed:
			t.giveUp(d)
			t.endOfFile(d)
			return
		default:
			t.giveUp(d)
			t.over(d, o, err)
			return
		}
	}
	if !f.queued {
		f.queued = true
		t.loop.Defer(func() {
			f.queued = false
			t.pump(d)
		})
	}
}

// step moves some bytes: what could not be delivered before, a chunk through a pipe, or what one read takes in.
func (t *Tunnel) step(d int) (outcome, error) {
	f := &t.flows[d]
	switch {
	case len(f.pending) > 0:
		return writeFailed, t.flush(d)
	case f.held != nil:
		return t.pourHeld(d)
	case f.bulk:
		return t.splice(d)
	}
	return t.copyIn(d)
}

// giveUp leaves the pipe pool. What is in a pipe is lost.
func (t *Tunnel) giveUp(d int) {
	f := &t.flows[d]
	if f.held != nil {
		f.cut = true
		pipes.release()
		pipes.put(f.held, f.left)
		f.held = nil
	}
	if f.joined {
		f.joined = false
		pipes.leave()
	}
}

// flush delivers what is pending.
func (t *Tunnel) flush(d int) error {
	f := &t.flows[d]
	n, err := t.socks[1-d].TryWrite(f.pending)
	if n > 0 {
		t.deliver(d, n)
	}
	if f.pending = f.pending[n:]; len(f.pending) == 0 {
		f.pending = nil
		return nil
	}
	if err == nil || err == reactor.ErrWait {
		t.socks[1-d].AwaitRoom()
		return reactor.ErrWait
	}
	return err
}

// copyIn reads into the loop's buffer and writes it on; what the destination does not take is pending.
func (t *Tunnel) copyIn(d int) (outcome, error) {
	f := &t.flows[d]
	b := t.loop.Scratch()[:bufferSize]
	n, err := t.socks[d].TryRead(b)
	if err != nil {
		return readFailed, err
	}
	if f.bulk = n == len(b) && !f.copies; f.bulk && !f.joined {
		f.joined = true
		pipes.join()
	}
	m, err := t.socks[1-d].TryWrite(b[:n])
	if m > 0 {
		t.deliver(d, m)
	}
	if m == n {
		return finished, nil
	}
	f.pending = append([]byte(nil), b[m:n]...)
	if err == nil || err == reactor.ErrWait {
		t.socks[1-d].AwaitRoom()
		return writeFailed, reactor.ErrWait
	}
	return writeFailed, err
}

// splice passes one chunk through a pipe. If it may not hold the pipe it asks for no more than the destination has room
// for, so that what a slow receiver does not take stays in the source's socket, where the sender's window holds it back.
func (t *Tunnel) splice(d int) (outcome, error) {
	f := &t.flows[d]
	limit := pipeSize
	if !pipes.mayHold() {
		var ok bool
		if limit, ok = t.roomFor(d); !ok {
			return writeFailed, reactor.ErrWait
		}
	}
	p := pipes.get()
	if p == nil {
		return t.copyIn(d)
	}
	n, err := t.socks[d].TrySpliceTo(p.w, limit)
	switch {
	case err == nil:
	case err == unix.EINVAL || err == unix.ENOSYS || err == unix.ENOMEM:
		pipes.put(p, 0)
		f.copies = true
		return t.copyIn(d)
	default:
		pipes.put(p, 0)
		return readFailed, err
	}
	f.bulk = n >= bufferSize
	return t.pour(d, p, n)
}

// roomFor says how much may be spliced; if the destination has no room it asks for an event and says no.
func (t *Tunnel) roomFor(d int) (limit int, ok bool) {
	to := t.socks[1-d]
	room, writable, known := sendRoom(to.FD())
	if known && !writable && room < fairRoom && !pollWritable(to.FD()) {
		to.AwaitRoom() // if there is room by now the event comes at once
		return 0, false
	}
	if !known {
		return pipeSize, true
	}
	// The buffer is accounted with the kernel's overhead, some percent of the payload.
	return min(pipeSize, max(room-room/8, bufferSize)), true
}

// pour delivers the n bytes in a pipe. What the destination does not take stays there, where the next event finds it, unless
// too many pipes are held already: then it is moved to memory, and as splice had asked for no more than what
// there was room for, that is little.
func (t *Tunnel) pour(d int, p *pipe, n int) (outcome, error) {
	f := &t.flows[d]
	var err error
	for n > 0 && err == nil {
		var m int
		if m, err = t.socks[1-d].TrySpliceFrom(p.r, n); m > 0 {
			n -= m
			t.deliver(d, m)
		}
	}
	switch {
	case n == 0:
		pipes.put(p, 0)
		return finished, nil
	case err != reactor.ErrWait:
		pipes.put(p, n)
		f.cut = true
		return writeFailed, err
	}
	if pipes.hold() {
		f.held, f.left = p, n
		t.socks[1-d].AwaitDrain()
		t.socks[d].Mute()
		return writeFailed, reactor.ErrWait
	}
	if f.pending, err = salvage(p, n); err != nil {
		pipes.put(p, n)
		f.cut = true
		return readFailed, err
	}
	pipes.put(p, 0)
	t.socks[1-d].AwaitRoom()
	return writeFailed, reactor.ErrWait
}

// pourHeld goes on with a pipe that was held.
func (t *Tunnel) pourHeld(d int) (outcome, error) {
	f := &t.flows[d]
	p := f.held
	f.held = nil
	pipes.release()
	o, err := t.pour(d, p, f.left)
	if f.held == nil {
		t.socks[d].Unmute()
	}
	return o, err
}

// salvage takes n bytes out of a pipe.
func salvage(p *pipe, n int) ([]byte, error) {
	b := make([]byte, n)
	for at := 0; at < n; {
		m, err := unix.Read(p.r, b[at:])
		switch {
		case err == unix.EINTR:
		case err == nil && m == 0:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil:
			return nil, fmt.Errorf("%d spliced bytes are lost in a pipe: %w", n-at, err)
		}
		at += max(m, 0)
	}
	return b, nil
}

// stopFlows ends the flows of a tunnel that is stopped. t.mu is held.
func (t *Tunnel) stopFlows() {
	for d := range t.flows {
		f := &t.flows[d]
		if f.state != running {
			continue
		}
		t.giveUp(d)
		f.cut = f.cut || len(f.pending) > 0
		f.state = over
		t.live--
	}
}

// keepAlive sets keep-alive on a target whose tunnel has lasted. t.mu is held.
func (t *Tunnel) keepAlive(now time.Duration) {
	if t.loop == nil || t.kept || now < keepAliveAfter {
		return
	}
	t.kept = true
	_ = t.socks[fromTarget].KeepAlive() // it fails for a closed connection alone
}

// nextKeepAlive is when keepAlive has something to do; 0 is never.
func (t *Tunnel) nextKeepAlive() time.Duration {
	if t.loop == nil || t.kept {
		return 0
	}
	return keepAliveAfter
}

// hasReset reports whether the end of file of a direction hides a reset. A side that has been told of the
// other's end dies in order.
func (t *Tunnel) hasReset(d int) bool {
	return t.loop != nil && !t.told[d] && t.socks[d].HungUp() && isDead(t.socks[d])
}

// isLooped reports whether the tunnel is on a loop.
func (t *Tunnel) isLooped() bool { return t.loop != nil }

// setTimer has tick called at a time counted from Start.
func (t *Tunnel) setTimer(at time.Duration) { t.loop.Set(&t.timer, at-t.now()) }

// stopTimer takes setTimer back.
func (t *Tunnel) stopTimer() {
	if t.loop != nil {
		t.loop.Stop(&t.timer)
	}
}

// post has f called on the loop.
func (t *Tunnel) post(f func()) { t.loop.Post(f) }

// later has f called on the loop by what runs there.
func (t *Tunnel) later(f func()) { t.loop.Defer(f) }

// loopTime is the loop's clock.
func (t *Tunnel) loopTime() time.Duration { return t.loop.Now() }
