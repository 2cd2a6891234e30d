package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// siteFields is what the servers of the sites tell of a request.
const siteFields = "host=$http_host for=$http_x_forwarded_for proto=$http_x_forwarded_proto asked=$http_x_forwarded_host by=$http_x_forwarded_by auth=$http_authorization proxy=$http_proxy_authorization"

// sited is a gateway with users that has web sites on its port.
type sited struct {
	*gateway
	p      *papers
	config string // without the sites
	sites  string
	dir    string // of nginx's logs
}

// newSited starts one: nginx is behind www.site.test, ownName and pp.test, where it wants a PROXY header, and a server of Go's behind all below app.test.
func newSited(t *testing.T) *sited {
	t.Helper()
	at, header := freeAddress(t, "127.0.58.1"), freeAddress(t, "127.0.58.1")
	s := &sited{p: newPapers(t)}
	s.dir = runNginx(t, at, fmt.Sprintf(`	log_format connections '$connection'; access_log %[4]s connections;
	server { listen %[1]s; keepalive_requests 10000; location / { return 200 "%[3]s"; } }
	server { listen %[2]s proxy_protocol; access_log off; location / { return 200 "$proxy_protocol_addr $connection\n"; } }`, at, header, siteFields, "connections.log"))
	mux := http.NewServeMux()
	mux.HandleFunc("/chat", webSocketEcho)
	mux.HandleFunc("POST /sum", answerSum)
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	s.config = listenAnywhere + "require_user = true\nhelp_page = true\n[auth]\nhtpasswd = \"users.htpasswd\"\n" + s.p.table() +
		"[[rule]]\nname = \"kept in\"\naction = \"deny\"\ntarget = [\"secret.app.test\"]\n" +
		"[[rule]]\nname = \"sites\"\naction = \"allow\"\nanonymous = true\nprotocol = [\"http\"]\ntarget = [\"www.site.test\", \"pp.test\", \"*.app.test\", \"" + ownName + "\"]\n" + allowLoopback
	s.sites = fmt.Sprintf("[backend.nginx]\nservers = [%q]\n[backend.header]\nproxy_protocol = \"v2\"\nservers = [%q]\n[backend.app]\nservers = [%q]\n", at, header, app.Listener.Addr()) +
		"[site.blog]\nhosts = [\"www.site.test\", \"" + ownName + "\"]\nbackend = \"nginx\"\n[site.header]\nhosts = [\"pp.test\"]\nbackend = \"header\"\n" +
		"[site.app]\nhosts = [\"*.app.test\", \"members.test\"]\nbackend = \"app\"\n"
	s.gateway = members(t, s.config)
	return s
}

// visit has curl ask for a path of a site.
func (s *sited) visit(t *testing.T, host, path string, args ...string) output {
	t.Helper()
	got, _ := curl(t, append(args, "-H", "Host: "+host, "http://"+s.at()+path)...)
	return got
}

