package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The network of these tests: here is this process, with two links to a namespace that has the servers. Which link a connection
// takes, and from which address, is what a server sees of it.
const (
	farSingle = "10.8.0.5"       // of this machine, beside 10.8.0.1 and fd00:8::1
	farRange  = "10.8.1.0/28"    // routed to this machine
	farPrefix = "fd00:8:1::/64"  // the same
	far4      = "10.9.0.1"       // the servers, where both links lead
	far6      = "fd00:9::1"      // and the first one
	farSecond = "10.8.2.1"       // what connections by the second link leave from
	farRule   = "fwmark 7 table" // and a table in which the second link leads to the servers
)

// farNetwork makes the network.
func farNetwork(t *testing.T) {
	t.Helper()
	cover(t, "/run", t.TempDir()) // where ip keeps its namespaces
	for _, line := range []string{
		"netns add far", "-n far link set lo up", "-n far addr add " + far4 + "/32 dev lo", "-n far addr add " + far6 + "/128 dev lo",
		"link add first type veth peer name eth0 netns far", "addr add 10.8.0.1/24 dev first", "addr add " + farSingle + "/24 dev first",
		"addr add fd00:8::1/64 dev first nodad", "link set first up", "-n far addr add 10.8.0.2/24 dev eth0", "-n far addr add fd00:8::2/64 dev eth0 nodad", "-n far link set eth0 up",
		"link add second type veth peer name eth1 netns far", "addr add " + farSecond + "/24 dev second", "link set second up",
		"-n far addr add 10.8.2.2/24 dev eth1", "-n far link set eth1 up",
		"route add 10.9.0.0/24 via 10.8.0.2", "route add 10.9.0.0/24 via 10.8.2.2 metric 100", "route add fd00:9::/64 via fd00:8::2",
		"route add local " + farRange + " dev lo", "route add local " + farPrefix + " dev lo", "-n far route add " + farRange + " via 10.8.0.1", "-n far route add " + farPrefix + " via fd00:8::1",
		"rule add " + farRule + " 77", "route add 10.9.0.0/24 via 10.8.2.2 table 77",
	} {
		ip(t, strings.Fields(line)...)
	}
	t.Cleanup(func() {
		ip(t, "netns", "delete", "far")
		if err := unbind("/run/netns"); err != nil { // which ip has mounted on itself
			t.Errorf("unmount /run/netns: %v", err)
		}
	})
}

// inFar calls make with this thread in the servers' namespace: sockets stay in the one that they were made in.
func inFar(t *testing.T, make func() error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	far, err := os.Open("/run/netns/far")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if err := unix.Setns(int(far.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("go to another network: %v", err)
	}
	err = make()
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // this thread is of no use any more
	}
	if err != nil {
		t.Fatal(err)
	}
}

// seenFrom serves where a request comes from, as the whole answer, at both addresses of the servers. It returns the port.
func seenFrom(t *testing.T) (port string) {
	t.Helper()
	port = "8080"
	inFar(t, func() error {
		for _, a := range []string{far4, far6} {
			ln, err := net.Listen("tcp", net.JoinHostPort(a, port))
			if err != nil {
				return err
			}
			t.Cleanup(func() { ln.Close() })
			go func() { _ = http.Serve(ln, http.HandlerFunc(tellFrom)) }()
		}
		return nil
	})
	return port
}

// tellFrom answers with the address that a request comes from.
func tellFrom(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	host, _, _ = strings.Cut(host, "%") // the server's own name of the link
	w.Header().Set("Connection", "close")
	fmt.Fprint(w, host)
}

