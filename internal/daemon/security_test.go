package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"polyport/internal/localca"
	"polyport/mux"
)

// certified is a folder with certificates, for tests.
type certified struct {
	dir   string
	roots *x509.CertPool
}

// issue makes a certificate of a gateway with these names.
func issue(t *testing.T, names ...string) certified {
	t.Helper()
	c := certified{dir: t.TempDir(), roots: x509.NewCertPool()}
	issued, err := localca.Server(c.dir, names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(issued.CA)
	if err != nil || !c.roots.AppendCertsFromPEM(ca) {
		t.Fatalf("read the CA: %v", err)
	}
	return c
}

// client makes a certificate of a client.
func (c certified) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	issued, err := localca.Client(c.dir, name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(issued.Certificate, issued.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// path is that of a file in the folder, quoted for a configuration.
func (c certified) path(name string) string { return fmt.Sprintf("%q", filepath.Join(c.dir, name)) }

// table is a [tls.certificate.NAME] table.
func (c certified) table(name string) string {
	return "[tls.certificate." + name + "]\ncertificate = " + c.path("server.pem") + "\nkey = " + c.path("server.key") + "\n"
}

// config is that of a client of the gateway.
func (c certified) config(name string, alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: c.roots, ServerName: name, NextProtos: alpn}
}

// askTLS is ask inside TLS to the gateway.
func (s *served) askTLS(listener string, config *tls.Config, request string) (line string, state tls.ConnectionState, err error) {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.address(listener), config)
	if err != nil {
		return "", state, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		return "", state, err
	}
	answer, err := io.ReadAll(c)
	line, _, _ = strings.Cut(string(answer), "\r\n")
	return line, c.ConnectionState(), err
}

// openFailed builds a configuration that must not be taken.
func openFailed(t *testing.T, text string) string {
	t.Helper()
	a, err := assemble(parse(t, text), lent{})
	if err == nil {
		a.close()
		t.Fatalf("%q is taken", text)
	}
	return err.Error()
}

func TestFaultsOfCertificatesHaveTheirPlaces(t *testing.T) {
	one, other := issue(t, "a.test"), issue(t, "b.test")
	one.client(t, "alice") // makes the CA of clients
	junk := fmt.Sprintf("%q", write(t, "junk.pem", "no certificate"))
	none := fmt.Sprintf("%q", filepath.Join(t.TempDir(), "none.pem"))
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"no such files", "[tls.certificate.main]\ncertificate = " + none + "\nkey = " + none + "\n", []string{
			"polyport.toml:2: tls.certificate.main.certificate: ", "polyport.toml:3: tls.certificate.main.key: ",
		}},
		{"no certificate in it", "[tls.certificate.main]\ncertificate = " + junk + "\nkey = " + one.path("server.key") + "\n", []string{
			"polyport.toml:2: tls.certificate.main.certificate: ",
		}},
		{"another's key", "[tls.certificate.main]\ncertificate = " + one.path("server.pem") + "\nkey = " + other.path("server.key") + "\n", []string{
			"polyport.toml:3: tls.certificate.main.key: ", "does not belong",
		}},
		{"one of two", one.table("good") + "[tls.certificate.bad]\ncertificate = " + none + "\nkey = " + one.path("server.key") + "\n", []string{
			"polyport.toml:5: tls.certificate.bad.certificate: ",
		}},
		{"a name that no certificate has", "[tls]\nnames = [\"a.test\", \"c.test\"]\n" + one.table("main"), []string{
			"polyport.toml:2: tls.names", "c.test",
		}},
		{"no CA of clients", "[auth]\nclient_ca = " + none + "\n" + one.table("main"), []string{"polyport.toml:2: auth.client_ca: "}},
		{"a CA of clients that is none", "[auth]\nclient_ca = " + one.path("server.pem") + "\n" + one.table("main"), []string{
			"polyport.toml:2: auth.client_ca: ",
		}},
		{"no list of revoked ones", "[auth]\nclient_ca = " + one.path("client-ca.pem") + "\nclient_crl = " + junk + "\n" + one.table("main"), []string{
			"polyport.toml:3: auth.client_crl: ",
		}},
		{"faults of both", "[auth]\nclient_ca = " + none + "\n[tls.certificate.main]\ncertificate = " + none + "\nkey = " + one.path("server.key") + "\n[timeouts]\nconnect = \"0s\"\n", []string{
			"polyport.toml:2: auth.client_ca: ", "polyport.toml:4: tls.certificate.main.certificate: ", "polyport.toml:7: timeouts.connect: ",
		}},
		{"ACME without consent", "[tls.acme]\nnames = [\"a.test\"]\nstorage = " + fmt.Sprintf("%q", t.TempDir()) + "\n", []string{"tls.acme.accept_terms"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := openFailed(t, tt.file)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("the error does not say %q:\n%s", want, got)
				}
			}
			if n := strings.Count(got, "polyport.toml:"); n > len(tt.want) {
				t.Errorf("%d faults:\n%s", n, got)
			}
		})
	}
}

