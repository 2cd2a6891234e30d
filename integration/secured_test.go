package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secureCurl runs curl with the gateway as a proxy by TLS, under its name.
func (p *papers) secureCurl(proxy, user string, args ...string) (output, string) {
	p.t.Helper()
	_, port, err := net.SplitHostPort(proxy)
	if err != nil {
		p.t.Fatal(err)
	}
	return curl(p.t, append([]string{
		"--resolve", ownName + ":" + port + ":127.0.0.1", "--proxy", "https://" + user + ownName + ":" + port, "--proxy-cacert", p.ca(),
	}, args...)...)
}

// secureWays are the ways in that curl knows by TLS.
var secureWays = []struct {
	name, row, scheme string
	args              []string
}{
	{"http", "http", "http", nil},
	{"proxytunnel", "connect", "http", []string{"--proxytunnel"}},
	{"https", "connect", "https", nil},
}

func TestCurlByTLS(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := members(t, listenAnywhere+"require_user = false\n[listen.users]\naddress = [\"127.0.0.1:0\"]\n[listen.secure]\naddress = [\"127.0.0.1:0\"]\nrequire_user = false\nrequire_tls = true\n"+
		p.table()+"[auth]\nhtpasswd = \"users.htpasswd\"\n"+allowLoopback)
	for _, way := range secureWays {
		for listener, as := range map[string]string{"main": "", "users": clubLogin, "secure": ""} {
			t.Run(way.name+" "+listener, func(t *testing.T) {
				p := &papers{t, p.dir}
				target, user := w.plainNamed, ""
				if way.scheme == "https" {
					target = w.secureNamed
				}
				if as != "" {
					user = clubUser
				}
				got, client := p.secureCurl(g.addr(listener), as, append([]string{"--cacert", w.ca, way.scheme + "://" + target + "/a"}, way.args...)...)
				if want := "hello from " + target + "/a over HTTP/1.1"; got.code != 0 || got.stdout != want {
					t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
				}
				check(t, g.record("client="+client), map[string]any{
					"protocol": way.row, "listener": listener, "target": target, "identity": user, "rule": "test servers", "status": 200.0,
					"tls": "TLS 1.3", "server_name": ownName, "version": "HTTP/1.1",
				})
			})
		}
	}
	t.Run("wrong password", func(t *testing.T) {
		p := &papers{t, p.dir}
		got, client := p.secureCurl(g.addr("users"), clubUser+":wrong@", "http://"+w.plain+"/")
		if got.code != 0 || !strings.Contains(got.stdout, "407") {
			t.Errorf("curl ended with %d and printed %q", got.code, got.stdout)
		}
		check(t, g.record("client="+client, "status=407"), map[string]any{"reason": "bad_credentials", "identity": "", "server_name": ownName})
	})
}

// TestCurlByTLSTrustsNobody leaves out the CA, or has another name in mind.
func TestCurlByTLSTrustsNobody(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := startTidy(t, listenAnywhere+"[tls]\nno_sni = true\n"+p.table()+allowLoopback)
	tests := []struct {
		name, ca, says string
		code           int
		record         string
	}{
		{"no CA", "", "unable to get local issuer certificate", 60, "unknown certificate authority"},
		{"another CA", w.ca, "unable to get local issuer certificate", 60, "unknown certificate authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			args := []string{"-x", "https://" + g.at(), "http://" + w.plain + "/"}
			if tt.ca != "" {
				args = append(args, "--proxy-cacert", tt.ca)
			}
			got, _ := curl(t, args...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.says) {
				t.Errorf("curl ended with %d and said %q, want %d and %q", got.code, got.stderr, tt.code, tt.says)
			}
			l := g.recordSince(mark, "protocol=tls")
			check(t, l, map[string]any{"reason": "tls_handshake_failed", "rule": "", "target": ""})
			// Some versions of OpenSSL send this alert before they encrypt, where it cannot be told from forgery.
			if err := l.str("err"); !strings.Contains(err, tt.record) && !strings.Contains(err, "bad record MAC") {
				t.Errorf("the record says %q, want %q", err, tt.record)
			}
		})
	}
	got, client := curl(t, "-x", "https://"+g.at(), "--proxy-cacert", p.ca(), "http://"+w.plain+"/") // to the address, without SNI
	if want := "hello from " + w.plain + "/ over HTTP/1.1"; got.code != 0 || got.stdout != want {
		t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
	}
	check(t, g.record("client="+client), map[string]any{"tls": "TLS 1.3", "server_name": "", "protocol": "http"})
}

