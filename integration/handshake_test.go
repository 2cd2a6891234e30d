package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestHandshakes has openssl's client agree with the gateway, or not.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	config := listenAnywhere + p.table() + allowLoopback
	g := startTidy(t, config)
	tests := []struct {
		name string
		args []string
		says []string
	}{
		{"TLS 1.3", []string{"-tls1_3"}, []string{"New, TLSv1.3, Cipher is TLS_", "Verify return code: 0 (ok)", "Peer signature type: ECDSA", "No ALPN negotiated"}},
		{"TLS 1.2", []string{"-tls1_2"}, []string{"New, TLSv1.2, Cipher is ECDHE-ECDSA-", "Verify return code: 0 (ok)", "Secure Renegotiation IS supported"}},
		{"TLS 1.2 with AES-256", []string{"-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"}, []string{"Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"}},
		{"TLS 1.2 with ChaCha20", []string{"-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"}, []string{"Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"}},
		{"h2", []string{"-alpn", "h2"}, []string{"ALPN protocol: h2"}},
		{"h2 rather than http/1.1", []string{"-alpn", "http/1.1,h2"}, []string{"ALPN protocol: h2"}},
		{"http/1.1", []string{"-alpn", "http/1.1"}, []string{"ALPN protocol: http/1.1"}},
		{"another ALPN", []string{"-alpn", "smtp"}, []string{"SSL alert number 120"}},
		{"TLS 1.1", []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, []string{"SSL alert number 70"}},
		{"TLS 1.0", []string{"-tls1", "-cipher", "DEFAULT@SECLEVEL=0"}, []string{"SSL alert number 70"}},
		{"no shared cipher", []string{"-tls1_2", "-cipher", "AES128-SHA"}, []string{"SSL alert number 40"}},
		{"no forward secrecy", []string{"-tls1_2", "-cipher", "AES128-GCM-SHA256"}, []string{"SSL alert number 40"}},
		{"CBC", []string{"-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"}, []string{"SSL alert number 40"}},
		{"no shared group", []string{"-tls1_3", "-groups", "ffdhe2048"}, []string{"SSL alert number 40"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			got := (&papers{t, p.dir}).sClient(g.at(), tt.args...)
			for _, want := range tt.says {
				if !strings.Contains(got.stdout+got.stderr, want) {
					t.Errorf("s_client does not say %q: %s%s", want, got.stdout, got.stderr)
				}
			}
			if strings.Contains(tt.says[0], "alert") {
				check(t, g.recordSince(mark, "protocol=tls"), map[string]any{"reason": "tls_handshake_failed"})
			}
		})
	}
}

// TestHTTP2IsTurnedOff agrees on HTTP/1.1 where the listener does not serve h2.
func TestHTTP2IsTurnedOff(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, listenAnywhere+"protocols = [\"http\", \"connect\", \"tls\"]\n"+p.table()+allowLoopback)
	for offered, says := range map[string]string{"h2,http/1.1": "ALPN protocol: http/1.1", "http/1.1": "ALPN protocol: http/1.1", "h2": "SSL alert number 120"} {
		if got := p.sClient(g.at(), "-alpn", offered); !strings.Contains(got.stdout+got.stderr, says) {
			t.Errorf("s_client -alpn %s says %s%s, want %q", offered, got.stdout, got.stderr, says)
		}
	}
}

// TestOldTLSIsTurnedOff raises the oldest version.
func TestOldTLSIsTurnedOff(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, "[tls]\nmin_version = \"1.3\"\n"+p.table()+listenAnywhere+allowLoopback)
	if got := p.sClient(g.at(), "-tls1_2"); !strings.Contains(got.stderr, "SSL alert number 70") {
		t.Errorf("s_client by TLS 1.2 says %q, want the alert protocol_version", got.stderr)
	}
	if got := p.sClient(g.at(), "-tls1_3"); !strings.Contains(got.stdout, "New, TLSv1.3") {
		t.Errorf("s_client by TLS 1.3 says %q", got.stdout)
	}
}

// TestResumption takes a ticket and shows it, also after a reload; not where other clients are believed then.
func TestResumption(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	alice := p.client("alice")
	config := listenAnywhere + p.table() + allowLoopback
	g := startTidy(t, config)
	ticket := p.path("ticket")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		if got := p.ticket(g.at(), version, "-sess_out", ticket); !strings.Contains(got, "New, TLSv1") {
			t.Fatalf("s_client %s says %s", version, got)
		}
		if got := p.ticket(g.at(), version, "-sess_in", ticket); !strings.Contains(got, "Reused, TLSv1") {
			t.Errorf("s_client %s with a ticket says %s, want Reused", version, got)
		}
		if l := g.reload(config + "[log]\nlevel = \"debug\"\n"); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
		if got := p.ticket(g.at(), version, "-sess_in", ticket); !strings.Contains(got, "Reused, TLSv1") {
			t.Errorf("s_client %s with a ticket from before the reload says %s, want Reused", version, got)
		}
	}
	asking := config + p.clientTable("")
	if l := g.reload(asking); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	if got := p.ticket(g.at(), "-tls1_3", "-sess_in", ticket); !strings.Contains(got, "New, TLSv1") {
		t.Errorf("s_client with a ticket from before clients had certificates says %s, want New", got)
	}
	show := append(alice.openssl(), "-tls1_3")
	if got := p.ticket(g.at(), append(show, "-sess_out", ticket)...); !strings.Contains(got, "New, TLSv1") {
		t.Fatalf("s_client with a certificate says %s", got)
	}
	mark := g.mark()
	if got := p.ticket(g.at(), append(show, "-sess_in", ticket)...); !strings.Contains(got, "Reused, TLSv1") {
		t.Errorf("s_client with a certificate and a ticket says %s, want Reused", got)
	}
	check(t, g.recordSince(mark, "protocol=http"), map[string]any{"identity": "alice"})
	p.authority("-revoke", alice.cert)
	p.authority("-gencrl", "-out", "clients.crl")
	if l := g.reload(config + p.clientTable(fmt.Sprintf("client_crl = %q\n", p.path("clients.crl")))); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	got := p.sClient(g.at(), append(show, "-sess_in", ticket, "-ign_eof")...)
	if !strings.Contains(got.stderr, "SSL alert number 42") {
		t.Errorf("s_client with a ticket of a certificate that is revoked now says %s%s", got.stdout, got.stderr)
	}
}

