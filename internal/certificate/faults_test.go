package certificate

import (
	"bytes"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/crypto/ocsp"
)

// Every fault begins with its key and says what to do.
func TestOpenFaults(t *testing.T) {
	root := caOf(t, "root", nil)
	middle := caOf(t, "middle", root)
	good := serverOf(t, middle, nil, "a.example")
	other := serverOf(t, middle, nil, "b.example")
	noNames := certOf(t, x509.Certificate{Subject: pkix.Name{CommonName: "a.example"}}, nil, nil)
	past := certOf(t, x509.Certificate{DNSNames: []string{"a.example"}, NotBefore: time.Now().AddDate(-1, 0, 0)}, nil, nil)
	future := certOf(t, x509.Certificate{DNSNames: []string{"a.example"}, NotBefore: time.Now().AddDate(1, 0, 0)}, nil, nil)
	forClients := certOf(t, x509.Certificate{DNSNames: []string{"a.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, nil, nil)
	weak := certOf(t, x509.Certificate{DNSNames: []string{"a.example"}}, nil, rsaKey(t, 1024))
	sha1 := certOf(t, x509.Certificate{DNSNames: []string{"a.example"}, SignatureAlgorithm: x509.SHA1WithRSA}, nil, rsaKey(t, 2048))
	p224 := certOf(t, x509.Certificate{DNSNames: []string{"a.example"}}, nil, ecKey(t, elliptic.P224()))
	legacy := pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x"), Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}}
	key := good.keyPEM(t)
	tests := []struct {
		name      string
		cert, key string
		want      string
	}{
		{"no such certificate", "-", key, "certificate.x.certificate: there is no file"},
		{"no such key", good.chain(), "-", "certificate.x.key: there is no file"},
		{"an empty certificate", "", key, "certificate.x.certificate: there is no PEM certificate in"},
		{"an empty key", good.chain(), "", "certificate.x.key: there is no PEM private key in"},
		{"swapped, the certificate", key, good.chain(), "has a private key and no certificate; perhaps the two paths are swapped"},
		{"swapped, the key", key, good.chain(), "has a certificate and no private key; perhaps the two paths are swapped"},
		{"DER", string(good.cert.Raw), key, "openssl x509 -inform der"},
		{"cut short", good.chain()[:200], key, "damaged or ends too early"},
		{"a key cut short", good.chain(), key[:100], "damaged or ends too early"},
		{"not a certificate", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), key, "cannot be understood"},
		{"not a key", good.chain(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})), "certificate.x.key: the key in"},
		{"two keys", good.chain(), key + other.keyPEM(t), "more than one private key"},
		{"another key", good.chain(), other.keyPEM(t), "certificate.x.key: the key in"},
		{"another key, the reason", good.chain(), other.keyPEM(t), "does not belong to the certificate in"},
		{"encrypted", good.chain(), string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})), "openssl pkey -in"},
		{"encrypted, the old way", good.chain(), string(pem.EncodeToMemory(&legacy)), "is encrypted"},
		{"the leaf is not first", middle.pem() + good.pem(), key, "belongs to certificate 2"},
		{"a chain in the wrong order", good.pem() + root.pem() + middle.pem(), key, "certificate 1 in"},
		{"a chain with a stranger", good.chain() + caOf(t, "stranger", nil).pem(), key, "the chain is in the wrong order"},
		{"a chain with an impostor", good.pem() + caOf(t, "middle", nil).pem(), key, "the chain is in the wrong order"},
		{"no names", noNames.pem(), noNames.keyPEM(t), "no subject alternative name"},
		{"expired", past.pem(), past.keyPEM(t), "expired on " + past.cert.NotAfter.UTC().Format(dateFormat)},
		{"not yet", future.pem(), future.keyPEM(t), "not valid before " + future.cert.NotBefore.UTC().Format(dateFormat)},
		{"for clients", forClients.pem(), forClients.keyPEM(t), "is not for servers"},
		{"a short key", weak.pem(), weak.keyPEM(t), "RSA key of only 1024 bits"},
		{"SHA-1", sha1.pem(), sha1.keyPEM(t), "is signed with SHA1-RSA"},
		{"P-224", p224.pem(), p224.keyPEM(t), "P-224"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFolder(t)
			p := Pair{Name: "x", Certificate: f.path("x.pem"), Key: f.path("x.key")}
			if tt.cert != "-" {
				f.write(t, "x.pem", tt.cert)
			}
			if tt.key != "-" {
				f.write(t, "x.key", tt.key)
			}
			wantFault(t, Options{Pairs: []Pair{p}}, tt.want)
		})
	}
}