var (
	socatListens   = regexp.MustCompile(`listening on AF=2 (127\.0\.0\.1:\d+)`)
	stunnelListens = regexp.MustCompile(`bound to (127\.0\.0\.1:\d+)`)
)

func firstGroup(re *regexp.Regexp) func(string) string {
	return func(line string) string {
		if m := re.FindStringSubmatch(line); m != nil {
			return m[1]
		}
		return ""
	}
}

// socat runs one that takes connections in clear text to the gateway by TLS, and returns where.
func (p *papers) socat(gateway, name string, l login) string {
	p.t.Helper()
	to := fmt.Sprintf("OPENSSL:%s,cafile=%s,commonname=%s,snihost=%s", gateway, p.ca(), name, name)
	if l.cert != "" {
		to += ",cert=" + l.cert + ",key=" + l.key
	}
	return background(p.t, firstGroup(socatListens), "socat", "-d", "-d", "-t", "50", "TCP4-LISTEN:0,bind=127.0.0.1,fork", to)
}

// stunnel does the same.
func (p *papers) stunnel(gateway, name string, l login) string {
	p.t.Helper()
	config := fmt.Sprintf("foreground = yes\ndebug = 6\npid =\n[gateway]\nclient = yes\naccept = 127.0.0.1:0\nconnect = %s\nCAfile = %s\nverifyChain = yes\ncheckHost = %s\nsni = %s\n",
		gateway, p.ca(), name, name)
	if l.cert != "" {
		config += "cert = " + l.cert + "\nkey = " + l.key + "\n"
	}
	file := filepath.Join(p.t.TempDir(), "stunnel.conf")
	write(p.t, file, config)
	return background(p.t, firstGroup(stunnelListens), "stunnel4", file)
}

// TestCurlBehindATLSClient has programs that speak nothing but TLS in front of curl.
func TestCurlBehindATLSClient(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := members(t, listenAnywhere+"require_user = false\nrequire_tls = true\n[listen.users]\naddress = [\"127.0.0.1:0\"]\n"+
		p.table()+"[auth]\nhtpasswd = \"users.htpasswd\"\n"+allowLoopback)
	for program, run := range map[string]func(string, string, login) string{"socat": p.socat, "stunnel": p.stunnel} {
		open, users := run(g.addr("main"), ownName, login{}), run(g.addr("users"), ownName, login{})
		for _, way := range curlWays {
			for _, as := range []string{"", clubLogin} {
				if as != "" && strings.HasPrefix(way.name, "socks4") {
					continue // which carries no password
				}
				proxy, listener, user := open, "main", ""
				if as != "" {
					proxy, listener, user = users, "users", clubUser
				}
				t.Run(program+" "+way.name+" "+listener, func(t *testing.T) {
					mark := g.mark()
					got, _ := curl(t, append([]string{"-x", way.scheme + as + proxy, "http://" + w.plain + "/"}, way.args...)...)
					if want := "hello from " + w.plain + "/ over HTTP/1.1"; got.code != 0 || got.stdout != want {
						t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
					}
					check(t, g.recordSince(mark, "protocol="+way.plainRow), map[string]any{
						"listener": listener, "identity": user, "tls": "TLS 1.3", "server_name": ownName, "target": w.plain, "reason": "",
					})
				})
			}
		}
	}
}

