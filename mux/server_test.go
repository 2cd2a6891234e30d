package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/internal/reactor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eachWay runs a test for each way in which connections are served: by goroutines, by a loop until the row is
// known, and by a loop from the first byte to the last.
func eachWay(t *testing.T, test func(t *testing.T, o Options)) {
	t.Run("goroutines", func(t *testing.T) { test(t, Options{}) })
	loops, err := reactor.Open(2)
	if errors.Is(err, reactor.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close()
	t.Run("a loop, then a goroutine", func(t *testing.T) { test(t, Options{Loops: loops}) })
	t.Run("a loop", func(t *testing.T) { test(t, Options{Loops: loops, OnLoop: func(*Conn) bool { return true }}) })
}

// testServer serves rows that answer with their own name and echo.
type testServer struct {
	*Server
	addr     string
	refused  chan Refusal
	handlers sync.WaitGroup
}

func startServer(t *testing.T, o Options, l Listener) *testServer {
	t.Helper()
	ts := &testServer{refused: make(chan Refusal, 100)}
	o.Rows = []string{"get", "five", RowReject}
	o.Refused = func(r Refusal) { ts.refused <- r }
	o.Serve = func(c *Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, c.Row()+" "+c.Client().Addr().String()+"\n")
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}
	o.Handle = func(c *Conn) { ts.handlers.Go(func() { o.Serve(c) }) }
	ts.Server = NewServer(o)
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	l.Name, l.Socket = "main", sock
	a, err := ts.Add(l)
	if err != nil {
		t.Fatal(err)
	}
	ts.addr = a.Addr().String()
	ts.SetTable(Table{"main": {
		{Name: "get", Match: word("GET ")},
		{Name: "user row", Match: word("MINE")},
		{Name: "five", Match: word("\x05")},
		rejectRow,
	}})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := ts.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		ts.handlers.Wait()
		if total, unfinished := ts.Connections(); total != 0 || unfinished != 0 {
			t.Errorf("after the end %d connections are counted, %d unfinished", total, unfinished)
		}
	})
	return ts
}

// exchange sends b, ends its side and returns all that comes back.
func exchange(t *testing.T, addr, b string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, b); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	got, _ := io.ReadAll(c) // a refused connection is reset
	return string(got)
}

func TestServerDispatches(t *testing.T) { eachWay(t, serverDispatches) }

