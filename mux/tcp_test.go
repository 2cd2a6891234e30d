package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// tcpSniff sniffs the server's end of a TCP connection.
func tcpSniff(server *net.TCPConn, o SniffOptions) (c *Conn, row string, cause Cause) {
	o = o.withDefaults()
	start := time.Now()
	c = &Conn{nc: server, tcp: server}
	s := sniffer{c: c, rows: tcpRows, opts: &o, silentRow: o.SilentRow, start: start, deadline: start.Add(o.Timeout)}
	row, cause, _ = s.sniff()
	return c, row, cause
}

var tcpRows = []Row{
	{Name: "get", Match: word("GET /")}, {Name: "post", Match: word("POST /")}, {Name: "five", Match: word("\x05\x01")}, rejectRow,
}

// readRest reads what the handler of a connection would.
func readRest(t *testing.T, c *Conn, n int) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Errorf("read: %v", err)
	}
	return string(b)
}

// Each first message is cut at every place, and comes byte by byte. The next
// segment is sent only once the one before has been taken, so none is merged with it.
func TestSniffTCPInSegments(t *testing.T) {
	for _, whole := range []string{"GET / HTTP/1.1\r\n", "POST /x", "\x05\x01\x00", "PRI", "SSH-2.0\r\n"} {
		var cuts [][]string
		for n := 1; n < len(whole); n++ {
			cuts = append(cuts, []string{whole[:n], whole[n:]})
		}
		cuts = append(cuts, strings.Split(whole, ""))
		for _, parts := range cuts {
			client, server := tcpPair(t)
			row, left := sniffParts(t, client, server, parts)
			if want := rowOf(whole); row != want {
				t.Errorf("%q is row %q, want %q", parts, row, want)
			}
			if left != whole {
				t.Errorf("of %q the handler reads %q", parts, left)
			}
			client.Close()
			server.Close()
		}
	}
}

// sniffParts sends parts one after another and returns the row, and all that is read afterwards.
func sniffParts(t *testing.T, client, server *net.TCPConn, parts []string) (row, read string) {
	t.Helper()
	c := &Conn{nc: server, tcp: server}
	start := time.Now()
	o := SniffOptions{Pause: time.Minute}.withDefaults()
	s := sniffer{c: c, rows: tcpRows, opts: &o, start: start, deadline: start.Add(time.Minute)}
	total := 0
	for i, p := range parts {
		total += len(p)
		if _, err := io.WriteString(client, p); err != nil {
			t.Fatal(err)
		}
		if row != "" {
			continue
		}
		if err := s.more(); err != nil || len(c.Prefix()) != total {
			t.Fatalf("after part %d of %q: %q, %v", i, parts, c.Prefix(), err)
		}
		row, _ = s.decide(i == len(parts)-1)
	}
	return row, readRest(t, c, total)
}

func rowOf(whole string) string {
	for _, r := range tcpRows {
		if r.Match([]byte(whole)) == Match {
			return r.Name
		}
	}
	return ""
}

func TestSniffTCP(t *testing.T) {
	soon := SniffOptions{Timeout: 50 * time.Millisecond, SilentAfter: 10 * time.Millisecond}
	silent := soon
	silent.SilentRow = "silent"
	tests := []struct {
		name  string
		opts  SniffOptions
		send  func(*net.TCPConn)
		row   string
		cause Cause
		left  string
	}{
		{"silent", soon, func(*net.TCPConn) {}, "", SniffTimeout, ""},
		{"silent, with a row for it", silent, func(*net.TCPConn) {}, "silent", "", ""},
		{"gone before a byte", SniffOptions{}, func(c *net.TCPConn) { c.Close() }, "", ClosedEarly, ""},
		{"half-closed before a byte", SniffOptions{}, func(c *net.TCPConn) { _ = c.CloseWrite() }, "", ClosedEarly, ""},
		{"half-closed in mid-word", SniffOptions{}, func(c *net.TCPConn) { _, _ = io.WriteString(c, "GE"); _ = c.CloseWrite() }, RowReject, "", "GE"},
		{"reset", SniffOptions{}, func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, "", ClosedEarly, ""},
		{"half a word to the end", soon, func(c *net.TCPConn) { _, _ = io.WriteString(c, "GE") }, "", SniffTimeout, "GE"},
		{"a long flood", SniffOptions{}, func(c *net.TCPConn) { _, _ = io.WriteString(c, "GET /"+strings.Repeat("x", 3*sniffSize)) }, "get", "", "GET /xxx"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := tcpPair(t)
			defer client.Close()
			defer server.Close()
			tt.send(client)
			c, row, cause := tcpSniff(server, tt.opts)
			if row != tt.row || cause != tt.cause {
				t.Errorf("row %q, cause %q; want %q, %q", row, cause, tt.row, tt.cause)
			}
			if got := string(c.Prefix()); !strings.HasPrefix(got, tt.left) || len(got) > sniffSize || tt.left == "" && c.buf != nil {
				t.Errorf("prefix of %d bytes: %q (buffer held: %v), want %q", len(got), got, c.buf != nil, tt.left)
			}
		})
	}
}

