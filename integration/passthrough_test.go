package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// tlsServer speaks TLS under a name of its own: it answers one line with who it is
// and what it saw of its client. It returns its address.
func tlsServer(t *testing.T, addr, name string, cert tls.Certificate, alpn ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(patience))
				c := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpn, MinVersion: tls.VersionTLS12})
				line, err := bufio.NewReader(c).ReadString('\n')
				if err != nil {
					return
				}
				s := c.ConnectionState()
				fmt.Fprintf(c, "%s heard %q by %s of %q and %q", name, strings.TrimSpace(line), tls.VersionName(s.Version), s.ServerName, s.NegotiatedProtocol)
				_ = c.CloseWrite()
				_, _ = io.Copy(io.Discard, c) // whoever closes with something unread resets
			}()
		}
	}()
	return ln.Addr().String()
}

// sClient runs openssl s_client against the gateway.
func sClient(t *testing.T, gateway, ca string, args ...string) output {
	t.Helper()
	args = append([]string{"s_client", "-connect", gateway, "-CAfile", ca, "-verify_return_error", "-quiet"}, args...)
	return finish(t, withInput(command(t, "openssl", args...), "hello\n"))
}

func TestPassthrough(t *testing.T) {
	t.Parallel()
	cert, ca := certificate(t, "www.test", "*.deep.test", "localhost")
	const anywhere = "127.0.0.1:0"
	backends := map[string]string{
		"web": tlsServer(t, anywhere, "web", cert, "http/1.1"), "h2": tlsServer(t, anywhere, "h2", cert, "h2"),
		"deep": tlsServer(t, anywhere, "deep", cert), "nameless": tlsServer(t, anywhere, "nameless", cert),
	}
	config := listenAnywhere
	for name, addr := range backends {
		config += fmt.Sprintf("[backend.%s]\nservers = [%q]\n", name, addr)
	}
	g := startTidy(t, config+`
[protocols.tls.route.web]
sni     = ["www.test", "closed.test"]
backend = "web"
[protocols.tls.route.h2]
sni     = ["www.test"]
alpn    = ["h2"]
backend = "h2"
[protocols.tls.route.deep]
sni     = ["*.deep.test"]
backend = "deep"
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
`)
	many := strings.TrimSuffix(strings.Repeat("a-protocol-that-nobody-knows,", 500), ",") + ",http/1.1"
	tests := []struct {
		name, sni string // no SNI is ""
		args      []string
		want      string // what the server says
		backend   string
		target    string
	}{
		{"by name", "www.test", nil, `web heard "hello" by TLS 1.3 of "www.test" and ""`, "web", "www.test:443"},
		{"upper case", "WWW.Test", nil, `web heard "hello" by TLS 1.3 of "WWW.Test" and ""`, "web", "www.test:443"},
		{"TLS 1.2", "www.test", []string{"-tls1_2"}, `web heard "hello" by TLS 1.2 of "www.test" and ""`, "web", "www.test:443"},
		{"by suffix", "far.deep.test", nil, `deep heard "hello" by TLS 1.3 of "far.deep.test" and ""`, "deep", "far.deep.test:443"},
		{"no name", "", nil, `nameless heard "hello" by TLS 1.3 of "" and ""`, "nameless", "no-sni:0"},
		{"by ALPN", "www.test", []string{"-alpn", "h2,http/1.1"}, `h2 heard "hello" by TLS 1.3 of "www.test" and "h2"`, "h2", "www.test:443"},
		{"another ALPN", "www.test", []string{"-alpn", "http/1.1"}, `web heard "hello" by TLS 1.3 of "www.test" and "http/1.1"`, "web", "www.test:443"},
		{"a hello of 15 KB in many records", "www.test", []string{"-alpn", many, "-max_send_frag", "512"}, `web heard "hello" by TLS 1.3 of "www.test" and "http/1.1"`, "web", "www.test:443"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			args := append([]string{"-servername", tt.sni, "-verify_hostname", strings.ToLower(tt.sni)}, tt.args...)
			if tt.sni == "" {
				args = append([]string{"-noservername"}, tt.args...)
			}
			got := sClient(t, g.at(), ca, args...)
			if got.code != 0 || got.stdout != tt.want {
				t.Fatalf("s_client ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, tt.want)
			}
			l := g.recordSince(mark, "protocol=tls")
			check(t, l, map[string]any{
				"target": strings.TrimSuffix(tt.target, ":0"), "backend": tt.backend, "address": backends[tt.backend], "rule": "routes", "reason": "",
			})
		})
	}
	refusals := []struct{ name, sni, alert, reason, rule string }{
		{"by a rule", "closed.test", "alert number 49", "rule", "closed"},
		{"a name without a route", "elsewhere.test", "alert number 112", "no_route", ""},
	}
	for _, tt := range refusals {
		t.Run("refused "+tt.name, func(t *testing.T) {
			mark := g.mark()
			got := sClient(t, g.at(), ca, "-servername", tt.sni)
			if got.code == 0 || !strings.Contains(got.stderr, tt.alert) {
				t.Errorf("s_client ended with %d and said %q, want %q", got.code, got.stderr, tt.alert)
			}
			check(t, g.recordSince(mark, "protocol=tls"), map[string]any{"reason": tt.reason, "rule": tt.rule, "address": ""})
		})
	}
}

// TestPassthroughToTheName dials what the client names, port 443, which is free in a
// network of its own.
func TestPassthroughToTheName(t *testing.T) {
	if !apart(t) {
		return
	}
	cert, ca := certificate(t, "www.test")
	tlsServer(t, "127.0.0.1:443", "the named one", cert)
	config := listenAnywhere + "[dns]\nservers = [\"udp://" + nameServer(t) + "\"]\n[protocols.tls]\ndial_sni = true\n"
	g := startTidy(t, config+allowLoopback)
	got := sClient(t, g.at(), ca, "-servername", "www.test", "-verify_hostname", "www.test")
	if want := `the named one heard "hello" by TLS 1.3 of "www.test" and ""`; got.code != 0 || got.stdout != want {
		t.Errorf("s_client ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
	}
	check(t, g.record("protocol=tls"), map[string]any{"target": "www.test:443", "address": "127.0.0.1:443", "rule": "test servers", "reason": ""})

	tests := []struct {
		name   string
		args   []string
		alert  string
		record map[string]any
	}{
		{"no name", []string{"-noservername"}, "alert number 109", map[string]any{"reason": "no_sni"}},
		{"an unknown name", []string{"-servername", "www.elsewhere"}, "alert number 80", map[string]any{"reason": "dns_error", "target": "www.elsewhere:443"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			got := sClient(t, g.at(), ca, tt.args...)
			if got.code == 0 || !strings.Contains(got.stderr, tt.alert) {
				t.Errorf("s_client ended with %d and said %q, want %q", got.code, got.stderr, tt.alert)
			}
			check(t, g.recordSince(mark, "protocol=tls"), tt.record)
		})
	}

	t.Run("the guard", func(t *testing.T) {
		guarded := startTidy(t, config+"[[rule]]\nname = \"all names\"\naction = \"allow\"\ntarget = [\"*\"]\n")
		got := sClient(t, guarded.at(), ca, "-servername", "www.test")
		if got.code == 0 || !strings.Contains(got.stderr, "alert number 49") {
			t.Errorf("s_client ended with %d and said %q, want an alert of access_denied", got.code, got.stderr)
		}
		check(t, guarded.record("protocol=tls"), map[string]any{"reason": "guard", "address": "", "rule": "all names"})
	})
}
