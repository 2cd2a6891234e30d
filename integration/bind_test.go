package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// bindConfig serves BIND on some ports to clients on this machine; more goes into [bind].
func bindConfig(first, n uint16, more string) string {
	return listenAnywhere + fmt.Sprintf("[bind]\nports = \"%d-%d\"\n%s\n", first, first+n-1, more) + `
[[rule]]
name   = "active FTP"
action = "allow"
method = ["CONNECT", "BIND"]
target = ["127.0.0.0/8", "localhost"]
`
}

// bindDialect is a version of SOCKS as clients of BIND speak it.
type bindDialect struct {
	row, version string
	ask          func(t *testing.T, c net.Conn, command byte, to netip.AddrPort)
	hear         func(t *testing.T, c net.Conn) (code byte, bound netip.AddrPort) // one reply

	ok, denied, off, short, late byte // codes
}

var bindDialects = []bindDialect{
	{"socks5", "SOCKS5", askBind5, hearBind5, 0, 2, 7, 1, 6},
	{"socks4", "SOCKS4", askBind4, hearBind4, 90, 91, 91, 91, 91},
}

// askBind5 sends greeting and request in one piece, and reads the method selection.
func askBind5(t *testing.T, c net.Conn, command byte, to netip.AddrPort) {
	t.Helper()
	a := to.Addr().As4()
	b := append([]byte{5, 1, 0, 5, command, 0, 1}, a[:]...)
	say(t, c, string(append(b, byte(to.Port()>>8), byte(to.Port()))))
	hear(t, c, "\x05\x00")
}

func hearBind5(t *testing.T, c net.Conn) (byte, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 10)
	if _, err := io.ReadFull(c, b); err != nil || b[0] != 5 || b[3] != 1 {
		t.Fatalf("the SOCKS5 reply is %x, %v", b, err)
	}
	return b[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[8])<<8|uint16(b[9]))
}

func askBind4(t *testing.T, c net.Conn, command byte, to netip.AddrPort) {
	t.Helper()
	a := to.Addr().As4()
	b := []byte{4, command, byte(to.Port() >> 8), byte(to.Port())}
	say(t, c, string(append(b, a[:]...))+"ftp\x00")
}

func hearBind4(t *testing.T, c net.Conn) (byte, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 8)
	if _, err := io.ReadFull(c, b); err != nil || b[0] != 0 {
		t.Fatalf("the SOCKS4 reply is %x, %v", b, err)
	}
	return b[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), uint16(b[2])<<8|uint16(b[3]))
}

// Those who may be awaited.
var (
	anybody   = netip.MustParseAddrPort("0.0.0.0:0")
	thisPeer  = netip.MustParseAddrPort("127.0.0.1:0")
	thatPeer  = netip.MustParseAddrPort("127.0.0.2:20")
	elsewhere = netip.MustParseAddrPort("8.8.8.8:20")
)

// bind asks for BIND over c and wants the first reply to be a success.
func (d bindDialect) bind(t *testing.T, c net.Conn, who netip.AddrPort) netip.AddrPort {
	t.Helper()
	d.ask(t, c, 2, who)
	code, bound := d.hear(t, c)
	if code != d.ok || !bound.Addr().IsLoopback() || bound.Port() == 0 {
		t.Fatalf("the first reply is %d, %v; want %d and a loopback address", code, bound, d.ok)
	}
	return bound
}

// TestBindConversation goes through BIND with both ends in hand: both replies, data from both, strangers before.
func TestBindConversation(t *testing.T) {
	t.Parallel()
	config := bindConfig(freePorts(t, 8), 8, "")
	g, idle := start(t, config), start(t, config)
	rest := g.descriptors()
	tests := []struct {
		name      string
		who       netip.AddrPort
		from      string
		strangers int
	}{
		{"who was named", thisPeer, "127.0.0.1", 0},
		{"who was named, at another address and port", thatPeer, "127.0.0.2", 0},
		{"anybody", anybody, "127.0.0.3", 0},
		{"behind strangers", thisPeer, "127.0.0.1", 16},
	}
	for _, d := range bindDialects {
		for _, tt := range tests {
			t.Run(d.row+" "+tt.name, func(t *testing.T) {
				c := dial(t, g.at())
				bound := d.bind(t, c, tt.who)
				say(t, c, "early")
				for range tt.strangers {
					stranger(t, bound)
				}
				peer := dialFrom(t, tt.from, bound.String())
				from := peer.LocalAddr().String()
				if code, told := d.hear(t, c); code != d.ok || told.String() != from {
					t.Fatalf("the second reply is %d, %v; want %d, %s", code, told, d.ok, from)
				}
				hear(t, peer, "early")
				say(t, peer, "from outside")
				hear(t, c, "from outside")
				if again, err := net.Dial("tcp4", bound.String()); err == nil {
					again.Close()
					t.Error("the port is still listened on")
				}
				shut(t, peer, c) // one direction after the other
				say(t, c, "late")
				hear(t, peer, "late")
				shut(t, c, peer)
				check(t, g.record("client="+c.LocalAddr().String()), map[string]any{
					"protocol": d.row, "version": d.version, "method": "BIND", "target": tt.who.String(), "address": from, "rule": "active FTP",
					"status": float64(d.ok), "reason": "", "bytes_from_client": 9.0, "bytes_from_target": 12.0,
				})
			})
		}
	}
	g.settle(rest)
	want := idle.goroutines()
	if got := g.goroutines(); got > want+2 {
		t.Errorf("there are %d goroutines, want %d as in a gateway at rest", got, want)
	}
}