// ticket has s_client ask for the help page, behind whose answer a ticket of TLS 1.3 has come.
func (p *papers) ticket(gateway string, args ...string) string {
	p.t.Helper()
	args = append([]string{"s_client", "-connect", gateway, "-servername", ownName, "-CAfile", p.ca(), "-verify_return_error", "-ign_eof"}, args...)
	got := finish(p.t, withInput(command(p.t, "openssl", args...), "GET / HTTP/1.1\r\nHost: "+ownName+"\r\nConnection: close\r\n\r\n"))
	if !strings.Contains(got.stdout, "HTTP/1.1 200 OK") {
		p.t.Errorf("s_client says %s%s, and there is no page", got.stdout, got.stderr)
	}
	return got.stdout
}

// TestOCSP staples a response that openssl's responder has made.
func TestOCSP(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	p.staple()
	g := startTidy(t, listenAnywhere+p.table()+fmt.Sprintf("ocsp = %q\n", p.path("server.ocsp"))+allowLoopback)
	if got := p.sClient(g.at(), "-status"); !strings.Contains(got.stdout, "OCSP Response Status: successful") || !strings.Contains(got.stdout, "Cert Status: good") {
		t.Errorf("s_client -status says %s%s", got.stdout, got.stderr)
	}
	if got := p.sClient(g.at(), "-status", "-tls1_2"); !strings.Contains(got.stdout, "Cert Status: good") {
		t.Errorf("s_client -status by TLS 1.2 says %s%s", got.stdout, got.stderr)
	}
}

// staple makes an OCSP response for the gateway's certificate, and puts the issuer behind that.
func (p *papers) staple() {
	p.t.Helper()
	serial := strings.TrimPrefix(strings.TrimSpace(p.openssl("x509", "-in", "server.pem", "-noout", "-serial")), "serial=")
	write(p.t, p.path("served"), "V\t301231235959Z\t\t"+serial+"\tunknown\t/CN="+ownName+"\n")
	p.openssl("ocsp", "-index", "served", "-rsigner", "ca.pem", "-rkey", "ca.key", "-CA", "ca.pem", "-issuer", "ca.pem", "-cert", "server.pem",
		"-ndays", "1", "-respout", "server.ocsp", "-no_nonce")
	server, err := os.ReadFile(p.path("server.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	ca, err := os.ReadFile(p.ca())
	if err != nil {
		p.t.Fatal(err)
	}
	write(p.t, p.path("server.pem"), string(server)+string(ca))
}

// TestECDSABeforeRSA has a certificate of each kind for the same name.
func TestECDSABeforeRSA(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	p.openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN="+ownName, "-addext", "subjectAltName=DNS:"+ownName, "-keyout", "rsa.key", "-out", "rsa.csr")
	write(t, p.path("rsa.ext"), "subjectAltName = DNS:"+ownName+"\nextendedKeyUsage = serverAuth\n")
	p.openssl("x509", "-req", "-in", "rsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "rsa.ext", "-out", "rsa.pem")
	rsa := fmt.Sprintf("[tls.certificate.aaa]\ncertificate = %q\nkey = %q\n", p.path("rsa.pem"), p.path("rsa.key"))
	g := startTidy(t, listenAnywhere+rsa+p.table()+allowLoopback)
	tests := []struct {
		name, want string
		args       []string
	}{
		{"TLS 1.3", "Peer signature type: ECDSA", []string{"-tls1_3"}},
		{"TLS 1.2", "Peer signature type: ECDSA", []string{"-tls1_2"}},
		{"TLS 1.3 of a client that knows RSA alone", "Peer signature type: RSA-PSS", []string{"-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"}},
		{"TLS 1.2 of a client that knows RSA alone", "Cipher is ECDHE-RSA-AES128-GCM-SHA256", []string{"-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"}},
	}
	for _, tt := range tests {
		if got := p.sClient(g.at(), tt.args...); !strings.Contains(got.stdout, tt.want) {
			t.Errorf("%s: s_client says %s%s, want %q", tt.name, got.stdout, got.stderr, tt.want)
		}
	}
}
