package integration

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// dialFrom is dial from an address of this machine.
func dialFrom(t *testing.T, from, addr string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// ended reads until a connection ends, in whatever way, and returns what came before.
func hearOut(c net.Conn) string {
	all, _ := io.ReadAll(c)
	return string(all)
}

// serveWell uses every kind of client once from an address, and fails the test unless all are served.
func serveWell(t *testing.T, from, proxy, target string) {
	t.Helper()
	host, port, _ := strings.Cut(target, ":")
	n := 0
	_, _ = fmt.Sscan(port, &n)
	high, low := string([]byte{byte(n >> 8)}), string([]byte{byte(n)})
	tests := []struct{ name, says, hears string }{
		{"CONNECT", "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n", "HTTP/1.1 200 "},
		{"SOCKS5", "\x05\x01\x00\x05\x01\x00\x03" + string([]byte{byte(len(host))}) + host + high + low, "\x05\x00\x05\x00\x00\x01"},
		{"SOCKS4", "\x04\x01" + high + low + "\x7f\x00\x00\x01\x00", "\x00\x5a"},
	}
	for _, tt := range tests {
		c := dialFrom(t, from, proxy)
		say(t, c, tt.says)
		got := make([]byte, len(tt.hears))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != tt.hears {
			t.Errorf("%s from %s: heard %q, %v; want %q", tt.name, from, got[:n], err, tt.hears)
		}
		c.Close()
	}
}

// A flood of clients that never finish pushes out itself and nobody else, and the log stays readable.
func TestFloodOfUnfinishedClients(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"10m\"\n[timeouts]\nhandshake = \"10m\"\ndrain = \"100ms\"\n[limits]\nunfinished_per_client = 50\n"+listenAnywhere+allowLoopback)
	target := tcpServer(t, echo)
	held := tunnel(t, g.at(), target)
	const flood = 2000
	firsts := []string{"", "G", "\x05", "\x16", "\x04", "GET http://" + target + "/ HTT", "\x05\x01", "CONNECT "}
	for i := range flood {
		c := dial(t, g.at())
		if first := firsts[i%len(firsts)]; first != "" {
			say(t, c, first)
		}
		if i%200 == 199 {
			serveWell(t, "127.0.0.1", g.at(), target)
			serveWell(t, "127.0.0.2", g.at(), target)
		}
	}
	say(t, held, "not even touched")
	hear(t, held, "not even touched")
	held.Close()
	g.stop()
	evicted, lines := 0, 0
	for _, l := range g.allLines() {
		switch {
		case l.str("reason") != "evicted":
		case l.str("msg") == "session end": // its row was known already
			evicted++
		default:
			lines++
			evicted += max(1, int(l.num("count")))
		}
	}
	if evicted < flood-100 || evicted > flood {
		t.Errorf("the log counts %d evicted connections, want nearly %d", evicted, flood)
	}
	if lines > 20 {
		t.Errorf("the log has %d lines of evicted connections, want a few that count", lines)
	}
}

// A client that waits for a slow target has finished its handshake: a flood from its own address does not push it out.
func TestFloodSparesWhoWaitsForATarget(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"10m\"\n[timeouts]\nconnect = \"2s\"\n[limits]\nunfinished_per_client = 20\n"+listenAnywhere+allowLoopback)
	port := int(holePort(t))
	hole := fmt.Sprint("127.0.0.1:", port)
	to := string([]byte{byte(port >> 8), byte(port)})
	waiting := []struct{ name, says, hears string }{
		{"http", "GET http://" + hole + "/ HTTP/1.1\r\nHost: " + hole + "\r\n\r\n", "HTTP/1.1 504 "},
		{"connect", "CONNECT " + hole + " HTTP/1.1\r\nHost: " + hole + "\r\n\r\n", "HTTP/1.1 504 "},
		{"socks5", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + to, "\x05\x00\x05\x06"},
		{"socks4", "\x04\x01" + to + "\x7f\x00\x00\x01\x00", "\x00\x5b"},
	}
	conns := make([]*net.TCPConn, len(waiting))
	for i, w := range waiting {
		conns[i] = dial(t, g.at())
		say(t, conns[i], w.says)
	}
	for deadline := time.Now().Add(patience); dialling(t, port) < len(waiting); time.Sleep(10 * time.Millisecond) { // nothing tells
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not dial")
		}
	}
	for range 100 {
		dial(t, g.at())
	}
	for i, w := range waiting {
		got := make([]byte, len(w.hears))
		if n, err := io.ReadFull(conns[i], got); err != nil || string(got) != w.hears {
			t.Errorf("%s: heard %q, %v; want %q", w.name, got[:n], err, w.hears)
		}
	}
}

// dialling counts the connections to a port of 127.0.0.1 that nobody has answered yet.
func dialling(t *testing.T, port int) int {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(table), fmt.Sprintf(" 0100007F:%04X 02 ", port)) // SYN_SENT
}