func serverDispatches(t *testing.T, o Options) {
	ts := startServer(t, o, Listener{})
	for _, tt := range []struct{ name, send, want string }{
		{"built-in row", "GET /", "get 127.0.0.1\nGET /"},
		{"another", "\x05\x01\x00", "five 127.0.0.1\n\x05\x01\x00"},
		{"a user's row", "MINE!", "user row 127.0.0.1\nMINE!"},
		{"nothing matches", "zzz", "reject 127.0.0.1\nzzz"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exchange(t, ts.addr, tt.send); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFirstBytesWithTheEnd(t *testing.T) { eachWay(t, firstBytesWithTheEnd) }

// Both are there when the connection is accepted: no more can come, so nothing is waited for.
func firstBytesWithTheEnd(t *testing.T, o Options) {
	rows := make(chan string, 1)
	o.Rows, o.Sniff = []string{"get", RowReject}, SniffOptions{Timeout: time.Hour}
	o.Serve = func(c *Conn) { rows <- c.Row(); c.Close() }
	o.Handle = o.Serve
	s := NewServer(o)
	s.SetTable(Table{"main": {{Name: "get", Match: word("GET ")}, rejectRow}})
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", sock.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, werr := io.WriteString(c, "GE")
	if err := errors.Join(werr, c.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-rows:
		if want := RowReject; got != want {
			t.Errorf("row %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("the row is not decided")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

func TestServerTakesANewTable(t *testing.T) { eachWay(t, serverTakesANewTable) }

func serverTakesANewTable(t *testing.T, o Options) {
	ts := startServer(t, o, Listener{})
	ts.SetTable(Table{"main": {{Name: "later", Match: word("zzz")}, rejectRow}})
	if got, want := exchange(t, ts.addr, "zzz"), "later 127.0.0.1\nzzz"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProxyHeader(t *testing.T) { eachWay(t, proxyHeader) }

func proxyHeader(t *testing.T, o Options) {
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x7f\x00\x00\x01\x30\x39\x1d\xeb"
	local := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	tests := []struct {
		name  string
		from  []netip.Prefix
		send  string
		want  string
		cause Cause
	}{
		{"version 1", loop, "PROXY TCP4 198.51.100.7 192.0.2.1 12345 443\r\nGET /", "get 198.51.100.7\nGET /", ""},
		{"version 1, mapped IPv6", loop, "PROXY TCP6 ::ffff:198.51.100.7 ::1 12345 443\r\nGET /", "get 198.51.100.7\nGET /", ""},
		{"version 1, unknown", loop, "PROXY UNKNOWN\r\nGET /", "get 127.0.0.1\nGET /", ""},
		{"version 2", loop, v2 + "GET /", "get 198.51.100.7\nGET /", ""},
		{"version 2, local", loop, local + "GET /", "get 127.0.0.1\nGET /", ""},
		{"mandatory from a balancer", loop, "GET /", "", BadProxyHeader},
		{"broken", loop, "PROXY TCP4 nonsense\r\nGET /", "", BadProxyHeader},
		{"two headers", loop, "PROXY UNKNOWN\r\nPROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\nGET /", "reject 127.0.0.1\nPROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\nGET /", ""},
		{"noise from anyone else", nil, "PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\nGET /", "reject 127.0.0.1\nPROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\nGET /", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ts := startServer(t, o, Listener{ProxyFrom: tt.from})
			if got := exchange(t, ts.addr, tt.send); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.cause == "" {
				return
			}
			if r := <-ts.refused; r.Cause != tt.cause || r.Err == nil || strings.Contains(r.Err.Error(), "nonsense") {
				t.Errorf("refusal = %+v, want cause %q with an error that does not repeat the bytes", r, tt.cause)
			}
		})
	}
}

func TestFloodOfSilentClientsLocksNobodyOut(t *testing.T) {
	eachWay(t, floodOfSilentClientsLocksNobodyOut)
}

func floodOfSilentClientsLocksNobodyOut(t *testing.T, o Options) {
	o.Limits, o.Sniff = Limits{UnfinishedPerClient: 4}, SniffOptions{Timeout: time.Minute}
	ts := startServer(t, o, Listener{})
	var silent []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", ts.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	if got, want := exchange(t, ts.addr, "GET /"), "get 127.0.0.1\nGET /"; got != want {
		t.Errorf("a good client beside 20 silent ones got %q, want %q", got, want)
	}
	_ = silent[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := silent[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && err != io.EOF {
		t.Errorf("the oldest silent connection: %v, want it closed", err)
	}
	if r := <-ts.refused; r.Cause != Evicted {
		t.Errorf("cause = %q, want %q", r.Cause, Evicted)
	}
}

func TestManyEvictionsAtOnce(t *testing.T) { eachWay(t, manyEvictionsAtOnce) }

// Whoever arrives pushes the one before out, who may be arriving still, or going by itself.
func manyEvictionsAtOnce(t *testing.T, o Options) {
	o.Rows, o.Limits, o.Sniff = []string{"get", RowReject}, Limits{UnfinishedPerClient: 1}, SniffOptions{Timeout: time.Hour}
	o.Serve = func(c *Conn) { c.Close() }
	o.Handle = o.Serve
	s := NewServer(o)
	s.SetTable(Table{"main": {{Name: "get", Match: word("GET ")}, rejectRow}})
	var all sync.WaitGroup
	for range 4 { // acceptors
		sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			all.Go(func() {
				for range 200 {
					c, err := net.Dial("tcp", sock.Addr().String())
					if err != nil {
						continue // reset on the way
					}
					_ = c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
			})
		}
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if total, unfinished := s.Connections(); total != 0 || unfinished != 0 {
		t.Errorf("%d connections are still counted, %d unfinished, want none", total, unfinished)
	}
}

func TestShutdownDoesNotWaitForTheSilent(t *testing.T) { eachWay(t, shutdownDoesNotWaitForTheSilent) }

func shutdownDoesNotWaitForTheSilent(t *testing.T, o Options) {
	o.Handle, o.Sniff = func(c *Conn) { c.Close() }, SniffOptions{Timeout: time.Hour}
	s := NewServer(o)
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", sock.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v, want nil long before its deadline", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("the silent client read %d bytes, want its connection closed", n)
	}
}

func TestRemovedListenerLeavesItsConnections(t *testing.T) {
	eachWay(t, removedListenerLeavesItsConnections)
}

func removedListenerLeavesItsConnections(t *testing.T, o Options) {
	ts := startServer(t, o, Listener{})
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ts.Add(Listener{Name: "main", Socket: sock})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET /")
	want := "get 127.0.0.1\nGET /"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := ts.Remove(a); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "more")
	if _, err := io.ReadFull(c, got[:4]); err != nil || string(got[:4]) != "more" {
		t.Errorf("after Remove the connection gave %q, %v, want %q", got[:4], err, "more")
	}
	if _, err := net.Dial("tcp", a.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Remove = %v, want refused", err)
	}
}

func TestListenOnBothFamilies(t *testing.T) {
	v4, err := Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer v4.Close()
	port := addrPort(v4.Addr()).Port()
	v6, err := Listen(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if err != nil {
		t.Fatalf("[::] on the port of 0.0.0.0: %v", err)
	}
	defer v6.Close()
	if _, err := Listen(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), port)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second Listen = %v, want EADDRINUSE", err)
	}
}
