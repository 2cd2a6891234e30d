package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// serve answers TLS on loopback until the test ends: it reads a byte and closes.
func serve(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	ln, err := tls.Listen("tcp4", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = c.Read(make([]byte, 1))
			c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// What crypto/tls thinks of itself, OpenSSL thinks too.
func TestOpenSSL(t *testing.T) {
	f := newFolder(t)
	root, stranger := caOf(t, "root", nil), caOf(t, "stranger", nil)
	middle := caOf(t, "middle", root)
	ec, rs := serverOf(t, middle, nil, "a.example"), serverOf(t, middle, rsaKey(t, 2048), "a.example")
	p := f.pair(t, "ec", ec)
	p.OCSP = f.write(t, "ocsp", string(responseOf(t, ec, middle, ocsp.Response{})))
	o := Options{Pairs: []Pair{f.pair(t, "rsa", rs), p}, NextProtos: []string{"h2", "http/1.1"}}
	plain := serve(t, open(t, o).Config())
	mallory := clientOf(t, middle, "mallory")
	o.Clients = Clients{
		CA: f.write(t, "ca", root.pem()+middle.pem()), Require: true,
		CRL: f.write(t, "crl", crlPEM(crlOf(t, middle, x509.RevocationList{}, mallory))),
	}
	mutual := serve(t, open(t, o).Config())
	roots := f.write(t, "roots.pem", root.pem())
	show := func(name string, c *issuedCert) string {
		f.write(t, name+".pem", c.pem())
		f.write(t, name+".key", c.keyPEM(t))
		return " -cert " + f.path(name+".pem") + " -key " + f.path(name+".key")
	}
	tests := []struct {
		name, port, args string
		want             []string
	}{
		{"TLS 1.3", plain, "-tls1_3", []string{"Verify return code: 0 (ok)", "TLSv1.3", "type: ECDSA", "Verified peername: a.example"}},
		{"TLS 1.2", plain, "-tls1_2", []string{"Verify return code: 0 (ok)", "TLSv1.2", "type: ECDSA", "Secure Renegotiation IS supported"}},
		{"only RSA", plain, "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", []string{"Verify return code: 0 (ok)", "RSA"}},
		{"only RSA signatures", plain, "-tls1_3 -sigalgs rsa_pss_rsae_sha256", []string{"Verify return code: 0 (ok)", "RSA-PSS"}},
		{"TLS 1.1", plain, "-tls1_1 -cipher ALL:@SECLEVEL=0", []string{"alert protocol version"}},
		{"CBC", plain, "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA", []string{"alert handshake failure"}},
		{"RSA key exchange", plain, "-tls1_2 -cipher AES128-GCM-SHA256", []string{"alert handshake failure"}},
		{"stapling", plain, "-status", []string{"OCSP Response Status: successful", "Cert Status: good"}},
		{"ALPN", plain, "-alpn http/1.1,h2", []string{"ALPN protocol: h2"}},
		{"ALPN with nothing that fits", plain, "-alpn spdy/3", []string{"alert no application protocol"}},
		{"a name of nobody", plain, "-servername nobody.example", []string{"unrecognized name"}},
		{"a client of ours, TLS 1.3", mutual, "-tls1_3" + show("alice", clientOf(t, middle, "alice")), []string{"Verify return code: 0 (ok)"}},
		{"no certificate, TLS 1.3", mutual, "-tls1_3", []string{"alert certificate required"}},
		{"no certificate, TLS 1.2", mutual, "-tls1_2", []string{"alert handshake failure"}},
		{"a stranger", mutual, "-tls1_3" + show("eve", clientOf(t, stranger, "eve")), []string{"alert unknown ca"}},
		{"revoked", mutual, "-tls1_3" + show("mallory", mallory), []string{"alert bad certificate"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"s_client", "-connect", "127.0.0.1:" + tt.port, "-CAfile", roots, "-verify_hostname", "a.example", "-ign_eof"}
			if !strings.Contains(tt.args, "-servername") {
				args = append(args, "-servername", "a.example")
			}
			got := run(t, "x", "openssl", append(args, strings.Fields(tt.args)...)...)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("openssl did not print %q:\n%s", want, got)
				}
			}
		})
	}
}
