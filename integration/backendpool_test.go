package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// speaker is a server that answers every line with its name, and can be away.
type speaker struct {
	t    *testing.T
	name string
	addr string
	sick atomic.Bool // it answers GET with 500
	gets atomic.Int64
	all  sync.WaitGroup
	ln   net.Listener // nil: it is away
}

// newSpeaker makes one at an IP that is its own.
func newSpeaker(t *testing.T, ip, name string) *speaker {
	t.Helper()
	s := &speaker{t: t, name: name, addr: freeAddress(t, ip)}
	t.Cleanup(func() { s.leave(); s.all.Wait() })
	s.come()
	return s
}

func (s *speaker) come() {
	s.t.Helper()
	ln, err := net.Listen("tcp4", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.ln = ln
	s.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.all.Go(func() { s.speak(c) })
		}
	})
}

// leave refuses new connections. Those that stand go on.
func (s *speaker) leave() {
	if s.ln != nil {
		s.ln.Close()
	}
	s.ln = nil
}

func (s *speaker) speak(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if !strings.HasPrefix(line, "GET ") {
			fmt.Fprintf(c, "%s\n", s.name)
			continue
		}
		for line != "\r\n" && err == nil {
			line, err = r.ReadString('\n')
		}
		s.gets.Add(1)
		status := http.StatusOK
		if s.sick.Load() {
			status = http.StatusInternalServerError
		}
		fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
		return
	}
}

// hail asks by the raw row and returns the connection with the name of the server. "" is a connection that was closed.
func hail(t *testing.T, proxy string) (*net.TCPConn, string) {
	t.Helper()
	c := dial(t, proxy)
	return c, ask(t, c)
}

// ask asks on a connection.
func ask(t *testing.T, c net.Conn) string {
	t.Helper()
	say(t, c, "HAIL\n")
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if n, err := c.Read(b); n == 0 {
			if len(line) > 0 {
				t.Fatalf("heard %q, %v", line, err)
			}
			return ""
		}
		if b[0] == '\n' {
			return string(line)
		}
	}
}

// names asks by so many connections, and counts the servers.
func names(t *testing.T, proxy string, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		c, name := hail(t, proxy)
		c.Close()
		got[name]++
	}
	return got
}

// hailConfig is a raw row and its backend, with what is to be said of it.
func hailConfig(backend string) string {
	return listenAnywhere + "[protocols.raw.hail]\nprefix = [\"HAIL\"]\nbackend = \"hail\"\n[[rule]]\naction = \"allow\"\nprotocol = [\"hail\"]\n" +
		"[timeouts]\nconnect = \"10m\"\n[backend.hail]\n" + backend
}

const quickChecks = "[backend.hail.health]\nevery = \"50ms\"\ntimeout = \"20s\"\n[backend.hail.eject]\nfailures = 0\n"

// A server that a reload takes out gets nothing new, and keeps what it has.
func TestDrainByReload(t *testing.T) {
	t.Parallel()
	one, two := newSpeaker(t, "127.0.50.1", "one"), newSpeaker(t, "127.0.50.2", "two")
	config := func(drain bool) string {
		return hailConfig(fmt.Sprintf("balance = \"round-robin\"\nservers = [{ address = %q, drain = %t }, %q]\n", one.addr, drain, two.addr))
	}
	g := start(t, config(false))
	old := map[string]*net.TCPConn{}
	for range 2 {
		c, name := hail(t, g.at())
		old[name] = c
	}
	if len(old) != 2 {
		t.Fatalf("two connections went to %v", old)
	}
	for _, drain := range []bool{true, false} {
		if l := g.reload(config(drain)); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
		if got := names(t, g.at(), 20); (got["one"] == 0) != drain || got["one"]+got["two"] != 20 {
			t.Errorf("with drain = %t the servers got %v", drain, got)
		}
		for name, c := range old {
			if got := ask(t, c); got != name {
				t.Errorf("with drain = %t the old tunnel to %s is one to %q", drain, name, got)
			}
		}
	}
}

// The servers of the next priority serve while the ones before are away.
func TestPriorities(t *testing.T) {
	t.Parallel()
	first, second, third := newSpeaker(t, "127.0.51.1", "first"), newSpeaker(t, "127.0.51.2", "second"), newSpeaker(t, "127.0.51.3", "third")
	g := start(t, hailConfig(fmt.Sprintf("balance = \"random-two\"\nservers = [{ address = %q, priority = 3 }, { address = %q, priority = 1 }, %q]\n",
		third.addr, second.addr, first.addr)+quickChecks))
	expect := func(when, want string) {
		t.Helper()
		if got := names(t, g.at(), 10); got[want] != 10 {
			t.Errorf("%s the servers got %v, want all for %s", when, got, want)
		}
	}
	expect("at first", "first")
	stands, _ := hail(t, g.at())
	first.leave()
	expect("before the gateway knows that the first is away", "second")
	g.waitState("backend.hail", first.addr, "down")
	second.leave()
	g.waitState("backend.hail", second.addr, "down")
	expect("while two are away", "third")
	mark := g.mark()
	first.come()
	g.waitState("backend.hail", first.addr, "up", mark)
	expect("when it is back", "first")
	if got := ask(t, stands); got != "first" {
		t.Errorf("the tunnel that stood all the time is one to %q", got)
	}
	mark = g.mark()
	first.leave()
	second.come()
	g.waitState("backend.hail", first.addr, "down", mark)
	g.waitState("backend.hail", second.addr, "up", mark)
	expect("when the second is back", "second")
}

