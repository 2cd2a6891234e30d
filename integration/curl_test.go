package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// curlWays are the ways in that curl knows, as the arguments in front of the proxy's address.
var curlWays = []struct {
	name, scheme string
	args         []string
	plainRow     string // of a http URL; one of https is for CONNECT where this is http
	names        bool   // the proxy gets names, not addresses
}{
	{"http", "http://", nil, "http", true},
	{"proxytunnel", "http://", []string{"--proxytunnel"}, "connect", true},
	{"socks4", "socks4://", nil, "socks4", false},
	{"socks4a", "socks4a://", nil, "socks4", true},
	{"socks5", "socks5://", nil, "socks5", false},
	{"socks5h", "socks5h://", nil, "socks5", true},
}

// curl runs it without its own configuration file, and returns what it printed
// and the address that it came from.
func curl(t *testing.T, args ...string) (out output, client string) {
	t.Helper()
	args = append([]string{"-q", "-sS", "--http1.1", "--max-time", "50", "-w", "%{stderr}\n%{local_ip} %{local_port}"}, args...)
	out = run(t, "curl", args...)
	last := strings.LastIndex(out.stderr, "\n")
	ip, port, _ := strings.Cut(out.stderr[last+1:], " ")
	out.stderr = out.stderr[:max(last, 0)]
	return out, net.JoinHostPort(ip, port)
}

func TestCurl(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	for _, way := range curlWays {
		for _, as := range []string{"", clubLogin} {
			for _, url := range []string{"http://" + w.plainNamed, "https://" + w.secureNamed} {
				scheme, _, _ := strings.Cut(url, ":")
				name := way.name + " " + scheme
				row, target, user := way.plainRow, url[len(scheme)+3:], ""
				listener := "main"
				if as != "" {
					name += " with user"
					if row != "socks4" { // which carries no password
						listener, user = "users", clubUser
					}
				}
				if row == "http" && scheme == "https" {
					row = "connect"
				}
				if !way.names {
					target = strings.Replace(target, "localhost", "127.0.0.1", 1)
				}
				t.Run(name, func(t *testing.T) {
					args := append([]string{"--cacert", w.ca, "-x", way.scheme + as + g.addr(listener), url + "/a"}, way.args...)
					got, client := curl(t, args...)
					want := "hello from " + url[len(scheme)+3:] + "/a over HTTP/1.1"
					if got.code != 0 || got.stdout != want {
						t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
					}
					l := g.record("client=" + client)
					check(t, l, map[string]any{"protocol": row, "listener": listener, "target": target, "identity": user, "rule": "test servers"})
					if scheme == "http" { // over TLS curl does not wait for the last word, and its system resets
						check(t, l, map[string]any{"reason": "", "err": ""})
					}
					if row == "socks4" && as != "" {
						check(t, l, map[string]any{"user_id": clubUser})
					}
				})
			}
		}
	}
}

// TestCurlWithoutUser goes where a user is required.
func TestCurlWithoutUser(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	want := map[string]struct { // by way
		code   int
		says   string
		status float64
	}{
		"http":        {0, "", 407}, // for curl a page like any other
		"proxytunnel": {56, "407", 407},
		"socks4":      {97, "93", 93},
		"socks4a":     {97, "93", 93},
		"socks5":      {97, "No authentication method", 255},
		"socks5h":     {97, "No authentication method", 255},
	}
	for _, way := range curlWays {
		t.Run(way.name, func(t *testing.T) {
			args := append([]string{"-x", way.scheme + g.addr("users"), "http://" + w.plain + "/"}, way.args...)
			got, client := curl(t, args...)
			want := want[way.name]
			if got.code != want.code || !strings.Contains(got.stderr, want.says) {
				t.Errorf("curl ended with %d and said %q, want %d and %q", got.code, got.stderr, want.code, want.says)
			}
			if strings.HasPrefix(client, ":") { // curl does not say whence a failed handshake came
				return
			}
			check(t, g.record("client="+client), map[string]any{"status": want.status, "identity": "", "address": ""})
		})
	}
}

func TestCurlHTTP10(t *testing.T) {
	t.Parallel()
	g, w := startTidy(t, listenAnywhere+allowLoopback), newWeb(t)
	tests := []struct {
		name, row, version string
		args               []string
		overheard          string // what the origin saw
	}{
		{"forward", "http", "HTTP/1.0", []string{"-0", "-x", "http://" + g.at(), "http://" + w.plain + "/"}, "hello from " + w.plain + "/ over HTTP/1.1"},
		{"tunnel", "connect", "HTTP/1.0", []string{"--proxy1.0", g.at(), "--proxytunnel", "http://" + w.plain + "/"}, "hello from " + w.plain + "/ over HTTP/1.1"},
		{"tunnel with tls", "connect", "HTTP/1.0", []string{"--proxy1.0", g.at(), "--cacert", w.ca, "https://" + w.secure + "/"}, "hello from " + w.secure + "/ over HTTP/1.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, client := curl(t, tt.args...)
			if got.code != 0 || got.stdout != tt.overheard {
				t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, tt.overheard)
			}
			check(t, g.record("client="+client), map[string]any{"protocol": tt.row, "version": tt.version, "status": 200.0})
		})
	}
}