// leaves asks a server where a request through the gateway comes from.
func leaves(t *testing.T, g *gateway, way, login, host, port string) netip.Addr {
	t.Helper()
	proxy := way + "://" + g.at()
	args := []string{"-x", proxy, "--fail", "-g", "http://" + net.JoinHostPort(host, port) + "/"}
	if login != "" {
		args = append(args, "-U", login)
	}
	got, _ := curl(t, args...)
	a, err := netip.ParseAddr(got.stdout)
	if got.code != 0 || err != nil {
		t.Fatalf("curl ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
	return a
}

// exiting is a gateway for alice and bob whose rule names the exit out.
func exiting(exits string) string {
	return listenAnywhere + "[auth]\nhtpasswd = \"users.htpasswd\"\nuser_parameters = [\"session\", \"ttl\"]\n" + exits +
		"[[rule]]\naction = \"allow\"\ntarget = [\"10.9.0.0/24\", \"fd00:9::/64\"]\nexit = [\"out\"]\n"
}

const farAlice, farBob = "alice:alice's own", "bob:bob's own"

// TestExits has connections leave as an exit says, which the server tells.
func TestExits(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	port := seenFrom(t)
	tests := []struct{ name, exit, to, from string }{
		{"an address", `local_address = ["` + farSingle + `"]`, far4, farSingle},
		{"an address of each family, IPv4", `local_address = ["` + farSingle + `", "fd00:8::1"]`, far4, farSingle},
		{"an address of each family, IPv6", `local_address = ["` + farSingle + `", "fd00:8::1"]`, far6, "fd00:8::1"},
		{"an interface", `interface = "second"`, far4, farSecond},
		{"the other interface", `interface = "first"`, far4, "10.8.0.1"},
		{"a mark", "mark = 7", far4, farSecond},
		{"a mark that no rule knows", "mark = 8", far4, "10.8.0.1"},
		{"an interface and an address", "interface = \"second\"\nlocal_address = [\"" + farSecond + "\"]", far4, farSecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := twoUsers(t, exiting("[exit.out]\n"+tt.exit+"\n"))
			for _, way := range []string{"http", "socks5h"} {
				if got := leaves(t, g, way, farAlice, tt.to, port); got.String() != tt.from {
					t.Errorf("by %s it leaves from %v, want %s", way, got, tt.from)
				}
			}
			check(t, g.record("target="+net.JoinHostPort(tt.to, port)), map[string]any{"exit": "out", "identity": "alice", "upstream": ""})
		})
	}
}

// seenOverUDP serves where a datagram comes from, in front of the datagram, at both addresses of the servers.
func seenOverUDP(t *testing.T) (port string) {
	t.Helper()
	port = "5300"
	inFar(t, func() error {
		for _, a := range []string{far4, far6} {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(net.JoinHostPort(a, port))))
			if err != nil {
				return err
			}
			serveUDP(t, c, fromDante)
		}
		return nil
	})
	return port
}

// TestExitsOverUDP has datagrams of SOCKS5 leave as an exit says.
func TestExitsOverUDP(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	port := seenOverUDP(t)
	const many = `local_address = ["` + farRange + `", "` + farPrefix + `"]`
	tests := []struct {
		name, exit, user, to string
		from                 string // an address, or a prefix
		different            bool   // for each association
	}{
		{"an address", `local_address = ["` + farSingle + `"]`, "alice", far4, farSingle, false},
		{"an interface", `interface = "second"`, "alice", far4, farSecond, false},
		{"a mark", "mark = 7", "alice", far4, farSecond, false},
		{"a mark that no rule knows", "mark = 8", "alice", far4, "10.8.0.1", false},
		{"a range", many, "alice", far4, farRange, true},
		{"a prefix", many, "alice", far6, farPrefix, true},
		{"a prefix, for a session", many, "alice+session-k3j", far6, farPrefix, false},
		{"a prefix, for a user", many + "\nchoose = \"sticky-user\"", "alice", far6, farPrefix, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := twoUsers(t, exiting("[exit.out]\n"+tt.exit+"\n"))
			seen := map[string]bool{}
			for range 6 {
				c := call(t, dial(t, g.at()), tt.user+":alice's own")
				c.say(net.JoinHostPort(tt.to, port), "word")
				_, payload := c.hear()
				from, word, _ := strings.Cut(payload, " ")
				seen[from] = true
				if p, err := netip.ParsePrefix(tt.from); word != "word" || from != tt.from && (err != nil || !p.Contains(netip.MustParseAddr(from))) {
					t.Errorf("the server heard %q from %s, want it from %s", word, from, tt.from)
				}
				c.record(g, map[string]any{"identity": "alice", "datagrams_from_target": 1.0, "reason": ""})
			}
			if len(seen) > 1 != tt.different {
				t.Errorf("six associations leave from %v", seen)
			}
		})
	}
}

