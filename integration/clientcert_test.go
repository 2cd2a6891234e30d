package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestClientCertificates shows certificates of every kind where they are asked for and where they are required.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	p, stranger, w := newPapers(t), newPapers(t), newWeb(t)
	alice := p.client("alice")
	old := p.signed("old", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-extensions", "named")
	nameless := p.signed("nameless") // it has a common name, and no SAN
	thief := p.signed("thief", "-extensions", "named")
	lists := fmt.Sprintf("client_crl = %q\n", p.revoke(thief))
	gateways := map[string]*gateway{}
	for _, mode := range []string{"request", "require"} {
		gateways[mode] = startTidy(t, listenAnywhere+"require_user = false\n[listen.users]\naddress = [\"127.0.0.1:0\"]\n"+p.table()+p.clientTable(lists+"client_certificate = \""+mode+"\"\n")+allowLoopback)
	}
	tests := []struct {
		name     string
		login    login
		mode     string
		identity string // of who is served
		err      string // of who is not
	}{
		{"good", alice, "request", "alice", ""},
		{"good", alice, "require", "alice", ""},
		{"none", login{}, "request", "", ""},
		{"none", login{}, "require", "", "didn't provide a certificate"},
		{"unknown CA", stranger.client("alice"), "request", "", "signed by unknown authority"},
		{"unknown CA", stranger.client("alice"), "require", "", "signed by unknown authority"},
		{"expired", old, "request", "", "expired"},
		{"revoked", thief, "request", "", "has been revoked"},
		{"revoked", thief, "require", "", "has been revoked"},
		{"no name", nameless, "request", "", "no usable identity"},
		{"the server's own", login{p.path("server.pem"), p.path("server.key")}, "request", "", "signed by unknown authority"},
	}
	alerts := map[string]string{ // RFC 8446 section 6.2
		"none": "116", "unknown CA": "48", "expired": "45", "revoked": "42", "no name": "42", "the server's own": "48",
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.mode, func(t *testing.T) {
			p, g := &papers{t, p.dir}, gateways[tt.mode]
			mark := g.mark()
			got, _ := p.secureCurl(g.at(), "", append(tt.login.curl(), "--proxytunnel", "http://"+w.plain+"/")...)
			if tt.err == "" {
				if want := "hello from " + w.plain + "/ over HTTP/1.1"; got.code != 0 || got.stdout != want {
					t.Fatalf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
				}
				check(t, g.recordSince(mark, "protocol=connect"), map[string]any{"identity": tt.identity, "tls": "TLS 1.3", "server_name": ownName})
				return
			}
			if got.code != 56 || !strings.Contains(got.stderr, "alert") { // behind the handshake, as it seems to clients of TLS 1.3
				t.Errorf("curl ended with %d and printed %q, %q; want 56 and an alert", got.code, got.stdout, got.stderr)
			}
			l := g.recordSince(mark, "protocol=tls")
			check(t, l, map[string]any{"identity": "", "reason": "tls_handshake_failed", "tls": "", "target": ""})
			if !strings.Contains(l.str("err"), tt.err) {
				t.Errorf("the record says %q, want %q", l.str("err"), tt.err)
			}
			for _, version := range []string{"-tls1_3", "-tls1_2"} { // the client hears why
				got := p.sClient(g.at(), append(tt.login.openssl(), version, "-ign_eof")...)
				if !strings.Contains(got.stderr, "SSL alert number "+alerts[tt.name]) && !(tt.name == "none" && version == "-tls1_2" && strings.Contains(got.stderr, "SSL alert number 40")) {
					t.Errorf("s_client %s says %q, want alert %s", version, got.stderr, alerts[tt.name])
				}
			}
		})
	}
}

// TestNobodyWhereOnlyCertificatesTell asks for no password, since there is none.
func TestNobodyWhereOnlyCertificatesTell(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	alice := p.client("alice")
	g := start(t, listenAnywhere+p.table()+p.clientTable("")+allowLoopback)
	for _, way := range secureWays[:2] {
		got, client := p.secureCurl(g.at(), "", append(way.args, "-i", "http://"+w.plain+"/")...)
		if strings.Contains(got.stdout, "Proxy-Authenticate") || !strings.Contains(got.stdout, "HTTP/1.1 403") {
			t.Errorf("%s: curl ended with %d and printed %q, %q; want 403", way.name, got.code, got.stdout, got.stderr)
		}
		check(t, g.record("client="+client), map[string]any{"protocol": way.row, "status": 403.0, "reason": "needs_user", "identity": "", "address": ""})
	}
	front := p.socat(g.at(), ownName, login{})
	got, _ := curl(t, "-x", "socks5h://"+front, "http://"+w.plain+"/")
	if got.code != 97 {
		t.Errorf("curl ended with %d and printed %q, %q; want 97", got.code, got.stdout, got.stderr)
	}
	check(t, g.record("protocol=socks5"), map[string]any{"status": 2.0, "reason": "needs_user", "address": ""})
	if got, _ := p.secureCurl(g.at(), "", append(alice.curl(), "http://"+w.plain+"/")...); got.code != 0 || !strings.Contains(got.stdout, "hello") {
		t.Errorf("curl with a certificate ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
}

// TestTheAlertArrives has clients who talk on behind a handshake that they take for done: what they have
// sent must not destroy the alert.
func TestTheAlertArrives(t *testing.T) {
	t.Parallel()
	p, stranger := newPapers(t), newPapers(t)
	mallory := stranger.client("mallory")
	p.client("alice")
	g := startTidy(t, listenAnywhere+p.table()+p.clientTable("client_certificate = \"require\"\n")+allowLoopback)
	for range 20 {
		c := p.dial(g.at(), mallory.with(t))
		_, _ = c.Write(make([]byte, 64<<10)) // it may be refused already
		check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"reason": "tls_handshake_failed"})
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
			t.Fatalf("the client hears %v, want the alert unknown_ca", err)
		}
		c.Close()
	}
}

