package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// TestUDPPortOfTheRequest says, or leaves open, which port the client's datagrams come from.
func TestUDPPortOfTheRequest(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	tests := []struct {
		name, host string
		bound      bool // to the port that the request names; else to that of the first datagram
		zero       bool // the request names no port
	}{
		{"no address", "0.0.0.0", true, false},
		{"no IPv6 address", "::", true, false},
		{"the client's address", "127.0.0.1", true, false},
		{"the name that PySocks sends for no address", "0", false, false},
		{"no port", "0.0.0.0", false, true},
		{"the client's address without a port", "127.0.0.1", false, true},
		{"an address behind a NAT", "10.9.8.7", false, false},
		{"a name", "host.example", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, first, second := dial(t, g.at()), bindUDP(t, "127.0.0.1"), bindUDP(t, "127.0.0.1")
			greet(t, conn, "")
			port := second.LocalAddr().(*net.UDPAddr).AddrPort().Port()
			if tt.zero {
				port = 0
			}
			rep, relay := askUDP(t, conn, wireAddress(tt.host, port))
			if rep != 0 {
				t.Fatalf("REP %02x", rep)
			}
			own, other := &caller{t, conn, first, relay}, second
			if tt.bound {
				own, other = &caller{t, conn, second, relay}, first
				sendTo(t, other, relay, wrap(t, target, "from another port, first"))
				silent(t, "the other port", other)
			}
			own.mustEcho(target, "one")
			sendTo(t, other, relay, wrap(t, target, "from another port"))
			own.mustEcho(target, "two")
			silent(t, "the other port", other)
			own.record(g, map[string]any{"datagrams_from_client": 2.0, "datagrams_from_target": 2.0, "bytes_from_target": 6.0, "reason": ""})
		})
	}
}

// TestUDPBursts sends datagrams of all sizes in bursts: each arrives as it was, however the system has put them together.
func TestUDPBursts(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenBoth+allowLoopback)
	const bursts, burst = 200, 16
	for _, listener := range []string{"main", "six"} {
		target := udpServer(t, map[string]string{"main": "127.0.0.1", "six": "::1"}[listener], udpEcho)
		c, sent := associate(t, g.addr(listener)), 0
		for i := range bursts {
			want := map[string]bool{}
			size := rand.IntN(1500)
			for k := range burst {
				if rand.IntN(4) == 0 { // else another of the same size, which may be joined
					size = rand.IntN(1500)
				}
				word := fmt.Sprintf("%d %d ", i, k)
				word += strings.Repeat("x", max(0, size-len(word)))
				want[word] = true
				sent += len(word)
				c.say(target, word)
			}
			for range burst {
				from, got := c.hear()
				if from != target || !want[got] {
					t.Fatalf("burst %d: from %s came %d bytes, %.20q, which was not sent or has come before", i, from, len(got), got)
				}
				delete(want, got)
			}
		}
		c.record(g, map[string]any{"datagrams_from_client": 1.0 * bursts * burst, "datagrams_from_target": 1.0 * bursts * burst, "bytes_from_client": float64(sent), "bytes_from_target": float64(sent)})
	}
}

// TestUDPOnAllAddresses has listeners on no address in particular: answers come from the one that the client has sent to.
func TestUDPOnAllAddresses(t *testing.T) {
	t.Parallel()
	for address, clients := range map[string][]string{"0.0.0.0:0": {"127.0.0.1", "127.0.0.5"}, "[::]:0": {"::1"}} {
		g := startTidy(t, "allow_open_proxy = true\n[listen.main]\naddress = [\""+address+"\"]\n"+allowLoopback)
		_, port, _ := net.SplitHostPort(g.at())
		for _, ip := range clients {
			c := associate(t, net.JoinHostPort(ip, port))
			if want := net.JoinHostPort(ip, port); c.relay.String() != want {
				t.Errorf("BND is %v, want %s", c.relay, want)
			}
			c.mustEcho(udpServer(t, ip, udpEcho), "to "+ip)
		}
	}
}

// TestUDPBehindABalancer has the client's address by a PROXY header; its datagrams come without, from where it is.
func TestUDPBehindABalancer(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+"proxy_protocol_from = [\"127.0.0.1\"]\n"+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	conn := dial(t, g.at())
	say(t, conn, "PROXY TCP4 127.0.0.8 127.0.0.1 4242 7659\r\n")
	balancer := call(t, conn, "") // whose own datagrams are nobody's
	balancer.say(target, "from the balancer")
	silent(t, "the balancer", balancer.udp)
	c := &caller{t, conn, bindUDP(t, "127.0.0.8"), netip.MustParseAddrPort(g.at())}
	c.mustEcho(target, "from the client")
	conn.Close()
	check(t, g.record("client=127.0.0.8:4242"), map[string]any{"method": "UDP", "datagrams_from_client": 1.0, "datagrams_from_target": 1.0, "reason": ""})
}

// What the client sends by its connection once it has its association means nothing, and does no harm.
func TestUDPTalkOnTheConnection(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	conn := dial(t, g.at())
	say(t, conn, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00and what comes behind it")
	hear(t, conn, "\x05\x00\x05\x00\x00\x01")
	hear(t, conn, string(wireTarget(t, g.at())[1:]))
	c := &caller{t, conn, bindUDP(t, "127.0.0.1"), netip.MustParseAddrPort(g.at())}
	for range 20 {
		say(t, conn, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 1000))
		c.mustEcho(target, "all the same")
	}
	c.record(g, map[string]any{"datagrams_from_target": 20.0, "reason": ""})
}

// TestUDPMixedUp has associations of one client that are used in another order than they were opened in: nobody can tell whose is whose, and
// the end of one must not be that of another.
func TestUDPMixedUp(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	var all []*caller
	for range 6 {
		all = append(all, associate(t, g.at()))
	}
	total := 0.0
	for i := len(all) - 1; i > 0; i-- {
		all[i].mustEcho(target, "word")
		all[0].mustEcho(target, "goes on")
		l := all[i].record(g, map[string]any{"status": 0.0, "reason": ""})
		total += l["datagrams_from_client"].(float64)
		all[0].mustEcho(target, "goes on")
	}
	l := all[0].record(g, map[string]any{"status": 0.0, "reason": ""})
	if total += l["datagrams_from_client"].(float64); total != 15 {
		t.Errorf("%v datagrams were accounted for, want 15", total)
	}
	late := all[0]
	late.say(target, "late")
	silent(t, "a client whose sessions have all ended", late.udp)
}
