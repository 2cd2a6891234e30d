package integration

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// errand is one program that fetches something through the gateway.
type errand struct {
	name, row string
	user      bool // it logs in; then it goes to the listener that requires users
	// make makes the command; proxy is the gateway's "host:port".
	make func(t *testing.T, proxy string) *exec.Cmd
	want string // on its standard output
}

// runErrands runs programs in turn and looks at the log line of each.
func runErrands(t *testing.T, g *gateway, errands []errand) {
	t.Helper()
	for _, e := range errands {
		t.Run(e.name, func(t *testing.T) {
			listener, identity := "main", "<nil>"
			if e.user {
				listener, identity = "users", clubUser
			}
			mark := g.mark()
			got := finish(t, e.make(t, g.addr(listener)))
			if got.code != 0 || !strings.Contains(got.stdout, e.want) {
				t.Fatalf("it ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, e.want)
			}
			l := g.recordSince(mark, "protocol="+e.row, "listener="+listener, "identity="+identity, "rule=test servers")
			if l.num("bytes_from_target") < int64(len(e.want)) || l.num("bytes_from_client") == 0 {
				t.Errorf("the record has too few bytes: %v", l)
			}
		})
	}
}

// withInput gives a command its standard input.
func withInput(cmd *exec.Cmd, input string) *exec.Cmd {
	cmd.Stdin = strings.NewReader(input)
	return cmd
}

// withEnv adds to a command's environment.
func withEnv(cmd *exec.Cmd, vars ...string) *exec.Cmd {
	cmd.Env = append(cmd.Env, vars...)
	return cmd
}

func TestWget(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	wget := func(url string, more ...string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			args := []string{"-nv", "-O", "-", "--tries=1", "--timeout=50", "--ca-certificate=" + w.ca, "-e", "use_proxy=yes", "-e", "http_proxy=http://" + proxy, "-e", "https_proxy=http://" + proxy}
			return command(t, "wget", append(append(args, more...), url)...)
		}
	}
	login := []string{"--proxy-user=" + clubUser, "--proxy-password=" + clubPassword}
	runErrands(t, g, []errand{
		{"http", "http", false, wget("http://" + w.plainNamed + "/w"), "/w over HTTP/1.1"},
		{"https", "connect", false, wget("https://" + w.secureNamed + "/w"), "/w over HTTP/1.1"},
		{"http with user", "http", true, wget("http://"+w.plainNamed+"/w", login...), "/w over HTTP/1.1"},
		{"https with user", "connect", true, wget("https://"+w.secureNamed+"/w", login...), "/w over HTTP/1.1"},
	})
}

func TestPython(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	urllib := func(as, url string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			return command(t, "python3", "testdata/fetch.py", "http://"+as+proxy, w.ca, url)
		}
	}
	fromEnvironment := func(url string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			return withEnv(command(t, "python3", "testdata/fetch.py", "", w.ca, url), "http_proxy=http://"+proxy, "https_proxy=http://"+proxy)
		}
	}
	runErrands(t, g, []errand{
		{"http", "http", false, urllib("", "http://"+w.plainNamed+"/p"), "/p over HTTP/1.1"},
		{"https", "connect", false, urllib("", "https://"+w.secureNamed+"/p"), "/p over HTTP/1.1"},
		{"http with user", "http", true, urllib(clubLogin, "http://"+w.plainNamed+"/p"), "/p over HTTP/1.1"},
		{"https with user", "connect", true, urllib(clubLogin, "https://"+w.secureNamed+"/p"), "/p over HTTP/1.1"},
		{"http from the environment", "http", false, fromEnvironment("http://" + w.plainNamed + "/p"), "/p over HTTP/1.1"},
		{"https from the environment", "connect", false, fromEnvironment("https://" + w.secureNamed + "/p"), "/p over HTTP/1.1"},
	})
}

