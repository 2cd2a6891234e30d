package mux

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// counted makes a connection of a client with a place in the caps.
func counted(t *testing.T, caps *caps, client string) (*Conn, *fakeConn) {
	t.Helper()
	nc := &fakeConn{}
	c := &Conn{
		nc: nc, bare: nc, listener: "main", row: "h2",
		client: netip.MustParseAddrPort(client + ":1"), local: netip.MustParseAddrPort("192.0.2.254:2"),
	}
	if _, refused := caps.take(&c.slot, nc, c.client.Addr()); refused != "" {
		t.Fatal(refused)
	}
	return c, nc
}

// wantCounts compares what the caps count.
func wantCounts(t *testing.T, caps *caps, total, unfinished int) {
	t.Helper()
	if n, u := caps.counts(); n != total || u != unfinished {
		t.Errorf("%d connections, %d unfinished; want %d, %d", n, u, total, unfinished)
	}
}

func TestStream(t *testing.T) {
	caps := newCaps(Limits{ConnectionsPerClient: 3})
	c, nc := counted(t, caps, "192.0.2.1")
	state := &tls.ConnectionState{ServerName: "gw.test"}
	c.secured = state
	ours := &fakeConn{}
	st, refused := c.Stream(ours)
	if refused != "" {
		t.Fatal(refused)
	}
	wantCounts(t, caps, 2, 2)
	if st.Within() != c || c.Within() != nil || st.TLS() != state || st.Row() != "h2" || st.Listener() != "main" ||
		st.Client() != c.Client() || st.Local() != c.Local() {
		t.Errorf("the stream is %+v", st)
	}
	if _, ok := st.RawTCP(); ok {
		t.Error("a stream has a socket")
	}
	st.Finished() // and so nobody can push the connection out
	wantCounts(t, caps, 2, 0)
	st.Finished()
	st.Close()
	st.Close()
	wantCounts(t, caps, 1, 0)
	if !ours.closed || nc.closed {
		t.Errorf("closed: the stream %v, its connection %v; want the stream alone", ours.closed, nc.closed)
	}
	c.Close()
	wantCounts(t, caps, 0, 0)
	if len(caps.clients) != 0 {
		t.Errorf("%d clients are remembered", len(caps.clients))
	}
}

func TestStreamsAreRefusedAtTheCap(t *testing.T) {
	caps := newCaps(Limits{ConnectionsPerClient: 3})
	c, nc := counted(t, caps, "192.0.2.1")
	var streams []*Conn
	for range 2 {
		st, refused := c.Stream(&fakeConn{})
		if refused != "" {
			t.Fatal(refused)
		}
		st.Finished()
		streams = append(streams, st)
	}
	over := &fakeConn{}
	if st, refused := c.Stream(over); st != nil || refused != TooManyOfClient || over.closed {
		t.Errorf("beyond the cap: %v, %q, closed %v", st, refused, over.closed)
	}
	other, _ := counted(t, caps, "192.0.2.2")
	if st, refused := other.Stream(&fakeConn{}); refused != "" {
		t.Errorf("another client's is refused: %q", refused)
	} else {
		st.Close()
	}
	streams[0].Close()
	if _, refused := c.Stream(&fakeConn{}); refused != "" {
		t.Errorf("once there is room: %q", refused)
	}
	if nc.closed || c.Evicted() {
		t.Error("the connection had to go")
	}
}

func TestUnfinishedStreamMakesRoom(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
	}{
		{"connections_per_client", Limits{ConnectionsPerClient: 2}},
		{"unfinished_per_client", Limits{UnfinishedPerClient: 1}},
		{"connections", Limits{Connections: 2}},
		{"unfinished", Limits{Unfinished: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			caps := newCaps(tt.limits)
			c, nc := counted(t, caps, "192.0.2.1")
			c.Finished()
			first := &fakeConn{}
			old, refused := c.Stream(first)
			if refused != "" {
				t.Fatal(refused)
			}
			if _, refused = c.Stream(&fakeConn{}); refused != "" {
				t.Errorf("the newer one is refused: %q", refused)
			}
			if !old.Evicted() || !first.closed || nc.closed || c.Evicted() {
				t.Errorf("evicted %v and closed %v; its connection %v, %v", old.Evicted(), first.closed, c.Evicted(), nc.closed)
			}
			wantCounts(t, caps, 2, 1)
			old.Close()
			wantCounts(t, caps, 2, 1)
		})
	}
}