// stranger connects from an address that nobody awaits, and is sent away.
func stranger(t *testing.T, bound netip.AddrPort) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: patience}
	c, err := d.Dial("tcp4", bound.String())
	if err != nil { // it was reset before it knew that it was connected
		return
	}
	defer c.Close()
	if got := hearOut(c); got != "" {
		t.Errorf("a stranger hears %q", got)
	}
}

// TestBindIsRefused: in the words of each version.
func TestBindIsRefused(t *testing.T) {
	t.Parallel()
	first := freePorts(t, 1)
	one := startTidy(t, bindConfig(first, 1, "timeout = \"50s\""))
	hasty := startTidy(t, bindConfig(freePorts(t, 4), 4, "timeout = \"300ms\""))
	off := startTidy(t, strings.Replace(bindConfig(1, 1, ""), "ports", "#ports", 1))
	unnamed := startTidy(t, listenAnywhere+fmt.Sprintf("[bind]\nports = \"%d\"\n", freePorts(t, 1))+allowLoopback)
	single := startTidy(t, bindConfig(freePorts(t, 4), 4, "per_client = 1"))
	tests := []struct {
		name   string
		g      *gateway
		who    netip.AddrPort
		waits  bool // the first reply is a success
		before func(t *testing.T, d bindDialect, g *gateway)
		then   func(t *testing.T, bound netip.AddrPort)
		code   func(bindDialect) byte
		reason string
		says   string
	}{
		{name: "no rule names it", g: unnamed, who: thisPeer, code: func(d bindDialect) byte { return d.denied }, reason: "no_rule", says: "no rule that names the method BIND"},
		{name: "no rule names it, and anybody is awaited", g: unnamed, who: anybody, code: func(d bindDialect) byte { return d.denied }, reason: "no_rule"},
		{name: "not this peer", g: one, who: elsewhere, code: func(d bindDialect) byte { return d.denied }, reason: "no_rule"},
		{name: "no ports are set up", g: off, who: thisPeer, code: func(d bindDialect) byte { return d.off }, reason: "proxy_configuration_error", says: `write ports = "40000-40100" into [bind]`},
		{
			name: "no port is free", g: one, who: thisPeer, code: func(d bindDialect) byte { return d.short }, reason: "connection_limit_reached",
			before: bindBefore,
		},
		{
			name: "too many of one client", g: single, who: thisPeer, code: func(d bindDialect) byte { return d.short }, reason: "connection_limit_reached", says: "per_client",
			before: bindBefore,
		},
		{name: "nobody comes", g: hasty, who: thisPeer, waits: true, code: func(d bindDialect) byte { return d.late }, reason: "connection_timeout", says: "[bind] timeout"},
		{
			name: "strangers alone", g: one, who: thisPeer, waits: true, code: func(d bindDialect) byte { return d.denied }, reason: "http_request_denied",
			then: func(t *testing.T, bound netip.AddrPort) {
				t.Helper()
				for range 17 {
					stranger(t, bound)
				}
			},
		},
	}
	for _, d := range bindDialects {
		for _, tt := range tests {
			t.Run(d.row+" "+tt.name, func(t *testing.T) {
				if tt.before != nil {
					tt.before(t, d, tt.g)
				}
				c := dial(t, tt.g.at())
				if tt.waits {
					bound := d.bind(t, c, tt.who)
					if tt.then != nil {
						tt.then(t, bound)
					}
				} else {
					d.ask(t, c, 2, tt.who)
				}
				if code, _ := d.hear(t, c); code != tt.code(d) {
					t.Errorf("the last reply is %d, want %d", code, tt.code(d))
				}
				ended(t, c)
				l := tt.g.record("client=" + c.LocalAddr().String())
				check(t, l, map[string]any{"protocol": d.row, "method": "BIND", "status": float64(tt.code(d)), "reason": tt.reason, "address": ""})
				if !strings.Contains(l.str("err"), tt.says) {
					t.Errorf("the record says %q, want %q", l.str("err"), tt.says)
				}
			})
		}
	}
}

