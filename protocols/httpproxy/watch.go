package httpproxy

import (
	"context"
	"errors"
	"time"
)

// errClientGone says that nobody waits for the answer any more.
var errClientGone = errors.New("the client has closed the connection")

const (
	// watchEvery is how often a long wait for an origin looks whether the client is still there.
	watchEvery = 10 * time.Second
	// halfShutFor is how long an origin may take to answer a client that has
	// ended its side of the connection: some do so behind their request and
	// read on, most are simply gone.
	halfShutFor = time.Minute
)

// watch implements watcher for the origin's connection: it is asked when the origin
// lets us wait.
func (c *client) watch(now time.Time) (time.Time, error) {
	if err := c.t.ctx.Err(); err != nil {
		return time.Time{}, err
	}
	if c.t.unwatch == nil && c.t.origin.on == nil { // tasks are told in another way
		c.t.unwatch = context.AfterFunc(c.t.ctx, c.t.origin.abort)
	}
	next := now.Add(watchEvery)
	if u := c.t.upload; u != nil {
		c.extend(u)
		if !u.isDone() {
			return next, nil // who reads the client will notice
		}
	}
	found := peekQuiet
	if rc := c.loopConn(); rc != nil {
		found = peekOnLoop(rc)
	} else if tcp, ok := c.RawTCP(); ok {
		var p peeker
		found = p.peek(tcp)
	}
	switch found {
	case peekError:
		return next, errClientGone
	case peekEOF:
		if c.t.halfShut.IsZero() {
			c.t.halfShut = now
		}
		if !c.t.answering && now.Sub(c.t.halfShut) >= halfShutFor {
			return next, errClientGone
		}
	}
	return next, nil
}

// extend lets an origin wait for the end of a body that is still on its way.
func (c *client) extend(u *upload) {
	idle := c.s.Timeouts().Idle
	if rd := &c.t.origin.rd; idle > 0 && rd.idle == 0 {
		if until := time.Unix(0, u.moved.Load()).Add(idle); until.After(rd.until) {
			rd.until = until
		}
	}
}

// stopWatching ends what watch began.
func (c *client) stopWatching() {
	if c.t.unwatch != nil {
		c.t.unwatch()
		c.t.unwatch = nil
	}
}

// watchGone has o ended once the client takes its request back, which only HTTP/2 tells while an answer is awaited; a nil one
// ends the watch.
func (c *client) watchGone(o *origin) {
	switch {
	case c.bridge == nil:
	case o == nil:
		c.bridge.gone.do(nil)
	default:
		c.bridge.gone.do(o.abort)
	}
}
