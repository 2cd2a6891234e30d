package integration

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// next is an upstream of one server, and what is to be known of the program.
type next struct {
	name   string // of the upstream, of the listener for it and of its rule
	scheme string
	login  string // in its URL
	at     *hop   // what the gateway dials
	tells  *hop   // whose log tells of targets
	form   string // how that has a target, with %s for its host and its port
	table  string // further lines of [upstream.NAME]
	ends   ending // of one direction
}

// ending is what a program does when one direction of a tunnel ends.
type ending int

const (
	endsBoth   ending = iota // it ends the other one too
	passesEnds               // it passes that on, and the other direction goes on
	keepsEnds                // nothing, as if it had not seen it
)

// server is the URL as records have it.
func (n next) server() string { return n.scheme + "://" + n.at.addr }

// config is the upstream, a listener for it, and the rule that has the listener's clients leave through it.
func (n next) config() string {
	return fmt.Sprintf(`
[listen.%[1]s]
address = ["127.0.0.1:0"]
[upstream.%[1]s]
servers = ["%[2]s://%[3]s%[4]s"]
%[5]s
[[rule]]
name     = "by %[1]s"
action   = "allow"
listener = ["%[1]s"]
target   = ["127.0.0.0/8", "*.test", "localhost"]
upstream = "%[1]s"
`, n.name, n.scheme, n.login, n.at.addr, n.table)
}

// nexts starts a program for every scheme of an upstream.
func nexts(t *testing.T) []next {
	t.Helper()
	p := newPapers(t)
	gate := p.client("gate")
	believed := fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)
	shown := fmt.Sprintf("tls = { ca = %q, server_name = %q, certificate = %q, key = %q }", p.ca(), ownName, gate.cert, gate.key)
	squid, tiny, micro, dante, ssh := newSquid(t, false, ""), newTinyproxy(t), newMicrosocks(t, false), newDante(t), newSSHHop(t)
	const byColon, byDot = "%s:%s", "%s.%s"
	return []next{
		{"squid", "http", hopLogin, squid, squid, byColon, "", endsBoth},
		{"tinyproxy", "http", tinyLogin, tiny, tiny, byColon, "", endsBoth},
		{"squid-tls", "https", hopLogin, newTLSProxy(t, p, squid, ""), squid, byColon, believed, endsBoth},
		{"tinyproxy-tls", "https", tinyLogin, newTLSProxy(t, p, tiny, " ca-file "+p.path("client-ca.pem")+" verify required"), tiny, byColon, shown, endsBoth},
		{"h2", "h2", hopLogin, newNghttpx(t, p, squid), squid, byColon, believed, keepsEnds},
		{"socks4", "socks4", "", dante, dante, byDot, "", passesEnds},
		{"socks4a", "socks4a", "", ssh, ssh, "host %s port %s", "", passesEnds},
		{"socks5", "socks5", hopLogin, micro, micro, byColon, "", endsBoth},
		{"socks5-dante", "socks5", "", dante, dante, byDot, "", passesEnds},
		{"socks5s", "socks5s", hopLogin, newStunnel(t, p, micro), micro, byColon, believed, endsBoth},
	}
}

// nextsConfig is that of all of them.
func nextsConfig(all []next) string {
	config := "[dns]\nhosts = { \"www.test\" = [\"127.0.0.1\"] }\n"
	for _, n := range all {
		config += n.config()
	}
	return config
}

// upstreamWays are the ways in that differ by what the gateway asks its upstream for.
var upstreamWays = []struct {
	name, scheme, row, url string
	args                   []string
}{
	{"forward", "http://", "http", "http", nil},
	{"tunnel", "http://", "connect", "https", nil},
	{"plain in a tunnel", "http://", "connect", "http", []string{"--proxytunnel"}},
	{"socks5h", "socks5h://", "socks5", "https", nil},
	{"socks4a", "socks4a://", "socks4", "http", nil},
}

// question is what a program must have logged.
type question struct {
	at   *hop
	text string
}