// allLines returns the log so far.
func (g *gateway) allLines() []logLine {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]logLine(nil), g.lines...)
}

// A flood from one address does not use up the room of others, even where all together are at their cap.
func TestFloodAtTheCapOfAll(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"10m\"\n[limits]\nunfinished = 60\nunfinished_per_client = 50\n"+listenAnywhere+allowLoopback)
	target := tcpServer(t, echo)
	for i := range 300 {
		from := fmt.Sprintf("127.0.1.%d", i%250+1) // each client stays far below its own cap
		dialFrom(t, from, g.at())
		if i%50 == 49 {
			serveWell(t, from, g.at(), target)
			serveWell(t, "127.0.0.1", g.at(), target)
		}
	}
	g.wait("the evictions", func(l logLine) bool { return l.str("reason") == "evicted" })
}

// Who sends a byte now and then gains nothing by it: there is one deadline in total.
func TestSlowHandshakes(t *testing.T) {
	t.Parallel()
	g := start(t, "[timeouts]\nhandshake = \"700ms\"\n[sniff]\ntimeout = \"700ms\"\n"+listenAnywhere+allowLoopback)
	tests := []struct{ name, first, drip, hears, protocol, reason string }{
		{"HTTP head", "GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n", "X-A: a\r\n", "HTTP/1.1 408 ", "http", "http_request_error"},
		{"HTTP request line", "GET http://127.0.0.1:1/", "a", "HTTP/1.1 408 ", "http", "http_request_error"},
		{"CONNECT", "CONNECT 127.0.0.1:1 HTTP/1.1\r\n", "X-A: a\r\n", "HTTP/1.1 408 ", "connect", "http_request_error"},
		{"SOCKS5 methods", "\x05\xff", "\x00", "", "socks5", "handshake_timeout"},
		{"SOCKS5 name", "\x05\x01\x00\x05\x01\x00\x03\xff", "a", "\x05\x00", "socks5", "handshake_timeout"},
		{"SOCKS4 user", "\x04\x01\x00\x50\x7f\x00\x00\x01", "u", "", "socks4", "handshake_timeout"},
		{"TLS hello", "\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x03", "a", "", "tls", "handshake_timeout"},
		{"a word that may become HTTP", "FROBNICATE", "E", "", "", "sniff_timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			say(t, c, tt.first)
			over := make(chan struct{})
			var drip sync.WaitGroup
			drip.Go(func() {
				for tick := time.NewTicker(50 * time.Millisecond); ; {
					select {
					case <-over:
						tick.Stop()
						return
					case <-tick.C:
						_, _ = io.WriteString(c, tt.drip)
					}
				}
			})
			got := hearOut(c)
			close(over)
			drip.Wait()
			if !strings.HasPrefix(got, tt.hears) || tt.hears == "" && got != "" && tt.protocol != "tls" {
				t.Errorf("heard %q, want %q and the end", got, tt.hears)
			}
			if tt.protocol == "" {
				g.wait("the refusal", func(l logLine) bool { return l.str("reason") == tt.reason })
				return
			}
			g.record("protocol="+tt.protocol, "reason="+tt.reason)
		})
	}
}

// What no row can take is closed at the byte that decides: with a deadline of ten minutes there is no other
// way for these connections to end.
func TestDefiniteNo(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"10m\"\nsilent_after = \"9m\"\n"+listenAnywhere+allowLoopback)
	tests := []struct{ name, says, looks string }{
		{"SSH", "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", "SSH"},
		{"SMTP", "EHLO mail.example.com\r\n", "SMTP"},
		{"POP3", "USER alice\r\n", "text"},
		{"Redis", "*1\r\n$4\r\nPING\r\n", "text"},
		{"NUL", "\x00", "binary"},
		{"all ones", "\xff\xff\xff\xff", "binary"},
		{"PostgreSQL", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "PostgreSQL"},
		{"RDP", "\x03\x00\x00\x13\x0e\xe0\x00\x00", "RDP"},
		{"BitTorrent", "\x13BitTorrent protocol", "BitTorrent"},
		{"a PROXY header from a stranger", "PROXY TCP4 192.0.2.7 127.0.0.1 50000 80\r\n", "a PROXY"},
		{"a PROXY header of version 2 from a stranger", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "a PROXY"},
		{"SOCKS6", "\x06\x00", "binary"},
		{"SOCKS4 with an unknown command", "\x04\x09", "binary"},
		{"a bell", "GET\x07", "binary"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			say(t, c, tt.says)
			if got := hearOut(c); got != "" {
				t.Errorf("heard %q, want nothing but the end", got)
			}
			l := g.record("client=" + c.LocalAddr().String())
			if l.str("protocol") != "reject" || l.str("reason") != "unknown_protocol" || !strings.Contains(l.str("err"), "look like "+tt.looks) {
				t.Errorf("the record says %v, want a rejected %s", l, tt.looks)
			}
			if strings.Contains(l.str("err"), "alice") {
				t.Errorf("the record holds the client's own bytes: %s", l.str("err"))
			}
		})
	}
}

