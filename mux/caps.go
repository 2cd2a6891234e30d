package mux

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Limits bounds the connections that are held at once. Zero and negative mean
// no limit.
type Limits struct {
	Connections          int // in all
	ConnectionsPerClient int // of one IPv4 address or one IPv6 /64
	Unfinished           int // in all: not yet past sniff and handshake
	UnfinishedPerClient  int // of one IPv4 address or one IPv6 /64
}

// caps counts connections and finds room for new ones: at a cap of unfinished
// connections the oldest unfinished one goes, so a flood of silent clients
// pushes out itself and never the good clients, who finish within milliseconds.
type caps struct {
	mu         sync.Mutex
	limits     Limits
	total      int
	unfinished int
	clients    map[netip.Addr]*clientSlots
	oldest     slotList // unfinished ones of all clients, in order of arrival
}

// clientSlots is what one client holds.
type clientSlots struct {
	total      int
	unfinished int
	oldest     slotList // its unfinished ones, in order of arrival
}

// slot is one connection's place in the caps. It lives inside its Conn.
type slot struct {
	caps    *caps // nil for a connection that no cap counts
	client  *clientSlots
	key     netip.Addr // invalid while the client is not known (before the PROXY header)
	conn    net.Conn
	state   slotState
	evicted bool
	within  *slot       // that of the connection that this is a stream of; nil for a connection of its own
	waiting atomic.Bool // its row is not known yet
	all     slotLinks   // in caps.oldest
	own     slotLinks   // in client.oldest
}

type slotState uint8

const (
	slotNew slotState = iota
	slotUnfinished
	slotFinished
	slotFree
)

// slotLinks and slotList are intrusive doubly linked lists: a connection is in
// two of them, and joining or leaving one costs no allocation.
type slotLinks struct{ prev, next *slot }

type slotList struct {
	first, last *slot
	links       func(*slot) *slotLinks
}

func allLinks(s *slot) *slotLinks { return &s.all }
func ownLinks(s *slot) *slotLinks { return &s.own }

func (l *slotList) push(s *slot) {
	n := l.links(s)
	n.prev, n.next = l.last, nil
	if l.last == nil {
		l.first = s
	} else {
		l.links(l.last).next = s
	}
	l.last = s
}

func (l *slotList) remove(s *slot) {
	n := l.links(s)
	if n.prev == nil {
		l.first = n.next
	} else {
		l.links(n.prev).next = n.next
	}
	if n.next == nil {
		l.last = n.prev
	} else {
		l.links(n.next).prev = n.prev
	}
	n.prev, n.next = nil, nil
}

// oldestFor returns the first slot that may make room for s: the connection that s is a stream of may not.
func (l *slotList) oldestFor(s *slot) *slot {
	first := l.first
	if first != nil && first == s.within {
		return l.links(first).next
	}
	return first
}

func newCaps(l Limits) *caps {
	return &caps{limits: l, clients: map[netip.Addr]*clientSlots{}, oldest: slotList{links: allLinks}}
}

// ClientKey returns what counts as one client: an IPv4 address, or the /64 that an
// IPv6 subscriber is handed as a whole.
func ClientKey(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 bits are valid for every IPv6 address
		return p.Addr()
	}
	return a
}

func over(n, limit int) bool { return limit > 0 && n >= limit }

// setLimits replaces the limits. Who is there already may stay.
func (c *caps) setLimits(l Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
}

// take gives s a place as an unfinished connection of client, which is invalid
// while it is not known. With a refusal there is none. Those that were evicted for it have
// lost their places and are to be closed by the caller.
func (c *caps) take(s *slot, conn net.Conn, client netip.Addr) (evicted []*slot, refused Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var room *slot
	if client.IsValid() {
		if room, refused = c.roomOf(s, ClientKey(client)); refused != "" {
			return nil, refused
		}
	}
	if room != nil {
		evicted = append(evicted, room)
	}
	if over(c.total, c.limits.Connections) || over(c.unfinished, c.limits.Unfinished) {
		if room = c.evict(c.oldest.oldestFor(s)); room == nil {
			return evicted, TooManyConnections
		}
		evicted = append(evicted, room)
	}
	s.caps, s.conn, s.state = c, conn, slotUnfinished
	s.waiting.Store(true)
	c.total++
	c.unfinished++
	c.oldest.push(s)
	if client.IsValid() {
		c.assign(s, ClientKey(client))
	}
	return evicted, ""
}