// TestRawRowInsideTLS has a row of the user's own inside TLS: ssh by socat for its ProxyCommand.
func TestRawRowInsideTLS(t *testing.T) {
	t.Parallel()
	p, server := newPapers(t), newSSHServer(t)
	g := start(t, listenAnywhere+p.table()+fmt.Sprintf("[backend.ssh]\nservers = [%q]\n[protocols.raw.ssh]\nprefix = [\"SSH-\"]\nbackend = \"ssh\"\n", server.addr)+
		"[[rule]]\nname = \"ssh\"\naction = \"allow\"\nprotocol = [\"ssh\"]\n")
	through := fmt.Sprintf("ProxyCommand=%s -t 50 - OPENSSL:%s,cafile=%s,commonname=%s,snihost=%s", need(t, "socat"), g.at(), p.ca(), ownName, ownName)
	got := finish(t, withInput(server.login(t, server.addr, "-o", through), "there and back\n"))
	if got.code != 0 || got.stdout != "there and back\n" || !strings.Contains(got.stderr, "behind the end") {
		t.Errorf("ssh ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
	check(t, g.record("protocol=ssh"), map[string]any{"tls": "TLS 1.3", "server_name": ownName, "rule": "ssh", "backend": "ssh"})
}

// insideTLS is the stage with its clients inside TLS.
func (st *stage) insideTLS(p *papers, change ...func(*tls.Config)) {
	st.connect = func(t *testing.T, addr string) end { return (&papers{t, p.dir}).dial(addr, change...) }
}

func TestTunnelsInsideTLS(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	st := newStage(t, p.table())
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		st.insideTLS(p, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
		st.tls = tls.VersionName(version)
		for _, d := range dialects() {
			if d.host == "::1" || d.name == "socks4 127.0.0.1" || d.name == "socks5 127.0.0.1" || version == tls.VersionTLS12 && d.row != "" {
				continue // as it is for clients outside TLS
			}
			t.Run(st.tls+" "+d.name, func(t *testing.T) {
				for _, sc := range scenarios {
					if d.row != "" && (sc.name == "64 MiB each way" && d.row != "socks5" || sc.name == "timeout" && d.row != "connect") {
						continue // which take their time, and where the tunnel is the same
					}
					t.Run(sc.name, func(t *testing.T) { sc.play(t, st, d) })
				}
			})
		}
	}
	st.g.settle(st.idle)
	if len(st.trespassed) > 0 {
		t.Errorf("%d connections reached a server that the rules forbid", len(st.trespassed))
	}
}

// TestHTTP1WhereHTTP2WasAgreedOn: Go's net/http offers h2 to a proxy and never speaks it. What is no HTTP at all is answered in HTTP/2.
func TestHTTP1WhereHTTP2WasAgreedOn(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	h2 := func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }
	head := "CONNECT " + w.plain + " HTTP/1.1\r\nHost: " + w.plain + "\r\n\r\n"
	for name, pieces := range map[string][]string{
		"at once": {head}, "byte by byte": strings.Split(head, ""), "behind an empty line": {"\r\n", head},
	} {
		t.Run(name, func(t *testing.T) {
			c := (&papers{t, p.dir}).dial(g.at(), h2)
			for _, piece := range pieces {
				say(t, c, piece)
			}
			if line := hearHead(t, c); !strings.HasPrefix(line, "HTTP/1.1 200 ") {
				t.Errorf("the answer is %q, want 200", line)
			}
			say(t, c, "GET / HTTP/1.1\r\nHost: "+w.plain+"\r\nConnection: close\r\n\r\n")
			if line := hearHead(t, c); !strings.HasPrefix(line, "HTTP/1.1 200 ") {
				t.Errorf("through the tunnel came %q, want 200", line)
			}
			c.Close()
			check(t, g.record("protocol=connect", "client="+c.LocalAddr().String()), map[string]any{"version": "HTTP/1.1", "status": 200.0, "tls": "TLS 1.3", "connection": ""})
		})
	}
	for _, nonsense := range []string{"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "\x05\x01\x00", "PROOF * HTTP/3\r\n\r\n"} {
		c := p.dial(g.at(), h2)
		say(t, c, nonsense)
		if got, _ := io.ReadAll(c); len(got) < 9 || got[3] != 4 || !strings.Contains(string(got), "preface") { // SETTINGS, and then GOAWAY with a reason
			t.Errorf("%q is answered with %q, want HTTP/2", nonsense, got)
		}
	}
}