// TestExitsOfManyAddresses has connections leave from any address of a range, or always from the same.
func TestExitsOfManyAddresses(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	port := seenFrom(t)
	const many = 24
	out := func(choose string) string {
		return exiting("[exit.out]\nlocal_address = [\"" + farRange + "\", \"" + farPrefix + "\"]\nchoose = \"" + choose + "\"\n")
	}
	g := twoUsers(t, out("random"))
	choose := func(how string) {
		t.Helper()
		if l := g.reload(out(how)); l.str("msg") != "reloaded" {
			t.Fatal(l)
		}
	}
	from := func(n int, way, login, host string) map[netip.Addr]int {
		t.Helper()
		all := map[netip.Addr]int{}
		for range n {
			all[leaves(t, g, way, login, host, port)]++
		}
		return all
	}
	t.Run("random", func(t *testing.T) {
		if got := from(many, "http", farAlice, far6); len(got) < many {
			t.Errorf("%d connections leave from %d addresses of %s", many, len(got), farPrefix)
		}
		four := from(many, "socks5h", farAlice, far4)
		for a := range four {
			if last := a.As4()[3]; !netip.MustParsePrefix(farRange).Contains(a) || last == 0 || last == 15 {
				t.Errorf("a connection leaves from %v, which is no host of %s", a, farRange)
			}
		}
		if len(four) < 3 {
			t.Errorf("%d connections leave from %v", many, four)
		}
	})
	t.Run("a session, whatever is chosen", func(t *testing.T) {
		session := func(name string) string { return strings.Replace(farAlice, ":", "+session-"+name+":", 1) }
		first := from(4, "http", session("k3j"), far6)
		for range 2 {
			for a := range from(2, "socks5h", session("k3j"), far6) {
				first[a]++
			}
			choose("random")
		}
		if len(first) != 1 {
			t.Errorf("a session leaves from %v", first)
		}
		for a := range from(2, "http", session("other"), far6) {
			if first[a] > 0 {
				t.Errorf("another session leaves from %v too", a)
			}
		}
		short := strings.Replace(farAlice, ":", "+session-short+ttl-1s:", 1)
		was := leaves(t, g, "http", short, far6, port)
		eventually(t, "whether a session of a second gets another address", "true", slowly(func() string {
			return fmt.Sprint(leaves(t, g, "http", short, far6, port) != was)
		}))
	})
	var ofAlice map[netip.Addr]int
	for _, how := range []string{"sticky-client", "sticky-user"} {
		t.Run(how, func(t *testing.T) {
			choose(how)
			first, second := from(6, "http", farAlice, far6), from(6, "socks5h", farBob, far6)
			if len(first) != 1 || len(second) != 1 {
				t.Fatalf("alice leaves from %v, bob from %v", first, second)
			}
			for a := range first {
				if same, wanted := second[a] > 0, how == "sticky-client"; same != wanted {
					t.Errorf("two users on one address leave from %v and %v", first, second)
				}
			}
			ofAlice = first
		})
	}
	g = twoUsers(t, out("sticky-user")) // which has never heard of the first
	for a := range from(2, "http", farAlice, far6) {
		if ofAlice[a] == 0 {
			t.Errorf("by another gateway with the same configuration alice leaves from %v, not from %v", a, ofAlice)
		}
	}
}

// TestExitsThatCannotBe has exits that this machine does not let be: nothing leaves in another way, and the log says what to do.
func TestExitsThatCannotBe(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	port := seenFrom(t)
	tests := []struct {
		name, exit, to, says string
		powerless            bool // without capabilities
	}{
		{"an address that is not ours", `local_address = ["203.0.113.77"]`, far4, "exit out, local_address 203.0.113.77: bind: cannot assign requested address; this machine does not have that address", false},
		{"no address of the family", `local_address = ["` + farSingle + `"]`, far6, "exit out has no local_address of that family of IP", false},
		{"no address of the other family", `local_address = ["` + farPrefix + `"]`, far4, "exit out has no local_address of that family of IP", false},
		{"no such interface", `interface = "third"`, far4, "exit out, interface \"third\": setsockopt: no such device; there is no such interface", false},
		{"a mark without the capability", "mark = 7", far4, "exit out, mark 7: setsockopt: operation not permitted; it takes the capability CAP_NET_ADMIN", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := exiting("[exit.out]\n" + tt.exit + "\n")
			g := prepare(t, config)
			g.write("users.htpasswd", cheapUsers)
			if tt.powerless {
				g.cmd = command(t, "setpriv", append([]string{"--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"}, g.cmd.Args...)...)
			}
			g.run()
			g.waitListening(1)
			got, client := curl(t, "-x", "http://"+g.at(), "-U", farAlice, "-g", "-o", "/dev/null", "-D", "-", "http://"+net.JoinHostPort(tt.to, port)+"/")
			if !strings.HasPrefix(got.stdout, "HTTP/1.1 50") {
				t.Errorf("curl ended with %d and printed %q, want status 50x", got.code, got.stdout)
			}
			l := g.record("client=" + client)
			if !strings.Contains(l.str("err"), tt.says) || l.str("exit") != "out" {
				t.Errorf("the record of exit %q says %q, want out and %q", l.str("exit"), l.str("err"), tt.says)
			}
			got, client = curl(t, "-x", "socks5h://"+g.at(), "-U", farAlice, "-g", "http://"+net.JoinHostPort(tt.to, port)+"/")
			if l := g.record("client=" + client); got.code != 97 || !strings.Contains(l.str("err"), tt.says) {
				t.Errorf("by SOCKS5 curl ended with %d, and the record says %q", got.code, l.str("err"))
			}
			eventually(t, "whether the record of UDP says so", "true", slowly(func() string {
				mark := g.mark()
				c := call(t, dial(t, g.at()), farAlice)
				c.say(net.JoinHostPort(tt.to, "5300"), "word")
				silent(t, "the client", c.udp) // and when the connection ends too soon it is done again
				c.conn.Close()
				return fmt.Sprint(strings.Contains(g.recordSince(mark, "method=UDP").str("err"), tt.says))
			}))
		})
	}
}
