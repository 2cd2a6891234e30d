package upstream

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countedConn counts that it is closed, once.
type countedConn struct {
	net.Conn
	closed *atomic.Int32
	once   atomic.Bool
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	if !c.once.Swap(true) {
		c.closed.Add(1)
	}
	return c.Conn.Close()
}

// TestH2AfterClose: sessions that began before a reload still get tunnels; their connections end with them.
func TestH2AfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		var closed atomic.Int32
		dial := func(ctx context.Context) (net.Conn, error) {
			c, err := l.dial(ctx)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: c, closed: &closed}, nil
		}
		check := func(dialled, gone int32) {
			t.Helper()
			synctest.Wait()
			if got := l.dials.Load(); int32(got) != dialled || closed.Load() != gone {
				t.Errorf("%d connections were dialled and %d closed, want %d and %d", got, closed.Load(), dialled, gone)
			}
		}
		before := mustOpen(t, p, dial)
		p.Close()
		check(1, 0)
		late := mustOpen(t, p, dial)
		check(2, 0)
		for _, c := range []net.Conn{before, late} {
			var b [2]byte
			if _, err := io.WriteString(c, "hi"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != "hi" {
				t.Errorf("the tunnel says %q, %v", b, err)
			}
		}
		check(2, 0)
		before.Close()
		check(2, 1)
		late.Close()
		check(2, 2)
		mustOpen(t, p, dial).Close()
		check(3, 3)
		p.Close()
	})
}

// TestH2ClosedInADial: the tunnel that waits for a connection gets it.
func TestH2ClosedInADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		var closed atomic.Int32
		c := mustOpen(t, p, func(ctx context.Context) (net.Conn, error) {
			time.Sleep(time.Second) // of the bubble
			p.Close()
			c, err := l.dial(ctx)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: c, closed: &closed}, nil
		})
		checkEcho(t, c)
		c.Close()
		synctest.Wait()
		if closed.Load() != 1 {
			t.Error("the connection outlives its tunnel")
		}
	})
}

// TestH2Surplus: whoever leaves from many places does not keep a connection for each, and loses none that is in use.
func TestH2Surplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		var closed atomic.Int32
		dial := func(ctx context.Context) (net.Conn, error) {
			c, err := l.dial(ctx)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: c, closed: &closed}, nil
		}
		open := func(from string) net.Conn {
			c, err := p.Open(t.Context(), time.Time{}, from, dial, named)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		used := open("used")
		defer used.Close()
		for i := range 2 * maxKept {
			c := open(strconv.Itoa(i))
			c.Close()
			synctest.Wait()
		}
		if got := l.dials.Load() - int64(closed.Load()); got != maxKept {
			t.Errorf("%d connections are kept, want %d", got, maxKept)
		}
		var b [2]byte
		if _, err := io.WriteString(used, "hi"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(used, b[:]); err != nil || string(b[:]) != "hi" {
			t.Errorf("the tunnel in use says %q, %v", b, err)
		}
	})
}
