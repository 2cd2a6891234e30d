package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestUDPFilter has a server that answers from where it was asked, from another port and from another address.
func TestUDPFilter(t *testing.T) {
	t.Parallel()
	tests := []struct{ filter, want string }{
		{"", "own"}, {"endpoint", "own"}, {"address", "port own"}, {"endpoint-independent", "address port own"},
	}
	for _, tt := range tests {
		t.Run(tt.filter, func(t *testing.T) {
			config := listenAnywhere + allowLoopback
			if tt.filter != "" {
				config += "[udp]\nfilter = \"" + tt.filter + "\"\n"
			}
			g := startTidy(t, config)
			port, address := bindUDP(t, "127.0.0.2"), bindUDP(t, "127.0.0.3")
			target := udpServer(t, "127.0.0.2", func(c *net.UDPConn, from netip.AddrPort, _ []byte) {
				_, _ = address.WriteToUDPAddrPort([]byte("address"), from)
				_, _ = port.WriteToUDPAddrPort([]byte("port"), from)
				_, _ = c.WriteToUDPAddrPort([]byte("own"), from)
			})
			c := associate(t, g.at())
			for range 3 {
				c.say(target, "who is there?")
				for _, want := range strings.Fields(tt.want) {
					from, got := c.hear()
					if source := map[string]string{"own": target, "port": port.LocalAddr().String(), "address": address.LocalAddr().String()}[got]; got != want || from != source {
						t.Fatalf("heard %q from %s, want %q", got, from, want)
					}
				}
			}
			silent(t, "the client", c.udp)
			n := len(strings.Fields(tt.want))
			c.record(g, map[string]any{"datagrams_from_client": 3.0, "datagrams_from_target": float64(3 * n), "targets": 1.0, "reason": ""})
		})
	}
}

// cheapUsers are alice and bob, whose passwords are "alice's own" and "bob's own", with hashes that cost next to nothing.
const cheapUsers = "alice:$2y$04$QL8Pue4CTRnnzE8sJzyLre90.dlA4KDWyWzdRSVMSOjhftR.Kut9C\n" +
	"bob:$2y$04$fvl6LnznE2cJ8FsGK7pMpuyZ4iqotzVc2maa6pM38YG4Q/vsLEcqS\n"

// twoUsers starts a gateway that knows alice and bob.
func twoUsers(t *testing.T, config string) *gateway {
	t.Helper()
	g := prepare(t, config)
	g.write("users.htpasswd", cheapUsers)
	g.run()
	g.waitListening(strings.Count(config, "[listen."))
	return tidy(g, config)
}

