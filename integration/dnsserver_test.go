package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// zoneServer is a real one, Debian's unbound or dnsmasq, that knows the names of one zone, example.
type zoneServer struct {
	t       *testing.T
	cmd     *exec.Cmd
	said    string // the file of what it has written
	roots   string // the CA of its certificate
	started string // what it says once it serves
	again   func() *exec.Cmd

	plain, tls, https string // "host:port"
}

// zone is what unbound knows. The guard denies all addresses but those of loopback.
const zone = `$ORIGIN example.
@       3600 SOA   ns hostmaster 1 3600 600 86400 3600
@       3600 NS    ns
ns      3600 A     127.0.0.1
good    3600 A     127.0.0.1
other   3600 A     127.0.0.1
none    0    A     127.0.0.1
private 60   A     10.0.0.1
alias   60   CNAME further
further 60   CNAME good
six     60   AAAA  ::1
brief   1    A     127.0.0.1
both    60   A     127.0.0.1
both    60   AAAA  ::1
`

// longChain is one of aliases that is longer than a datagram, and leads to good.
func longChain() string {
	var b strings.Builder
	name := "large"
	for i := range 7 {
		next := fmt.Sprintf("%d%s.%[1]d%[2]s.%[1]d%[2]s", i, strings.Repeat("x", 60))
		fmt.Fprintf(&b, "%s 60 CNAME %s\n", name, next)
		name = next
	}
	return b.String() + name + " 60 CNAME good\n"
}

// newUnbound starts unbound, whose certificate is for dns.example and its address.
func newUnbound(t *testing.T) *zoneServer {
	t.Helper()
	dir, port := t.TempDir(), freePorts(t, 3)
	at := func(n uint16) string { return fmt.Sprintf("127.0.0.1:%d", port+n) }
	s := &zoneServer{t: t, started: "start of service", plain: at(0), tls: at(1), https: at(2)}
	var cert tls.Certificate
	cert, s.roots = certificate(t, "dns.example", "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	write(t, filepath.Join(dir, "zone"), zone+longChain())
	write(t, filepath.Join(dir, "unbound.conf"), "remote-control:\n\tcontrol-enable: no\nserver:\n\tdirectory: \""+dir+"\"\n\tchroot: \"\"\n\tusername: \"\"\n\tpidfile: \"\"\n"+
		"\tuse-syslog: no\n\tlog-queries: yes\n\tmodule-config: \"iterator\"\n\tnum-threads: 1\n"+
		fmt.Sprintf("\tinterface: 127.0.0.1@%d\n\tinterface: 127.0.0.1@%d\n\tinterface: 127.0.0.1@%d\n\ttls-port: %[2]d\n\thttps-port: %[3]d\n", port, port+1, port+2)+
		"\ttls-service-pem: cert.pem\n\ttls-service-key: key.pem\nauth-zone:\n\tname: \"example.\"\n\tzonefile: zone\n\tfor-upstream: no\n")
	s.again = func() *exec.Cmd { return lasting(t, "unbound", "-d", "-c", filepath.Join(dir, "unbound.conf")) }
	s.run(s.again())
	return s
}

// newDnsmasq starts dnsmasq.
func newDnsmasq(t *testing.T) *zoneServer {
	t.Helper()
	s := &zoneServer{t: t, started: "started,", plain: fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))}
	_, port, _ := net.SplitHostPort(s.plain)
	s.run(lasting(t, "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root", "--bind-interfaces",
		"--listen-address=127.0.0.1", "--port="+port, "--log-queries", "--local=/example/", "--host-record=good.example,127.0.0.1,3600", "--host-record=other.example,127.0.0.1,3600",
		"--host-record=private.example,10.0.0.1,60", "--cname=alias.example,good.example", "--host-record=six.example,::1,60", "--host-record=none.example,127.0.0.1,0",
		"--host-record=both.example,127.0.0.1,::1,60"))
	return s
}

// run starts the program and waits until it serves.
func (s *zoneServer) run(cmd *exec.Cmd) {
	s.t.Helper()
	s.said = filepath.Join(s.t.TempDir(), "said")
	f, err := os.Create(s.said)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	s.cmd, cmd.Stdout, cmd.Stderr = cmd, f, f
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.kill)
	eventually(s.t, cmd.Path, "serves", slowly(func() string {
		if strings.Contains(s.text(), s.started) {
			return "serves"
		}
		return s.text()
	}))
}

// kill ends it at once.
func (s *zoneServer) kill() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() }

// restart ends it at once and starts it anew, at the same ports and with nothing in mind.
func (s *zoneServer) restart() { s.t.Helper(); s.kill(); s.run(s.again()) }

// pause has it fall silent, without closing anything.
func (s *zoneServer) pause() { s.signal(syscall.SIGSTOP) }

