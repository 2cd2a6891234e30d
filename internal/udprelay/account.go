package udprelay

import (
	"sync"
	"time"
)

// account is what the associations of one client have together.
type account struct {
	associations int // Relay.mu is held

	mu        sync.Mutex
	datagrams bucket
	bytes     bucket
	waiting   int // octets that wait for names
}

// maxWaitingOfClient bounds what waits for names of one client, in octets: a name server that is slow, or the client's own, must not fill the memory.
const maxWaitingOfClient = 512 << 10

// keep reports whether so many octets more may wait. A negative number gives some back.
func (c *account) keep(octets int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting+octets > maxWaitingOfClient {
		return false
	}
	c.waiting += octets
	return true
}

// spend reports whether one more datagram may pass at a moment of loop time.
func (c *account) spend(o *Options, now time.Duration, bytes int) bool {
	if o.Datagrams <= 0 && o.Bytes <= 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.datagrams.fill(o.Datagrams, o.Datagrams, now)
	c.bytes.fill(o.Bytes, max(o.Bytes, longest), now)
	if o.Datagrams > 0 && c.datagrams.left < 1 || o.Bytes > 0 && c.bytes.left < float64(bytes) {
		return false
	}
	// What has no limit owes nothing to one that a reload brings.
	if o.Datagrams > 0 {
		c.datagrams.left--
	}
	if o.Bytes > 0 {
		c.bytes.left -= float64(bytes)
	}
	return true
}

// accountLife is how long what a client has spent matters: until its allowance is whole again.
func (o *Options) accountLife() time.Duration {
	const most = time.Minute
	switch {
	case o.Bytes > 0:
		return min(most, max(time.Second, longest*time.Second/time.Duration(o.Bytes)))
	case o.Datagrams > 0:
		return time.Second
	}
	return 0
}

// longest is what one datagram may carry; a lower rate must not keep the longest ones out for ever.
const longest = 65507

// bucket holds what may pass at once.
type bucket struct {
	left  float64
	at    time.Duration // when it was filled last
	begun bool
}

// fill adds what has come to it since the last time, up to most.
func (b *bucket) fill(perSecond, most int, now time.Duration) {
	full := float64(most)
	if !b.begun {
		b.left, b.at, b.begun = full, now, true
		return
	}
	if now > b.at {
		b.left += float64(perSecond) * (now - b.at).Seconds()
		b.at = now
	}
	b.left = min(b.left, full)
}
