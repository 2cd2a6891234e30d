package httpproxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// clock bounds how long one direction of a connection may wait. The deadline of
// the connection itself is moved only when it fires or lies too late, and nobody
// looks at the time before there is a wait: a request on a busy connection does neither.
type clock struct {
	until time.Time // when the wait under way is over; zero is never
	// idle, when not 0, makes each Read or Write a wait of its own of this length
	// (negative: without end) instead of one until the time above.
	idle time.Duration
	// due says that the time above is still to be set, to span from now.
	due     bool
	span    time.Duration
	begun   bool        // the Read or Write under way has had to wait
	armed   time.Time   // the connection's deadline; zero is none
	stopped atomic.Bool // stop was called: every wait is over
}

// total makes all that follows one wait of d; negative is without end. It counts from
// when there is first something to wait for.
func (c *clock) total(d time.Duration) { c.idle, c.due, c.span = 0, true, d }

// each makes every Read or Write that follows a wait of d; negative is without end.
func (c *clock) each(d time.Duration) { c.idle, c.due = d, false }

// begin notes that a Read or Write begins to wait.
func (c *clock) begin(now time.Time) {
	c.begun = true
	if c.idle != 0 {
		c.due, c.span = true, c.idle
	}
	c.settle(now)
}

// settle makes a wait that is due end at a time.
func (c *clock) settle(now time.Time) {
	if !c.due {
		return
	}
	c.due, c.until = false, time.Time{}
	if c.span >= 0 {
		c.until = now.Add(c.span)
	}
}

// over reports whether the wait under way is over.
func (c *clock) over(now time.Time) bool {
	c.settle(now)
	return c.stopped.Load() || !c.until.IsZero() && !now.Before(c.until)
}

// arm makes sure that the connection's deadline fires at the end of the wait, or
// earlier. next, when not 0, is when it has to fire at the latest.
func (c *clock) arm(set func(time.Time) error, next time.Time) error {
	if c.due {
		c.settle(time.Now())
	}
	want := c.until
	if !next.IsZero() && (want.IsZero() || next.Before(want)) {
		want = next
	}
	if want.IsZero() || !c.armed.IsZero() && !c.armed.After(want) {
		return nil
	}
	c.armed = want
	if err := set(want); err != nil {
		return err
	}
	if c.stopped.Load() { // stop came in between and its deadline is lost
		return os.ErrDeadlineExceeded
	}
	return nil
}

// rearm moves on a deadline that has fired. The error is
// os.ErrDeadlineExceeded once the wait is over.
func (c *clock) rearm(now time.Time, set func(time.Time) error, next time.Time) error {
	if c.over(now) {
		return os.ErrDeadlineExceeded
	}
	c.armed = time.Time{}
	if c.until.IsZero() && next.IsZero() {
		return set(time.Time{})
	}
	return c.arm(set, next)
}

// watcher is asked while a Read waits for long, and before it gives up.
type watcher interface {
	// watch says when to be asked again at the latest, or why the wait is over.
	// It may move the stream's read clock.
	watch(now time.Time) (next time.Time, err error)
}

// stream is a connection with a clock for each direction. One goroutine at a
// time may read it and one write it; stopReads may be called from any.
type stream struct {
	conn    net.Conn
	rd, wr  clock
	watcher watcher                // nil is none
	next    time.Time              // when to ask the watcher, once a Read waits
	reading atomic.Bool            // a Read has to wait
	wrote   bool                   // conn knows that something was written
	socket  atomic.Pointer[socket] // conn itself, once nothing lies between; nil before
	// fragile says that a Write which a deadline cuts short breaks the connection, as with TLS: each Write
	// is given its whole time at once then, and none is tried again.
	fragile bool
}

