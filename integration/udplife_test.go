package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// A target where nobody listens says so (ICMP), and that costs nothing but what was sent there.
func TestUDPUnreachable(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenBoth+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	for _, ip := range []string{"127.0.0.1", "::1"} {
		c := associate(t, g.at())
		closed := bindUDP(t, ip)
		deaf := closed.LocalAddr().String()
		closed.Close()
		c.mustEcho(target, "before")
		for range 5 {
			c.say(deaf, "is there anybody?")
			c.mustEcho(target, "still here")
		}
		again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(deaf)))
		if err != nil {
			t.Fatal(err)
		}
		serveUDP(t, again, udpEcho)
		if from := c.mustEcho(deaf, "now"); from != deaf {
			t.Errorf("the answer is from %s, want %s", from, deaf)
		}
		silent(t, "the client", c.udp)
		if l := c.record(g, map[string]any{"targets": 2.0, "datagrams_from_client": 12.0, "datagrams_from_target": 7.0, "reason": ""}); l.num("unreachable") < 1 {
			t.Errorf("the record counts no target as unreachable: %v", l)
		}
	}
}

// The gateway is never its own target.
func TestUDPLoop(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenBoth+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	_, port, _ := strings.Cut(g.at(), ":")
	_, six, _ := net.SplitHostPort(g.addr("six"))
	c := associate(t, g.at())
	c.mustEcho(target, "before")
	loops := []string{"127.0.0.1:" + port, "127.1:" + port, "[::ffff:127.0.0.1]:" + port, "[::1]:" + six}
	for _, loop := range loops {
		c.say(loop, string(wrap(t, loop, string(wrap(t, target, "round and round")))))
		c.mustEcho(target, "behind it")
	}
	silent(t, "the client", c.udp)
	c.record(g, map[string]any{"datagrams_denied": float64(len(loops)), "targets": 1.0, "datagrams_from_client": 5.0, "datagrams_from_target": 5.0})
}

// Nor is an association's own port one, nor anybody else's.
func TestUDPLoopByOwnPorts(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 2)
	g := startTidy(t, listenAnywhere+allowLoopback+fmt.Sprintf("[udp]\nports = \"%d-%d\"\n", ports, ports+1))
	target := udpServer(t, "127.0.0.1", udpEcho)
	first, second, third := associate(t, g.at()), associate(t, g.at()), associate(t, g.at())
	if first.relay == second.relay || third.relay.String() != g.at() {
		t.Errorf("the associations are told %v, %v and %v; want two ports of their own, and the listener's when there are no more", first.relay, second.relay, third.relay)
	}
	for _, c := range []*caller{first, second, third} {
		c.mustEcho(target, "before")
		for _, loop := range []*caller{first, second, third} {
			c.say(loop.relay.String(), string(wrap(t, target, "round and round")))
			c.mustEcho(target, "behind it")
		}
	}
	for _, c := range []*caller{first, second, third} {
		c.record(g, map[string]any{"datagrams_denied": 3.0, "targets": 1.0, "datagrams_from_client": 4.0, "datagrams_from_target": 4.0})
	}
	associate(t, g.at()).mustEcho(target, "by a port that is free again")
}

// What rules say of UDP holds for each target, and before any is known.
func TestUDPRules(t *testing.T) {
	t.Parallel()
	allowed, denied := udpServer(t, "127.0.0.1", udpEcho), udpServer(t, "127.0.0.2", udpEcho)
	tests := []struct {
		name, rules     string
		rep             byte
		allowed, denied bool // what passes
		rule            string
	}{
		{"no rules", "[udp]\nidle = \"500ms\"\n", 0, false, false, "default: this machine"},
		{"CONNECT alone", "[[rule]]\naction = \"allow\"\nmethod = [\"CONNECT\"]\ntarget = [\"127.0.0.0/8\"]\n", 2, false, false, ""},
		{"UDP alone", "[[rule]]\nname = \"udp\"\naction = \"allow\"\nmethod = [\"UDP\"]\ntarget = [\"127.0.0.0/8\"]\n", 0, true, true, "udp"},
		{"another protocol", "[[rule]]\naction = \"allow\"\nprotocol = [\"connect\"]\ntarget = [\"127.0.0.0/8\"]\n", 2, false, false, ""},
		{"another client", "[[rule]]\naction = \"allow\"\nclient = [\"192.0.2.1\"]\ntarget = [\"127.0.0.0/8\"]\n", 2, false, false, ""},
		{"one target", "[[rule]]\nname = \"one\"\naction = \"allow\"\nprotocol = [\"socks5\"]\ntarget = [\"127.0.0.1\"]\n", 0, true, false, "one"},
		{"UDP denied", "[[rule]]\nname = \"no udp\"\naction = \"deny\"\nmethod = [\"UDP\"]\n" + allowLoopback, 2, false, false, ""},
		{"one target denied", "[[rule]]\naction = \"deny\"\nmethod = [\"UDP\"]\ntarget = [\"127.0.0.2\"]\n" + allowLoopback, 0, true, false, "test servers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := startTidy(t, listenAnywhere+tt.rules)
			if tt.rep != 0 {
				if rep := refusedUDP(t, "127.0.0.1", g.at(), ""); rep != tt.rep {
					t.Errorf("REP %02x, want %02x", rep, tt.rep)
				}
				check(t, g.record("method=UDP"), map[string]any{"status": float64(tt.rep), "protocol": "socks5"})
				return
			}
			c, lost := associate(t, g.at()), 0
			for _, way := range []struct {
				target string
				passes bool
			}{{denied, tt.denied}, {allowed, tt.allowed}, {denied, tt.denied}, {allowed, tt.allowed}} {
				if way.passes {
					c.mustEcho(way.target, "passes")
				} else {
					c.say(way.target, "lost")
					lost++
				}
			}
			if lost == 4 { // nothing tells when they are all lost but the end
				_, _ = io.Copy(io.Discard, c.conn)
			}
			c.record(g, map[string]any{"datagrams_denied": float64(lost), "datagrams_from_client": float64(4 - lost), "datagrams_from_target": float64(4 - lost), "rule": tt.rule})
		})
	}
}