// A server that has come back gets a tenth of its share at first.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	one, two := newSpeaker(t, "127.0.52.1", "one"), newSpeaker(t, "127.0.52.2", "two")
	config := func(slow string) string {
		return hailConfig(fmt.Sprintf("balance = \"round-robin\"\nslow_start = %q\nservers = [%q, %q]\n", slow, one.addr, two.addr) + quickChecks)
	}
	g := start(t, config("10h"))
	if got := names(t, g.at(), 220); got["one"] != 110 {
		t.Errorf("at the start the servers got %v, want the same for both", got)
	}
	one.leave()
	g.waitState("backend.hail", one.addr, "down")
	one.come()
	g.waitState("backend.hail", one.addr, "warming")
	if got := names(t, g.at(), 220); got["one"] < 18 || got["one"] > 22 || got["two"] != 220-got["one"] {
		t.Errorf("of 220 connections the servers got %v, want 20 for one", got)
	}
	if l := g.reload(config("0s")); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	if got := names(t, g.at(), 220); got["one"] != 110 {
		t.Errorf("without a slow start the servers got %v, want the same for both", got)
	}
}

// A check by HTTP sees what no connection tells: the server goes after so many bad answers and comes back after so many good ones. What is known of
// it outlives reloads.
func TestHealthOfABackend(t *testing.T) {
	t.Parallel()
	one, two := newSpeaker(t, "127.0.53.1", "one"), newSpeaker(t, "127.0.53.2", "two")
	config := func(rise int, more string) string {
		return hailConfig(fmt.Sprintf("servers = [%q, %q]\n[backend.hail.health]\nevery = \"50ms\"\ntimeout = \"20s\"\nprobe = \"http\"\npath = \"/health\"\nrise = %d\nfall = 3\n",
			one.addr, two.addr, rise) + more)
	}
	g := start(t, config(4, ""))
	eventually(t, "checks of a server that is well", "true", func() string { return fmt.Sprint(one.gets.Load() >= 3) })
	if got := names(t, g.at(), 10); got["one"] != 10 {
		t.Errorf("at first the servers got %v", got)
	}
	before := one.gets.Load()
	one.sick.Store(true)
	l := g.wait("that the server is down", func(l logLine) bool { return l.str("state") == "down" })
	check(t, l, map[string]any{
		"level": "WARN", "msg": "a server has changed its state", "pool": "backend.hail", "server": one.addr, "state": "down",
		"err": "the answer for /health is 500, not one from 200 to 399",
	})
	if n := one.gets.Load() - before; n < 3 {
		t.Errorf("it went down after %d checks, want 3", n)
	}
	for i := range 2 {
		if got := names(t, g.at(), 10); got["two"] != 10 {
			t.Errorf("after %d reloads the servers got %v, want all for two", i, got)
		}
		if l := g.reload(config(4, fmt.Sprintf("[limits]\nconnections = %d\n", 5000+i))); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
	}
	if n := strings.Count(g.log(), "a server has changed its state"); n != 1 {
		t.Errorf("%d changes are logged, want the one that there was", n)
	}
	before = one.gets.Load()
	one.sick.Store(false)
	g.waitState("backend.hail", one.addr, "up")
	if n := one.gets.Load() - before; n < 4 {
		t.Errorf("it came back after %d checks, want 4", n)
	}
	if got := names(t, g.at(), 10); got["one"] != 10 {
		t.Errorf("when it is back the servers got %v", got)
	}
}

// What is ejected stays so over a reload, and is tried again when its pause is over.
func TestEjectionOutlivesAReload(t *testing.T) {
	t.Parallel()
	one, two := newSpeaker(t, "127.0.54.1", "one"), newSpeaker(t, "127.0.54.2", "two")
	config := func(more string) string {
		return hailConfig(fmt.Sprintf("servers = [%q, %q]\n[backend.hail.eject]\nfailures = 3\npause = \"10h\"\nmax_pause = \"20h\"\n", one.addr, two.addr) + more)
	}
	g := start(t, config(""))
	one.leave()
	if got := names(t, g.at(), 3); got["two"] != 3 {
		t.Errorf("the servers got %v", got)
	}
	g.waitState("backend.hail", one.addr, "ejected")
	one.come()
	for i := range 3 {
		if got := names(t, g.at(), 10); got["two"] != 10 {
			t.Errorf("after %d reloads the servers got %v, want all for the one that is not ejected", i, got)
		}
		if l := g.reload(config(fmt.Sprintf("[limits]\nconnections = %d\n", 5000+i))); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
	}
	if l := g.reload(config("[backend.hail.health]\nevery = \"50ms\"\ntimeout = \"20s\"\n")); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	g.waitState("backend.hail", one.addr, "up") // a check that succeeds ends it
	if got := names(t, g.at(), 10); got["one"] != 10 {
		t.Errorf("after a good check the servers got %v", got)
	}
}