func TestSites(t *testing.T) {
	t.Parallel()
	s := newSited(t)
	strangers := []string{"nowhere.test", "www.site.test.evil.test", "app.test", s.at()}
	before := map[string]string{}
	for _, host := range strangers {
		before[host] = s.visit(t, host, "/", "-i").stdout
	}
	if l := s.reload(s.config + s.sites); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	want := "host=www.site.test for=127.0.0.1 proto=http asked=www.site.test by= auth=Basic YTpi proxy="
	t.Run("fields", func(t *testing.T) {
		lies := []string{
			"-u", "a:b", "-H", "X-Forwarded-For: 192.0.2.9", "-H", "X-Forwarded-Proto: gopher", "-H", "X-Forwarded-Host: evil.test",
			"-H", "X-Forwarded-By: evil", "-H", "Forwarded: for=192.0.2.9", "-H", "Proxy-Authorization: Basic Yzpk",
		}
		if got := s.visit(t, "www.site.test", "/", lies...); got.stdout != want {
			t.Errorf("nginx was told %q, want %q", got.stdout, want)
		}
		check(t, s.record("target=www.site.test:80", "status=200"), map[string]any{"protocol": "http", "backend": "nginx", "rule": "sites", "identity": ""})
	})
	t.Run("strangers get what they got before", func(t *testing.T) {
		dateless := func(s string) string {
			return strings.Join(slices.DeleteFunc(strings.Split(s, "\r\n"), func(l string) bool { return strings.HasPrefix(l, "Date:") }), "\n")
		}
		for _, host := range strangers {
			if got := s.visit(t, host, "/", "-i").stdout; dateless(got) != dateless(before[host]) || got == "" {
				t.Errorf("%s got %q, and before there were sites %q", host, got, before[host])
			}
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if got := s.visit(t, "www.site.test", "/", "-I"); !strings.HasPrefix(got.stdout, "HTTP/1.1 200 ") || !strings.HasSuffix(got.stdout, "\r\n\r\n") {
			t.Errorf("HEAD got %q", got.stdout)
		}
	})
	t.Run("keep-alive", func(t *testing.T) {
		url := "http://" + s.at() + "/"
		got := run(t, "curl", "-q", "-sS", "-H", "Host: www.site.test", "-w", " %{num_connects}\n", url, url, url)
		for i, line := range strings.Split(strings.TrimSpace(got.stdout), "\n") {
			if !strings.HasPrefix(line, "host=www.site.test ") || !strings.HasSuffix(line, map[bool]string{true: " 1", false: " 0"}[i == 0]) {
				t.Errorf("curl got %q, %q; want three answers over one connection", got.stdout, got.stderr)
			}
		}
	})
	t.Run("POST of 5 MiB", func(t *testing.T) {
		body := bytes.Repeat([]byte("fivemega"), 5<<20/8)
		file := filepath.Join(t.TempDir(), "body")
		write(t, file, string(body))
		for _, as := range []string{"", "Transfer-Encoding: chunked"} {
			got := s.visit(t, "x.app.test", "/sum", "--data-binary", "@"+file, "-H", as)
			if want := sum(bytes.NewReader(body)) + " expecting "; !strings.HasPrefix(got.stdout, want) {
				t.Errorf("%s: the server got %q, want %q", as, got.stdout, want)
			}
		}
	})
	t.Run("denied, and nobody is asked for a proxy's password", func(t *testing.T) {
		for host, rule := range map[string]string{"secret.app.test": "kept in", "members.test": ""} {
			got := s.visit(t, host, "/sum", "-i").stdout
			if !strings.HasPrefix(got, "HTTP/1.1 403 ") || strings.Contains(got, "Proxy-Authenticate") {
				t.Errorf("%s: got %q, want 403", host, got)
			}
			check(t, s.record("target="+host+":80"), map[string]any{"status": 403.0, "rule": rule, "address": ""})
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		c := dial(t, s.at())
		say(t, c, "GET /chat HTTP/1.1\r\nHost: ws.app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if line := hearHead(t, c); !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			t.Fatalf("heard %q", line)
		}
		say(t, c, "\x81\x85\x00\x00\x00\x00hello")
		hear(t, c, "\x81\x05hello")
		say(t, c, "\x88\x80\x00\x00\x00\x00")
		hear(t, c, "\x88\x00")
	})
	t.Run("inside TLS and by HTTP/2, beside a client of the proxy", func(t *testing.T) { sitesInsideTLS(t, s) })
	t.Run("connections to the backend are used again", func(t *testing.T) { reusedForSites(t, s) })
	t.Run("one with a PROXY header is one client's alone", func(t *testing.T) { headerForSites(t, s) })
}

func sitesInsideTLS(t *testing.T, s *sited) {
	w := newWeb(t)
	_, port, _ := net.SplitHostPort(s.at())
	own := ownName + ":" + port
	for i, version := range []string{"--http1.1", "--http2"} {
		got := run(t, "curl", "-q", "-sS", version, "--cacert", s.p.ca(), "--resolve", own+":127.0.0.1", "-w", "%{http_version}", "https://"+own+"/")
		want := fmt.Sprintf("host=%s for=127.0.0.1 proto=https asked=%[1]s by= auth= proxy=", own)
		if got.stdout != want+[]string{"1.1", "2"}[i] {
			t.Errorf("%s: curl got %q, %q; want %q", version, got.stdout, got.stderr, want)
		}
		got = run(t, "curl", "-q", "-sS", "--proxy-cacert", s.p.ca(), "--resolve", own+":127.0.0.1", "-x", "https://"+clubLogin+own, "http://"+w.plain+"/beside")
		if want := "hello from " + w.plain + "/beside over HTTP/1.1"; got.stdout != want {
			t.Errorf("by the proxy curl got %q, %q; want %q", got.stdout, got.stderr, want)
		}
	}
	// Another site on the same connection of HTTP/2.
	c := newH2Client(t, s.p.dial(s.at(), func(c *tls.Config) { c.NextProtos = []string{"h2"} }))
	if status, body := c.get(t, "https://www.site.test/"); status != 200 || !strings.HasPrefix(body, "host=www.site.test for=127.0.0.1 proto=https ") {
		t.Errorf("by HTTP/2 the other site answered %d, %q", status, body)
	}
}

// reusedForSites looks at how many connections nginx has had.
func reusedForSites(t *testing.T, s *sited) {
	log := filepath.Join(s.dir, "connections.log")
	lines := func() []string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))
	}
	was := len(lines())
	for range 30 { // a connection of its own each
		c := dial(t, s.at())
		say(t, c, "GET / HTTP/1.1\r\nHost: www.site.test\r\nConnection: close\r\n\r\n")
		if got, err := pageOf(c); err != nil || !strings.HasPrefix(got, "host=www.site.test ") {
			t.Fatalf("nginx said %q, %v", got, err)
		}
		c.Close()
	}
	eventually(t, "requests in nginx's log", "30", func() string { return fmt.Sprint(len(lines()) - was) })
	used := map[string]bool{}
	for _, connection := range lines()[was:] {
		used[connection] = true
	}
	if len(used) > 3 { // a loop of the gateway's each may have its own
		t.Errorf("30 requests went over %d connections: %v", len(used), slices.Sorted(maps.Keys(used)))
	}
}

// headerForSites has two clients in turn, each on one connection.
func headerForSites(t *testing.T, s *sited) {
	type visitor struct {
		ip string
		c  net.Conn
		r  *bufio.Reader
	}
	var visitors []visitor
	for _, ip := range []string{"127.0.58.11", "127.0.58.12", "127.0.58.11"} {
		c := dialFrom(t, ip, s.at())
		visitors = append(visitors, visitor{ip, c, bufio.NewReader(c)})
	}
	owner := map[string]int{} // by nginx's connection
	for range 4 {
		for i, v := range visitors {
			say(t, v.c, "GET / HTTP/1.1\r\nHost: pp.test\r\n\r\n")
			resp, err := http.ReadResponse(v.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			ip, connection, _ := strings.Cut(strings.TrimSpace(string(body)), " ")
			if err != nil || ip != v.ip {
				t.Errorf("nginx takes the visitor from %s for one from %q, %v", v.ip, ip, err)
			}
			if first, known := owner[connection]; known && first != i {
				t.Errorf("connection %s is that of visitors %d and %d", connection, first, i)
			}
			owner[connection] = i
		}
	}
	if len(owner) != len(visitors) {
		t.Errorf("%d visitors with one connection each came over %d connections", len(visitors), len(owner))
	}
}