func TestCurlUploads(t *testing.T) {
	t.Parallel()
	g, w := startTidy(t, listenAnywhere+allowLoopback), newWeb(t)
	const size = 3 << 20
	body := strings.Repeat("all work and no play ", size/21+1)[:size]
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := sum(strings.NewReader(body))
	// Were the 100 not passed on, curl would wait for it until its time is over.
	patient := []string{"-H", "Expect: 100-continue", "--expect100-timeout", "100"}
	tests := []struct {
		name, path, want string
		args             []string
	}{
		{"put", "/sum/", whole + ` expecting "100-continue"`, append([]string{"-T", file}, patient...)},
		{"put of unknown length", "/sum/x", whole + ` expecting "100-continue"`, append([]string{"-T", "-"}, patient...)},
		{"post", "/sum", whole + ` expecting ""`, []string{"--data-binary", "@" + file, "-H", "Expect:"}},
		{"put that is refused", "/full/", "no room\n", append([]string{"-T", file}, patient...)},
	}
	for _, way := range curlWays {
		for _, tt := range tests {
			t.Run(way.name+" "+tt.name, func(t *testing.T) {
				args := append([]string{
					"-q", "-sS", "--http1.1", "--max-time", "50", "-x", way.scheme + g.at(), "-w", "%{stderr}%{size_upload}", "http://" + w.plain + tt.path,
				}, tt.args...)
				cmd := command(t, "curl", append(args, way.args...)...)
				cmd.Stdin = strings.NewReader(body)
				got := finish(t, cmd)
				if got.code != 0 || got.stdout != tt.want || (got.stderr == "0") != (tt.name == "put that is refused") {
					t.Errorf("curl ended with %d and printed %q and that it had sent %q bytes; want 0 and %q", got.code, got.stdout, got.stderr, tt.want)
				}
			})
		}
	}
}

func TestCurlDownloads(t *testing.T) {
	t.Parallel()
	g, w := startTidy(t, listenAnywhere+allowLoopback), newWeb(t)
	want := sum(bulkBytes())
	for _, way := range curlWays {
		for _, url := range []string{"http://" + w.plain, "https://" + w.secure} {
			scheme, _, _ := strings.Cut(url, ":")
			t.Run(way.name+" "+scheme, func(t *testing.T) {
				args := append([]string{"-q", "-sS", "--cacert", w.ca, "-x", way.scheme + g.at(), url + "/bulk"}, way.args...)
				cmd := command(t, "curl", args...)
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				got := sum(out)
				if err := cmd.Wait(); err != nil || got != want {
					t.Errorf("curl ended with %v and printed bytes with the checksum %s, want nil and %s", err, got, want)
				}
			})
		}
	}
}

// TestCurlIPv6 uses IPv6 on both sides of the gateway.
func TestCurlIPv6(t *testing.T) {
	t.Parallel()
	g := startTidy(t, "[listen.main]\naddress = [\"[::1]:0\"]\n"+allowLoopback)
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(hello)}}
	origin.Start()
	t.Cleanup(origin.Close)
	host := ln.Addr().String()
	for _, way := range curlWays {
		if way.plainRow == "socks4" {
			continue // its addresses are of IPv4
		}
		t.Run(way.name, func(t *testing.T) {
			got, client := curl(t, append([]string{"-x", way.scheme + g.at(), "http://" + host + "/six"}, way.args...)...)
			if want := "hello from " + host + "/six over HTTP/1.1"; got.code != 0 || got.stdout != want {
				t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
			}
			check(t, g.record("client="+client), map[string]any{"protocol": way.plainRow, "target": host, "address": host})
		})
	}
}

func TestCurlReadsThePages(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+"[listen.named]\naddress = [\"127.0.0.1:0\"]\npublic_address = \"proxy.example.net:7659\"\n"+
		"[listen.quiet]\naddress = [\"127.0.0.1:0\"]\nhelp_page = false\n"+allowLoopback)
	here := g.at()
	tests := []struct {
		name, listener, path, kind string
		status                     int
		says                       []string
	}{
		{"help page", "main", "/", "text/html; charset=utf-8", 200, []string{"curl -x socks5h://" + here, "http://" + here + "/proxy.pac"}},
		{"PAC file", "main", "/proxy.pac", "application/x-ns-proxy-autoconfig", 200, []string{"function FindProxyForURL(url, host)", "SOCKS5 " + here + "; PROXY " + here}},
		{"WPAD file", "main", "/wpad.dat", "application/x-ns-proxy-autoconfig", 200, []string{"PROXY " + here}},
		{"no such page", "main", "/favicon.ico", "text/plain; charset=utf-8", 404, []string{"There is no such page"}},
		{"public address", "named", "/", "text/html; charset=utf-8", 200, []string{"curl -x socks5h://proxy.example.net:7659"}},
		{"PAC file of the public address", "named", "/proxy.pac", "application/x-ns-proxy-autoconfig", 200, []string{"PROXY proxy.example.net:7659\";"}},
		{"turned off", "quiet", "/", "text/plain; charset=utf-8", 400, []string{"not a web server"}},
		{"PAC file turned off", "quiet", "/proxy.pac", "text/plain; charset=utf-8", 400, []string{"not a web server"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, "curl", "-q", "-sS", "-A", "agent-of-a-test", "-H", "Cookie: crumbs", "-w", "%{stderr}%{http_code} %{content_type}", "http://"+g.addr(tt.listener)+tt.path)
			if want := fmt.Sprintf("%d %s", tt.status, tt.kind); got.code != 0 || got.stderr != want {
				t.Errorf("curl ended with %d and %q, want 0 and %q", got.code, got.stderr, want)
			}
			for _, want := range tt.says {
				if !strings.Contains(got.stdout, want) {
					t.Errorf("the page lacks %q:\n%s", want, got.stdout)
				}
			}
			for _, leak := range []string{"agent-of-a-test", "crumbs", "test servers"} {
				if strings.Contains(got.stdout, leak) {
					t.Errorf("the page shows %q:\n%s", leak, got.stdout)
				}
			}
		})
	}
}