func TestSecurityOwns(t *testing.T) {
	c := issue(t, "a.test", "*.w.test")
	accepted := "[tls.acme]\nnames = [\"acme.test\"]\naccept_terms = true\nstorage = " + fmt.Sprintf("%q", t.TempDir()) + "\n"
	for _, tt := range []struct {
		name, file string
		owns       map[string]bool // by "name protocol"
	}{
		{"a certificate", c.table("main"), map[string]bool{
			"a.test": true, "A.TEST": true, "a.test.": true, "x.w.test": true, "x.y.w.test": false, "w.test": false,
			"b.test": false, "": false, "a.test h2": true, "a.test acme-tls/1": true, "acme.test acme-tls/1": false,
		}},
		{"no_sni", "[tls]\nno_sni = true\n" + c.table("main"), map[string]bool{"": true, "a.test": true, "b.test": false}},
		{"ACME", accepted, map[string]bool{
			"acme.test": true, "ACME.test.": true, "a.test": false, "": false,
			"acme.test acme-tls/1": true, "ACME.Test. acme-tls/1": true, "b.test acme-tls/1": false,
		}},
		// Another's validation may go through a route, even for a name of a file's certificate.
		{"both", c.table("main") + accepted, map[string]bool{
			"a.test": true, "acme.test": true, "a.test h2": true, "acme.test acme-tls/1": true, "a.test acme-tls/1": false,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openSecurity(parse(t, tt.file), lent{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			for hello, want := range tt.owns {
				name, protocol, _ := strings.Cut(hello, " ")
				var protocols []string
				if protocol != "" {
					protocols = []string{protocol}
				}
				if got := s.spec().Owns(name, protocols); got != want {
					t.Errorf("owns(%q, %q) = %v, want %v", name, protocols, got, want)
				}
			}
		})
	}
}

func TestNoSecurity(t *testing.T) {
	s, err := openSecurity(parse(t, ""), lent{})
	if s != nil || err != nil || s.spec() != nil || s.name(nil) != "" || s.warnings() != nil {
		t.Errorf("without certificates: %v, %v", s, err)
	}
	s.close()
}

// A listener with require_tls serves its rows inside TLS alone.
func TestTablesOfRequireTLS(t *testing.T) {
	c := issue(t, "a.test")
	_, a := built(t, c.table("main")+`
[listen.open]
address = ["127.0.0.1:0"]
[listen.strict]
address     = ["127.0.0.2:0"]
require_tls = true
[listen.web]
address     = ["127.0.0.3:0"]
protocols   = ["tls", "http"]
require_tls = true
[listen.plain]
address   = ["127.0.0.4:0"]
protocols = ["http"]
[backend.ssh]
servers = ["127.0.0.1:22"]
[sniff]
silent_to = "ssh"
`)
	defer a.close()
	rows := func(table mux.Table, listener string) string {
		var names []string
		for _, r := range table[listener] {
			names = append(names, r.Name)
		}
		return strings.Join(names, " ")
	}
	all := rows(a.table, "open")
	for _, row := range []string{"http", "connect", "h2", "socks4", "socks5", "tls", "silent"} {
		if !strings.Contains(" "+all+" ", " "+row+" ") {
			t.Errorf("the listener open serves %q, which lacks %s", all, row)
		}
	}
	for _, tt := range []struct{ name, got, want string }{
		{"inside open", rows(a.inside, "open"), all},
		{"strict", rows(a.table, "strict"), "tls reject"},
		{"inside strict", rows(a.inside, "strict"), all},
		{"web", rows(a.table, "web"), "tls reject"},
		{"inside web", rows(a.inside, "web"), "http tls reject"},
		{"plain", rows(a.table, "plain"), "http reject"},
		{"inside plain", rows(a.inside, "plain"), "http reject"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s serves %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if !a.listeners["strict"].RequireTLS || a.listeners["open"].RequireTLS {
		t.Error("sessions are told wrong of require_tls")
	}
}

func TestServesTLS(t *testing.T) {
	c := issue(t, "a.test")
	s := serve(t, onLoopback+c.table("main"))
	for _, tt := range []struct {
		name   string
		config *tls.Config
		agreed string
	}{
		{"no ALPN", c.config("a.test"), ""},
		{"http/1.1", c.config("a.test", "http/1.1"), "http/1.1"},
		{"in another case", c.config("A.Test"), ""},
	} {
		line, state, err := s.askTLS("main", tt.config, get)
		if err != nil || line != "HTTP/1.1 403 Forbidden" || state.NegotiatedProtocol != tt.agreed || state.Version != tls.VersionTLS13 {
			t.Errorf("%s: %q, %v; agreed on %q", tt.name, line, err, state.NegotiatedProtocol)
		}
	}
	for name, config := range map[string]*tls.Config{
		"no name": {InsecureSkipVerify: true}, "another's": c.config("b.test"), "a protocol that nobody speaks": c.config("a.test", "spdy/1"),
	} {
		if _, _, err := s.askTLS("main", config, get); err == nil {
			t.Errorf("%s: the handshake succeeds", name)
		}
	}
	// SOCKS inside TLS, up to the refusal of the guard.
	layer, err := tls.Dial("tcp", s.address("main"), c.config("a.test"))
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close()
	_, _ = io.WriteString(layer, "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01")
	b := make([]byte, 4)
	if _, err := io.ReadFull(layer, b); err != nil || string(b) != "\x05\x00\x05\x02" {
		t.Errorf("SOCKS5 answers %q, %v", b, err)
	}
	if got := s.ask("main", get); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("in clear text: %q", got)
	}
}

func TestServesHTTP2(t *testing.T) {
	c := issue(t, "a.test")
	s := serve(t, onLoopback+c.table("main"))
	get := func(nc net.Conn, uri string) (*http.Response, error) {
		var by http.Protocols
		by.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: &by, DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil }}
		cc, err := tr.NewClientConn(t.Context(), "http", "gateway.test:80")
		if err != nil {
			return nil, err
		}
		defer cc.Close()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", uri, nil)
		resp, err := cc.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	layer, err := tls.Dial("tcp", s.address("main"), c.config("a.test", "h2", "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := get(layer, "http://127.0.0.1:1/"); err != nil || resp.StatusCode != 403 || resp.ProtoMajor != 2 {
		t.Errorf("by ALPN: %v, %v", resp, err)
	}
	plain, err := net.Dial("tcp", s.address("main"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := get(plain, "http://127.0.0.1:1/"); err != nil || resp.StatusCode != 403 {
		t.Errorf("by prior knowledge: %v, %v", resp, err)
	}
}

func TestRequireTLS(t *testing.T) {
	c := issue(t, "a.test")
	s := serve(t, onLoopback+"require_tls = true\n"+c.table("main"))
	const outside = "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if got := s.ask("main", outside); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("in clear text: %q", got)
	}
	if got := s.ask("main", "\x05\x01\x00"); got != "\x05\xff" {
		t.Errorf("SOCKS5 in clear text: %q", got)
	}
	if line, _, err := s.askTLS("main", c.config("a.test"), outside); err != nil || line != "HTTP/1.1 200 OK" {
		t.Errorf("inside TLS: %q, %v", line, err)
	}
	if err := s.reload(onLoopback + c.table("main")); err != nil {
		t.Fatal(err)
	}
	if got := s.ask("main", outside); got != "HTTP/1.1 200 OK" {
		t.Errorf("once it is not required any more: %q", got)
	}
}

// Clients resume their sessions after a reload, unless it changes whose they are.
func TestReloadKeepsTickets(t *testing.T) {
	c := issue(t, "a.test")
	c.client(t, "alice")
	s := serve(t, onLoopback+c.table("main"))
	config := c.config("a.test")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	ask := func(resumed bool) {
		t.Helper()
		line, state, err := s.askTLS("main", config, get)
		if err != nil || line != "HTTP/1.1 403 Forbidden" || state.DidResume != resumed {
			t.Errorf("%q, %v, resumed %v; want %v", line, err, state.DidResume, resumed)
		}
	}
	ask(false)
	ask(true)
	if err := s.reload(onLoopback + "[timeouts]\nidle = \"1m\"\n" + c.table("renamed")); err != nil {
		t.Fatal(err)
	}
	ask(true)
	if err := s.reload(onLoopback + "[auth]\nclient_ca = " + c.path("client-ca.pem") + "\nclient_certificate = \"require\"\n" + c.table("main")); err != nil {
		t.Fatal(err)
	}
	if _, state, err := s.askTLS("main", config, get); err == nil || state.DidResume {
		t.Errorf("without a certificate that is required: %v, resumed %v", err, state.DidResume)
	}
}

// A reload with a fault in its certificates changes nothing.
func TestReloadWithABrokenCertificate(t *testing.T) {
	c := issue(t, "a.test")
	s := serve(t, onLoopback+c.table("main"))
	err := s.reload(onLoopback + "[tls.certificate.main]\ncertificate = " + c.path("none.pem") + "\nkey = " + c.path("server.key") + "\n")
	if err == nil || !strings.Contains(err.Error(), "tls.certificate.main.certificate") {
		t.Errorf("Reload = %v", err)
	}
	if line, _, err := s.askTLS("main", c.config("a.test"), get); err != nil || line != "HTTP/1.1 403 Forbidden" {
		t.Errorf("afterwards: %q, %v", line, err)
	}
	if err := s.reload(onLoopback); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.askTLS("main", c.config("a.test"), get); err == nil {
		t.Error("without certificates the handshake succeeds")
	}
}

// A client's certificate is a user, in groups too, for every row. Where there are no passwords nobody is asked for one.
func TestClientCertificates(t *testing.T) {
	c := issue(t, "a.test")
	alice, bob := c.client(t, "alice"), c.client(t, "bob")
	users := write(t, "users", "carol:$2y$04$4hV6VQd0pXVCqkSgTj3wDeZMf2rX1HhGk9wZK0nYI8G0zxy3l5QFe\n")
	ask := func(auth string, want map[string]string) {
		t.Helper()
		s := serve(t, onLoopback+"require_user = true\n[auth]\n"+auth+"client_ca = "+c.path("client-ca.pem")+"\n[auth.groups]\nstaff = [\"alice\"]\n"+c.table("main")+
			"[[rule]]\naction = \"allow\"\ngroup = [\"staff\"]\ntarget = [\"127.0.0.1/32\"]\n")
		for name, certs := range map[string][]tls.Certificate{"alice": {alice}, "bob": {bob}, "nobody": nil} {
			config := c.config("a.test")
			config.Certificates = certs
			line, _, err := s.askTLS("main", config, get)
			socks, _, socksErr := s.askTLS("main", config, "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01")
			got := fmt.Sprintf("%.12q, %.4q", line, socks)
			if err != nil || socksErr != nil || got != want[name] {
				t.Errorf("%s: %s, %v, %v; want %s", name, got, err, socksErr, want[name])
			}
		}
	}
	// Nothing listens where alice may go.
	ask("", map[string]string{
		"alice":  `"HTTP/1.1 502", "\x05\x00\x05\x05"`,
		"bob":    `"HTTP/1.1 403", "\x05\x00\x05\x02"`,
		"nobody": `"HTTP/1.1 403", "\x05\x00\x05\x02"`,
	})
	ask(fmt.Sprintf("htpasswd = %q\n", users), map[string]string{
		"alice":  `"HTTP/1.1 502", "\x05\x00\x05\x05"`,
		"bob":    `"HTTP/1.1 403", "\x05\x00\x05\x02"`,
		"nobody": `"HTTP/1.1 407", "\x05\xff"`,
	})
}