func TestSniffTimeout(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"300ms\"\nsilent_after = \"200ms\"\n"+listenAnywhere+allowLoopback)
	for _, first := range []string{"", "G", "CONNEC", "OPTIO", "\r"} {
		c := dial(t, g.at())
		say(t, c, first)
		if got := hearOut(c); got != "" {
			t.Errorf("behind %q heard %q, want nothing but the end", first, got)
		}
	}
	l := g.wait("the timeout", func(l logLine) bool { return l.str("reason") == "sniff_timeout" })
	if l.str("listener") != "main" || !strings.HasPrefix(l.str("client"), "127.0.0.1:") || l.num("bytes") != 0 {
		t.Errorf("the log says %v", l)
	}
}

// TestConnectionCaps holds finished connections, which nobody may push out.
func TestConnectionCaps(t *testing.T) {
	t.Parallel()
	g := start(t, "[limits]\nconnections = 5\nconnections_per_client = 3\n"+listenAnywhere+allowLoopback)
	target := tcpServer(t, echo)
	connect := func(from string) (*net.TCPConn, bool) {
		// A connection over a cap is reset, perhaps before this side knows that it stands.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		nc, err := d.DialContext(t.Context(), "tcp", g.at())
		if err != nil {
			return nil, false
		}
		c := nc.(*net.TCPConn)
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
		b := make([]byte, len("HTTP/1.1 200"))
		_, err = io.ReadFull(c, b)
		return c, err == nil && string(b) == "HTTP/1.1 200"
	}
	var held []*net.TCPConn
	for range 3 {
		c, ok := connect("127.0.0.1")
		if !ok {
			t.Fatal("a connection below the cap was refused")
		}
		held = append(held, c)
	}
	if _, ok := connect("127.0.0.1"); ok {
		t.Error("a fourth connection of one client was let in")
	}
	g.wait("the refusal", func(l logLine) bool {
		return l.str("reason") == "too_many_connections_of_client" && strings.HasPrefix(l.str("client"), "127.0.0.1:")
	})
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		if _, ok := connect(from); !ok {
			t.Errorf("the client %s was refused below its cap", from)
		}
	}
	if _, ok := connect("127.0.0.4"); ok {
		t.Error("a sixth connection was let in")
	}
	g.wait("the refusal", func(l logLine) bool { return l.str("reason") == "too_many_connections" })
	held[0].Close()
	for deadline := time.Now().Add(patience); ; { // until its end has been seen
		if _, ok := connect("127.0.0.1"); ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a connection that has ended is not free")
		}
	}
}

// A flood of guesses from many addresses keeps no user out, and each guess leaves its line.
func TestFloodOfWrongPasswords(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "users", strings.TrimSpace(run(t, "htpasswd", "-nbB", "alice", "correct horse").stdout)+"\n")
	g := start(t, listenAnywhere+"[auth]\nhtpasswd = \""+dir+"/users\"\n"+allowLoopback)
	target := tcpServer(t, echo)
	login := func(t *testing.T, from, password string) string {
		c := dialFrom(t, from, g.at())
		defer c.Close()
		pair := base64.StdEncoding.EncodeToString([]byte("alice:" + password))
		say(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\nProxy-Authorization: Basic "+pair+"\r\n\r\n")
		_, status, _ := strings.Cut(hearHead(t, c), " ")
		return status[:3]
	}
	if got := login(t, "127.0.0.1", "correct horse"); got != "200" {
		t.Fatalf("alice got %s, want 200", got)
	}
	const addresses, guesses = 40, 8
	var all sync.WaitGroup
	for a := range addresses {
		all.Go(func() {
			got := ""
			for n := range guesses {
				got += login(t, fmt.Sprintf("127.0.2.%d", a+1), fmt.Sprintf("guess %d", n)) + " "
			}
			if want := "407 407 407 407 407 429 429 429 "; got != want && !strings.Contains(got, "503") {
				t.Errorf("the guesses got %s, want %s", got, want)
			}
		})
	}
	for range 20 {
		if got := login(t, "127.0.0.1", "correct horse"); got != "200" {
			t.Errorf("in the flood alice got %s, want 200", got)
		}
	}
	all.Wait()
	if got := login(t, "127.0.0.9", "correct horse"); got != "200" {
		t.Errorf("after the flood alice got %s at a new address, want 200", got)
	}
	failed := func() int { return strings.Count(g.log(), `"msg":"authentication failed"`) }
	for deadline := time.Now().Add(patience); failed() < addresses*guesses && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // the log is read a moment later
	}
	log := g.log()
	if strings.Contains(log, "guess ") || strings.Contains(log, base64.StdEncoding.EncodeToString([]byte("alice:"))[:8]) {
		t.Error("the log holds passwords")
	}
	if n := strings.Count(log, `"msg":"authentication failed"`); n != addresses*guesses {
		t.Errorf("the log has %d lines for fail2ban, want %d", n, addresses*guesses)
	}
}