// bindBefore has another client wait until the test ends.
func bindBefore(t *testing.T, d bindDialect, g *gateway) {
	t.Helper()
	c := dial(t, g.at())
	d.bind(t, c, thisPeer)
	t.Cleanup(func() {
		c.Close()
		g.record("client=" + c.LocalAddr().String())
	})
}

// TestBindEndsWithItsClient: a client that dies gives its port back at once.
func TestBindEndsWithItsClient(t *testing.T) {
	t.Parallel()
	g := start(t, bindConfig(freePorts(t, 1), 1, "timeout = \"1h\"")) // one port, and nobody would wait so long
	rest := g.descriptors()
	for _, d := range bindDialects {
		for _, tt := range []struct {
			name string
			end  func(c *net.TCPConn)
		}{
			{"in order", func(c *net.TCPConn) { c.Close() }},
			{"by a reset", func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }},
			{"behind early data", func(c *net.TCPConn) { _, _ = io.WriteString(c, "early"); c.Close() }},
		} {
			t.Run(d.row+" "+tt.name, func(t *testing.T) {
				c := dial(t, g.at())
				bound := d.bind(t, c, anybody)
				tt.end(c)
				check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"reason": "client_closed", "method": "BIND", "address": ""})
				g.settle(rest)
				if late, err := net.Dial("tcp4", bound.String()); err == nil {
					late.Close()
					t.Error("the port is still listened on")
				}
			})
		}
	}
}

// TestBindIsNoWayIn: while it is listened on, the port is one of the gateway's own, to which no session is led.
func TestBindIsNoWayIn(t *testing.T) {
	t.Parallel()
	g := start(t, bindConfig(freePorts(t, 2), 2, ""))
	d := bindDialects[0]
	bound := d.bind(t, dial(t, g.at()), anybody)
	c := dial(t, g.at())
	d.ask(t, c, 1, bound)
	if code, _ := d.hear(t, c); code != d.denied {
		t.Errorf("CONNECT to %v is answered %d, want %d", bound, code, d.denied)
	}
	check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"reason": "guard", "method": "CONNECT"})
}

// TestBindEndsWithTheGateway: who waits is told at shutdown.
func TestBindEndsWithTheGateway(t *testing.T) {
	t.Parallel()
	g := start(t, "[timeouts]\ndrain = \"0s\"\n"+bindConfig(freePorts(t, 1), 1, "timeout = \"1h\""))
	c := dial(t, g.at())
	bindDialects[0].bind(t, c, anybody)
	g.stop()
	check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"reason": "shutting_down", "method": "BIND"})
}

// TestBindInsideTLS: the wait for a peer must not break the layer.
func TestBindInsideTLS(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := start(t, bindConfig(freePorts(t, 2), 2, "")+p.table())
	for _, d := range bindDialects {
		for _, early := range []string{"", "early", strings.Repeat("early", 50_000)} {
			t.Run(fmt.Sprintf("%s with %d octets ahead", d.row, len(early)), func(t *testing.T) {
				p := &papers{t, p.dir}
				c := p.dial(g.at())
				bound := d.bind(t, c, thisPeer)
				go func() { _, _ = io.WriteString(c, early) }() // more than is taken at once; the peer hears all of it
				peer := dialFrom(t, "127.0.0.1", bound.String())
				if code, told := d.hear(t, c); code != d.ok || told.String() != peer.LocalAddr().String() {
					t.Fatalf("the second reply is %d, %v; want %d, %v", code, told, d.ok, peer.LocalAddr())
				}
				hear(t, peer, early)
				say(t, peer, "from outside")
				hear(t, c, "from outside")
				say(t, c, "late")
				hear(t, peer, "late")
				shut(t, peer, c)
				shut(t, c, peer)
				check(t, g.record("client="+c.LocalAddr().String(), "protocol="+d.row), map[string]any{
					"method": "BIND", "address": peer.LocalAddr().String(), "tls": "TLS 1.3", "reason": "", "bytes_from_client": float64(len(early) + 4),
				})
			})
		}
	}
	t.Run("a client that dies", func(t *testing.T) {
		p := &papers{t, p.dir}
		c := p.dial(g.at())
		bindDialects[0].bind(t, c, anybody)
		_ = c.SetLinger(0)
		c.Close()
		check(t, g.record("client="+c.LocalAddr().String(), "protocol=socks5"), map[string]any{"method": "BIND", "reason": "client_closed"})
	})
}
