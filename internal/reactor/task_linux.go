package reactor

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// maxSpare is how many tasks a loop keeps for the next ones, with their stacks.
const maxSpare = 64

// Task is a flow of control on a loop, a coroutine. Tasks that have ended are used again.
type Task struct {
	loop    *Loop
	next    func() (struct{}, bool) // runs it until it waits
	stop    func()
	yield   func(struct{}) bool // waits
	f       func()              // what it is to do
	idle    bool                // it waits, and nobody has resumed it yet
	until   time.Duration       // when the wait is over; 0 is never
	lapsed  bool                // until has passed
	timer   Timer
	timerAt time.Duration // when timer expires; 0: it is not set
	read    int           // bytes since it last waited
}

// fairRead is how many bytes a task may read until the others of its loop have their turn.
const fairRead = 1 << 20

// takeTurn counts n bytes that the task has read, and lets the others go on if it has had its turn.
func (t *Task) takeTurn(n int) {
	if t.read += max(n, 0); t.read < fairRead {
		return
	}
	t.loop.Defer(t.resume)
	_ = t.wait(0) // its end is not of interest: whatever comes next is tried first
}

// Go runs f as a task. f may use the connections of this loop, and must not
// block in any other way than by them and by Aside. Go returns when f waits or ends.
func (l *Loop) Go(f func()) {
	var t *Task
	if n := len(l.spare); n > 0 {
		t, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		t = l.newTask()
	}
	t.f, t.idle = f, true
	t.resume()
}

