package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// issuedCert is a certificate of a test with its key.
type issuedCert struct {
	cert   *x509.Certificate
	key    crypto.Signer
	parent *issuedCert
}

// rsaKeys are slow to make: one for each size is enough.
var rsaKeys sync.Map

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	if k, ok := rsaKeys.Load(bits); ok {
		return k.(crypto.Signer)
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	rsaKeys.Store(bits, k)
	return k
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func edKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// certOf signs a certificate; a nil parent signs itself, a nil key is a new one of P-256.
func certOf(t testing.TB, template x509.Certificate, parent *issuedCert, key crypto.Signer) *issuedCert {
	t.Helper()
	if key == nil {
		key = ecKey(t, elliptic.P256())
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = template.NotBefore.Add(90 * 24 * time.Hour)
	}
	c := &issuedCert{key: key, parent: parent}
	from, signer := &template, key
	if parent != nil {
		from, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, from, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func caOf(t testing.TB, name string, parent *issuedCert) *issuedCert {
	return certOf(t, x509.Certificate{
		Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, parent, nil)
}

// serverOf is a certificate for these names and addresses.
func serverOf(t testing.TB, parent *issuedCert, key crypto.Signer, names ...string) *issuedCert {
	template := x509.Certificate{Subject: pkix.Name{CommonName: "a server"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	return certOf(t, template, parent, key)
}

func clientOf(t testing.TB, parent *issuedCert, name string) *issuedCert {
	return certOf(t, x509.Certificate{
		Subject: pkix.Name{CommonName: name}, EmailAddresses: []string{name + "@example.com"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, parent, nil)
}

// chain is PEM of the certificate and those above it, without the root.
func (c *issuedCert) chain() string {
	var b strings.Builder
	for ; c != nil && (c.parent != nil || b.Len() == 0); c = c.parent {
		b.WriteString(c.pem())
	}
	return b.String()
}

func (c *issuedCert) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}))
}

func (c *issuedCert) keyPEM(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// tls is what a client or server of crypto/tls takes.
func (c *issuedCert) tls() tls.Certificate {
	out := tls.Certificate{PrivateKey: c.key, Leaf: c.cert}
	for i := c; i != nil && (i.parent != nil || i == c); i = i.parent {
		out.Certificate = append(out.Certificate, i.cert.Raw)
	}
	return out
}

func (c *issuedCert) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// crlOf is a revocation list of a CA, in DER.
func crlOf(t testing.TB, ca *issuedCert, template x509.RevocationList, revoked ...*issuedCert) []byte {
	t.Helper()
	for _, r := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	if template.ThisUpdate.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Minute)
	}
	if template.NextUpdate.IsZero() {
		template.NextUpdate = template.ThisUpdate.Add(24 * time.Hour)
	}
	template.Number = big.NewInt(1)
	der, err := x509.CreateRevocationList(rand.Reader, &template, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func crlPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// responseOf is an OCSP response about a certificate, in DER.
func responseOf(t testing.TB, c, signer *issuedCert, template ocsp.Response) []byte {
	t.Helper()
	template.SerialNumber = c.cert.SerialNumber
	if template.ThisUpdate.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Minute)
	}
	if template.NextUpdate.IsZero() {
		template.NextUpdate = template.ThisUpdate.Add(24 * time.Hour)
	}
	if signer != c.parent {
		template.Certificate = signer.cert
	}
	der, err := ocsp.CreateResponse(c.parent.cert, signer.cert, template, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// folder is where the files of one test are.
type folder string

func newFolder(t testing.TB) folder { return folder(t.TempDir()) }

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// write replaces a file in one step, so that its inode changes.
func (f folder) write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(f.path(name+".new"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.path(name+".new"), f.path(name)); err != nil {
		t.Fatal(err)
	}
	return f.path(name)
}

// pair writes the files of a certificate.
func (f folder) pair(t testing.TB, name string, c *issuedCert) Pair {
	t.Helper()
	return Pair{Name: name, Certificate: f.write(t, name+".pem", c.chain()), Key: f.write(t, name+".key", c.keyPEM(t))}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// shaken is what both sides say of a handshake and of one byte each way after it.
type shaken struct {
	client, server       tls.ConnectionState
	clientErr, serverErr error
}

func (s shaken) err() string {
	text := ""
	for _, err := range []error{s.clientErr, s.serverErr} {
		if err != nil {
			text += err.Error() + "\n"
		}
	}
	return text
}

// shake makes a connection over loopback.
func shake(t testing.TB, server, client *tls.Config) shaken {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan shaken, 1)
	go func() {
		var r shaken
		defer func() { done <- r }()
		raw, err := ln.Accept()
		if err != nil {
			r.serverErr = err
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(20 * time.Second))
		c := tls.Server(raw, server)
		if r.serverErr = c.Handshake(); r.serverErr != nil {
			return
		}
		r.server = c.ConnectionState()
		var b [1]byte
		if _, r.serverErr = c.Read(b[:]); r.serverErr == nil {
			_, r.serverErr = c.Write(b[:])
		}
	}()
	var got shaken
	raw, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(raw, client)
	got.clientErr = c.Handshake()
	if got.clientErr == nil {
		got.client = c.ConnectionState()
		var b [1]byte
		_, got.clientErr = c.Write(b[:])
		if _, err := c.Read(b[:]); err != nil { // an alert of TLS 1.3 comes here
			got.clientErr = err
		}
	}
	raw.Close()
	r := <-done
	r.client, r.clientErr = got.client, got.clientErr
	return r
}