// sClient runs openssl s_client inside TLS to the gateway, under its name, with nothing to say.
func (p *papers) sClient(gateway string, args ...string) output {
	p.t.Helper()
	args = append([]string{"s_client", "-connect", gateway, "-servername", ownName, "-CAfile", p.ca(), "-verify_return_error"}, args...)
	return finish(p.t, withInput(command(p.t, "openssl", args...), ""))
}

// TestCertificateIsTheUser goes by every protocol where users are required, with a certificate and no password.
func TestCertificateIsTheUser(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	logins := map[string]login{"alice": p.client("alice"), "bob@example.com": p.client("bob@example.com"), "carol": p.client("carol"), "": {}}
	g := members(t, listenAnywhere+"require_user = true\n"+p.table()+p.clientTable("htpasswd = \"users.htpasswd\"\ngroups = { staff = [\"bob@example.com\"] }\n")+`
[[rule]]
name   = "users"
action = "allow"
user   = ["alice"]
target = ["127.0.0.0/8"]
[[rule]]
name   = "group"
action = "allow"
group  = ["staff"]
target = ["127.0.0.0/8"]
`)
	rules := map[string]string{"alice": "users", "bob@example.com": "group"}
	refused := map[string]map[string]float64{ // carol is somebody, and not of those who may
		"":      {"http": 407, "connect": 407, "socks4": 93, "socks5": 255},
		"carol": {"http": 403, "connect": 403, "socks4": 91, "socks5": 2},
	}
	for who, l := range logins {
		front := p.socat(g.at(), ownName, l)
		for _, way := range curlWays {
			t.Run(way.name+" "+who, func(t *testing.T) {
				mark := g.mark()
				got, _ := curl(t, append([]string{"-x", way.scheme + front, "http://" + w.plain + "/"}, way.args...)...)
				if rules[who] != "" {
					if want := "hello from " + w.plain + "/ over HTTP/1.1"; got.code != 0 || got.stdout != want {
						t.Errorf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
					}
					check(t, g.recordSince(mark, "protocol="+way.plainRow), map[string]any{"identity": who, "rule": rules[who], "reason": "", "server_name": ownName})
					return
				}
				if got.code == 0 && !strings.HasPrefix(way.name, "http") || strings.Contains(got.stdout, "hello") {
					t.Errorf("curl ended with %d and printed %q", got.code, got.stdout)
				}
				l := g.recordSince(mark, "protocol="+way.plainRow)
				check(t, l, map[string]any{"identity": who, "address": "", "status": refused[who][way.plainRow], "server_name": ownName})
			})
		}
	}
}

// TestPasswordInsideOverridesTheCertificate logs in as somebody else than the certificate says.
func TestPasswordInsideOverridesTheCertificate(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	robot := p.client("robot")
	g := members(t, listenAnywhere+"require_user = true\n"+p.table()+p.clientTable("htpasswd = \"users.htpasswd\"\n")+
		"[[rule]]\nname = \"by password\"\naction = \"allow\"\nuser = [\""+clubUser+"\"]\ntarget = [\"127.0.0.0/8\"]\n")
	front := p.socat(g.at(), ownName, robot)
	for _, way := range curlWays {
		if way.plainRow == "socks4" {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			mark := g.mark()
			got, _ := curl(t, append([]string{"-x", way.scheme + clubLogin + front, "http://" + w.plain + "/"}, way.args...)...)
			if want := "hello from " + w.plain + "/ over HTTP/1.1"; got.code != 0 || got.stdout != want {
				t.Errorf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, want)
			}
			check(t, g.recordSince(mark, "protocol="+way.plainRow, "identity="+clubUser), map[string]any{"rule": "by password"})
			mark = g.mark()
			got, _ = curl(t, append([]string{"-x", way.scheme + clubUser + ":wrong@" + front, "http://" + w.plain + "/"}, way.args...)...)
			if strings.Contains(got.stdout, "hello") {
				t.Errorf("with a wrong password curl printed %q", got.stdout)
			}
			check(t, g.recordSince(mark, "protocol="+way.plainRow), map[string]any{"reason": "bad_credentials", "address": ""})
		})
	}
}
