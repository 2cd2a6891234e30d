package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestTLSPage runs what docs/tls.md tells its readers to type, as it stands there.
func TestTLSPage(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	n, p := newInternet(t), readPage(t, "docs/tls.md")
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	replace(t, "/etc/hosts", string(hosts)+"127.0.0.1 proxy.example.net\n")
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "polyport")); err != nil {
		t.Fatal(err)
	}
	n.env = append(n.env, "PATH="+bin+":"+os.Getenv("PATH"))
	dir, commands := n.workplace(t, ""), p.code("sh")
	if out := polyport(t, dir, "correct horse\n", "user", "add", "bob"); out.code != 0 {
		t.Fatalf("user add ended with %d: %s", out.code, out.stderr)
	}
	if out := finish(t, n.shell(dir, commands[0])); out.code != 0 {
		t.Fatalf("%s ended with %d: %s", commands[0], out.code, out.stderr)
	}
	writeFile(t, dir, "polyport.toml", p.code("toml")[0])
	writeFile(t, dir, "stunnel.conf", p.code("ini")[0])
	g, _ := n.goRun(t, dir, spanThat(t, "docs/tls.md", "polyport serve "))
	clients := 0
	for _, row := range p.tables {
		if len(row) != 3 || len(spans(row[1])) != 1 || !strings.Contains(row[1], "proxy.example.net") {
			continue // of another table
		}
		clients++
		t.Run(row[0], func(t *testing.T) {
			n.reaches(t, g, dir, spans(row[1])[0], "protocol="+row[2])
			if err := os.RemoveAll(filepath.Join(dir, "project")); err != nil {
				t.Fatal(err)
			}
		})
	}
	if clients != 6 {
		t.Errorf("the page shows %d clients, want 6", clients)
	}
	t.Run("socat", func(t *testing.T) { n.reaches(t, g, dir, afterwards+commands[1], "protocol=socks5", "identity=alice") })
	t.Run("stunnel", func(t *testing.T) {
		line := spanThat(t, "docs/tls.md", "stunnel ") + " &\n" + strings.Replace(strings.Split(commands[1], "\n")[1], ":1080", ":1081", 1)
		n.reaches(t, g, dir, afterwards+line, "protocol=socks5", "identity=alice")
	})
	t.Run("doctor", func(t *testing.T) {
		out := finish(t, n.shell(dir, spanThat(t, "docs/tls.md", "polyport doctor ")))
		mustSay(t, out, 0, "h2         ok", "socks5     ok")
	})
	// Without users, whose password a browser would ask for.
	writeFile(t, dir, "polyport.toml", "[tls.certificate.main]\ncertificate = \"tls/server.pem\"\nkey = \"tls/server.key\"\n")
	g.signal(syscall.SIGHUP)
	g.wait("the reload", func(l logLine) bool { return l.str("msg") == "reloaded" })
	t.Run("Chromium", func(t *testing.T) {
		l := n.reaches(t, g, dir, "chromium "+spanThat(t, "docs/tls.md", "--proxy-server=")+" https://example.com/", "protocol=connect", "target=example.com:443")
		check(t, l, map[string]any{"version": "HTTP/2", "tls": "TLS 1.3", "server_name": "proxy.example.net", "status": 200.0})
	})
	g.interrupt(t)
}

// afterwards ends what a line leaves running.
const afterwards = "trap 'kill $(jobs -p)' EXIT\n"

// spanThat returns the first piece of code in a page's text that begins so.
func spanThat(t *testing.T, path, begins string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for _, s := range spans(line) {
			if strings.HasPrefix(s, begins) {
				return s
			}
		}
	}
	t.Fatalf("%s does not show %s", path, begins)
	return ""
}

// reaches wants a line to print example.com's page, or to leave it, and returns the record.
func (n *internet) reaches(t *testing.T, g *gateway, dir, line string, want ...string) logLine {
	t.Helper()
	mark := g.mark()
	out := finish(t, n.shell(dir, line))
	if out.code != 0 && !strings.Contains(line, "&\n") || !strings.Contains(out.stdout, presence) && !holds(t, dir, presence) {
		t.Fatalf("%s\nends with %d and prints %q, %q; want 0 and %q", line, out.code, out.stdout, out.stderr, presence)
	}
	return g.recordSince(mark, want...)
}
