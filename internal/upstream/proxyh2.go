package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// openLifetime bounds an Open of HTTP/2 without a deadline, since the connection that it makes is for others too.
const openLifetime = 30 * time.Second

// maxAttempts is on how many connections a tunnel of HTTP/2 is asked for when they fail under it. A connection that was
// there before tells nothing of the proxy by failing: it may have been dead for long, as may all others that were, so the last one is made anew.
const maxAttempts = 3

// maxKept is how many connections one proxy may have before those without a tunnel go: clients say from how many places they leave,
// by their sessions, and each place has connections of its own.
const maxKept = 64

// h2Pool holds the HTTP/2 connections to one proxy.
type h2Pool struct {
	proxy *Proxy

	mu     sync.Mutex
	conns  map[*h2Conn]struct{} // that may take more tunnels; each leaves when it cannot any more
	dials  map[string]*h2Dial   // those under way, by where they leave from: at most one each
	closed bool
}

// h2Dial is a connection that is being made, for all tunnels that want one.
type h2Dial struct {
	from   string
	until  time.Time     // the deadline of whoever began it, which ends it
	done   chan struct{} // closed when it is over
	cancel context.CancelFunc
	wanted int // how many wait; when nobody does, it is cancelled

	// The outcome, from done on. The places have been reserved for those who wait: whoever finds none left, another of
	// them has got, so that a round of dials serves at least one.
	conn   *h2Conn
	places int
	err    error
}

var errNoPlace = errors.New("it has no place for a stream (RFC 9113 section 5.1.2)")

// open is Proxy.Open.
func (l *h2Pool) open(ctx context.Context, deadline time.Time, from string, dial DialFunc, to Destination) (net.Conn, error) {
	if deadline.IsZero() {
		deadline = time.Now().Add(openLifetime)
	}
	ctx, cancel := until(ctx, deadline)
	defer cancel()
	for attempt := 1; ; attempt++ {
		c, fresh, err := l.reserve(ctx, deadline, from, dial, attempt == maxAttempts)
		if err != nil {
			return nil, err
		}
		seen := c.wire.reads.Load()
		tunnel, err := c.open(ctx, to)
		if err == nil {
			return tunnel, nil
		}
		again := attempt < maxAttempts && c.mayRetry(ctx, err, fresh)
		heard := c.wire.reads.Load() != seen
		if again || isTimeout(err) && !heard { // it may be dead: PING will tell, but late
			l.remove(c)
		}
		if !again {
			return nil, l.proxy.untunnelled(ctx, err, to, fresh || heard)
		}
	}
}

// reserve returns a connection with a place for one tunnel. fresh says that it was made for it, as it has to be if anew says so.
func (l *h2Pool) reserve(ctx context.Context, deadline time.Time, from string, dial DialFunc, anew bool) (c *h2Conn, fresh bool, err error) {
	for {
		c, d, err := l.take(ctx, deadline, from, dial, anew)
		if c != nil || err != nil {
			return c, false, err
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			err = l.proxy.broken(ctx.Err())
		}
		c, err = l.leave(d, err)
		if c != nil || err != nil && (ctx.Err() != nil || !d.ranOut(deadline)) {
			return c, true, err
		}
	}
}

// ranOut reports whether a dial may have failed for want of time that others have, who wait until deadline.
func (d *h2Dial) ranOut(deadline time.Time) bool {
	return d.until.Before(deadline) && !time.Now().Before(d.until)
}

// take returns a connection with a place, or the dial to wait for, which it is if anew says so.
func (l *h2Pool) take(ctx context.Context, deadline time.Time, from string, dial DialFunc, anew bool) (*h2Conn, *h2Dial, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if !anew && c.from == from && c.cc.Reserve() == nil {
			return c, nil, nil
		}
	}
	d := l.dials[from]
	if d == nil {
		// The connection outlives the tunnel that it is made for, so that tunnel's end must not end it.
		ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
		d = &h2Dial{from: from, until: deadline, done: make(chan struct{}), cancel: cancel}
		l.dials[from] = d
		go l.connect(ctx, deadline, dial, d)
	}
	d.wanted++
	return nil, d, nil
}

// leave ends a wait, for which err is why if it did not end with the dial. It returns the connection if there is a place.
func (l *h2Pool) leave(d *h2Dial, err error) (*h2Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = d.err
	}
	var c *h2Conn
	if err == nil && d.places > 0 {
		d.places--
		c = d.conn
	}
	if d.wanted--; d.wanted == 0 {
		d.cancel()
		l.over(d) // whoever comes now must not wait for what is cancelled
		for ; d.places > 0; d.places-- {
			d.conn.cc.Release()
		}
	}
	return c, err
}

// connect makes a connection for the pool. It ends with the deadline, or when nobody wants the connection any more.
func (l *h2Pool) connect(ctx context.Context, deadline time.Time, dial DialFunc, d *h2Dial) {
	c, err := l.proxy.connectH2(ctx, deadline, dial, l.lost)
	if err == nil {
		if err = l.add(c, d); err != nil {
			_ = c.cc.Close() // the error is why
		}
	}
	l.mu.Lock()
	surplus := l.surplus()
	if err == nil && l.closed {
		surplus = append(surplus, c)
	}
	d.err = err
	l.over(d)
	close(d.done)
	l.mu.Unlock()
	for _, c := range surplus { // not before, since it may call lost
		c.finish()
	}
}

// surplus takes connections without a tunnel out of the pool while that has too many. They have to be finished. l.mu is held.
func (l *h2Pool) surplus() (idle []*h2Conn) {
	for c := range l.conns {
		if len(l.conns) <= maxKept {
			break
		}
		if c.cc.InFlight() == 0 {
			delete(l.conns, c)
			idle = append(idle, c)
		}
	}
	return idle
}

// over forgets a dial, unless another has taken its place. l.mu is held.
func (l *h2Pool) over(d *h2Dial) {
	if l.dials[d.from] == d {
		delete(l.dials, d.from)
	}
}

// add takes a connection into the pool and reserves places for those who wait. After an error nobody can use it.
func (l *h2Pool) add(c *h2Conn, d *h2Dial) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d.places < d.wanted && c.cc.Reserve() == nil {
		d.places++
	}
	if d.places == 0 {
		return l.proxy.broken(errNoPlace)
	}
	d.conn, c.from = c, d.from
	// What has closed by now has told lost already, which did not find it.
	if c.cc.Err() == nil && !l.closed {
		l.conns[c] = struct{}{}
	}
	return nil
}

// remove takes a connection out of the pool: it takes no more tunnels, and ends with its last one.
func (l *h2Pool) remove(c *h2Conn) {
	if l.forget(c) {
		c.finish()
	}
}

// lost is told that a connection has been closed.
func (l *h2Pool) lost(c *h2Conn) { l.forget(c) }

// forget takes a connection out of the pool, and is false if it was not there.
func (l *h2Pool) forget(c *h2Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, was := l.conns[c]
	delete(l.conns, c)
	return was
}

// check is Proxy.Check.
func (l *h2Pool) check(ctx context.Context, deadline time.Time, dial DialFunc) error {
	ctx, cancel := until(ctx, deadline)
	defer cancel()
	c, err := l.proxy.connectH2(ctx, deadline, dial, nil)
	if err != nil {
		return err
	}
	_ = c.cc.Close() // it has served
	return nil
}

// close is Proxy.Close. Who still has the old configuration gets tunnels all the same, over connections that end with them.
func (l *h2Pool) close() {
	l.mu.Lock()
	l.closed = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.finish()
	}
}