// wantFault opens a Store and wants this fault.
func wantFault(t *testing.T, o Options, want string) {
	t.Helper()
	s, err := Open(o)
	if err == nil {
		s.Close()
		t.Fatalf("Open succeeded, want %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("Open = %v\nwant %q", err, want)
	}
	var all *multierror.Error
	if !errors.As(err, &all) {
		t.Fatalf("Open = %T, want a list", err)
	}
	for _, e := range all.Errors {
		key, _, ok := strings.Cut(e.Error(), ": ")
		if !ok || strings.Contains(key, " ") {
			t.Errorf("the fault %q does not begin with a key", e)
		}
	}
}

func TestOpenListsEveryFault(t *testing.T) {
	f := newFolder(t)
	_, err := Open(Options{
		MinVersion: tls.VersionTLS11,
		Pairs:      []Pair{{Name: "a", Certificate: f.path("a"), Key: f.path("b")}, {Name: "b", Certificate: f.path("c"), Key: f.path("d")}},
		Clients:    Clients{CA: f.path("e")},
	})
	for _, want := range []string{"min_version: ", "certificate.a.certificate: ", "certificate.a.key: ", "certificate.b.certificate: ", "certificate.b.key: ", "client_ca: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not wrap fs.ErrNotExist", err)
	}
}

func TestNamesMustHaveCertificates(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "*.example.com", "192.0.2.7"))
	o := Options{Pairs: []Pair{p}, Names: []string{"a.example.com", "*.example.com", "192.0.2.7", "::ffff:192.0.2.7", "acme.example"}, FallbackNames: []string{"acme.example"}}
	open(t, o)
	o.Names = append(o.Names, "example.com", "a.b.example.com", "192.0.2.8")
	for _, want := range []string{`names[5]: no certificate has the name "example.com"`, `names[6]: `, `names[7]: `} {
		wantFault(t, o, want)
	}
}

func TestPipesAndFoldersAreFaults(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	p.Certificate = string(f)
	wantFault(t, Options{Pairs: []Pair{p}}, "is a folder")
}

func TestKeysOfEveryKindAndEncoding(t *testing.T) {
	f := newFolder(t)
	ec, rs, ed := serverOf(t, nil, nil, "a.example"), serverOf(t, nil, rsaKey(t, 2048), "a.example"), serverOf(t, nil, edKey(t), "a.example")
	for name, c := range map[string]*issuedCert{"ecdsa": ec, "rsa": rs, "ed25519": ed} {
		open(t, Options{Pairs: []Pair{f.pair(t, name, c)}})
	}
	p := f.pair(t, "x", ec)
	run(t, "", "openssl", "ec", "-in", p.Key, "-out", p.Key+"1") // EC PRIVATE KEY
	text, err := os.ReadFile(p.Key + "1")
	if err != nil {
		t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}})
	for name, key := range map[string]string{"SEC 1": string(text), "after parameters": string(parameters) + string(text), "one file for both": ec.pem() + ec.keyPEM(t)} {
		t.Run(name, func(t *testing.T) {
			p := p
			p.Key = f.write(t, "key", key)
			if name == "one file for both" {
				p.Certificate = p.Key
			}
			open(t, Options{Pairs: []Pair{p}})
		})
	}
}

