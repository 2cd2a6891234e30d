package integration

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// secondLink makes the second link anew, after it has been deleted.
func secondLink(t *testing.T) {
	t.Helper()
	for _, line := range []string{
		"link add second type veth peer name eth1 netns far", "addr add " + farSecond + "/24 dev second", "link set second up",
		"-n far addr add 10.8.2.2/24 dev eth1", "-n far link set eth1 up",
		"route add 10.9.0.0/24 via 10.8.2.2 metric 100", "route add 10.9.0.0/24 via 10.8.2.2 table 77",
	} {
		ip(t, strings.Fields(line)...)
	}
}

// heardFrom returns where the server says that a datagram came from, as it is heard within a moment; else "nobody".
func heardFrom(t *testing.T, c *caller) string {
	t.Helper()
	_ = c.udp.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	b := make([]byte, 1<<16)
	n, err := c.udp.Read(b)
	if err != nil {
		return "nobody"
	}
	_, length, err := readAddress(b[3:n])
	if err != nil {
		t.Fatal(err)
	}
	from, _, _ := strings.Cut(string(b[3+length:n]), " ")
	return from
}

// TestExitGoesAndReturns takes away what an exit leaves by while a gateway runs and an association stands, and brings it back: nothing
// leaves another way meanwhile, and everything goes on afterwards.
func TestExitGoesAndReturns(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	port, udpPort := seenFrom(t), seenOverUDP(t)
	tests := []struct {
		name, exit, from string
		take             string
		give             func()
		says             string // of the record of TCP
	}{
		{"an interface", `interface = "second"`, farSecond, "link delete second", func() { secondLink(t) }, "there is no such interface"},
		{"an address", `local_address = ["` + farSingle + `"]`, farSingle, "addr delete " + farSingle + "/24 dev first", func() {
			ip(t, strings.Fields("addr add "+farSingle+"/24 dev first")...)
		}, "this machine does not have that address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := twoUsers(t, exiting("[exit.out]\n"+tt.exit+"\n"))
			c := call(t, dial(t, g.at()), farAlice)
			said := func() string {
				c.say(net.JoinHostPort(far4, udpPort), "word")
				return heardFrom(t, c)
			}
			eventually(t, "who speaks", tt.from, slowly(said))
			if got := leaves(t, g, "http", farAlice, far4, port); got.String() != tt.from {
				t.Errorf("it leaves from %v, want %s", got, tt.from)
			}
			ip(t, strings.Fields(tt.take)...)
			for _, way := range []string{"http", "socks5h"} {
				got, client := curl(t, "-x", way+"://"+g.at(), "-U", farAlice, "-o", "/dev/null", "http://"+net.JoinHostPort(far4, port)+"/", "--fail")
				if l := g.record("client=" + client); got.code == 0 || !strings.Contains(l.str("err"), tt.says) || l.str("exit") != "out" || l.str("reason") != "proxy_configuration_error" {
					t.Errorf("by %s curl ended with %d, and the record is %v", way, got.code, l)
				}
			}
			for range 3 {
				if from := said(); from != "nobody" {
					t.Errorf("a datagram leaves from %s", from)
				}
			}
			tt.give()
			eventually(t, "where it leaves from", tt.from, slowly(func() string {
				got, _ := curl(t, "-x", "http://"+g.at(), "-U", farAlice, "--fail", "http://"+net.JoinHostPort(far4, port)+"/")
				return got.stdout
			}))
			eventually(t, "who speaks in the same association", tt.from, slowly(said))
		})
	}
}

// TestExitsTowardsServers has connections to the servers of an upstream leave as an exit says, or not at all.
func TestExitsTowardsServers(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	port := seenFrom(t) // whose HTTP server answers requests for anything, as a proxy would
	const auth = "[auth]\nhtpasswd = \"users.htpasswd\"\nuser_parameters = [\"session\"]\n"
	upstream := func(server, exit string) string {
		return listenAnywhere + auth + "[upstream.far]\nservers = [\"http://" + net.JoinHostPort(server, port) + "\"]\n" +
			"[exit.out]\nupstream = \"far\"\n" + exit + "\n[[rule]]\naction = \"allow\"\ntarget = [\"198.51.100.0/24\"]\nexit = [\"out\"]\n"
	}
	const none = "exit out has no local_address of that family of IP"
	tests := []struct {
		name, server, exit string
		from               string // an address, or a prefix; "" is a refusal
		reason, says       string // of that
	}{
		{"an address", far4, `local_address = ["` + farSingle + `"]`, farSingle, "", ""},
		{"a range", far4, `local_address = ["` + farRange + `"]`, farRange, "", ""},
		{"a prefix", far6, `local_address = ["` + farPrefix + `"]`, farPrefix, "", ""},
		{"an interface", far4, `interface = "second"`, farSecond, "", ""},
		{"a mark", far4, "mark = 7", farSecond, "", ""},
		{"IPv6 alone, to a server of IPv4", far4, `local_address = ["` + farPrefix + `"]`, "", "destination_ip_unroutable", none},
		{"IPv4 alone, to a server of IPv6", far6, `local_address = ["` + farRange + `"]`, "", "destination_ip_unroutable", none},
		{"an address that is not ours", far4, `local_address = ["203.0.113.77"]`, "", "proxy_configuration_error", "this machine does not have that address"},
		{"no such interface", far4, `interface = "third"`, "", "proxy_configuration_error", "there is no such interface"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := twoUsers(t, upstream(tt.server, tt.exit))
			got, client := curl(t, "-x", "http://"+g.at(), "-U", farAlice, "http://198.51.100.7/")
			l := g.record("client=" + client)
			from := got.stdout
			if tt.from == "" {
				if l["status"].(float64) < 500 || l.str("reason") != tt.reason || !strings.Contains(l.str("err"), tt.says) || l.str("exit") != "out" || l.str("address") != "" {
					t.Errorf("the answer is %.60q, and the record is %v", got.stdout, l)
				}
				return
			}
			p, err := netip.ParsePrefix(tt.from)
			if a, no := netip.ParseAddr(from); no != nil || from != tt.from && (err != nil || !p.Contains(a)) {
				t.Errorf("it leaves from %.60q, want %s", got.stdout, tt.from)
			}
			check(t, l, map[string]any{"exit": "out", "status": 200.0})
		})
	}
}
