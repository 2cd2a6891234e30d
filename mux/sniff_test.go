package mux

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// word matches a literal, definitely and as early as possible.
func word(w string) Matcher {
	return func(p []byte) Verdict {
		n := min(len(p), len(w))
		switch {
		case string(p[:n]) != w[:n]:
			return NoMatch
		case n < len(w):
			return NeedMore
		}
		return Match
	}
}

// vague stands for a regular expression: it cannot say no before a line's end.
func vague(w string) Row {
	holds := func(p []byte) Verdict {
		if line, _, _ := bytes.Cut(p, []byte("\n")); bytes.Contains(line, []byte(w)) {
			return Match
		}
		return NoMatch
	}
	return Row{Name: "vague", AtPause: holds, Match: func(p []byte) Verdict {
		if v := holds(p); v == Match || bytes.Contains(p, []byte("\n")) {
			return v
		}
		return NeedMore
	}}
}

var rejectRow = Row{Name: RowReject, Match: func([]byte) Verdict { return Match }}

type sniffResult struct {
	row    string
	cause  Cause
	prefix string
	took   time.Duration
}

// sniffOf runs the sniffer on what write sends.
func sniffOf(rows []Row, o SniffOptions, write func(net.Conn)) sniffResult {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	var writer sync.WaitGroup
	writer.Go(func() { write(client) })
	o = o.withDefaults()
	start := time.Now()
	s := sniffer{c: &Conn{nc: server}, rows: rows, opts: &o, silentRow: o.SilentRow, start: start, deadline: start.Add(o.Timeout)}
	row, cause, _ := s.sniff()
	got := sniffResult{row, cause, string(s.c.Prefix()), time.Since(start)}
	server.Close()
	writer.Wait()
	return got
}

func send(parts ...string) func(net.Conn) {
	return func(c net.Conn) {
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
	}
}

func sendSlowly(every time.Duration, parts ...string) func(net.Conn) {
	return func(c net.Conn) {
		for _, p := range parts {
			time.Sleep(every) // the test's clock is not the wall's
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
	}
}

func TestSniff(t *testing.T) {
	get, five := Row{Name: "get", Match: word("GET ")}, Row{Name: "five", Match: word("\x05")}
	plain := []Row{get, five, rejectRow}
	slow := SniffOptions{Timeout: 5 * time.Second, SilentAfter: 2 * time.Second, SilentRow: "silent"}
	tests := []struct {
		name  string
		rows  []Row
		opts  SniffOptions
		write func(net.Conn)
		want  sniffResult
	}{
		{"first byte decides", plain, SniffOptions{}, send("\x05"), sniffResult{"five", "", "\x05", 0}},
		{"byte by byte", plain, SniffOptions{}, send("G", "E", "T", " "), sniffResult{"get", "", "GET ", 0}},
		{"definite no at once", plain, SniffOptions{}, send("X"), sniffResult{RowReject, "", "X", 0}},
		{"no wait for a row below", []Row{five, get, rejectRow}, SniffOptions{}, send("\x05rest"), sniffResult{"five", "", "\x05rest", 0}},
		{"silent to the end", plain, SniffOptions{}, send(), sniffResult{"", SniffTimeout, "", 5 * time.Second}},
		{"silent with a row for it", plain, slow, send(), sniffResult{"silent", "", "", 2 * time.Second}},
		{"half a word to the end", plain, SniffOptions{}, send("GE"), sniffResult{"", SniffTimeout, "GE", 5 * time.Second}},
		{"one deadline in total", plain, SniffOptions{}, sendSlowly(1900*time.Millisecond, "G", "E", "T", " "), sniffResult{"", SniffTimeout, "GE", 5 * time.Second}},
		{"half a word is not silence", plain, slow, send("GE"), sniffResult{"", SniffTimeout, "GE", 5 * time.Second}},
		{"vague row, its word", []Row{vague("y"), five, rejectRow}, SniffOptions{}, send("xxxy"), sniffResult{"vague", "", "xxxy", 0}},
		{"vague row above, asked at the pause", []Row{vague("y"), five, rejectRow}, SniffOptions{}, send("\x05"), sniffResult{"five", "", "\x05", 200 * time.Millisecond}},
		{"vague row above, line's end", []Row{vague("y"), five, rejectRow}, SniffOptions{}, send("\x05\n"), sniffResult{"five", "", "\x05\n", 0}},
		{"vague row, then bytes still decide", []Row{vague("y"), get, rejectRow}, SniffOptions{}, sendSlowly(time.Second, "GE", "T "), sniffResult{"get", "", "GET ", 2 * time.Second}},
		{"client gone before a byte", plain, SniffOptions{}, func(c net.Conn) { c.Close() }, sniffResult{"", ClosedEarly, "", 0}},
		{"client gone in mid-word", plain, SniffOptions{}, func(c net.Conn) { send("GE")(c); c.Close() }, sniffResult{RowReject, "", "GE", 0}},
		{"never more than the cap", []Row{vague("y"), {Name: "never", Match: func([]byte) Verdict { return NeedMore }}, rejectRow}, SniffOptions{}, send(strings.Repeat("x", sniffSize+100)), sniffResult{RowReject, "", strings.Repeat("x", sniffSize), 0}},
		{"panic of a matcher", []Row{{Name: "bad", Match: func([]byte) Verdict { panic("boom") }}}, SniffOptions{}, send("x"), sniffResult{"", MatcherPanicked, "x", 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := sniffOf(tt.rows, tt.opts, tt.write); got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
			})
		})
	}
}

func TestConnReplaysItsPrefix(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() { _, _ = io.WriteString(client, " world"); client.Close() }()
	c := NewConn(server, "main", "x", []byte("lo"))
	c.Unread([]byte("hel"))
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "hello world" {
		t.Errorf("ReadAll = %q, %v, want %q", got, err, "hello world")
	}
	if p := c.Prefix(); p != nil {
		t.Errorf("prefix after it was read = %q, want none", p)
	}
}

func TestRawTCPOnlyWithoutPrefix(t *testing.T) {
	a, b := tcpPair(t)
	defer a.Close()
	defer b.Close()
	c := NewConn(b, "main", "x", []byte("p"))
	if _, ok := c.RawTCP(); ok {
		t.Error("RawTCP while a byte is unread")
	}
	if got := c.TakePrefix(); string(got) != "p" {
		t.Errorf("TakePrefix = %q, want %q", got, "p")
	}
	if raw, ok := c.RawTCP(); !ok || raw != b {
		t.Errorf("RawTCP = %v, %v, want the connection itself", raw, ok)
	}
	p1, p2 := net.Pipe()
	defer p1.Close()
	defer p2.Close()
	if _, ok := NewConn(p1, "main", "x", nil).RawTCP(); ok {
		t.Error("RawTCP of what is no TCP connection")
	}
}

// tcpPair returns both ends of a TCP connection over loopback.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func FuzzDecideNeverChangesItsMind(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("\x05\x01\x00"))
	f.Add([]byte("xxy\n"))
	rows := []Row{vague("y"), {Name: "get", Match: word("GET ")}, {Name: "five", Match: word("\x05")}, rejectRow}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := sniffer{c: &Conn{}, rows: rows}
		decided := ""
		for n := 1; n <= min(len(b), sniffSize); n++ {
			s.c.prefix = b[:n]
			row, ok := s.decide(false)
			if decided != "" && (!ok || row != decided) {
				t.Fatalf("decide(%q) = %q, %v; with fewer bytes it was %q", b[:n], row, ok, decided)
			}
			if ok {
				decided = row
			}
		}
	})
}