func TestWarnings(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	f := newFolder(t)
	oldRoot := certOf(t, x509.Certificate{Subject: pkix.Name{CommonName: "old"}, BasicConstraintsValid: true, IsCA: true, NotBefore: time.Now().AddDate(-1, 0, 0)}, nil, nil)
	c := serverOf(t, oldRoot, nil, "a.example")
	a, b := f.pair(t, "a", c), f.pair(t, "b", serverOf(t, nil, nil, "a.example"))
	f.write(t, "a.pem", c.pem()+oldRoot.pem())
	if err := os.Chmod(a.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	ca := caOf(t, "ca", nil)
	s := open(t, Options{Pairs: []Pair{a, b}, Clients: Clients{CA: f.write(t, "ca", ca.pem()+oldRoot.pem())}})
	got := strings.Join(s.Warnings(), "\n")
	for _, want := range []string{
		"certificate.a.key: " + a.Key + " can be read by other users of this machine (mode 0644); run: chmod 600",
		"certificate.a.certificate: certificate 2 in",
		"certificate.b.certificate: a.example stands in certificate.a too, which answers for it",
		"client_ca: certificate 2 in",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the warnings lack %q:\n%s", want, got)
		}
	}
}

func TestOCSPFaults(t *testing.T) {
	root := caOf(t, "root", nil)
	middle := caOf(t, "middle", root)
	c, other := serverOf(t, middle, nil, "a.example"), serverOf(t, middle, nil, "b.example")
	impostor := &issuedCert{cert: middle.cert, key: ecKey(t, elliptic.P256())}
	plain := certOf(t, x509.Certificate{Subject: pkix.Name{CommonName: "plain"}}, middle, nil)
	responder := certOf(t, x509.Certificate{Subject: pkix.Name{CommonName: "responder"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}, middle, nil)
	tests := []struct {
		name     string
		response []byte
		want     string // "" is none
	}{
		{"good", responseOf(t, c, middle, ocsp.Response{}), ""},
		{"good, in PEM", pem.EncodeToMemory(&pem.Block{Type: "OCSP RESPONSE", Bytes: responseOf(t, c, middle, ocsp.Response{})}), ""},
		{"of a responder", responseOf(t, c, responder, ocsp.Response{}), ""},
		{"of one who may not", responseOf(t, c, plain, ocsp.Response{}), "may not sign such"},
		{"garbage", []byte("x"), "is no OCSP response"},
		{"empty", nil, "is no OCSP response"},
		{"of another certificate", responseOf(t, other, middle, ocsp.Response{}), "is no OCSP response of the CA for this certificate"},
		{"of an impostor", responseOf(t, &issuedCert{cert: c.cert, parent: impostor}, impostor, ocsp.Response{}), "is no OCSP response of the CA"},
		{"revoked", responseOf(t, c, middle, ocsp.Response{Status: ocsp.Revoked, RevokedAt: time.Now()}), "was revoked on"},
		{"unknown", responseOf(t, c, middle, ocsp.Response{Status: ocsp.Unknown}), "does not know the certificate"},
		{"expired", responseOf(t, c, middle, ocsp.Response{ThisUpdate: time.Now().Add(-48 * time.Hour)}), "expired on"},
		{"not yet", responseOf(t, c, middle, ocsp.Response{ThisUpdate: time.Now().Add(48 * time.Hour)}), "which is not yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFolder(t)
			p := f.pair(t, "x", c)
			p.OCSP = f.write(t, "x.ocsp", string(tt.response))
			if tt.want != "" {
				wantFault(t, Options{Pairs: []Pair{p}}, "certificate.x.ocsp: ")
				wantFault(t, Options{Pairs: []Pair{p}}, tt.want)
				return
			}
			s := open(t, Options{Pairs: []Pair{p}})
			got := shake(t, s.Config(), &tls.Config{RootCAs: root.pool(), ServerName: "a.example"})
			if len(got.client.OCSPResponse) == 0 || !s.Stats().Pairs[0].Stapled {
				t.Errorf("nothing was stapled; %s", got.err())
			}
		})
	}
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, root, nil, "a.example"))
	p.OCSP = f.write(t, "x.ocsp", "x")
	wantFault(t, Options{Pairs: []Pair{p}}, "lacks the certificate of the CA")
}