// TestUpstreams has curl come by every way in and leave through every kind of proxy.
func TestUpstreams(t *testing.T) {
	t.Parallel()
	all, w := nexts(t), newWeb(t)
	config := nextsConfig(all)
	g := startDiscreet(t, config)
	asked := map[question]bool{}
	for _, n := range all {
		for _, way := range upstreamWays {
			t.Run(n.name+" "+way.name, func(t *testing.T) {
				address := w.plain
				if way.url == "https" {
					address = w.secure
				}
				host, port, _ := net.SplitHostPort(address)
				forwarded := way.row == "http" && (n.scheme == "http" || n.scheme == "https")
				target := net.JoinHostPort("www.test", port)
				if forwarded && !n.tells.knows { // a request in absolute-form names its origin, whoever has looked that up
					target = address
				}
				url := way.url + "://" + target + "/through/" + n.name
				got, client := curl(t, append([]string{"--cacert", w.ca, "-H", "Connection: close", "-x", way.scheme + g.addr(n.name), url}, way.args...)...)
				if want := "hello from " + target + "/through/" + n.name + " over HTTP/1.1"; got.code != 0 || got.stdout != want {
					t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
				}
				l := g.record("client=" + client)
				if forwarded {
					address = ""
					asked[question{n.tells, "GET http://" + target + "/through/" + n.name}] = true
				} else {
					asked[question{n.tells, fmt.Sprintf(n.form, host, port)}] = true // the address, since the name was looked up here
				}
				check(t, l, map[string]any{
					"protocol": way.row, "listener": n.name, "target": target, "address": address, "upstream": n.name, "server": n.server(), "rule": "by " + n.name,
					"resolved_by": "", "exit": "",
				})
			})
		}
	}
	g.reload(config) // lets idle connections go, since squid tells of a tunnel at its end
	for q := range asked {
		q.at.logs(q.text)
	}
}

// talker speaks first, then sends and expects so much at once, tells the checksum of what came, and has a last word at the end
// of the other's stream.
const talk = 8 << 20

func talkBytes(seed byte) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{seed}), talk) }

func talker(t *testing.T) string {
	t.Helper()
	return tcpServer(t, func(c *net.TCPConn) {
		fmt.Fprint(c, "220 you first\r\n")
		var sending sync.WaitGroup
		sending.Go(func() { _, _ = io.Copy(c, talkBytes(1)) }) // the client misses what is not sent
		r := bufio.NewReader(c)
		came := sum(io.LimitReader(r, talk))
		sending.Wait()
		fmt.Fprintln(c, came)
		_, _ = io.Copy(io.Discard, r)
		fmt.Fprint(c, "221 at the end\r\n")
	})
}

// converse has a whole conversation with talker, whose last word comes if the way passes on ends.
func converse(t *testing.T, c *net.TCPConn, ends ending) {
	t.Helper()
	hear(t, c, "220 you first\r\n")
	sent := make(chan error, 1)
	go func() { _, err := io.Copy(c, talkBytes(2)); sent <- err }()
	if got, want := sum(io.LimitReader(c, talk)), sum(talkBytes(1)); got != want {
		t.Errorf("what came has the checksum %s, want %s", got, want)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	hear(t, c, sum(talkBytes(2))+"\n")
	if ends == keepsEnds {
		_ = c.SetLinger(0)
		c.Close()
		return
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if ends == passesEnds {
		hear(t, c, "221 at the end\r\n")
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("behind the last word came %q, %v; want the end", b, err)
		}
		return
	}
	if _, err := io.Copy(io.Discard, c); isTimeout(err) {
		t.Error("the tunnel does not end when the client has ended")
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// TestUpstreamsCarry has much go both ways through every kind of proxy, to a server that speaks first and last.
func TestUpstreamsCarry(t *testing.T) {
	t.Parallel()
	all, server := nexts(t), talker(t)
	g := startDiscreet(t, nextsConfig(all))
	for _, n := range all {
		t.Run(n.name, func(t *testing.T) {
			c := tunnel(t, g.addr(n.name), server)
			converse(t, c, n.ends)
			c.Close()
			l := g.record("listener="+n.name, "client="+c.LocalAddr().String())
			check(t, l, map[string]any{"upstream": n.name, "server": n.server(), "address": server})
			if l.num("bytes_from_client") < talk || l.num("bytes_from_target") < talk {
				t.Errorf("the record has too few bytes: %v", l)
			}
		})
	}
}

// TestGatewayIsUpstream has another gateway be the proxy, by every protocol that it serves: it passes on the end of each direction.
func TestGatewayIsUpstream(t *testing.T) {
	t.Parallel()
	p, server := newPapers(t), talker(t)
	far := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	believed := fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)
	var all []next
	for _, scheme := range []string{"http", "https", "h2", "socks4", "socks4a", "socks5", "socks5s"} {
		n := next{name: scheme, scheme: scheme, at: &hop{addr: far.at()}}
		if scheme == "https" || scheme == "h2" || scheme == "socks5s" {
			n.table = believed
		}
		all = append(all, n)
	}
	g := startDiscreet(t, nextsConfig(all))
	for _, n := range all {
		t.Run(n.name, func(t *testing.T) {
			mark := far.mark()
			c := tunnel(t, g.addr(n.name), server)
			converse(t, c, passesEnds)
			check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"upstream": n.name, "address": server, "reason": "", "bytes_from_client": float64(talk)})
			check(t, far.recordSince(mark, "target="+server), map[string]any{"method": "CONNECT", "reason": "", "bytes_from_client": float64(talk)})
		})
	}
}

