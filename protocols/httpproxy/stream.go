package httpproxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// clock bounds how long one direction of a connection may wait. The deadline of
// the connection itself is moved only when it fires or lies too late: a request
// on a busy connection moves none.
type clock struct {
	until time.Time // when the wait under way is over; zero is never
	// idle, when not 0, makes each Read or Write a wait of its own of this length
	// (negative: without end) instead of one until the time above.
	idle    time.Duration
	armed   time.Time   // the connection's deadline; zero is none
	stopped atomic.Bool // stop was called: every wait is over
}

// total makes all that follows one wait of d; negative is without end.
func (c *clock) total(d time.Duration) {
	c.idle, c.until = 0, time.Time{}
	if d >= 0 {
		c.until = time.Now().Add(d)
	}
}

// each makes every Read or Write that follows a wait of d; negative is without end.
func (c *clock) each(d time.Duration) { c.idle = d }

// begin notes that a Read or Write begins.
func (c *clock) begin(now time.Time) {
	switch {
	case c.idle > 0:
		c.until = now.Add(c.idle)
	case c.idle < 0:
		c.until = time.Time{}
	}
}

// over reports whether the wait under way is over.
func (c *clock) over(now time.Time) bool {
	return c.stopped.Load() || !c.until.IsZero() && !now.Before(c.until)
}

// arm makes sure that the connection's deadline fires at the end of the wait, or
// earlier. next, when not 0, is when it has to fire at the latest.
func (c *clock) arm(set func(time.Time) error, next time.Time) error {
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
	watcher watcher     // nil is none
	reading atomic.Bool // a Read is under way
}

// firstWatch is how long a Read waits before the watcher is asked: long enough
// that nearly no request ever asks it.
const firstWatch = time.Second

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	s.reading.Store(true)
	defer s.reading.Store(false)
	now := time.Now()
	s.rd.begin(now)
	var next time.Time
	if s.watcher != nil {
		next = now.Add(firstWatch)
	}
	if err := s.rd.arm(s.conn.SetReadDeadline, next); err != nil {
		return 0, err
	}
	for {
		n, err := s.conn.Read(p)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if next, err = s.readFired(next); err != nil {
			return 0, err
		}
	}
}

// readFired decides whether a Read whose deadline has fired goes on.
func (s *stream) readFired(next time.Time) (time.Time, error) {
	now := time.Now()
	if s.watcher != nil && (!now.Before(next) || s.rd.over(now)) {
		var err error
		if next, err = s.watcher.watch(now); err != nil {
			return next, err
		}
	}
	return next, s.rd.rearm(now, s.conn.SetReadDeadline, next)
}

// Write implements io.Writer. A peer that takes some bytes now and then is not
// idle: each part that it takes begins a wait of its own.
func (s *stream) Write(p []byte) (int, error) {
	s.wr.begin(time.Now())
	if err := s.wr.arm(s.conn.SetWriteDeadline, time.Time{}); err != nil {
		return 0, err
	}
	total := 0
	for {
		n, err := s.conn.Write(p[total:])
		total += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return total, err
		}
		now := time.Now()
		if n > 0 {
			s.wr.begin(now)
		}
		if err := s.wr.rearm(now, s.conn.SetWriteDeadline, time.Time{}); err != nil {
			return total, err
		}
	}
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

// await calls wait, which waits for the connection to become readable, until it
// returns something else than that a deadline has fired too early.
func (s *stream) await(wait func() error) error {
	for {
		if err := s.rd.arm(s.conn.SetReadDeadline, time.Time{}); err != nil {
			return err
		}
		err := wait()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := s.rd.rearm(time.Now(), s.conn.SetReadDeadline, time.Time{}); err != nil {
			return err
		}
	}
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