// firstWatch is how long a Read waits before the watcher is asked: long enough
// that nearly no request ever asks it.
const firstWatch = time.Second

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if k := s.openSocket(); k != nil {
		return k.read(p)
	}
	if rc := s.loopConn(); rc != nil {
		_, n, err := s.readOnLoop(rc, p, nil, nil)
		return n, err
	}
	s.rd.begun = false
	defer s.endRead()
	if err := s.beginRead(time.Now()); err != nil {
		return 0, err
	}
	for {
		n, err := s.conn.Read(p)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := s.readFired(); err != nil {
			return 0, err
		}
	}
}

// beginRead begins the wait of a Read.
func (s *stream) beginRead(now time.Time) error {
	s.startWatch(now)
	return s.rd.arm(s.conn.SetReadDeadline, s.next)
}

func (s *stream) startWatch(now time.Time) {
	s.reading.Store(true)
	s.rd.begin(now)
	s.next = time.Time{}
	if s.watcher != nil {
		s.next = now.Add(firstWatch)
	}
}

// endRead ends the wait of a Read, if there was one.
func (s *stream) endRead() {
	if s.rd.begun {
		s.reading.Store(false)
	}
}

// readFired decides whether a Read whose deadline has fired goes on.
func (s *stream) readFired() error {
	now := time.Now()
	switch {
	case !s.rd.begun:
		s.startWatch(now) // it was the deadline of an earlier wait
	case s.watcher != nil && (!now.Before(s.next) || s.rd.over(now)):
		var err error
		if s.next, err = s.watcher.watch(now); err != nil {
			return err
		}
	}
	return s.rd.rearm(now, s.conn.SetReadDeadline, s.next)
}

// Write implements io.Writer. A peer that takes some bytes now and then is not
// idle: each part that it takes begins a wait of its own.
func (s *stream) Write(p []byte) (int, error) {
	if k := s.socket.Load(); k != nil && s.wrote {
		return k.write(p)
	}
	total := 0
	if rc := s.loopConn(); rc != nil && s.wrote {
		n, err := tryOnLoop(rc, p)
		if n == len(p) || err != nil {
			return n, err
		}
		total = n
	}
	s.wrote = true
	if err := s.beginWrite(); err != nil {
		return total, err
	}
	for {
		n, err := s.conn.Write(p[total:])
		total += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return total, err
		}
		if err := s.writeFired(n > 0); err != nil {
			return total, err
		}
	}
}

// beginWrite begins the wait of a Write.
func (s *stream) beginWrite() error {
	s.wr.begin(time.Now())
	if s.fragile {
		s.wr.armed = s.wr.until
		return s.conn.SetWriteDeadline(s.wr.until)
	}
	return s.wr.arm(s.conn.SetWriteDeadline, time.Time{})
}

// writeFired decides whether a Write whose deadline has fired goes on. anew says that
// a wait begins: bytes went out since the last one, or there was none.
func (s *stream) writeFired(anew bool) error {
	if s.fragile {
		return os.ErrDeadlineExceeded
	}
	now := time.Now()
	if anew {
		s.wr.begin(now)
	}
	return s.wr.rearm(now, s.conn.SetWriteDeadline, time.Time{})
}

// RawTCP returns the bare TCP connection, if there is one and nothing of it lies
// anywhere else. Who reads it keeps the read clock by itself.
func (s *stream) RawTCP() (*net.TCPConn, bool) {
	switch c := s.conn.(type) {
	case *net.TCPConn:
		return c, true
	case interface{ RawTCP() (*net.TCPConn, bool) }:
		return c.RawTCP()
	}
	return nil, false
}

// stopReads ends a Read that waits, and all that follow.
func (s *stream) stopReads() {
	s.rd.stopped.Store(true)
	_ = s.conn.SetReadDeadline(longPast) // fails only on a closed connection, whose Read has ended
}

// longPast is a deadline that is over.
var longPast = time.Unix(1, 0)

// disarmed says that somebody else has cleared the connection's deadlines.
func (s *stream) disarmed() { s.rd.armed, s.wr.armed = time.Time{}, time.Time{} }
