package integration

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// haproxy runs one in front of a gateway's address and returns its own. It connects from
// an address that is its alone, and says with send how it names its clients.
func haproxy(t *testing.T, from, to, send string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	write(t, file, fmt.Sprintf("global\n  quiet\ndefaults\n  mode tcp\n  timeout connect 50s\n  timeout client 50s\n  timeout server 50s\n"+
		"frontend front\n  bind fd@3\n  default_backend back\nbackend back\n  source %s\n  server gateway %s %s check inter 50ms\n", from, to, send))
	cmd := command(t, "haproxy", "-db", "-f", file)
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ln.Close()
		if t.Failed() {
			t.Logf("haproxy said %s", said.String())
		}
	})
	return ln.Addr().String() // it is open already, so that nobody has to wait for haproxy
}

func TestBalancer(t *testing.T) {
	t.Parallel()
	g := members(t, listenAnywhere+"require_user = false\nproxy_protocol_from = [\"127.0.5.1\"]\n[auth]\nhtpasswd = \"users.htpasswd\"\n"+
		"[[rule]]\nname = \"kept out\"\naction = \"deny\"\nclient = [\"127.0.6.9\"]\n"+allowLoopback)
	w := newWeb(t)
	for _, send := range []string{"send-proxy", "send-proxy-v2"} { // haproxy's health checks send it too
		front := haproxy(t, "127.0.5.1", g.at(), send)
		for i, way := range curlWays {
			t.Run(send+" "+way.name, func(t *testing.T) {
				from := fmt.Sprintf("127.0.6.%d", i+1)
				got, client := curl(t, append([]string{"--interface", from, "-x", way.scheme + front, "http://" + w.plain + "/b"}, way.args...)...)
				if want := "hello from " + w.plain + "/b over HTTP/1.1"; got.code != 0 || got.stdout != want {
					t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
				}
				if !strings.HasPrefix(client, from+":") {
					t.Fatalf("curl came from %s, want %s", client, from)
				}
				check(t, g.record("client="+client), map[string]any{"protocol": way.plainRow, "rule": "test servers"})
			})
		}
		t.Run(send+" rules see the declared client", func(t *testing.T) {
			got, client := curl(t, "--interface", "127.0.6.9", "-x", "http://"+front, "http://"+w.plain+"/")
			if !strings.Contains(got.stdout, "403 Forbidden") {
				t.Errorf("curl got %q, want a refusal", got.stdout)
			}
			check(t, g.record("client="+client), map[string]any{"status": 403.0, "rule": "kept out"})
		})
		t.Run(send+" so does the line for fail2ban", func(t *testing.T) {
			from := "127.0.6." + map[string]string{"send-proxy": "20", "send-proxy-v2": "21"}[send]
			got, client := curl(t, "--interface", from, "-x", "http://alice:wrong-one@"+front, "http://"+w.plain+"/")
			g.record("client=" + client) // it stands behind the line in question
			if !strings.Contains(got.stdout, "407 ") || g.failures(from) != 1 {
				t.Errorf("curl got %q, and fail2ban would count %d failures of %s, want a refusal and 1", got.stdout, g.failures(from), from)
			}
		})
	}
	if strings.Contains(g.log(), "bad_proxy_header") {
		t.Errorf("the balancers' health checks are refused:\n%s", g.log())
	}
	t.Run("a balancer without the header", func(t *testing.T) {
		got := run(t, "curl", "-q", "-sS", "--interface", "127.0.5.1", "-x", "http://"+g.at(), "http://"+w.plain+"/")
		if got.code == 0 {
			t.Errorf("curl got %q, want nothing", got.stdout)
		}
		g.wait("the refusal", func(l logLine) bool { return l.str("reason") == "bad_proxy_header" })
	})
	t.Run("the header from anybody else", func(t *testing.T) {
		c := dial(t, g.at())
		say(t, c, "PROXY TCP4 127.0.6.1 127.0.0.1 1000 2000\r\nGET http://"+w.plain+"/ HTTP/1.1\r\nHost: "+w.plain+"\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a header from an address that is no balancer's got an answer")
		}
		check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"protocol": "reject"})
	})
}
