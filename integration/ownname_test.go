package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// ownAndOthers has TLS of its own, and passes other names through.
func ownAndOthers(t *testing.T, p *papers, more string) (g *gateway, ca string) {
	t.Helper()
	cert, ca := certificate(t, "www.test", "localhost")
	web, nameless := tlsServer(t, "127.0.0.1:0", "web", cert), tlsServer(t, "127.0.0.1:0", "nameless", cert)
	return start(t, listenAnywhere+p.table()+fmt.Sprintf(`
[backend.web]
servers = [%q]
[backend.nameless]
servers = [%q]
[protocols.tls.route.web]
sni     = ["www.test", "closed.test"]
backend = "web"
[protocols.tls.route.nameless]
sni     = [""]
backend = "nameless"
[[rule]]
name    = "closed"
action  = "deny"
target  = ["closed.test"]
[[rule]]
name     = "routes"
action   = "allow"
protocol = ["tls"]
`, web, nameless)+allowLoopback+more), ca
}

func TestOwnNameAndOthers(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g, ca := ownAndOthers(t, p, "")
	passed := []struct{ name, sni, want, target string }{
		{"another name", "www.test", `web heard "hello" by TLS 1.3 of "www.test" and ""`, "www.test:443"},
		{"no name", "", `nameless heard "hello" by TLS 1.3 of "" and ""`, "no-sni"},
	}
	for _, tt := range passed {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			got := sClient(t, g.at(), ca, serverName(tt.sni)...)
			if got.code != 0 || got.stdout != tt.want {
				t.Fatalf("s_client ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, tt.want)
			}
			check(t, g.recordSince(mark, "protocol=tls"), map[string]any{"target": tt.target, "rule": "routes", "reason": "", "tls": "", "server_name": ""})
		})
	}
	refused := []struct{ name, sni, alert, reason string }{
		{"by a rule", "closed.test", "alert number 49", "rule"},
		{"by a name that nobody has", "elsewhere.test", "alert number 112", "no_route"},
		{"by a name below ours", "deep." + ownName, "alert number 112", "no_route"},
	}
	for _, tt := range refused {
		t.Run("refused "+tt.name, func(t *testing.T) {
			mark := g.mark()
			if got := sClient(t, g.at(), ca, "-servername", tt.sni); got.code == 0 || !strings.Contains(got.stderr, tt.alert) {
				t.Errorf("s_client ended with %d and said %q, want %q", got.code, got.stderr, tt.alert)
			}
			check(t, g.recordSince(mark, "protocol=tls"), map[string]any{"reason": tt.reason, "address": "", "tls": ""})
		})
	}
	w := newWeb(t)
	for _, name := range []string{ownName, strings.ToUpper(ownName)} {
		t.Run("own "+name, func(t *testing.T) {
			mark := g.mark()
			request := "GET http://" + w.plain + "/ HTTP/1.1\r\nHost: " + w.plain + "\r\nConnection: close\r\n\r\n"
			got := finish(t, withInput(command(t, "openssl", "s_client", "-connect", g.at(), "-servername", name, "-CAfile", p.ca(), "-verify_return_error", "-quiet"), request))
			if !strings.HasPrefix(got.stdout, "HTTP/1.1 200 ") {
				t.Errorf("s_client ended with %d and printed %q, %q; want 200", got.code, got.stdout, got.stderr)
			}
			check(t, g.recordSince(mark, "protocol=http"), map[string]any{"tls": "TLS 1.3", "server_name": name, "status": 200.0})
		})
	}
}

// TestOwnNameWithADot sends a name that RFC 6066 section 3 forbids.
func TestOwnNameWithADot(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	if got := sClient(t, g.at(), p.ca(), "-servername", ownName+"."); got.code == 0 || !strings.Contains(got.stderr, "alert number 50") {
		t.Errorf("s_client ended with %d and said %q, want the alert decode_error", got.code, got.stderr)
	}
	check(t, g.record("protocol=tls"), map[string]any{"reason": "tls_handshake_failed"})
}

func serverName(name string) []string {
	if name == "" {
		return []string{"-noservername"}
	}
	return []string{"-servername", name}
}

// within speaks TLS inside another connection.
func within(outer net.Conn, name string, trust *x509.CertPool) (*tls.Conn, error) {
	c := tls.Client(outer, &tls.Config{ServerName: name, RootCAs: trust})
	return c, c.Handshake()
}

