package mux

import (
	"net"
	"net/netip"
	"testing"
)

// fakeConn is a connection that only knows whether it was closed.
type fakeConn struct {
	net.Conn
	closed bool
}

func (c *fakeConn) Close() error { c.closed = true; return nil }

// place takes a place for a new connection of client and closes what was evicted for it.
func place(t *testing.T, c *caps, client string) (*slot, Cause) {
	t.Helper()
	s := new(slot)
	evicted, refused := c.take(s, &fakeConn{}, netip.MustParseAddr(client))
	pushOut(evicted...)
	return s, refused
}

func isClosed(s *slot) bool { return s.conn.(*fakeConn).closed }

func TestCapsEvictTheOldestUnfinishedOfTheClient(t *testing.T) {
	c := newCaps(Limits{UnfinishedPerClient: 2})
	other, _ := place(t, c, "192.0.2.9")
	first, _ := place(t, c, "192.0.2.1")
	second, _ := place(t, c, "192.0.2.1")
	third, refused := place(t, c, "192.0.2.1")
	if refused != "" {
		t.Fatalf("third connection refused: %s", refused)
	}
	if got, want := [4]bool{isClosed(other), isClosed(first), isClosed(second), isClosed(third)}, [4]bool{false, true, false, false}; got != want {
		t.Errorf("closed (other, first, second, third) = %v, want %v", got, want)
	}
	if !first.wasEvicted() || second.wasEvicted() {
		t.Errorf("evicted: first %v, second %v; want true, false", first.wasEvicted(), second.wasEvicted())
	}
}

func TestCapsNeverEvictTheFinished(t *testing.T) {
	c := newCaps(Limits{ConnectionsPerClient: 2})
	a, _ := place(t, c, "192.0.2.1")
	b, _ := place(t, c, "192.0.2.1")
	a.finish()
	b.finish()
	if _, refused := place(t, c, "192.0.2.1"); refused != TooManyOfClient {
		t.Errorf("refused = %q, want %q", refused, TooManyOfClient)
	}
	if _, refused := place(t, c, "192.0.2.2"); refused != "" {
		t.Errorf("another client was refused: %s", refused)
	}
	if isClosed(a) || isClosed(b) {
		t.Error("a finished connection was closed to make room")
	}
}

func TestCapsInAll(t *testing.T) {
	c := newCaps(Limits{Connections: 2})
	a, _ := place(t, c, "192.0.2.1")
	a.finish()
	b, _ := place(t, c, "192.0.2.2")
	place(t, c, "192.0.2.3")
	if !isClosed(b) {
		t.Error("the unfinished connection was not evicted at the cap of all connections")
	}
	if total, unfinished := c.counts(); total != 2 || unfinished != 1 {
		t.Errorf("counts = %d, %d, want 2, 1", total, unfinished)
	}
}

func TestCapsRefuseWhenNobodyCanGo(t *testing.T) {
	c := newCaps(Limits{Connections: 1})
	a, _ := place(t, c, "192.0.2.1")
	a.finish()
	if _, refused := place(t, c, "192.0.2.2"); refused != TooManyConnections {
		t.Errorf("refused = %q, want %q", refused, TooManyConnections)
	}
}

func TestCapsCountAnIPv6NetworkAsOneClient(t *testing.T) {
	c := newCaps(Limits{UnfinishedPerClient: 1})
	a, _ := place(t, c, "2001:db8:1:2::1")
	b, _ := place(t, c, "2001:db8:1:2:ffff::2")
	d, _ := place(t, c, "2001:db8:1:3::1")
	if got, want := [3]bool{isClosed(a), isClosed(b), isClosed(d)}, [3]bool{true, false, false}; got != want {
		t.Errorf("closed = %v, want %v", got, want)
	}
}

func TestCapsForgetWhoHasLeft(t *testing.T) {
	c := newCaps(Limits{Connections: 10, ConnectionsPerClient: 10, Unfinished: 10, UnfinishedPerClient: 10})
	var all []*slot
	for range 10 {
		s, _ := place(t, c, "192.0.2.1")
		all = append(all, s)
	}
	for i, s := range all {
		if i%2 == 0 {
			s.finish()
		}
		s.free()
		s.free() // a second time changes nothing
	}
	total, unfinished := c.counts()
	if total != 0 || unfinished != 0 || len(c.clients) != 0 || c.oldest.first != nil || c.oldest.last != nil {
		t.Errorf("left over: total %d, unfinished %d, clients %d, list %v", total, unfinished, len(c.clients), c.oldest.first)
	}
}

func TestCapsNameABalancersClient(t *testing.T) {
	c := newCaps(Limits{UnfinishedPerClient: 1})
	declared := netip.MustParseAddr("198.51.100.7")
	a, b := new(slot), new(slot)
	for _, s := range []*slot{a, b} {
		if _, refused := c.take(s, &fakeConn{}, netip.Addr{}); refused != "" {
			t.Fatalf("refused before the client is known: %s", refused)
		}
	}
	for _, s := range []*slot{a, b} {
		evicted, refused := c.name(s, declared)
		pushOut(evicted)
		if refused != "" {
			t.Fatalf("refused: %s", refused)
		}
	}
	if !isClosed(a) || isClosed(b) {
		t.Errorf("closed (a, b) = %v, %v, want true, false", isClosed(a), isClosed(b))
	}
}