// TestUDPTwoUsersOnOneAddress has two users whose datagrams nobody could tell apart by the address.
func TestUDPTwoUsersOnOneAddress(t *testing.T) {
	t.Parallel()
	const alice, bob = "alice:alice's own", "bob:bob's own"
	config := "[auth]\nhtpasswd = \"users.htpasswd\"\n" + listenAnywhere + allowLoopback
	target := udpServer(t, "127.0.0.1", udpEcho)
	t.Run("one port", func(t *testing.T) {
		g := twoUsers(t, config)
		first := call(t, dial(t, g.at()), alice)
		if rep := refusedUDP(t, "127.0.0.1", g.at(), bob); rep != 1 {
			t.Errorf("while alice has sent nothing bob gets REP %02x, want 01", rep)
		}
		check(t, g.record("identity=bob"), map[string]any{"method": "UDP", "protocol": "socks5", "status": 1.0})
		elsewhere := call(t, dialFrom(t, "127.0.0.2", g.at()), bob)
		elsewhere.mustEcho(target, "from another address")
		second := call(t, dial(t, g.at()), alice)
		first.mustEcho(target, "first")
		if rep := refusedUDP(t, "127.0.0.1", g.at(), bob); rep != 1 {
			t.Errorf("while the second of alice has sent nothing bob gets REP %02x, want 01", rep)
		}
		second.mustEcho(target, "second")
		third := call(t, dial(t, g.at()), bob)
		third.mustEcho(target, "of bob")
		first.mustEcho(target, "again")
		first.record(g, map[string]any{"identity": "alice", "bytes_from_client": 10.0, "bytes_from_target": 10.0})
		second.record(g, map[string]any{"identity": "alice", "bytes_from_client": 6.0})
		third.record(g, map[string]any{"identity": "bob", "bytes_from_client": 6.0})
		elsewhere.record(g, map[string]any{"identity": "bob", "bytes_from_client": 20.0})
	})
	t.Run("ports", func(t *testing.T) {
		ports := freePorts(t, 3)
		g := twoUsers(t, config+fmt.Sprintf("[udp]\nports = \"%d-%d\"\n", ports, ports+2))
		first, second := call(t, dial(t, g.at()), alice), call(t, dial(t, g.at()), bob)
		if first.relay == second.relay {
			t.Fatalf("both are told %v", first.relay)
		}
		if p := second.relay.Port(); p < ports || p > ports+2 {
			t.Errorf("bob is told %v, want a port of %d-%d", second.relay, ports, ports+2)
		}
		second.mustEcho(target, "bob")
		first.mustEcho(target, "alice")
		second.mustEcho(target, "bob again")
		first.record(g, map[string]any{"identity": "alice", "bytes_from_client": 5.0})
		second.record(g, map[string]any{"identity": "bob", "bytes_from_client": 12.0})
	})
}

// TestUDPLimitsOfAssociations takes the last that there is, and gives one back.
func TestUDPLimitsOfAssociations(t *testing.T) {
	t.Parallel()
	for limit, elsewhere := range map[string]byte{"associations": 1, "associations_per_client": 0} {
		t.Run(limit, func(t *testing.T) {
			g := startTidy(t, listenAnywhere+allowLoopback+"[udp]\n"+limit+" = 2\n")
			target := udpServer(t, "127.0.0.1", udpEcho)
			first, second := associate(t, g.at()), associate(t, g.at())
			if rep := refusedUDP(t, "127.0.0.1", g.at(), ""); rep != 1 {
				t.Errorf("the third association gets REP %02x, want 01", rep)
			}
			check(t, g.record("status=1"), map[string]any{"method": "UDP", "protocol": "socks5"})
			if rep := refusedUDP(t, "127.0.0.2", g.at(), ""); rep != elsewhere {
				t.Errorf("one of another client gets REP %02x, want %02x", rep, elsewhere)
			}
			first.mustEcho(target, "first")
			first.record(g, map[string]any{"bytes_from_client": 5.0})
			third := associate(t, g.at())
			third.mustEcho(target, "third")
			second.mustEcho(target, "second")
		})
	}
}

// TestUDPLimitOfTargets speaks to one more than an association may have.
func TestUDPLimitOfTargets(t *testing.T) {
	t.Parallel()
	l := newLiar(t, map[string]answerer{"echo.example.": records("60 A 127.0.0.1")})
	g := startTidy(t, listenAnywhere+"[dns]\nservers = [\"udp://"+l.addr+"\"]\n"+allowLoopback+"[udp]\ntargets = 2\n")
	c := associate(t, g.at())
	first, second := udpServer(t, "127.0.0.1", udpEcho), udpServer(t, "127.0.0.1", udpEcho)
	beyond := udpServer(t, "127.0.0.1", udpEcho)
	c.mustEcho(first, "one")
	c.mustEcho(second, "two")
	c.say(beyond, "three")
	c.mustEcho(first, "four")
	c.mustEcho(second, "five")
	silent(t, "the client", c.udp)
	c.record(g, map[string]any{"targets": 2.0, "datagrams_from_client": 4.0, "datagrams_from_target": 4.0, "datagrams_limited": 1.0})

	named := associate(t, g.at()) // a name counts as its address does
	for _, target := range []string{first, second} {
		named.mustEcho(strings.Replace(target, "127.0.0.1", "echo.example", 1), "by name")
	}
	named.say(strings.Replace(beyond, "127.0.0.1", "echo.example", 1), "three")
	named.mustEcho(strings.Replace(first, "127.0.0.1", "echo.example", 1), "again")
	named.record(g, map[string]any{"targets": 2.0, "datagrams_from_client": 3.0, "datagrams_from_target": 3.0, "datagrams_limited": 1.0})
}

