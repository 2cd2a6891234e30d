package integration

import (
	"net"
	"strings"
	"testing"
)

// hole is an IPv6 network where nothing ever answers: what is sent there is counted, and lost.
const (
	hole      = "fd00:6::1"
	holeRules = `
table inet eyeballs {
	set ports { type inet_service; flags dynamic; size 1024; }
	chain output {
		type filter hook output priority 0
		ip6 daddr ` + hole + ` tcp flags & (syn|ack) == syn add @ports { tcp sport }
	}
}
`
)

// attempts returns how many connections have been tried to the hole: repeated SYNs come from the same port.
func attempts(t *testing.T) int {
	t.Helper()
	out := run(t, "nft", "list", "set", "inet", "eyeballs", "ports")
	mustSay(t, out, 0)
	_, elements, found := strings.Cut(out.stdout, "elements = {")
	if !found {
		return 0
	}
	return strings.Count(elements, ",") + 1
}

// TestHappyEyeballs has names whose IPv6 addresses are dead: their IPv4 addresses are reached all the same, and the second time nothing
// else is tried.
func TestHappyEyeballs(t *testing.T) {
	if !apart(t) {
		return
	}
	for _, line := range []string{
		"link add hole type veth peer name sink", "addr add fd00:6::2/64 dev hole nodad", "link set hole up", "link set sink up",
		"neigh add " + hole + " lladdr 02:00:00:00:00:06 dev hole", // which is not that of sink
	} {
		ip(t, strings.Fields(line)...)
	}
	mustSay(t, finish(t, withInput(command(t, "nft", "-f", "-"), holeRules)), 0)
	_, port, _ := net.SplitHostPort(tcpServer(t, echo))
	names := "hosts = { \"a.example\" = [\"" + hole + "\", \"127.0.0.1\"], \"b.example\" = [\"" + hole + "\", \"127.0.0.1\"], \"c.example\" = [\"127.0.0.1\", \"" + hole + "\"] }\n"
	config := func(more string) string {
		return listenAnywhere + "[dns]\n" + names + more + "[[rule]]\naction = \"allow\"\ntarget = [\"127.0.0.1\", \"fd00:6::/64\"]\n"
	}
	g := start(t, config(""))
	ways := map[string]func(host string){
		"CONNECT": func(host string) { tunnel(t, g.at(), host).Close() },
		"SOCKS5": func(host string) {
			if rep := socks5Code(t, g.at(), host); rep != 0 {
				t.Fatalf("REP %02x", rep)
			}
		},
	}
	seen := 0
	step := func(what, way, name string, more int) {
		t.Helper()
		ways[way](net.JoinHostPort(name, port))
		now := attempts(t)
		if now != seen+more {
			t.Errorf("%s, %s: %d connections to IPv6 are tried, want %d", what, way, now-seen, more)
		}
		seen = now
	}
	step("the first time", "CONNECT", "a.example", 1)
	step("the second time", "CONNECT", "a.example", 0)
	step("the third time", "SOCKS5", "a.example", 0)
	step("another name", "SOCKS5", "b.example", 1)
	step("another name again", "SOCKS5", "b.example", 0)
	step("that name again", "CONNECT", "b.example", 0)
	if l := g.reload(config("cache = 0\n")); l.str("msg") != "reloaded" {
		t.Fatalf("%v", l)
	}
	step("after a reload", "CONNECT", "a.example", 0)
	if l := g.reload(config("family = \"prefer-ipv4\"\n")); l.str("msg") != "reloaded" {
		t.Fatalf("%v", l)
	}
	step("IPv4 first, a name that is new", "CONNECT", "c.example", 0)
	for _, l := range []string{"a.example", "b.example", "c.example"} {
		check(t, g.record("target="+net.JoinHostPort(l, port)), map[string]any{"address": "127.0.0.1:" + port})
	}
}