// A stream never pushes out the connection that it is of, though that is the oldest unfinished one.
func TestStreamSparesItsConnection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		cause  Cause // of the first stream
	}{
		{"connections_per_client", Limits{ConnectionsPerClient: 1}, TooManyOfClient},
		{"unfinished_per_client", Limits{UnfinishedPerClient: 1}, TooManyOfClient},
		{"connections", Limits{Connections: 1}, TooManyConnections},
		{"unfinished", Limits{Unfinished: 1}, TooManyConnections},
		{"room for one", Limits{ConnectionsPerClient: 2}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			caps := newCaps(tt.limits)
			c, nc := counted(t, caps, "192.0.2.1")
			first, refused := c.Stream(&fakeConn{})
			if refused != tt.cause || c.Evicted() || nc.closed {
				t.Errorf("Stream = %q, want %q; the connection is evicted: %v", refused, tt.cause, c.Evicted())
			}
			if refused == "" {
				if _, refused = c.Stream(&fakeConn{}); refused != "" || !first.Evicted() || c.Evicted() {
					t.Errorf("the second one: %q, in place of the first: %v", refused, first.Evicted())
				}
			}
		})
	}
}

// An eviction of a stream is a reset, as that of a connection is.
func TestEvictedStreamIsReset(t *testing.T) {
	caps := newCaps(Limits{UnfinishedPerClient: 1})
	c, _ := counted(t, caps, "192.0.2.1")
	c.Finished()
	client, server := tcpPair(t)
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	if _, refused := c.Stream(server); refused != "" {
		t.Fatal(refused)
	}
	if _, refused := c.Stream(&fakeConn{}); refused != "" {
		t.Fatal(refused)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream ended with %v, want a reset", err)
	}
}

func TestStreamOfAConnectionThatNobodyCounts(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	c := NewConn(server, "main", "h2", nil)
	defer c.Close()
	nc := &fakeConn{}
	st, refused := c.Stream(nc)
	if refused != "" || st.Within() != c {
		t.Fatalf("Stream = %v, %q", st, refused)
	}
	st.Finished()
	st.Close()
	if !nc.closed {
		t.Error("it is not closed")
	}
}

// CloseGently of a stream waits for nothing: what is unread there destroys nothing.
func TestCloseGentlyOfAStream(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	c := NewConn(server, "main", "h2", nil)
	defer c.Close()
	nc := &onlyClosed{t: t}
	st, _ := c.Stream(nc)
	_, _ = st.Write([]byte("x"))
	st.CloseGently()
	if !nc.closed {
		t.Error("it is not closed")
	}
}

// onlyClosed may be written and closed.
type onlyClosed struct {
	net.Conn
	t      *testing.T
	closed bool
}

func (c *onlyClosed) Write(p []byte) (int, error) { return len(p), nil }
func (c *onlyClosed) Close() error                { c.closed = true; return nil }
func (c *onlyClosed) CloseWrite() error           { c.t.Error("half-closed"); return nil }

// Streams of several connections come, finish, are pushed out and go at once; in the end none is left.
func TestStreamsUnderRace(t *testing.T) {
	caps := newCaps(Limits{Connections: 60, ConnectionsPerClient: 25, Unfinished: 30, UnfinishedPerClient: 8})
	var all sync.WaitGroup
	for _, client := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2"} {
		c := &Conn{nc: &lockedConn{}, client: netip.MustParseAddrPort(client + ":1"), local: netip.MustParseAddrPort("192.0.2.254:2")}
		evicted, _ := caps.take(&c.slot, &lockedConn{}, c.client.Addr())
		pushOut(evicted...)
		for range 3 {
			all.Go(func() {
				for n := range 500 {
					st, refused := c.Stream(&lockedConn{})
					if refused != "" {
						continue
					}
					if n%3 == 0 {
						st.Finished()
					}
					st.Close()
				}
			})
		}
		t.Cleanup(func() { c.Close() })
	}
	all.Wait()
	if total, _ := caps.counts(); total > 3 {
		t.Errorf("%d connections are left", total)
	}
}