// TestUDPByTLS has the connection inside TLS, by which the user is known too; datagrams go as they are.
func TestUDPByTLS(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	alice := p.client("alice")
	g := twoUsers(t, listenAnywhere+"require_user = false\nrequire_tls = true\n"+p.table()+p.clientTable("htpasswd = \"users.htpasswd\"\n")+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	tests := []struct {
		name, login, identity string
		certificate           login
	}{
		{"nobody", "", "", login{}},
		{"by certificate", "", "alice", alice},
		{"by password", "bob:bob's own", "bob", login{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var change []func(*tls.Config)
			if tt.certificate.cert != "" {
				change = append(change, tt.certificate.with(t))
			}
			conn := (&papers{t, p.dir}).dial(g.at(), change...)
			c := call(t, conn, tt.login)
			if c.relay.String() != g.at() {
				t.Errorf("BND is %v, want %s", c.relay, g.at())
			}
			for range 3 {
				c.mustEcho(target, "in the clear")
			}
			c.record(g, map[string]any{"identity": tt.identity, "tls": "TLS 1.3", "server_name": ownName, "target": target, "datagrams_from_target": 3.0, "reason": ""})
		})
	}
	t.Run("by socat", func(t *testing.T) { // whose address is the client's to the gateway
		mark := g.mark()
		c := call(t, dial(t, (&papers{t, p.dir}).socat(g.at(), ownName, alice)), "")
		c.mustEcho(target, "by socat")
		c.conn.Close()
		check(t, g.recordSince(mark, "method=UDP"), map[string]any{"identity": "alice", "tls": "TLS 1.3", "datagrams_from_target": 1.0, "reason": ""})
	})
}

// An association outlives reloads, and the listener that it came by.
func TestUDPReload(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	c := associate(t, g.at())
	c.mustEcho(target, "before")
	for range 3 {
		if l := g.reload(listenAnywhere + allowLoopback); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
		c.mustEcho(target, "behind a reload")
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), c.relay.Port()).String()
	if l := g.reload("[listen.other]\naddress = [\"" + at + "\"]\n" + allowLoopback); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	c.mustEcho(target, "without its listener")
	other := call(t, dialFrom(t, "127.0.0.2", at), "")
	other.mustEcho(target, "by the new one")
	c.mustEcho(udpServer(t, "127.0.0.1", udpEcho), "another target")
	c.record(g, map[string]any{"targets": 2.0, "datagrams_from_target": 6.0, "datagrams_from_client": 6.0, "reason": ""})
	eventually(t, "the port of the old listener", "free", func() string {
		pc, err := net.ListenPacket("udp4", c.relay.String())
		if err != nil {
			return "taken"
		}
		pc.Close()
		return "free"
	})
	other.mustEcho(target, "by the new one")
}

// TestUDPReloadTurnsOff has a listener that loses its UDP, and gets it again.
func TestUDPReloadTurnsOff(t *testing.T) {
	t.Parallel()
	config := func(udp bool) string { return listenAnywhere + fmt.Sprintf("udp = %v\n", udp) + allowLoopback }
	g := start(t, config(true))
	target := udpServer(t, "127.0.0.1", udpEcho)
	c := associate(t, g.at())
	c.mustEcho(target, "before")
	for _, on := range []bool{false, true} {
		if l := g.reload(config(on)); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
		c.mustEcho(target, "goes on")
		if rep := refusedUDP(t, "127.0.0.2", g.at(), ""); (rep == 0) != on {
			t.Errorf("with udp = %v a new association gets REP %02x", on, rep)
		}
	}
	c.record(g, map[string]any{"datagrams_from_target": 3.0, "reason": ""})
	associate(t, g.at()).mustEcho(target, "anew")
}

// Shutdown waits for associations, as for tunnels, and not for ever.
func TestUDPShutdown(t *testing.T) {
	t.Parallel()
	target := udpServer(t, "127.0.0.1", udpEcho)
	t.Run("drained", func(t *testing.T) {
		g := start(t, listenAnywhere+allowLoopback)
		c := associate(t, g.at())
		c.mustEcho(target, "before")
		g.signal(syscall.SIGTERM)
		g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
		c.mustEcho(target, "a last word")
		c.conn.Close()
		<-g.exited
		if g.status != nil {
			t.Errorf("polyport ended with %v", g.status)
		}
		c.record(g, map[string]any{"datagrams_from_target": 2.0, "reason": ""})
	})
	t.Run("cut off", func(t *testing.T) {
		g := start(t, listenAnywhere+"[timeouts]\ndrain = \"100ms\"\n"+allowLoopback)
		c := associate(t, g.at())
		c.mustEcho(target, "before")
		g.signal(syscall.SIGTERM)
		if b, err := io.ReadAll(c.conn); len(b) != 0 {
			t.Errorf("the connection says % x, %v", b, err)
		}
		<-g.exited
		c.record(g, map[string]any{"datagrams_from_target": 1.0, "reason": "shutting_down"})
	})
}
