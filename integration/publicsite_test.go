package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A site and a row of one's own that everybody may use make no open proxy: the gateway starts without allow_open_proxy, and whoever asks
// for the same name through the proxy has to log in.
func TestAPublicSiteIsNoOpenProxy(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(hello))
	t.Cleanup(site.Close)
	addr := site.Listener.Addr().String()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	config := "[listen.main]\naddress = [\"0.0.0.0:0\"]\n[auth]\nhtpasswd = \"users.htpasswd\"\n[dns]\nhosts = { \"www.site.test\" = [\"127.0.0.1\"] }\n" +
		fmt.Sprintf("[backend.web]\nservers = [%q]\n[backend.echo]\nservers = [%q]\n", addr, tcpServer(t, echo)) +
		"[site.blog]\nhosts = [\"www.site.test\"]\nbackend = \"web\"\n[protocols.raw.echo]\nprefix = [\"ECHO\"]\nbackend = \"echo\"\n" +
		"[[rule]]\nname = \"visitors\"\naction = \"allow\"\nbackend = [\"*\"]\nanonymous = true\n" +
		"[[rule]]\nname = \"users\"\naction = \"allow\"\nuser = [\"*\"]\ntarget = [\"127.0.0.0/8\", \"www.site.test\"]\n"
	refused := prepare(t, strings.Replace(config, `backend = ["*"]`, `protocol = ["http"]`, 1))
	refused.addUser(clubUser, clubPassword)
	mustSay(t, polyport(t, refused.dir, "", "check", "-c", refused.file), 1, `rule "visitors" would let anyone`, `write backend = ["echo"] into it`)

	g := members(t, config)
	_, at, _ := net.SplitHostPort(g.at())
	at = "127.0.0.1:" + at
	t.Run("visitors", func(t *testing.T) {
		got := run(t, "curl", "-q", "-sS", "-w", " %{http_code}", "-H", "Host: www.site.test", "http://"+at+"/page")
		if !strings.HasPrefix(got.stdout, "hello from www.site.test/page") || !strings.HasSuffix(got.stdout, " 200") {
			t.Errorf("curl got %q, %q", got.stdout, got.stderr)
		}
		check(t, g.record("backend=web"), map[string]any{"rule": "visitors", "identity": "", "protocol": "http"})
	})
	t.Run("a row of one's own", func(t *testing.T) {
		c := dial(t, at)
		say(t, c, "ECHO and more")
		hear(t, c, "ECHO and more")
		c.Close()
		check(t, g.record("backend=echo"), map[string]any{"rule": "visitors", "identity": "", "protocol": "echo"})
	})
	t.Run("clients of the proxy have to log in", func(t *testing.T) {
		for _, args := range [][]string{
			{"-x", "http://" + at, "http://www.site.test/"},
			{"-x", "http://" + at, "http://www.site.test:" + port + "/"},
			{"-p", "-x", "http://" + at, "http://www.site.test:" + port + "/"},
		} {
			got := run(t, "curl", append([]string{"-q", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_connect}"}, args...)...)
			if !strings.Contains(got.stdout, "407") {
				t.Errorf("curl %q got %q, %q; want 407", args, got.stdout, got.stderr)
			}
		}
		check(t, g.record("status=407", "protocol=http"), map[string]any{"rule": "users", "backend": nil})
		got := run(t, "curl", "-q", "-sS", "--socks5-hostname", at, "http://www.site.test:"+port+"/")
		if got.code != 97 || !strings.Contains(got.stderr, "authentication") { // its only offer is taken by nobody
			t.Errorf("curl by SOCKS5 without a user ended with %d: %q", got.code, got.stderr)
		}
		got = run(t, "curl", "-q", "-sS", "--socks5-hostname", clubLogin+at, "http://www.site.test:"+port+"/mine")
		if want := "hello from www.site.test:" + port + "/mine"; !strings.HasPrefix(got.stdout, want) {
			t.Errorf("curl by SOCKS5 with a user got %q, %q", got.stdout, got.stderr)
		}
	})
	t.Run("explain", func(t *testing.T) {
		ask := func(code int, says string, args ...string) {
			t.Helper()
			mustSay(t, polyport(t, g.dir, "", append([]string{"explain", "-c", g.file, "--client", "203.0.113.9"}, args...)...), code, says)
		}
		ask(0, "it would be handed to backend web", "--site", "www.site.test:80")
		ask(1, `a user is required by rule "users"`, "--protocol", "http", "www.site.test:80")
		ask(0, "it would be handed to backend echo", "--protocol", "echo")
	})
}