// TestUDPRates sends more than a client may until all that may pass at once has passed, and some of what comes to it.
func TestUDPRates(t *testing.T) {
	t.Parallel()
	for rate, atOnce := range map[string]int{"datagrams_per_second = 20": 20, "bytes_per_second = \"20kB\"": 65} { // one of the longest has to fit
		t.Run(rate, func(t *testing.T) {
			g := startTidy(t, listenAnywhere+allowLoopback+"[udp]\n"+rate+"\n")
			served := make(chan struct{}, 1000)
			target := udpServer(t, "127.0.0.1", func(*net.UDPConn, netip.AddrPort, []byte) { served <- struct{}{} })
			c, begun, sent := associate(t, g.at()), time.Now(), 0
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := 0; n < atOnce+5; {
				select {
				case <-served:
					n++
				case <-tick.C:
					for range 10 {
						c.say(target, strings.Repeat("x", 1000))
					}
					sent += 10
				}
			}
			most := float64(atOnce) + 21*time.Since(begun).Seconds() + 1
			other := call(t, dialFrom(t, "127.0.0.2", g.at()), "")
			other.mustEcho(udpServer(t, "127.0.0.1", udpEcho), "of another client")
			l := c.record(g, map[string]any{"reason": ""})
			if passed, limited := l.num("datagrams_from_client"), l.num("datagrams_limited"); float64(passed) > most || limited < 10 || passed+limited > int64(sent) {
				t.Errorf("of %d datagrams %d were let through, of which %.1f may have been, and %d not: %v", sent, passed, most, limited, l)
			}
		})
	}
}

// An association on which nothing moves is ended, and its connection with it, though strangers talk to it; one that is used is not.
func TestUDPIdle(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback+"[timeouts]\nhandshake = \"500ms\"\nidle = \"500ms\"\n[udp]\nidle = \"1s\"\n")
	way := make(chan netip.AddrPort, 1) // out of the gateway
	target := udpServer(t, "127.0.0.1", func(c *net.UDPConn, from netip.AddrPort, b []byte) {
		select {
		case way <- from:
		default:
		}
		udpEcho(c, from, b)
	})
	unused := associate(t, g.at())
	unused.mustEcho(target, "once")
	used, stranger, out := associate(t, g.at()), bindUDP(t, "127.0.0.1"), <-way
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, unused.conn); ended <- err }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for again := true; again; {
		used.mustEcho(target, "again and again")
		sendTo(t, stranger, out, []byte("unasked"))
		select {
		case err := <-ended:
			if again = false; err != nil {
				t.Errorf("the idle association's connection ends with %v", err)
			}
		case <-tick.C:
		}
	}
	used.mustEcho(target, "still here")
	if l := unused.record(g, map[string]any{"reason": "idle_timeout", "datagrams_from_client": 1.0, "datagrams_from_target": 1.0}); l.num("datagrams_dropped") < 2 {
		t.Errorf("of the stranger's datagrams %d are counted: %v", l.num("datagrams_dropped"), l)
	}
	used.record(g, map[string]any{"reason": ""})
}

// TestUDPTurnedOff has a listener without.
func TestUDPTurnedOff(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+"udp = false\n[listen.other]\naddress = [\"127.0.0.1:0\"]\n"+allowLoopback)
	if rep := refusedUDP(t, "127.0.0.1", g.at(), ""); rep != 7 {
		t.Errorf("without UDP the reply is REP %02x, want 07 (command not supported)", rep)
	}
	associate(t, g.addr("other")).mustEcho(udpServer(t, "127.0.0.1", udpEcho), "by the other")
}
