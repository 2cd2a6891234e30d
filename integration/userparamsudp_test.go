package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestUserParametersOverUDP has PySocks say in its user name by which way its datagrams leave. The proxies behind are gateways too, each
// of which leaves from an address of its own.
func TestUserParametersOverUDP(t *testing.T) {
	t.Parallel()
	var servers []string
	proxies := map[string]string{}
	for i, country := range []string{"de", "de", "de", "fr"} {
		from := fmt.Sprintf("127.0.8.%d", 101+i)
		p := start(t, listenAnywhere+"[exit.out]\nlocal_address = [\""+from+"\"]\n[[rule]]\naction = \"allow\"\ntarget = [\"127.0.0.0/8\"]\nexit = [\"out\"]\n")
		proxies[from] = "socks5://" + p.at()
		servers = append(servers, fmt.Sprintf("{ url = %q, country = %q }", proxies[from], country))
	}
	g := twoUsers(t, listenAnywhere+"[auth]\nhtpasswd = \"users.htpasswd\"\nuser_parameters = ["+allParameters+"]\n"+
		"[upstream.world]\nbalance = \"round-robin\"\nservers = ["+strings.Join(servers, ", ")+"]\n[upstream.web]\nservers = [\"http://127.0.0.1:9\"]\n"+
		"[exit.all]\nupstream = \"world\"\n[exit.near]\nlocal_address = [\"127.0.8.109\"]\n[exit.web]\nupstream = \"web\"\n[exit.secret]\nlocal_address = [\"127.0.8.110\"]\n"+
		"[[rule]]\naction = \"allow\"\ntarget = [\"127.0.0.1\"]\nexit = [\"all\", \"near\", \"web\"]\n")
	host, port, _ := net.SplitHostPort(udpServer(t, "127.0.0.1", fromDante))
	// ask returns where a datagram comes from, once for each association.
	ask := func(parameters string, want map[string]any) string {
		t.Helper()
		mark := g.mark()
		p := newPySocks(t, g.at(), loginOf("alice", parameters))
		p.bind(g.at())
		p.tell("say", host, port, "word")
		p.tell("hear")
		line := p.line()
		p.end()
		from, rest, _ := strings.Cut(line, " ")
		if rest != "word from "+host+" "+port {
			t.Fatalf("%s: PySocks says %q", parameters, line)
		}
		l := g.recordSince(mark, "method=UDP", "identity=alice")
		check(t, l, want)
		if server := proxies[from]; server != "" {
			check(t, l, map[string]any{"upstream": "world", "server": server})
		}
		return from
	}
	for parameters, want := range map[string]string{"+exit-near": "127.0.8.109", "+country-fr": "127.0.8.104", "+exit-all+country-fr+session-s1": "127.0.8.104"} {
		if got := ask(parameters, map[string]any{"reason": "", "datagrams_denied": 0.0}); got != want {
			t.Errorf("%s leaves from %s, want %s", parameters, got, want)
		}
	}
	session := ask("+country-de+session-k3j+ttl-10m", nil)
	for range 3 {
		if got := ask("+country-de+session-k3j+ttl-10m", nil); got != session {
			t.Errorf("a session leaves from %s, and from %s before", got, session)
		}
	}
	seen := map[string]bool{}
	for range 4 {
		seen[ask("", nil)] = true
	}
	if len(seen) != 4 {
		t.Errorf("without parameters four associations leave from %v, want all in turn", seen)
	}

	for _, parameters := range []string{"+exit-nowhere", "+country-jp", "+exit-near+country-de", "+colour-red"} {
		p := newPySocks(t, g.at(), loginOf("alice", parameters))
		p.tell("bind", 0)
		if got := p.line(); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, "authentication failed") {
			t.Errorf("%s: PySocks says %q, want that it cannot log in", parameters, got)
		}
		p.end()
	}
	for _, parameters := range []string{"+exit-secret", "+exit-web"} { // which no rule lists, or which carries no datagrams
		target := bindUDP(t, "127.0.0.1")
		eventually(t, "the datagrams that are denied to alice"+parameters, "1", slowly(func() string {
			mark := g.mark()
			conn := dial(t, g.at())
			greet(t, conn, loginOf("alice", parameters))
			rep, relay := askUDP(t, conn, nobody)
			if rep != 0 {
				return fmt.Sprintf("REP %02x", rep)
			}
			c := &caller{t, conn, bindUDP(t, "127.0.0.1"), relay}
			c.say(target.LocalAddr().String(), "x")
			silent(t, "the client", c.udp) // and when the connection ends too soon it is done again
			conn.Close()
			return fmt.Sprint(g.recordSince(mark, "method=UDP").num("datagrams_denied"))
		}))
		silent(t, "the target", target)
	}
}
