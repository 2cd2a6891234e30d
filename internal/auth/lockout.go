package auth

import (
	"net/netip"
	"sync"
	"time"
)

// LockoutOptions bounds how often one client may guess.
type LockoutOptions struct {
	// Failures is how many distinct wrong credentials, over all users and protocols,
	// begin a ban. Zero and negative turn the lockout off.
	Failures int
	// Window is the time within which they count. Zero means 10 minutes.
	Window time.Duration
	// Ban is how long the client stays out. Zero means 15 minutes.
	Ban time.Duration
}

const (
	defaultWindow = 10 * time.Minute
	defaultBan    = 15 * time.Minute
	// maxClients bounds the clients that are remembered; the one that was seen longest ago goes.
	maxClients = 1 << 16
	// maxGood bounds the credentials that are remembered as right at one address.
	maxGood = 32
)

// Lockout keeps clients that guess out. A client is an IPv4 address or an IPv6
// /64. The same wrong pair again counts once, since browsers send it six times.
//
// Nobody can lock a user out of an address where he has logged in: the very
// credentials that were right at an address stay welcome there through a ban.
// Only they do (and only if the file still says so), so a ban leaves a guesser
// behind the same address nothing to guess. Lockout is safe for concurrent use.
type Lockout struct {
	mu      sync.Mutex
	opts    LockoutOptions
	clients map[netip.Addr]*client
	oldest  *client // a ring in order of last use, newest before oldest
}

// client is what is known of one address.
type client struct {
	key        netip.Addr
	prev, next *client
	banned     time.Time                // until then
	wrong      map[fingerprint]wrongTry // distinct wrong credentials
	good       map[fingerprint]time.Time
}

// wrongTry is when a wrong pair was first seen, and by which content of the file it was wrong.
type wrongTry struct {
	at         time.Time
	generation uint64
}

// NewLockout makes a Lockout that knows nobody.
func NewLockout(o LockoutOptions) *Lockout {
	l := &Lockout{clients: map[netip.Addr]*client{}}
	l.SetOptions(o)
	return l
}

// SetOptions changes the bounds. Bans that have begun run to their end.
func (l *Lockout) SetOptions(o LockoutOptions) {
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	if o.Ban <= 0 {
		o.Ban = defaultBan
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opts = o
}

// lockoutKey is what counts as one client.
func lockoutKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // valid for every IPv6 address
		return p.Addr()
	}
	return a
}

// standing is what a Lockout says of a pair before it is checked.
type standing struct {
	banned  time.Time // not zero: the client is banned until then, and this pair too
	isWrong bool      // this pair was wrong, by this content of the file
}

// ask tells how a client stands with a pair.
func (l *Lockout) ask(a netip.Addr, f fingerprint, generation uint64, now time.Time) standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[lockoutKey(a)]
	if c == nil || l.opts.Failures <= 0 {
		return standing{}
	}
	w, known := c.wrong[f]
	st := standing{isWrong: known && w.generation == generation && now.Sub(w.at) < l.opts.Window}
	if _, good := c.good[f]; !good && now.Before(c.banned) {
		st.banned = c.banned
	}
	return st
}

// succeeded remembers a pair that was right.
func (l *Lockout) succeeded(a netip.Addr, f fingerprint, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Failures <= 0 {
		return
	}
	c := l.touch(lockoutKey(a))
	delete(c.wrong, f)
	if _, there := c.good[f]; !there && len(c.good) >= maxGood {
		dropOldest(c.good)
	}
	c.good[f] = now
}

// failed counts a pair that was wrong and begins a ban when it was one too many.
func (l *Lockout) failed(a netip.Addr, f fingerprint, generation uint64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Failures <= 0 {
		return
	}
	c := l.touch(lockoutKey(a))
	delete(c.good, f) // the password was changed
	for old, w := range c.wrong {
		if now.Sub(w.at) >= l.opts.Window {
			delete(c.wrong, old)
		}
	}
	if w, again := c.wrong[f]; again {
		c.wrong[f] = wrongTry{w.at, generation}
		return
	}
	c.wrong[f] = wrongTry{now, generation}
	if len(c.wrong) >= l.opts.Failures {
		c.banned = now.Add(l.opts.Ban)
		clear(c.wrong)
	}
}

// touch returns the client of a key as the one that was seen last. l.mu is held.
func (l *Lockout) touch(key netip.Addr) *client {
	c := l.clients[key]
	if c == nil {
		if len(l.clients) >= maxClients {
			delete(l.clients, l.oldest.key)
			l.unlink(l.oldest)
		}
		c = &client{key: key, wrong: map[fingerprint]wrongTry{}, good: map[fingerprint]time.Time{}}
		l.clients[key] = c
	} else {
		l.unlink(c)
	}
	l.link(c)
	return c
}

// link puts c behind all others in the ring.
func (l *Lockout) link(c *client) {
	if l.oldest == nil {
		c.prev, c.next, l.oldest = c, c, c
		return
	}
	c.prev, c.next = l.oldest.prev, l.oldest
	c.prev.next, c.next.prev = c, c
}

func (l *Lockout) unlink(c *client) {
	if c.next == c {
		l.oldest = nil
		return
	}
	c.prev.next, c.next.prev = c.next, c.prev
	if l.oldest == c {
		l.oldest = c.next
	}
}

func dropOldest(m map[fingerprint]time.Time) {
	var first fingerprint
	var at time.Time
	for f, t := range m {
		if at.IsZero() || t.Before(at) {
			first, at = f, t
		}
	}
	delete(m, first)
}
