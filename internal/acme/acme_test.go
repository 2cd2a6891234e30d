package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// silentCA is a directory that says nothing until it is closed. asked is closed at the first question.
func silentCA(t *testing.T) (directory, rootFile string, asked chan struct{}) {
	t.Helper()
	asked = make(chan struct{})
	over := make(chan struct{})
	var first sync.Once
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		first.Do(func() { close(asked) })
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(over); s.Close() })
	rootFile = filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(rootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL + "/dir", rootFile, asked
}

func options(t *testing.T) Options {
	t.Helper()
	return Options{Names: []string{"a.test", "b.test"}, AcceptTerms: true, Storage: filepath.Join(t.TempDir(), "acme"), Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, o Options) *Manager {
	t.Helper()
	m, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// store puts a certificate of name with a number into the storage, as if the CA had given it.
func store(t *testing.T, m *Manager, name string, serial int64) {
	t.Helper()
	key, cert := selfSigned(t, name, serial)
	keys := certmagic.StorageKeys
	for k, text := range map[string][]byte{
		keys.SiteCert(m.issuer.key, name): cert, keys.SitePrivateKey(m.issuer.key, name): key,
		keys.SiteMeta(m.issuer.key, name): []byte(`{"sans":["` + name + `"],"issuer_data":{}}`),
	} {
		if err := m.store.Store(t.Context(), k, text); err != nil {
			t.Fatal(err)
		}
	}
}

func selfSigned(t *testing.T, name string, serial int64) (keyPEM, certPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{name}, NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if keyPEM, err = certmagic.PEMEncodePrivateKey(key); err != nil {
		t.Fatal(err)
	}
	return keyPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestCloseAbandonsAnOrder(t *testing.T) {
	o := options(t)
	var asked chan struct{}
	o.Directory, o.DirectoryCA, asked = silentCA(t)
	m := open(t, o)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if n := m.Stats().Failures; n != 0 {
		t.Errorf("%d failures were counted, want none: it was we who left", n)
	}
	if err := m.Start(t.Context()); err == nil {
		t.Error("Start after Close did not fail")
	}
}

func TestCloseWithoutStart(t *testing.T) {
	m := open(t, options(t))
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEndOfContextEndsTheOrder(t *testing.T) {
	o := options(t)
	var asked chan struct{}
	o.Directory, o.DirectoryCA, asked = silentCA(t)
	m := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	<-asked
	cancel()
	<-m.life.Done()
}

// get asks for a certificate as crypto/tls does.
func get(m *Manager, name string, protocols ...string) (*tls.Certificate, error) {
	return m.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols})
}

func TestGetCertificate(t *testing.T) {
	o := options(t)
	o.Directory, o.DirectoryCA, _ = silentCA(t)
	m := open(t, o)
	store(t, m, "a.test", 7)
	if _, err := get(m, "a.test"); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("before Start: %v, want ErrNoCertificate", err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	chal := acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: "b.test"}, KeyAuthorization: "x.y"}
	if err := (alpnSolver{m.issuer.challenges}).Present(t.Context(), chal); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, server string
		protocols    []string
		want         string // the number of the certificate, "challenge" or "none"
	}{
		{"stored", "a.test", nil, "7"},
		{"in capitals, with the root's dot", "A.TEST.", []string{"h2", "http/1.1"}, "7"},
		{"no server name", "", nil, "7"},
		{"not obtained yet", "b.test", nil, "none"},
		{"a stranger", "c.test", nil, "none"},
		{"below ours", "x.a.test", nil, "none"},
		{"challenge", "b.test", []string{acmez.ACMETLS1Protocol}, "challenge"},
		{"no challenge is open", "a.test", []string{acmez.ACMETLS1Protocol}, "none"},
		{"challenge of a stranger", "c.test", []string{acmez.ACMETLS1Protocol}, "none"},
		{"challenge without a server name", "", []string{acmez.ACMETLS1Protocol}, "7"},
		{"a challenge names one protocol", "b.test", []string{acmez.ACMETLS1Protocol, "h2"}, "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert, err := get(m, tt.server, tt.protocols...)
			if got := describe(t, cert, err); got != tt.want {
				t.Errorf("GetCertificate(%q, %q) = %s (%v), want %s", tt.server, tt.protocols, got, err, tt.want)
			}
		})
	}
	if err := (alpnSolver{m.issuer.challenges}).CleanUp(t.Context(), chal); err != nil {
		t.Fatal(err)
	}
	if _, err := get(m, "b.test", acmez.ACMETLS1Protocol); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("after the challenge: %v, want ErrNoCertificate", err)
	}
	if at := m.Stats().Expiry; len(at) != 1 || time.Until(at["a.test"]) < time.Hour {
		t.Errorf("Expiry = %v, want a.test's", at)
	}
}