func (l *Loop) newTask() *Task {
	t := &Task{loop: l}
	t.timer.Owner = t
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		for {
			t.f()
			t.f = nil
			if len(l.spare) >= maxSpare {
				l.Stop(&t.timer)
				return
			}
			l.spare = append(l.spare, t)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return t
}

// resume lets the task go on until it waits again. One that does not wait is left alone.
func (t *Task) resume() {
	if !t.idle {
		return
	}
	l := t.loop
	before := l.task
	t.idle, l.task = false, t
	t.next()
	l.task = before
}

// wait lets the loop go on until the task is resumed. The error is os.ErrDeadlineExceeded once until, which is in
// loop time, has passed (0 is never), or net.ErrClosed after Group.Kill.
func (t *Task) wait(until time.Duration) error {
	l := t.loop
	if l.killed {
		return net.ErrClosed
	}
	t.until, t.lapsed, t.idle = until, false, true
	// A timer that is set for an earlier moment looks anew then; most waits need none of their own.
	if until > 0 && (t.timerAt == 0 || until < t.timerAt) {
		t.timerAt = until
		l.Set(&t.timer, until-l.now)
	}
	t.read = 0
	t.yield(struct{}{})
	t.until = 0
	switch {
	case t.lapsed:
		return os.ErrDeadlineExceeded
	case l.killed:
		return net.ErrClosed
	}
	return nil
}

// Expire is what the task's timer calls.
func (t *Task) Expire() {
	t.timerAt = 0
	switch {
	case t.until == 0:
	case t.until <= t.loop.now:
		t.lapsed = true
		t.resume()
	default:
		t.timerAt = t.until
		t.loop.Set(&t.timer, t.until-t.loop.now)
	}
}

// Aside calls f, which may block, in a goroutine of its own, and lets the task that runs wait for it. A panic of f becomes
// the task's.
func (l *Loop) Aside(f func()) {
	t := l.task
	t.idle, t.read = true, 0
	done, panicked := false, any(nil)
	go func() {
		defer l.Post(func() {
			done = true
			t.resume()
		})
		defer func() {
			if p := recover(); p != nil {
				panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	for t.yield(struct{}{}); !done; t.yield(struct{}{}) {
		t.idle = true // what woke it was meant for an earlier wait
	}
	if panicked != nil {
		panic(panicked)
	}
}

// Dial connects to an address, which must not have a zone, with TCP_NODELAY, until a deadline (zero
// is none). It is for tasks. prepare is called for the socket before it connects, to bind it or set its options; nil has nothing
// to do. The error is like that of net.Dialer, the context's, or that of prepare in a *net.OpError.
func (l *Loop) Dial(ctx context.Context, to netip.AddrPort, deadline time.Time, prepare func(fd int) error) (*Conn, error) {
	var err error
	var each func(fd, _ int) error
	if prepare != nil {
		each = func(fd, _ int) error { return prepare(fd) }
	}
	c := l.Race(ctx, []netip.AddrPort{to}, 0, deadline, each, func(_ int, failed error) bool {
		err = failed
		return false
	})
	return c, err
}

// Race connects to one of several addresses (RFC 8305 section 5): one attempt after the other, the next once the one before
// has failed or after a delay; the first connection wins and the others are closed. prepare is called for each socket before it
// connects, as in Dial. Each failure is told to failed, which says whether to go on. Nil is that none is left.
func (l *Loop) Race(ctx context.Context, to []netip.AddrPort, delay time.Duration, deadline time.Time, prepare func(fd, i int) error, failed func(i int, err error) bool) *Conn {
	r := race{loop: l, to: to, prepare: prepare, failed: failed}
	defer r.close()
	if !deadline.IsZero() {
		r.until = since(deadline)
	}
	for {
		if !r.begin() {
			return nil
		}
		wait := r.until
		if begun := l.now + delay; len(r.to) > r.next && (wait == 0 || begun < wait) {
			wait = begun
		}
		err := r.await(wait)
		switch {
		case err == os.ErrDeadlineExceeded && wait != r.until:
			continue // it is time for the next attempt
		case err != nil:
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			for i := range r.running {
				failed(r.running[i].index, dialError(to[r.running[i].index], err))
			}
			return nil
		}
		if c, goOn := r.finished(); c != nil || !goOn {
			return c
		}
	}
}

// race is a Race under way.
type race struct {
	loop    *Loop
	to      []netip.AddrPort
	next    int // of to
	until   time.Duration
	running []attempt
	prepare func(fd, i int) error // nil: there is nothing to prepare
	failed  func(i int, err error) bool
}

// attempt is one that runs.
type attempt struct {
	c     *Conn
	index int
}

// begin begins the next attempt that can be begun, if there is one. False means that nothing runs, or that failed has had enough.
func (r *race) begin() bool {
	for r.next < len(r.to) {
		i := r.next
		r.next++
		c, err := r.connect(i)
		if err == nil {
			r.running = append(r.running, attempt{c, i})
			return true
		}
		if !r.failed(i, err) {
			return false
		}
	}
	return len(r.running) > 0
}

// await waits until one of the attempts is decided.
func (r *race) await(until time.Duration) error {
	t := r.loop.task
	for _, a := range r.running {
		a.c.waiting, a.c.wanted = t, Writable
	}
	err := t.wait(until)
	for _, a := range r.running {
		a.c.waiting = nil
	}
	return err
}

// finished looks for attempts that are decided: it returns the winner, or whether to go on.
func (r *race) finished() (winner *Conn, goOn bool) {
	for i := 0; i < len(r.running); i++ {
		a := r.running[i]
		if !a.c.writable {
			continue
		}
		r.running = append(r.running[:i], r.running[i+1:]...)
		i--
		err := a.c.connected()
		if err == nil {
			return a.c, false
		}
		_ = a.c.Close()
		if !r.failed(a.index, dialError(r.to[a.index], os.NewSyscallError("connect", err))) {
			return nil, false
		}
	}
	return nil, true
}

// close closes what still runs.
func (r *race) close() {
	for _, a := range r.running {
		_ = a.c.Close()
	}
}

// connect begins the attempt at an address.
func (r *race) connect(i int) (*Conn, error) {
	l, to := r.loop, r.to[i]
	fd, errno := sysSocket(to)
	if errno != 0 {
		return nil, dialError(to, os.NewSyscallError("socket", errno))
	}
	if r.prepare != nil {
		if err := r.prepare(fd, i); err != nil {
			sysClose(fd)
			return nil, dialError(to, err)
		}
	}
	if errno := sysConnect(fd, to); errno != 0 {
		sysClose(fd)
		return nil, dialError(to, os.NewSyscallError("connect", errno))
	}
	c := &Conn{fd: fd, loop: l, peer: netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}
	if err := l.watch(c, watched|unix.EPOLLOUT, nil); err != nil {
		sysClose(fd)
		return nil, dialError(to, err)
	}
	return c, nil
}

// connected says how a connect has ended.
func (c *Conn) connected() error {
	if !c.ending {
		return nil // neither an error nor a hang-up was reported beside Writable
	}
	v, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case v != 0:
		return unix.Errno(v)
	}
	return nil // it stands, and the peer has said all that it has to say
}

func dialError(to netip.AddrPort, err error) error {
	network := "tcp4"
	if to.Addr().Is6() {
		network = "tcp6"
	}
	return &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: err}
}