// A connection that waits for its first byte holds no buffer.
func TestWaitingHoldsNoBuffer(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	defer server.Close()
	c := &Conn{nc: server, tcp: server}
	_ = server.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := c.fill(); err == nil || c.buf != nil || c.prefix != nil {
		t.Errorf("fill of nothing = %v, and the buffer is held: %v", err, c.buf != nil)
	}
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	var filled sync.WaitGroup
	filled.Go(func() {
		if err := c.fill(); err != nil || string(c.Prefix()) != "x" {
			t.Errorf("fill = %q, %v", c.Prefix(), err)
		}
	})
	_, _ = io.WriteString(client, "x")
	filled.Wait()
}

func TestProxyHeaderInSegments(t *testing.T) {
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	v1 := "PROXY TCP4 198.51.100.7 127.0.0.1 12345 7659\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x7f\x00\x00\x01\x30\x39\x1d\xeb"
	for _, header := range []string{v1, v2} {
		for n := 1; n <= len(header); n++ {
			ours, theirs := net.Pipe()
			c := &Conn{nc: theirs, client: netip.MustParseAddrPort("127.0.0.1:1")}
			if !(&Listener{ProxyFrom: loop}).isBalancer(c.client.Addr()) {
				t.Fatal("127.0.0.1 is no balancer")
			}
			go send(header[:n], header[n:]+"GET /")(ours)
			_ = theirs.SetDeadline(time.Now().Add(10 * time.Second))
			if cause, err := c.readProxyHeader(); cause != "" {
				t.Fatalf("cut at %d of %q: %s, %v", n, header, cause, err)
			}
			if c.Client().String() != "198.51.100.7:12345" || c.Local().String() != "127.0.0.1:7659" {
				t.Errorf("cut at %d: client %v at %v", n, c.Client(), c.Local())
			}
			// What came behind the header in its segment, and no more, has been taken.
			if got := readRest(t, c, 5); got != "GET /" {
				t.Errorf("cut at %d: then %q, want %q", n, got, "GET /")
			}
			ours.Close()
			theirs.Close()
		}
	}
}

func TestProxyHeaderCauses(t *testing.T) {
	tests := []struct {
		name  string
		send  string
		close bool
		cause Cause
	}{
		{"a health check that connects and leaves", "", true, ClosedEarly},
		{"silence", "", false, SniffTimeout},
		{"none", "GET / HTTP/1.1\r\n", false, BadProxyHeader},
		{"cut short", "PROXY TCP4 198.51", true, BadProxyHeader},
		{"a line without end", "PROXY " + strings.Repeat("x", 200), false, BadProxyHeader},
		{"a lower-case one", "proxy TCP4 198.51.100.7 127.0.0.1 1 2\r\n", false, BadProxyHeader},
		{"v2 cut short", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6", true, BadProxyHeader},
		{"v2 of 64 KiB", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("x", 8<<10), false, BadProxyHeader},
		{"UNKNOWN", "PROXY UNKNOWN\r\n", false, ""},
		{"LOCAL", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := tcpPair(t)
			defer client.Close()
			defer server.Close()
			_, _ = io.WriteString(client, tt.send)
			if tt.close {
				client.Close()
			}
			wait := 10 * time.Second
			if tt.cause == SniffTimeout {
				wait = 10 * time.Millisecond
			}
			_ = server.SetDeadline(time.Now().Add(wait))
			balancer := netip.MustParseAddrPort("127.0.0.1:1")
			c := &Conn{nc: server, tcp: server, client: balancer}
			cause, err := c.readProxyHeader()
			if cause != tt.cause || (err != nil) != (cause == BadProxyHeader || cause == ClosedEarly) {
				t.Errorf("cause %q, %v; want %q", cause, err, tt.cause)
			}
			if err != nil && strings.Contains(err.Error(), "198.51") {
				t.Errorf("the error repeats the bytes: %v", err)
			}
			if c.client != balancer {
				t.Errorf("the client is %v, want the balancer", c.client)
			}
		})
	}
}

func TestBalancersConnectionIsEvictedUnderItsOwnName(t *testing.T) {
	loop := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	ts := startServer(t, Options{Limits: Limits{Unfinished: 1}, Sniff: SniffOptions{Timeout: time.Minute}}, Listener{ProxyFrom: loop})
	silent, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if got, want := exchange(t, ts.addr, "PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\nGET /"), "get 198.51.100.7\nGET /"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := <-ts.refused; r.Cause != Evicted || r.Err != nil {
		t.Errorf("refusal = %+v, want %q and nothing else", r, Evicted)
	}
}