func describe(t *testing.T, cert *tls.Certificate, err error) string {
	t.Helper()
	if err != nil {
		if cert != nil || !errors.Is(err, ErrNoCertificate) {
			t.Errorf("got %v, %v; want nothing but ErrNoCertificate", cert, err)
		}
		return "none"
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical { // RFC 8737 section 3
			return "challenge"
		}
	}
	return leaf.SerialNumber.String()
}

// A key beside the certificate of another is what a crash between two writes leaves.
func TestTornCertificateIsObtainedAnew(t *testing.T) {
	o := options(t)
	var asked chan struct{}
	o.Directory, o.DirectoryCA, asked = silentCA(t)
	o.Names = []string{"a.test"}
	m := open(t, o)
	store(t, m, "a.test", 7)
	other, _ := selfSigned(t, "a.test", 8)
	if err := m.store.Store(t.Context(), certmagic.StorageKeys.SitePrivateKey(m.issuer.key, "a.test"), other); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-asked
	if _, err := get(m, "a.test"); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("a torn certificate is served: %v", err)
	}
}

func TestHTTPChallenge(t *testing.T) {
	m := open(t, options(t))
	chal := acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: "a.test"}, Token: "to-k_en", KeyAuthorization: "to-k_en.thumb"}
	s := httpSolver{m.issuer.challenges}
	if err := s.Present(t.Context(), chal); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		host, path string
		want       bool
	}{
		{"a.test", challengePath + "to-k_en", true},
		{"A.test:80", challengePath + "to-k_en", true},
		{"a.test.", challengePath + "to-k_en", true},
		{"b.test", challengePath + "to-k_en", false},
		{"", challengePath + "to-k_en", false},
		{"a.test", challengePath, false},
		{"a.test", challengePath + "to-k_en/", false},
		{"a.test", challengePath + "to-k_en?x", false},
		{"a.test", challengePath + "../to-k_en", false},
		{"a.test", "/x" + challengePath + "to-k_en", false},
		{"a.test", "http://a.test" + challengePath + "to-k_en", false},
		{"a.test", challengePath + strings.Repeat("a", 1<<20), false},
		{strings.Repeat("a", 1<<20), challengePath + "to-k_en", false},
	}
	for _, tt := range tests {
		got, ok := m.HTTPChallenge(tt.host, tt.path)
		if ok != tt.want || ok != (got == chal.KeyAuthorization) {
			t.Errorf("HTTPChallenge(%.60q, %.60q) = %q, %v; want %v", tt.host, tt.path, got, ok, tt.want)
		}
	}
	if err := s.CleanUp(t.Context(), chal); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.HTTPChallenge("a.test", challengePath+"to-k_en"); ok {
		t.Error("the challenge is answered after it is over")
	}
}

func FuzzHTTPChallenge(f *testing.F) {
	f.Add("a.test", challengePath+"token")
	f.Add("a.test:80", challengePath)
	f.Add("[::1]:80", "*")
	c := newChallenges()
	chal := acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: "a.test"}, Token: "token", KeyAuthorization: "token.thumb"}
	if err := (httpSolver{c}).Present(context.Background(), chal); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, path string) {
		got, ok := c.keyAuthorization(host, path)
		if ok && (path != challengePath+"token" || !strings.Contains(strings.ToLower(host), "a.test")) {
			t.Errorf("answers %q at %q", path, host)
		}
		if ok != (got != "") {
			t.Errorf("got %q, %v", got, ok)
		}
	})
}

// What certmagic and acmez write is at most a warning, and only of fields that are known to be harmless.
func TestLogKeepsSecretsOut(t *testing.T) {
	var text bytes.Buffer
	o := options(t)
	o.Log = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := open(t, o)
	m.Close() // whose own goroutine writes too
	secret := "hunter2"
	z := m.config.Logger.Named("x").With(zapString("private", secret))
	z.Error("will retry", zapString("error", "connection refused"), zapString("key_authorization", secret))
	z.Info("lock acquired", zapString("identifier", "a.test"))
	l := m.issuer.client.Logger.With("nonce", secret).WithGroup("g")
	l.Error("validating", "identifier", "a.test", "headers", secret)
	got := text.String()
	if strings.Contains(got, secret) {
		t.Errorf("a secret is in the log: %s", got)
	}
	for _, want := range []string{
		`level=WARN msg="acme: will retry" err="connection refused"`,
		`level=DEBUG msg="acme: lock acquired" identifier=a.test`,
		`level=DEBUG msg="acme: validating" identifier=a.test`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %s in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "level=ERROR") {
		t.Errorf("the log has errors: %s", got)
	}
}