func TestTLSInsideTLS(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g, ca := ownAndOthers(t, p, "")
	t.Run("another name is passed through", func(t *testing.T) {
		outer := p.dial(g.at())
		c, err := within(outer, "www.test", pool(t, ca))
		if err != nil {
			t.Fatal(err)
		}
		say(t, c, "hello\n")
		hear(t, c, `web heard "hello" by TLS 1.3 of "www.test" and ""`)
		c.Close()
		check(t, g.record("client="+outer.LocalAddr().String()), map[string]any{
			"protocol": "tls", "tls": "TLS 1.3", "server_name": ownName, "target": "www.test:443", "rule": "routes", "reason": "",
		})
	})
	t.Run("the own name again is not", func(t *testing.T) {
		outer := p.dial(g.at())
		if _, err := within(outer, ownName, p.trust()); err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("the inner handshake ended with %v, want the alert access_denied", err)
		}
		outer.Close()
		check(t, g.record("client="+outer.LocalAddr().String()), map[string]any{"protocol": "tls", "tls": "TLS 1.3", "reason": "tls_in_tls", "address": ""})
	})
	t.Run("the own name again by a tunnel through itself is not", func(t *testing.T) {
		outer := p.dial(g.at())
		say(t, outer, "CONNECT "+g.at()+" HTTP/1.1\r\nHost: "+g.at()+"\r\n\r\n")
		if line := hearHead(t, outer); !strings.Contains(line, " 502 ") {
			t.Errorf("a tunnel to the gateway itself got %q, want 502", line)
		}
	})
}

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("%s holds no certificate", file)
	}
	return pool
}

// TestNoSNI has clients without a server name mean the gateway, in front of the route for them.
func TestNoSNI(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g, ca := ownAndOthers(t, p, "[tls]\nno_sni = true\n")
	got, client := curl(t, "-x", "https://"+g.at(), "--proxy-cacert", p.ca(), "http://"+w.plain+"/") // an address is no server name
	if want := "hello from " + w.plain + "/ over HTTP/1.1"; got.code != 0 || got.stdout != want {
		t.Errorf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
	}
	check(t, g.record("client="+client), map[string]any{"protocol": "http", "tls": "TLS 1.3", "server_name": ""})
	if got := sClient(t, g.at(), ca, "-servername", "www.test"); got.code != 0 || !strings.HasPrefix(got.stdout, "web heard") {
		t.Errorf("s_client ended with %d and printed %q, %q; another name is to be passed through", got.code, got.stdout, got.stderr)
	}
}

// TestTLSWhereNoneIs speaks TLS to gateways without any certificate.
func TestTLSWhereNoneIs(t *testing.T) {
	t.Parallel()
	_, ca := certificate(t, ownName)
	g := start(t, listenAnywhere+"[listen.clear]\naddress = [\"127.0.0.1:0\"]\nprotocols = [\"http\", \"connect\"]\n"+allowLoopback)
	tests := []struct {
		listener, sni, alert, row, reason, err string
	}{
		{"main", ownName, "alert number 112", "tls", "no_route", "dial_sni is off and no route takes the server name"},
		{"main", "", "alert number 109", "tls", "no_sni", "the client sent no server name"},
		{"clear", ownName, "alert number 49", "reject", "unknown_protocol", "look like TLS"},
	}
	for _, tt := range tests {
		mark := g.mark()
		got := sClient(t, g.addr(tt.listener), ca, serverName(tt.sni)...)
		if got.code == 0 || !strings.Contains(got.stderr, tt.alert) {
			t.Errorf("s_client ended with %d and said %q, want %q", got.code, got.stderr, tt.alert)
		}
		l := g.recordSince(mark, "protocol="+tt.row)
		check(t, l, map[string]any{"reason": tt.reason, "tls": ""})
		if !strings.Contains(l.str("err"), tt.err) {
			t.Errorf("the record says %q, want %q", l.str("err"), tt.err)
		}
	}
}

// TestOutsideTLSWhereItIsRequired has every client be told in its own protocol.
func TestOutsideTLSWhereItIsRequired(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := startTidy(t, listenAnywhere+"require_tls = true\n"+p.table()+allowLoopback)
	for _, way := range curlWays {
		t.Run(way.name, func(t *testing.T) {
			mark := g.mark()
			got, _ := curl(t, append([]string{"-x", way.scheme + g.at(), "http://" + w.plain + "/"}, way.args...)...)
			if strings.Contains(got.stdout, "hello") {
				t.Errorf("outside TLS curl was served: %q", got.stdout)
			}
			if way.name == "http" && !strings.Contains(got.stdout, "https://") {
				t.Errorf("curl printed %q, which does not say that TLS is wanted", got.stdout)
			}
			if way.name != "http" && got.code != 97 && got.code != 56 {
				t.Errorf("curl ended with %d and said %q, want 56 or 97", got.code, got.stderr)
			}
			l := g.recordSince(mark, "listener=main")
			if !strings.Contains(l.str("err"), "require_tls") {
				t.Errorf("the record is %v, and does not say that TLS is wanted", l)
			}
			check(t, l, map[string]any{"address": "", "tls": "", "reason": "tls_required"})
		})
	}
}
