package httpproxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/target"
)

// permitFor makes a permit for one address.
func permitFor(t *testing.T, a netip.AddrPort) *egress.Permit {
	t.Helper()
	policy, err := acl.New(acl.Options{Rules: []acl.Rule{{Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := egress.New(egress.Options{Policy: policy}).Authorize(context.Background(), acl.Request{Target: target.FromAddrPort(a)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tcpOrigin makes an origin over a real connection.
func tcpOrigin(t *testing.T, key string) (*origin, *net.TCPConn) {
	ours, theirs := tcpPair(t)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return newOrigin(egress.Link{Conn: ours, Address: peerOf(ours)}, key), theirs
}

func TestPoolLendsTheNewest(t *testing.T) {
	p := newPool(poolOptions{})
	defer p.retire()
	a, _ := tcpOrigin(t, "k")
	permit := permitFor(t, a.link.Address)
	b, _ := tcpOrigin(t, "k")
	b.link.Address = a.link.Address
	p.put(a)
	p.put(b)
	if o := p.get(permit, "other", nil, 0); o != nil {
		t.Error("a connection was lent under another key")
	}
	if o := p.get(permit, "k", nil, 0); o != b || !o.reused {
		t.Errorf("get lent %p, want the newest %p, marked as reused", o, b)
	}
	if o := p.get(permit, "k", nil, 0); o != a {
		t.Errorf("get lent %p, want the older %p", o, a)
	}
	if o := p.get(permit, "k", nil, 0); o != nil || p.size() != 0 {
		t.Errorf("get lent %p of an empty pool of size %d", o, p.size())
	}
}

// TestPoolAsksThePermit: the same key, but an address that is not admitted any more.
func TestPoolAsksThePermit(t *testing.T) {
	p := newPool(poolOptions{})
	defer p.retire()
	a, _ := tcpOrigin(t, "k")
	b, _ := tcpOrigin(t, "k")
	p.put(a)
	p.put(b)
	if o := p.get(permitFor(t, a.link.Address), "k", nil, 0); o != a {
		t.Errorf("get lent %p, want %p: the permit does not cover the newest", o, a)
	}
	if o := p.get(permitFor(t, a.link.Address), "k", nil, 0); o != nil {
		t.Error("get lent a connection that the permit does not cover")
	}
}

func TestPoolDropsTheDead(t *testing.T) {
	p := newPool(poolOptions{})
	defer p.retire()
	a, _ := tcpOrigin(t, "k")
	dead, theirs := tcpOrigin(t, "k")
	dead.link.Address = a.link.Address
	permit := permitFor(t, a.link.Address)
	theirs.Close()
	if err := waitReadable(dead.tcp); err != nil {
		t.Fatal(err)
	}
	p.put(a)
	p.put(dead)
	if o := p.get(permit, "k", nil, 0); o != a {
		t.Errorf("get lent %p, want the live one %p", o, a)
	}
	if _, err := dead.conn.Write([]byte("x")); err == nil {
		t.Error("the dead connection was not closed")
	}
}

func TestPoolMaxIdle(t *testing.T) {
	p := newPool(poolOptions{})
	defer p.retire()
	a, _ := tcpOrigin(t, "k")
	permit := permitFor(t, a.link.Address)
	p.put(a)
	a.idleSince = a.idleSince.Add(-3 * time.Second)
	if o := p.get(permit, "k", nil, 2*time.Second); o != nil {
		t.Error("get lent what has been idle for longer than asked")
	}
	if o := p.get(permit, "k", nil, 4*time.Second); o != a {
		t.Error("get did not lend what has been idle for less than asked")
	}
}

// pipeOrigin makes an origin that no look at a socket can find alive, and a
// function that says whether it has been closed.
func pipeOrigin(key string) (o *origin, closed func() bool) {
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, theirs)
		theirs.Close()
		close(ended)
	}()
	return newOrigin(egress.Link{Conn: ours, Address: peerOf(ours)}, key), func() bool {
		synctest.Wait()
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
}

func TestPoolBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(poolOptions{perKey: 2, all: 3})
		var closed []func() bool
		for _, key := range []string{"a", "b", "a", "a", "c"} {
			o, c := pipeOrigin(key)
			p.put(o)
			closed = append(closed, c)
			time.Sleep(time.Second)
		}
		// The third "a" pushes the first out, "c" the oldest of all, which is "b".
		for i, wanted := range []bool{true, true, false, false, false} {
			if got := closed[i](); got != wanted {
				t.Errorf("connection %d closed: %v, want %v", i, got, wanted)
			}
		}
		if p.size() != 3 {
			t.Errorf("size %d, want 3", p.size())
		}
		p.retire()
		late, c := pipeOrigin("a")
		p.put(late)
		if !c() || !closed[2]() || !closed[4]() || p.size() != 0 {
			t.Error("a retired pool holds connections")
		}
	})
}

func TestPoolIdleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(poolOptions{})
		first, firstClosed := pipeOrigin("a")
		p.put(first)
		time.Sleep(20 * time.Second)
		second, secondClosed := pipeOrigin("b")
		p.put(second)
		time.Sleep(10*time.Second - 1)
		if firstClosed() {
			t.Error("closed before its time")
		}
		time.Sleep(time.Nanosecond)
		if !firstClosed() || secondClosed() {
			t.Error("after 30 s the first is to be closed and the second is not")
		}
		time.Sleep(20 * time.Second)
		if !secondClosed() || p.size() != 0 {
			t.Error("after 50 s all are to be closed")
		}
		third, thirdClosed := pipeOrigin("a") // the timer starts again
		p.put(third)
		time.Sleep(30 * time.Second)
		if !thirdClosed() {
			t.Error("the third is still open")
		}
	})
}

// peerOf is where a connection leads to; invalid where it is none of TCP.
func peerOf(c net.Conn) netip.AddrPort {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