// What cmux hands on is the connection itself: no byte is in its buffer, and
// the socket can be had for zero-copy.
func TestDispatchedConnectionIsBare(t *testing.T) {
	got := make(chan *Conn, 1)
	s := NewServer(Options{Rows: []string{"get"}, Handle: func(c *Conn) { got <- c }})
	s.SetTable(Table{"main": {{Name: "get", Match: word("GET ")}, rejectRow}})
	sock, clients := queued(t, 1)
	if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
		t.Fatal(err)
	}
	c := <-got
	if p := string(c.TakePrefix()); p != "GET /" {
		t.Errorf("the prefix is %q, want %q", p, "GET /")
	}
	tcp, ok := c.RawTCP()
	if !ok {
		t.Fatal("RawTCP is not to be had")
	}
	if _, err := io.WriteString(clients[0], "more"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(tcp, b); err != nil || string(b) != "more" {
		t.Errorf("the socket gave %q, %v; want %q", b, err, "more")
	}
	c.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

func TestSilentClientsOfAServerThatEnds(t *testing.T) { eachWay(t, silentClientsOfAServerThatEnds) }

func silentClientsOfAServerThatEnds(t *testing.T, o Options) {
	refused := make(chan Refusal, 10)
	o.Handle, o.Refused, o.Sniff = func(c *Conn) { c.Close() }, func(r Refusal) { refused <- r }, SniffOptions{Timeout: time.Hour}
	s := NewServer(o)
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := net.Dial("tcp", sock.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	for range 3 {
		if r := <-refused; r.Cause != ShuttingDown {
			t.Errorf("cause = %q, want %q", r.Cause, ShuttingDown)
		}
	}
	if total, unfinished := s.Connections(); total != 0 || unfinished != 0 {
		t.Errorf("%d connections are still counted, %d unfinished", total, unfinished)
	}
}

func TestPanickingMatcherEndsItsConnectionAlone(t *testing.T) {
	eachWay(t, panickingMatcherEndsItsConnectionAlone)
}

func panickingMatcherEndsItsConnectionAlone(t *testing.T, o Options) {
	ts := startServer(t, o, Listener{})
	ts.SetTable(Table{"main": {{Name: "bad", Match: func(p []byte) Verdict {
		if p[0] == '!' {
			panic("boom")
		}
		return NoMatch
	}}, {Name: "get", Match: word("GET ")}, rejectRow}})
	if got := exchange(t, ts.addr, "!"); got != "" {
		t.Errorf("the connection got %q, want none", got)
	}
	if r := <-ts.refused; r.Cause != MatcherPanicked || r.Err == nil || !strings.Contains(r.Err.Error(), "boom") {
		t.Errorf("refusal = %+v, want %q with its cause", r, MatcherPanicked)
	}
	if got, want := exchange(t, ts.addr, "GET /"), "get 127.0.0.1\nGET /"; got != want {
		t.Errorf("the next one got %q, want %q", got, want)
	}
}

// Places are taken, finished, evicted and freed at once by many; in the end none is left.
func TestCapsUnderRace(t *testing.T) {
	c := newCaps(Limits{Connections: 50, ConnectionsPerClient: 30, Unfinished: 20, UnfinishedPerClient: 10})
	var all sync.WaitGroup
	for i := range 8 {
		client := netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i%3))
		all.Go(func() {
			for n := range 2000 {
				s := new(slot)
				named := client
				if n%5 == 0 {
					named = netip.Addr{}
				}
				evicted, refused := c.take(s, &lockedConn{}, named)
				pushOut(evicted...)
				if refused != "" {
					continue
				}
				if n%5 == 0 {
					e, _ := c.name(s, client)
					pushOut(e)
				}
				switch n % 4 {
				case 0:
					s.finish()
				case 1:
					pushOut(c.evictOldest())
				case 2:
					pushOut(c.evictWaiting()...)
				}
				s.free()
				s.finish()
				s.free()
			}
		})
	}
	all.Wait()
	if total, unfinished := c.counts(); total != 0 || unfinished != 0 || len(c.clients) != 0 || c.oldest.first != nil {
		t.Errorf("left over: %d connections, %d unfinished, %d clients", total, unfinished, len(c.clients))
	}
}

// lockedConn may be closed by several.
type lockedConn struct {
	net.Conn
	mu sync.Mutex
	n  int
}

func (c *lockedConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n++; c.n > 1 {
		return errors.New("closed twice")
	}
	return nil
}