func TestClientFaults(t *testing.T) {
	ca := caOf(t, "ca", nil)
	stranger := caOf(t, "stranger", nil)
	impostor := &issuedCert{cert: ca.cert, key: ecKey(t, elliptic.P256())}
	expired := certOf(t, x509.Certificate{Subject: pkix.Name{CommonName: "old"}, BasicConstraintsValid: true, IsCA: true, NotBefore: time.Now().AddDate(-1, 0, 0)}, nil, nil)
	delta := x509.RevocationList{ExtraExtensions: []pkix.Extension{{Id: oidDelta, Critical: true, Value: []byte{2, 1, 1}}}}
	odd := x509.RevocationList{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}}
	indirect := x509.RevocationList{RevokedCertificateEntries: []x509.RevocationListEntry{{
		SerialNumber: ca.cert.SerialNumber, RevocationTime: time.Now(),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}},
	}}}
	good := crlOf(t, ca, x509.RevocationList{})
	tests := []struct {
		name    string
		ca, crl string // "-" is not given
		o       Clients
		want    string
	}{
		{"no CA, but required", "-", "-", Clients{Require: true}, "client_ca: clients must show"},
		{"no CA, but a list", "-", crlPEM(good), Clients{}, "client_crl: a revocation list means nothing"},
		{"an odd identity", ca.pem(), "-", Clients{Identity: "uid"}, `client_identity: "uid" is neither`},
		{"no certificate", "x", "-", Clients{}, "client_ca: there is no PEM certificate"},
		{"a key", ca.keyPEM(t), "-", Clients{}, "client_ca: "},
		{"no CA's certificate", ca.pem() + clientOf(t, ca, "alice").pem(), "-", Clients{}, "client_ca: certificate 2"},
		{"expired", expired.pem(), "-", Clients{}, "no client would be believed"},
		{"an empty list", ca.pem(), "", Clients{}, "client_crl: revocation list 1"},
		{"a certificate as list", ca.pem(), ca.pem(), Clients{}, "client_crl: there is no revocation list"},
		{"of a stranger", ca.pem(), crlPEM(good) + crlPEM(crlOf(t, stranger, x509.RevocationList{})), Clients{}, "client_crl: revocation list 2"},
		{"of an impostor", ca.pem(), crlPEM(crlOf(t, impostor, x509.RevocationList{})), Clients{}, "is not signed by the CA"},
		{"an expired list", ca.pem(), crlPEM(crlOf(t, ca, x509.RevocationList{ThisUpdate: time.Now().Add(-48 * time.Hour)})), Clients{}, "expired on"},
		{"a list of tomorrow", ca.pem(), crlPEM(crlOf(t, ca, x509.RevocationList{ThisUpdate: time.Now().Add(48 * time.Hour)})), Clients{}, "is not yet"},
		{"a delta list", ca.pem(), crlPEM(crlOf(t, ca, delta)), Clients{}, "delta CRL"},
		{"an odd list", ca.pem(), crlPEM(crlOf(t, ca, odd)), Clients{}, "critical extension"},
		{"an indirect list", ca.pem(), crlPEM(crlOf(t, ca, indirect)), Clients{}, "an entry with a critical extension"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFolder(t)
			if tt.ca != "-" {
				tt.o.CA = f.write(t, "ca", tt.ca)
			}
			if tt.crl != "-" {
				tt.o.CRL = f.write(t, "crl", tt.crl)
			}
			wantFault(t, Options{Clients: tt.o}, tt.want)
		})
	}
	f := newFolder(t)
	der := f.write(t, "crl", string(good))
	open(t, Options{Clients: Clients{CA: f.write(t, "ca", ca.pem()), CRL: der}})
}

// run runs a program and returns what it prints on both.
func run(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v; install what make deps installs", err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // what it prints is judged
	return out.String()
}