// Where no server is left everybody is told so at once, in his own protocol. The servers are such as never answer.
func TestNobodyIsLeft(t *testing.T) {
	t.Parallel()
	hole := fmt.Sprintf("127.0.0.1:%d", holePort(t))
	origin := helloServer(t)
	const checks = "[%s.health]\nevery = \"50ms\"\ntimeout = \"200ms\"\nfall = 1\n"
	g := start(t, hailConfig(fmt.Sprintf("servers = [%q]\n", hole))+fmt.Sprintf(checks, "backend.hail")+
		fmt.Sprintf("[upstream.gone]\nservers = [\"socks5://%s\"]\n", hole)+fmt.Sprintf(checks, "upstream.gone")+
		"[protocols.tls.route.hail]\nsni = [\"hail.test\"]\nbackend = \"hail\"\n[[rule]]\nname = \"tls\"\naction = \"allow\"\nprotocol = [\"tls\"]\n"+
		"[[rule]]\nname = \"gone\"\naction = \"allow\"\ntarget = [\"127.0.0.0/8\"]\nupstream = \"gone\"\n")
	g.waitState("backend.hail", hole, "down")
	g.waitState("upstream.gone", "socks5://"+hole, "down")
	_, wire := portOf(t, origin)
	tests := []struct {
		name, says, hears, has string
		backend                bool
	}{
		{"CONNECT", "CONNECT " + origin + " HTTP/1.1\r\nHost: " + origin + "\r\n\r\n", "HTTP/1.1 503 ", "error=destination_unavailable", false},
		{"GET", "GET http://" + origin + "/ HTTP/1.1\r\nHost: " + origin + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 503 ", "error=destination_unavailable", false},
		{"SOCKS5", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + string(wire), "\x05\x00\x05\x04\x00", "", false},
		{"SOCKS4", "\x04\x01" + string(wire) + "\x7f\x00\x00\x01\x00", "\x00\x5b", "", false},
		{"raw row", "HAIL\n", "", "", true},
		{"TLS", string(askTLS(dialect{}, place{name: "hail"})), "\x15\x03\x03\x00\x02\x02\x50", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			say(t, c, tt.says)
			_ = c.CloseWrite()
			got, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(got), tt.hears) || !strings.Contains(string(got), tt.has) || tt.hears == "" && len(got) > 0 {
				t.Errorf("heard %q, %v; want %q with %q", got, err, tt.hears, tt.has)
			}
			want := map[string]any{"reason": "destination_unavailable", "upstream": "gone", "server": "", "rule": "gone"}
			if tt.backend {
				want = map[string]any{"reason": "destination_unavailable", "backend": "hail", "server": ""}
			}
			check(t, g.record("client="+c.LocalAddr().String()), want)
		})
	}
}

// Each kind of check of an upstream sees what the ones before it cannot see.
func TestHealthOfAnUpstream(t *testing.T) {
	t.Parallel()
	hop, origin := newMortalMicrosocks(t, "127.0.55.1"), newSpeaker(t, "127.0.55.2", "origin")
	hop.live()
	config := listenAnywhere + allowLoopback
	kinds := []string{"http", "tunnel", "connect"}
	for _, kind := range kinds {
		config += fmt.Sprintf("[upstream.%s]\nservers = [\"socks5://%s\"]\n[upstream.%[1]s.health]\nevery = \"50ms\"\ntimeout = \"20s\"\nprobe = %[1]q\n", kind, hop.addr)
		if kind != "connect" {
			config += fmt.Sprintf("target = %q\n", origin.addr)
		}
	}
	g := start(t, config)
	eventually(t, "checks", "true", func() string { return fmt.Sprint(origin.gets.Load() >= 3) })
	for i, act := range []func(){func() { origin.sick.Store(true) }, origin.leave, hop.kill} {
		act()
		g.waitState("upstream."+kinds[i], "socks5://"+hop.addr, "down")
		if n := strings.Count(g.log(), `"state":"down"`); n != i+1 {
			t.Errorf("%d upstreams are down, want those whose check is %v", n, kinds[:i+1])
		}
	}
	origin.sick.Store(false)
	origin.come()
	hop.live()
	for _, kind := range kinds {
		g.waitState("upstream."+kind, "socks5://"+hop.addr, "up")
	}
}