// resume has it go on with what has come meanwhile.
func (s *zoneServer) resume() { s.signal(syscall.SIGCONT) }

func (s *zoneServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// text is what it has written so far.
func (s *zoneServer) text() string {
	s.t.Helper()
	b, err := os.ReadFile(s.said)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// queries counts what it was asked about a name, which does not end in a dot.
func (s *zoneServer) queries(kind, name string) int {
	s.t.Helper()
	return strings.Count(s.text(), " "+name+". "+kind+" IN") + strings.Count(s.text(), "query["+kind+"] "+name+" ")
}

// caughtUp waits until it has read all that was sent to it before.
func (s *zoneServer) caughtUp() {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.plain)
	name := fmt.Sprintf("caught-up-%d.example", time.Now().UnixNano())
	mustSay(s.t, run(s.t, "dig", "+tries=3", "+time=20", "@"+host, "-p", port, name, "TXT"), 0)
	eventually(s.t, "the log of queries", "1", slowly(func() string { return fmt.Sprint(s.queries("TXT", name)) }))
}

// asking is a gateway that asks servers, whose clients may reach 127.0.0.1, ::1 and all public addresses.
func asking(more string, servers ...string) string {
	return listenAnywhere + "[dns]\nservers = [\"" + strings.Join(servers, "\", \"") + "\"]\n" + more +
		"[[rule]]\nname = \"here\"\naction = \"allow\"\ntarget = [\"127.0.0.1\", \"::1\"]\n[[rule]]\nname = \"anywhere\"\naction = \"allow\"\n"
}

// dnsTests are what a gateway answers whose server knows the zone.
var dnsTests = []struct {
	name, want string // from HTTP
	code       byte   // from SOCKS5
}{
	{"good", "200", 0},
	{"alias", "200", 0},
	{"none", "200", 0},
	{"private", "403 destination_ip_prohibited", 2},
	{"six", "200", 0},
	{"both", "200", 0},
	{"missing", `502 dns_error; rcode="NXDOMAIN"`, 4},
	{"large", "200", 0},
}

// originEverywhere serves hello at one port of 127.0.0.1 and ::1.
func originEverywhere(t *testing.T) (port string) {
	t.Helper()
	return fmt.Sprint(dualListen(t, func(network, addr string) (io.Closer, uint16, error) {
		ln, err := net.Listen(network, addr)
		if err != nil {
			return nil, 0, err
		}
		serveHello(ln)
		return ln, ln.Addr().(*net.TCPAddr).AddrPort().Port(), nil
	}))
}

// serveHello serves hello at a listener, until that is closed.
func serveHello(ln net.Listener) { go func() { _ = http.Serve(ln, http.HandlerFunc(hello)) }() }

// TestNameServers has names resolved by real servers, over each transport that they have.
func TestNameServers(t *testing.T) {
	t.Parallel()
	u, d, port := newUnbound(t), newDnsmasq(t), originEverywhere(t)
	papers := fmt.Sprintf("ca = %q\n", u.roots)
	named := papers + "bootstrap = { \"dns.example\" = [\"127.0.0.9\", \"127.0.0.1\"] }\n" // nobody serves at the first
	byName := func(scheme, addr string) string {
		return scheme + "://" + strings.Replace(addr, "127.0.0.1", "dns.example", 1)
	}
	tests := []struct{ name, more, server string }{
		{"unbound by UDP", "", "udp://" + u.plain},
		{"unbound by TCP", "", "tcp://" + u.plain},
		{"unbound by TLS", papers, "tls://" + u.tls},
		{"unbound by TLS, of a name", named, byName("tls", u.tls)},
		{"unbound by HTTPS", papers, "https://" + u.https},
		{"unbound by HTTPS, of a name", named, byName("https", u.https) + "/dns-query"},
		{"dnsmasq by UDP", "", "udp://" + d.plain},
		{"dnsmasq by TCP", "", "tcp://" + d.plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, asking(tt.more, tt.server))
			for _, q := range dnsTests {
				if q.name == "large" && strings.HasPrefix(tt.name, "dnsmasq") {
					continue // which knows no chains so long
				}
				host := net.JoinHostPort(q.name+".example", port)
				if got := askedFor(t, g.at(), host); got != q.want {
					t.Errorf("%s by HTTP: %s, want %s", q.name, got, q.want)
				}
				if got := socks5Code(t, g.at(), host); got != q.code {
					t.Errorf("%s by SOCKS5: REP %02x, want %02x", q.name, got, q.code)
				}
			}
		})
	}
}