// TestUpstreamResolves sends names on as they are, of which one means nothing to the gateway.
func TestUpstreamResolves(t *testing.T) {
	if !apart(t) {
		return
	}
	const name = "only-there.test"
	replace(t, "/etc/hosts", "127.0.0.1 localhost "+name+"\n")
	p, w := newPapers(t), newWeb(t)
	squid, ssh, micro := newSquid(t, false, ""), newSSHHop(t), newMicrosocks(t, false)
	believed := fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)
	all := []next{
		{"squid", "http", hopLogin, squid, squid, "CONNECT %s:%s", "", endsBoth},
		{"h2", "h2", hopLogin, newNghttpx(t, p, squid), squid, "CONNECT %s:%s", believed, keepsEnds},
		{"socks4a", "socks4a", "", ssh, ssh, "host %s port %s", "", passesEnds},
		{"socks5", "socks5", hopLogin, micro, micro, "connected to %s:%s", "", endsBoth},
	}
	config := fmt.Sprintf("[dns]\nservers = [\"udp://127.0.0.1:%d\"]\n", closedPort(t))
	for i := range all {
		all[i].table += "\nresolve = \"upstream\""
		config += all[i].config()
	}
	config += listenAnywhere + "[[rule]]\nname = \"here\"\naction = \"allow\"\nlistener = [\"main\"]\ntarget = [\"127.0.0.0/8\"]\n"
	g := startKnowing(t, config, "127.0.0.1 localhost\n")
	_, port, _ := net.SplitHostPort(w.plain)
	target := net.JoinHostPort(name, port)
	if got := askedFor(t, g.at(), target); !strings.HasPrefix(got, "502 dns_error") {
		t.Fatalf("without an upstream the answer is %q, want a name that does not resolve", got)
	}
	for _, n := range all {
		t.Run(n.name, func(t *testing.T) {
			for _, way := range [][]string{{"-x", "http://" + g.addr(n.name)}, {"-p", "-x", "http://" + g.addr(n.name)}, {"-x", "socks5h://" + g.addr(n.name)}} {
				got, client := curl(t, append(way, "-H", "Connection: close", "http://"+target+"/there")...)
				if want := "hello from " + target + "/there over HTTP/1.1"; got.code != 0 || got.stdout != want {
					t.Fatalf("curl %v ended with %d and printed %q, %q; want 0 and %q", way, got.code, got.stdout, got.stderr, want)
				}
				check(t, g.record("client="+client), map[string]any{
					"target": target, "address": "", "upstream": n.name, "server": n.server(), "resolved_by": "upstream", "rule": "by " + n.name,
				})
			}
			g.reload(config) // lets idle connections go, since squid tells of a tunnel at its end
			n.tells.logs(fmt.Sprintf(n.form, name, port))
			if n.name == "squid" {
				n.tells.logs("GET http://" + target + "/there")
			}
			if got := askedFor(t, g.addr(n.name), "nothing.test:80"); !strings.HasPrefix(got, "50") {
				t.Errorf("for a name that the upstream does not know the answer is %q, want 502, 503 or 504", got)
			}
		})
	}
}

// startKnowing is start for a gateway with a hosts file that nobody else has. The test is apart.
func startKnowing(t *testing.T, config, hosts string) *gateway {
	t.Helper()
	g := prepare(t, config)
	words := append([]string{"--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\"", g.write("hosts", hosts)}, g.cmd.Args...)
	g.cmd.Path, g.cmd.Args = need(t, "unshare"), append([]string{"unshare"}, words...)
	g.run()
	g.waitListening(strings.Count(config, "[listen."))
	return tidy(g, config)
}