func TestNode(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	node := func(as, url string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			return command(t, "node", "testdata/fetch.js", "http://"+as+proxy, w.ca, url)
		}
	}
	runErrands(t, g, []errand{
		{"http", "http", false, node("", "http://"+w.plainNamed+"/n"), "/n over HTTP/1.1"},
		{"https", "connect", false, node("", "https://"+w.secureNamed+"/n"), "/n over HTTP/1.1"},
		{"upgrade", "http", false, node("", "http://"+w.plainNamed+"/parrot"), "polly polly\n"},
		{"http with user", "http", true, node(clubLogin, "http://"+w.plainNamed+"/n"), "/n over HTTP/1.1"},
		{"https with user", "connect", true, node(clubLogin, "https://"+w.secureNamed+"/n"), "/n over HTTP/1.1"},
		{"upgrade with user", "http", true, node(clubLogin, "http://"+w.plainNamed+"/parrot"), "polly polly\n"},
	})
}

func TestJava(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	free := startTidy(t, listenAnywhere+allowLoopback)
	classes := t.TempDir()
	if out := run(t, "javac", "-d", classes, "testdata/Fetch.java"); out.code != 0 {
		t.Fatalf("javac ended with %d: %s", out.code, out.stderr)
	}
	java := func(way, user, url string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(proxy)
			// By default Java's HttpClient does not log in to proxies that tunnel.
			return command(t, "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Djdk.http.auth.tunneling.disabledSchemes=", "-cp", classes, "Fetch", way, host, port, user, clubPassword, w.ca, url)
		}
	}
	runErrands(t, g, []errand{
		{"http", "http", false, java("http", "", "http://"+w.plainNamed+"/j"), "/j over HTTP/1.1"},
		{"https", "connect", false, java("http", "", "https://"+w.secureNamed+"/j"), "/j over HTTP/1.1"},
		{"http with user", "http", true, java("http", clubUser, "http://"+w.plainNamed+"/j"), "/j over HTTP/1.1"},
		{"https with user", "connect", true, java("http", clubUser, "https://"+w.secureNamed+"/j"), "/j over HTTP/1.1"},
		{"socks with user", "socks5", true, java("socks", clubUser, "http://"+w.plainNamed+"/j"), "/j over HTTP/1.1"},
		{"socks and https with user", "socks5", true, java("socks", clubUser, "https://"+w.secureNamed+"/j"), "/j over HTTP/1.1"},
	})
	// Java offers a password whether it has one or not, so this is where there are no users.
	runErrands(t, free, []errand{
		{"socks", "socks5", false, java("socks", "", "http://"+w.plainNamed+"/j"), "/j over HTTP/1.1"},
		{"socks and https", "socks5", false, java("socks", "", "https://"+w.secureNamed+"/j"), "/j over HTTP/1.1"},
	})
}

func TestNcat(t *testing.T) {
	t.Parallel()
	g, target := newClub(t, ""), tcpServer(t, echo)
	host, port, _ := net.SplitHostPort(target)
	ncat := func(kind, host string, more ...string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			args := append([]string{"--proxy", proxy, "--proxy-type", kind}, more...)
			return withInput(command(t, "ncat", append(args, host, port)...), "there and back\n")
		}
	}
	login := []string{"--proxy-auth", clubUser + ":" + clubPassword}
	runErrands(t, g, []errand{
		{"http", "connect", false, ncat("http", host), "there and back\n"},
		{"http by name", "connect", false, ncat("http", "localhost", "--proxy-dns", "remote"), "there and back\n"},
		{"socks4", "socks4", false, ncat("socks4", host), "there and back\n"},
		{"socks4a", "socks4", false, ncat("socks4", "localhost", "--proxy-dns", "remote"), "there and back\n"},
		{"socks5", "socks5", false, ncat("socks5", host), "there and back\n"},
		{"socks5 by name", "socks5", false, ncat("socks5", "localhost", "--proxy-dns", "remote"), "there and back\n"},
		{"http with user", "connect", true, ncat("http", host, login...), "there and back\n"},
		{"socks5 with user", "socks5", true, ncat("socks5", host, login...), "there and back\n"},
	})
}