// name gives a connection that came through a balancer to the client that its
// PROXY header declares.
func (c *caps) name(s *slot, client netip.Addr) (evicted *slot, refused Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.state != slotUnfinished {
		return nil, Evicted
	}
	key := ClientKey(client)
	if evicted, refused = c.roomOf(s, key); refused == "" {
		c.assign(s, key)
	}
	return evicted, refused
}

// roomOf makes room for s under a client's caps if they are reached. c.mu is held.
func (c *caps) roomOf(s *slot, key netip.Addr) (evicted *slot, refused Cause) {
	cs := c.clients[key]
	if cs == nil || !over(cs.total, c.limits.ConnectionsPerClient) && !over(cs.unfinished, c.limits.UnfinishedPerClient) {
		return nil, ""
	}
	if evicted = c.evict(cs.oldest.oldestFor(s)); evicted == nil {
		return nil, TooManyOfClient
	}
	return evicted, ""
}

// assign counts an unfinished slot under its client. c.mu is held.
func (c *caps) assign(s *slot, key netip.Addr) {
	cs := c.clients[key]
	if cs == nil {
		cs = &clientSlots{oldest: slotList{links: ownLinks}}
		c.clients[key] = cs
	}
	s.client, s.key = cs, key
	cs.total++
	cs.unfinished++
	cs.oldest.push(s)
}

// evict takes the place of an unfinished connection away. c.mu is held.
func (c *caps) evict(s *slot) *slot {
	if s == nil {
		return nil
	}
	s.evicted = true
	c.leave(s)
	return s
}

// evictOldest makes room when the process, not a cap, is out of descriptors.
func (c *caps) evictOldest() *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evict(c.oldest.first)
}

// evictWaiting evicts all connections whose row is not known yet.
func (c *caps) evictWaiting() (evicted []*slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := c.oldest.first; s != nil; {
		next := s.all.next
		if s.waiting.Load() {
			evicted = append(evicted, c.evict(s))
		}
		s = next
	}
	return evicted
}

// leave ends a slot's place. c.mu is held.
func (c *caps) leave(s *slot) {
	if s.state == slotUnfinished {
		c.settle(s)
	}
	s.state = slotFree
	c.total--
	if s.client == nil {
		return
	}
	if s.client.total--; s.client.total == 0 {
		delete(c.clients, s.key)
	}
}

// settle takes a slot off the lists of unfinished ones. c.mu is held.
func (c *caps) settle(s *slot) {
	c.unfinished--
	c.oldest.remove(s)
	if s.client != nil {
		s.client.unfinished--
		s.client.oldest.remove(s)
	}
}

// finish moves a slot from the unfinished to the finished ones.
func (s *slot) finish() {
	if s.caps == nil {
		return
	}
	s.caps.mu.Lock()
	defer s.caps.mu.Unlock()
	if s.state == slotUnfinished {
		s.caps.settle(s)
		s.state = slotFinished
	}
}

// free ends the slot's place; it may be called more than once.
func (s *slot) free() {
	if s.caps == nil {
		return
	}
	s.caps.mu.Lock()
	defer s.caps.mu.Unlock()
	if s.state == slotUnfinished || s.state == slotFinished {
		s.caps.leave(s)
	}
}

// wasEvicted reports whether the connection lost its place to a newer one.
func (s *slot) wasEvicted() bool {
	if s.caps == nil {
		return false
	}
	s.caps.mu.Lock()
	defer s.caps.mu.Unlock()
	return s.evicted
}

// counts returns how many connections are held, and how many of them are unfinished.
func (c *caps) counts() (total, unfinished int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total, c.unfinished
}

// abort closes a connection with a reset: whoever held it has nothing to say to it, and a
// flood of such connections must not leave as many sockets in TIME_WAIT.
func abort(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // it fails only on a socket that is closed already
	}
	_ = c.Close()
}