// TestManyTunnelsOnOneConnection asks nghttpx for many at once.
func TestManyTunnelsOnOneConnection(t *testing.T) {
	t.Parallel()
	p, server := newPapers(t), tcpServer(t, echo)
	nghttpx := newNghttpx(t, p, newSquid(t, true, ""))
	n := next{name: "h2", scheme: "h2", at: nghttpx, table: fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)}
	g := startTidy(t, nextsConfig([]next{n}))
	const many = 40
	clients := make([]*net.TCPConn, many)
	var opening sync.WaitGroup
	for i := range clients {
		opening.Go(func() {
			c, err := net.Dial("tcp", g.addr("h2"))
			if err != nil {
				t.Error(err)
				return
			}
			clients[i] = c.(*net.TCPConn)
			_, err = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\nfirst of %02d", server, i)
			got := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\nfirst of 00"))
			if err == nil {
				_, err = io.ReadFull(c, got)
			}
			if !strings.HasSuffix(string(got), fmt.Sprintf("\r\n\r\nfirst of %02d", i)) {
				t.Errorf("tunnel %d got %q, %v", i, got, err)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		return
	}
	if got := connectionsTo(t, nghttpx.addr); got != 1 {
		t.Errorf("%d tunnels are on %d connections, want 1", many, got)
	}
	for i, c := range clients {
		say(t, c, fmt.Sprintf("and more of %d", i))
	}
	for i, c := range clients {
		hear(t, c, fmt.Sprintf("and more of %d", i))
		c.Close()
	}
	for range clients {
		g.record("listener=h2", "upstream=h2")
	}
}

// connectionsTo counts the connections that stand to an address, by the system's word.
func connectionsTo(t *testing.T, addr string) int {
	t.Helper()
	out, err := exec.Command(need(t, "ss"), "-tnH", "state", "established", "dst", addr).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), "\n")
}

// TestUpstreamPapers has haproxy show and demand certificates.
func TestUpstreamPapers(t *testing.T) {
	t.Parallel()
	p, other, server := newPapers(t), newPapers(t), tcpServer(t, echo)
	gate, stranger := p.client("gate"), other.client("gate")
	squid, micro := newSquid(t, true, ""), newMicrosocks(t, true)
	demanding := " ca-file " + p.path("client-ca.pem") + " verify required"
	front, strict := newTLSProxy(t, p, squid, ""), newTLSProxy(t, p, squid, demanding)
	strictSocks, nghttpx := newTLSProxy(t, p, micro, demanding), newNghttpx(t, p, squid)
	tls := func(p *papers, name string, l login) string {
		if l.cert == "" {
			return fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), name)
		}
		return fmt.Sprintf("tls = { ca = %q, server_name = %q, certificate = %q, key = %q }", p.ca(), name, l.cert, l.key)
	}
	tests := []struct {
		next
		want, says string
	}{
		{next{name: "fine", scheme: "https", at: front, table: tls(p, ownName, login{})}, "200", ""},
		{next{name: "another-ca", scheme: "https", at: front, table: tls(other, ownName, login{})}, "502 tls_certificate_error", "a certificate that is not trusted"},
		{next{name: "another-ca-h2", scheme: "h2", at: nghttpx, table: tls(other, ownName, login{})}, "502 tls_certificate_error", "a certificate that is not trusted"},
		{next{name: "another-ca-socks", scheme: "socks5s", at: front, table: tls(other, ownName, login{})}, "502 tls_certificate_error", "a certificate that is not trusted"},
		{next{name: "another-name", scheme: "https", at: front, table: tls(p, "else.test", login{})}, "502 tls_certificate_error", "a certificate that is not trusted"},
		{next{name: "no-tls", scheme: "https", at: squid, table: tls(p, ownName, login{})}, "502 tls_protocol_error", "does not speak TLS"},
		{next{name: "with-login", scheme: "https", at: strict, table: tls(p, ownName, gate)}, "200", ""},
		{next{name: "with-login-socks", scheme: "socks5s", at: strictSocks, table: tls(p, ownName, gate)}, "200", ""},
		{next{name: "without-login", scheme: "https", at: strict, table: tls(p, ownName, login{})}, "502 tls_alert_received", "a client certificate"},
		{next{name: "without-login-socks", scheme: "socks5s", at: strictSocks, table: tls(p, ownName, login{})}, "502 tls_alert_received", "a client certificate"},
		{next{name: "another-login", scheme: "https", at: strict, table: tls(p, ownName, stranger)}, "502 tls_alert_received", "a client certificate"},
	}
	config := ""
	for _, tt := range tests {
		config += tt.config()
	}
	g := startDiscreet(t, config)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, c := refusedConnect(t, g.addr(tt.name), server)
			if got.status != tt.want {
				t.Errorf("the answer is %q, want %q: %s", got.status, tt.want, got.page)
			}
			_ = c.Close()
			l := g.record("client=" + c.LocalAddr().String())
			_, reason, _ := strings.Cut(tt.want, " ")
			check(t, l, map[string]any{"upstream": tt.name, "reason": reason})
			if !strings.Contains(l.str("err"), tt.says) {
				t.Errorf("the record's err is %q, want %q in it", l.str("err"), tt.says)
			}
		})
	}
}