// TestProxychains has a program that knows nothing of proxies.
func TestProxychains(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	chained := func(kind, login, url string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(proxy)
			file := filepath.Join(t.TempDir(), "proxychains.conf")
			config := "strict_chain\nproxy_dns\ntcp_read_time_out 50000\ntcp_connect_time_out 50000\n[ProxyList]\n" + strings.Join([]string{kind, host, port, login}, " ") + "\n"
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			return command(t, "proxychains4", "-q", "-f", file, need(t, "curl"), "-q", "-sS", "--cacert", w.ca, url)
		}
	}
	login := clubUser + " " + clubPassword
	runErrands(t, g, []errand{
		{"http", "connect", false, chained("http", "", "http://"+w.plain+"/c"), "/c over HTTP/1.1"},
		{"socks4", "socks4", false, chained("socks4", "", "http://"+w.plain+"/c"), "/c over HTTP/1.1"},
		{"socks5", "socks5", false, chained("socks5", "", "https://"+w.secure+"/c"), "/c over HTTP/"},
		{"http with user", "connect", true, chained("http", login, "https://"+w.secure+"/c"), "/c over HTTP/"},
		{"socks5 with user", "socks5", true, chained("socks5", login, "http://"+w.plain+"/c"), "/c over HTTP/1.1"},
	})
}

// TestSocksify has Dante's client in front of a program that knows nothing of proxies.
func TestSocksify(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	target := tcpServer(t, echo)
	socksified := func(version string, input string, program ...string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(proxy)
			file := filepath.Join(t.TempDir(), "socks.conf")
			method := "none"
			if strings.HasSuffix(t.Name(), "user") {
				method = "username"
			}
			config := "route {\n from: 0.0.0.0/0 to: 0.0.0.0/0 via: " + host + " port = " + port + "\n proxyprotocol: " + version + "\n command: connect\n method: " + method + "\n}\n"
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := command(t, "socksify", program...)
			cmd.Env = append(cmd.Env, "SOCKS_CONF="+file, "SOCKS_AUTOADD_LANROUTES=no", "SOCKS_USERNAME="+clubUser, "SOCKS_PASSWORD="+clubPassword)
			return withInput(cmd, input)
		}
	}
	host, port, _ := net.SplitHostPort(target)
	runErrands(t, g, []errand{
		{"curl by socks5", "socks5", false, socksified("socks_v5", "", "curl", "-q", "-sS", "http://"+w.plain+"/s"), "/s over HTTP/1.1"},
		{"curl by socks4", "socks4", false, socksified("socks_v4", "", "curl", "-q", "-sS", "http://"+w.plain+"/s"), "/s over HTTP/1.1"},
		{"nc by socks5", "socks5", false, socksified("socks_v5", "there and back\n", "nc.openbsd", "-N", host, port), "there and back\n"},
		{"curl by socks5 with user", "socks5", true, socksified("socks_v5", "", "curl", "-q", "-sS", "http://"+w.plain+"/s"), "/s over HTTP/1.1"},
	})
}

func TestNetcat(t *testing.T) {
	t.Parallel()
	g := newClub(t, "")
	// A server that speaks only once its client has said all that it has to say.
	target := tcpServer(t, func(c *net.TCPConn) {
		heard, _ := io.ReadAll(c)
		_, _ = io.WriteString(c, "I have heard "+string(heard))
	})
	host, port, _ := net.SplitHostPort(target)
	netcat := func(kind string) func(*testing.T, string) *exec.Cmd {
		return func(t *testing.T, proxy string) *exec.Cmd {
			return withInput(command(t, "nc.openbsd", "-N", "-X", kind, "-x", proxy, host, port), "all of it\n")
		}
	}
	runErrands(t, g, []errand{
		{"connect", "connect", false, netcat("connect"), "I have heard all of it\n"},
		{"socks4", "socks4", false, netcat("4"), "I have heard all of it\n"},
		{"socks5", "socks5", false, netcat("5"), "I have heard all of it\n"},
	})
}
