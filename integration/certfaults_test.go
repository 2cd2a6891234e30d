package integration

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestFaultsOfCertificates has check and serve find all of them at once, with their places.
func TestFaultsOfCertificates(t *testing.T) {
	t.Parallel()
	p, other := newPapers(t), newPapers(t)
	p.client("alice")
	write(t, p.path("old.ext"), "subjectAltName = DNS:old.test\n")
	p.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=old.test", "-keyout", "old.key", "-out", "old.csr")
	p.authority("-cert", "ca.pem", "-keyfile", "ca.key", "-in", "old.csr", "-out", "old.pem", "-notext", "-extfile", "old.ext", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
	p.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=nameless", "-days", "1", "-keyout", "nameless.key", "-out", "nameless.pem")
	write(t, p.path("garbage.pem"), "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
	lines := []string{
		"[listen.main]", `address = ["127.0.0.1:0"]`,
		"[tls]", `no_snl = true`, `min_version = "1.1"`,
		"[tls.certificate.absent]", `certificate = "absent.pem"`, `key = "absent.key"`,
		"[tls.certificate.foreign]", `certificate = "server.pem"`, fmt.Sprintf("key = %q", other.path("server.key")),
		"[tls.certificate.nameless]", `certificate = "nameless.pem"`, `key = "nameless.key"`,
		"[tls.certificate.old]", `certificate = "old.pem"`, `key = "old.key"`,
		"[tls.certificate.swapped]", `certificate = "server.key"`, `key = "server.pem"`,
		"[tls.certificate.garbage]", `certificate = "garbage.pem"`, `key = "server.key"`,
		"[tls.certificate.half]", `certificate = "server.pem"`,
		"[tls.certificate.typo]", `certificat = "server.pem"`, `key = "server.key"`,
		"[auth]", `client_ca = "absent-ca.pem"`, `client_certificate = "demand"`, `client_identity = "dn"`,
	}
	write(t, p.path("polyport.toml"), strings.Join(lines, "\n")+"\n")
	// What cannot be understood is found before files are read.
	keys := []string{
		`polyport.toml:4: tls.no_snl`, `did you mean "no_sni"?`, `polyport.toml:5: tls.min_version`,
		`tls.certificate.half`, `polyport.toml:27: tls.certificate.typo.certificat`,
		`polyport.toml:31: auth.client_certificate`, `polyport.toml:32: auth.client_identity`,
	}
	p.faulty(t, keys)
	right := strings.NewReplacer("no_snl = true\n", "\n", "min_version = \"1.1\"\n", "\n", "[tls.certificate.half]\ncertificate = \"server.pem\"\n", "\n\n",
		"[tls.certificate.typo]\ncertificat = \"server.pem\"\nkey = \"server.key\"\n", "\n\n\n", "client_certificate = \"demand\"\nclient_identity = \"dn\"\n", "")
	write(t, p.path("polyport.toml"), right.Replace(strings.Join(lines, "\n")+"\n"))
	p.faulty(t, []string{
		"polyport.toml:7: tls.certificate.absent.certificate: there is no file", "polyport.toml:8: tls.certificate.absent.key: there is no file",
		"polyport.toml:11: tls.certificate.foreign.key", "does not belong to the certificate",
		"polyport.toml:13: tls.certificate.nameless.certificate", "has no subject alternative name",
		"polyport.toml:16: tls.certificate.old.certificate", "expired on 2020-02-01",
		"polyport.toml:19: tls.certificate.swapped.certificate", "polyport.toml:20: tls.certificate.swapped.key",
		"polyport.toml:22: tls.certificate.garbage.certificate", "polyport.toml:30: auth.client_ca: there is no file",
	})
}

// faulty has check and serve say what is wrong with the configuration in the folder.
func (p *papers) faulty(t *testing.T, says []string) {
	t.Helper()
	got := polyport(t, p.dir, "", "check", "-c", "polyport.toml")
	mustSay(t, got, 1, says...)
	if serve := polyport(t, p.dir, "", "serve", "-c", "polyport.toml"); serve.stderr != got.stderr || serve.code != 1 {
		t.Errorf("serve ended with %d and said %q, want what check says: %q", serve.code, serve.stderr, got.stderr)
	}
}

// TestFaultsAboutNames are those that only all certificates together show.
func TestFaultsAboutNames(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	tests := []struct{ name, config, says string }{
		{"a name without certificate", "[tls]\nnames = [\"proxy.test\", \"elsewhere.test\"]\n" + p.table(), "polyport.toml:2: tls.names"},
		{"require_tls without certificate", "[listen.main]\nrequire_tls = true\n", "polyport.toml:2: listen.main.require_tls"},
		{"client_ca without certificate", "[auth]\nclient_ca = \"ca.pem\"\n", "polyport.toml:2: auth.client_ca"},
		{"client_crl without client_ca", p.table() + "[auth]\nclient_crl = \"ca.pem\"\n", "polyport.toml:5: auth.client_crl"},
		{"require without client_ca", p.table() + "[auth]\nclient_certificate = \"require\"\n", "auth.client_c"},
		{
			"a route for the own name", p.table() + "[backend.web]\nservers = [\"127.0.0.1:1\"]\n[protocols.tls.route.web]\nsni = [\"www.test\", \"proxy.test\"]\nbackend = \"web\"\n",
			"polyport.toml:7: protocols.tls.route.web.sni[1]",
		},
		{"a list that is none", p.table() + "[auth]\nclient_ca = \"ca.pem\"\nclient_crl = \"ca.pem\"\n", "polyport.toml:6: auth.client_crl"},
		{"a response that is none", p.table() + "ocsp = \"ca.pem\"\n", "polyport.toml:4: tls.certificate.main.ocsp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(t, p.path("polyport.toml"), tt.config)
			p.faulty(t, []string{tt.says})
		})
	}
}

// served is the serial number of the certificate that the gateway shows.
func (p *papers) served(gateway string) string {
	p.t.Helper()
	got := p.sClient(gateway)
	cmd := command(p.t, "openssl", "x509", "-noout", "-serial")
	return finish(p.t, withInput(cmd, got.stdout)).stdout
}

// serial is that of the certificate in the file.
func (p *papers) serial() string {
	p.t.Helper()
	return p.openssl("x509", "-in", "server.pem", "-noout", "-serial")
}

// TestCertificatesAreReadAgain replaces the files of a running gateway, by good ones and by others.
func TestCertificatesAreReadAgain(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	first := p.serial()
	if got := p.served(g.at()); got != first {
		t.Fatalf("the gateway shows %s, want %s", got, first)
	}
	held, target := p.dial(g.at()), tcpServer(t, echo)
	say(t, held, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	if line := hearHead(t, held); !strings.Contains(line, " 200 ") {
		t.Fatalf("CONNECT: %s", line)
	}
	p.renew()
	second := p.serial()
	eventually(t, "the new certificate", second, func() string { return p.served(g.at()) })
	key, err := os.ReadFile(p.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path("server.key"), "this is no key\n")
	const cannot = "files of TLS were changed, but the change cannot be taken"
	l := g.wait("that the files cannot be taken", func(l logLine) bool { return strings.Contains(l.str("msg")+l.str("err"), cannot) })
	if !strings.Contains(l.str("msg")+l.str("err"), "certificate.main.key") {
		t.Errorf("the log does not say which: %v", l)
	}
	if got := p.served(g.at()); got != second {
		t.Errorf("with a broken key the gateway shows %s, want still %s", got, second)
	}
	for _, refused := range []string{"at a reload", "at another"} {
		if l := g.reload(listenAnywhere + p.table() + allowLoopback); l.str("msg") == "reloaded" || !strings.Contains(l.str("err"), "tls.certificate.main.key") {
			t.Errorf("%s the broken key is %v", refused, l)
		}
	}
	if got := p.served(g.at()); got != second {
		t.Errorf("after a reload that was refused the gateway shows %s, want still %s", got, second)
	}
	write(t, p.path("server.key"), string(key))
	g.signal(syscall.SIGHUP)
	p.renew()
	third := p.serial()
	eventually(t, "the certificate behind the broken one", third, func() string { return p.served(g.at()) })
	if n := strings.Count(g.log(), cannot); n != 1 {
		t.Errorf("the log says %d times that the files cannot be taken, want once", n)
	}
	say(t, held, "from before all that")
	hear(t, held, "from before all that")
}

// TestRevocationIsReadAgain revokes a client of a running gateway.
func TestRevocationIsReadAgain(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	alice, bob := p.client("alice"), p.client("bob")
	g := startTidy(t, listenAnywhere+p.table()+p.clientTable(fmt.Sprintf("client_crl = %q\n", p.revoke()))+allowLoopback)
	as := func(l login) string {
		got, _ := p.secureCurl(g.at(), "", append(l.curl(), "http://"+w.plain+"/")...)
		return fmt.Sprint(got.code)
	}
	if got := as(alice) + as(bob); got != "00" {
		t.Fatalf("before anybody is revoked curl ends with %s", got)
	}
	p.revoke(bob)
	eventually(t, "bob, who is revoked", "56", func() string { return as(bob) })
	if got := as(alice); got != "0" {
		t.Errorf("alice, who is not revoked, ended with %s", got)
	}
}