// TestNameServerThatIsNobody has servers whose certificate is of another CA, or for another name: nothing is asked of them.
func TestNameServerThatIsNobody(t *testing.T) {
	t.Parallel()
	u, port := newUnbound(t), originEverywhere(t)
	_, stranger := certificate(t, "dns.example")
	other := fmt.Sprintf("ca = %q\nbootstrap = { \"impostor.example\" = [\"127.0.0.1\"] }\n", u.roots)
	tests := []struct{ name, more, server, says string }{
		{"TLS of another CA", fmt.Sprintf("ca = %q\n", stranger), "tls://" + u.tls, "certificate signed by unknown authority"},
		{"HTTPS of another CA", fmt.Sprintf("ca = %q\n", stranger), "https://" + u.https, "certificate signed by unknown authority"},
		{"TLS for another name", other, "tls://" + strings.Replace(u.tls, "127.0.0.1", "impostor.example", 1), "certificate is valid for dns.example, not impostor.example"},
		{"HTTPS for another name", other, "https://" + strings.Replace(u.https, "127.0.0.1", "impostor.example", 1), "certificate is valid for dns.example, not impostor.example"},
		{"TLS where nobody speaks it", fmt.Sprintf("ca = %q\n", u.roots), "tls://" + u.plain, "tls://" + u.plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, asking(tt.more, tt.server))
			if got := askedFor(t, g.at(), net.JoinHostPort("good.example", port)); !strings.HasPrefix(got, "50") {
				t.Errorf("the answer is %s, want a failure", got)
			}
			l := g.record("target=good.example:" + port)
			if reason := l.str("reason"); reason != "dns_error" && reason != "dns_timeout" || !strings.Contains(l.str("err"), tt.says) {
				t.Errorf("the record says %q because of %q, want %q", reason, l.str("err"), tt.says)
			}
		})
	}
	t.Cleanup(func() {
		if n := u.queries("A", "good.example") + u.queries("AAAA", "good.example"); n != 0 {
			t.Errorf("the server was asked %d times", n)
		}
	})
}

// TestNameServerThatFallsSilent has the first of two servers stand still.
func TestNameServerThatFallsSilent(t *testing.T) {
	t.Parallel()
	port := originEverywhere(t)
	for _, mode := range []string{"in-order", "parallel"} {
		for _, scheme := range []string{"udp", "tcp", "tls", "https"} {
			t.Run(mode+" "+scheme, func(t *testing.T) {
				t.Parallel()
				first, second := newUnbound(t), newDnsmasq(t)
				server := map[string]string{"udp": first.plain, "tcp": first.plain, "tls": first.tls, "https": first.https}[scheme]
				g := start(t, asking(fmt.Sprintf("ca = %q\nmode = %q\n", first.roots, mode), scheme+"://"+server, "udp://"+second.plain))
				ask := func(name string) {
					t.Helper()
					if got := askedFor(t, g.at(), net.JoinHostPort(name+".example", port)); got != "200" {
						t.Errorf("%s: %s, want 200", name, got)
					}
				}
				ask("good")
				if mode == "parallel" {
					eventually(t, "whether the second server is asked too", "true", slowly(func() string {
						askedFor(t, g.at(), fmt.Sprintf("missing-%d.example:80", time.Now().UnixNano()))
						return fmt.Sprint(strings.Contains(second.text(), " missing-"))
					}))
				} else if second.caughtUp(); second.queries("A", "good.example") > 0 {
					t.Error("the second server is asked although the first is well")
				}
				first.pause()
				ask("other")
				ask("both") // the second server is the first to be asked now
				first.resume()
				first.caughtUp()
				if n := first.queries("A", "both.example"); mode == "in-order" && n != 0 {
					t.Errorf("the server that fell silent is asked %d times after that", n)
				}
			})
		}
	}
}

// TestNameServerThatRestarts has a server close the connections that are kept to it, and a reload name another server.
func TestNameServerThatRestarts(t *testing.T) {
	t.Parallel()
	port := originEverywhere(t)
	for _, scheme := range []string{"udp", "tcp", "tls", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			u, d := newUnbound(t), newDnsmasq(t)
			server := map[string]string{"udp": u.plain, "tcp": u.plain, "tls": u.tls, "https": u.https}[scheme]
			more := fmt.Sprintf("cache = 0\nca = %q\n", u.roots)
			g := start(t, asking(more, scheme+"://"+server))
			for range 3 {
				for _, name := range []string{"good", "other"} {
					if got := askedFor(t, g.at(), net.JoinHostPort(name+".example", port)); got != "200" {
						t.Errorf("%s: %s, want 200", name, got)
					}
				}
				u.restart()
			}
			if l := g.reload(asking(more, "udp://"+d.plain)); l.str("msg") != "reloaded" {
				t.Fatal(l)
			}
			if got := askedFor(t, g.at(), net.JoinHostPort("good.example", port)); got != "200" {
				t.Errorf("after a reload: %s, want 200", got)
			}
			if u.caughtUp(); u.queries("A", "good.example") > 0 || d.queries("A", "good.example") == 0 {
				t.Error("after a reload the server of before is asked")
			}
		})
	}
}
