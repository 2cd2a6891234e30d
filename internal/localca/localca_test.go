package localca

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

func server(t *testing.T, dir string, names ...string) Issued {
	t.Helper()
	i, err := Server(dir, names, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	c, err := readCertificate(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "tls")
	i := server(t, dir, "Proxy.Example.com.", "*.wild.example", "192.0.2.7", "2001:db8::1", "bücher.example", "proxy.example.com")
	ca, cert := certificate(t, i.CA), certificate(t, i.Certificate)
	if want := []string{"proxy.example.com", "*.wild.example", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::1"}; !slices.Equal(i.Names, want) || !i.NewCA {
		t.Errorf("issued %+v, want a new CA and %q", i, want)
	}
	if days := cert.NotAfter.Sub(cert.NotBefore).Hours() / 24; days > 397 || days < 396 {
		t.Errorf("the certificate lives for %v days", days)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, name := range []string{"proxy.example.com", "a.wild.example", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tls.LoadX509KeyPair(i.Certificate, i.Key); err != nil {
		t.Error(err)
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]os.FileMode{i.CAKey: 0o600, i.Key: 0o600, i.CA: 0o644, i.Certificate: 0o644} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("these were left: %q", left)
	}
}

// Whoever steals the CA's key can be nobody else.
func TestTheCAIsLimited(t *testing.T) {
	dir := t.TempDir()
	i := server(t, dir, "proxy.example.com", "192.0.2.7")
	ca, err := openCA(dir, "ca", time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, template := range map[string]x509.Certificate{
		"another name":      {DNSNames: []string{"example.com"}},
		"another address":   {IPAddresses: []net.IP{net.IPv4(192, 0, 2, 8)}},
		"another, of IPv6":  {IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}},
		"a client":          {DNSNames: []string{"proxy.example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		"a program's maker": {DNSNames: []string{"proxy.example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}},
	} {
		if template.ExtKeyUsage == nil {
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		if _, err := ca.issue(&template, "stolen", []string{"x"}, time.Now()); err == nil || !strings.Contains(err.Error(), "nobody would believe") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, args := range []string{"-verify_hostname proxy.example.com", "-verify_ip 192.0.2.7", "-purpose sslserver -x509_strict"} {
		cmd := exec.Command("openssl", slices.Concat([]string{"verify", "-CAfile", i.CA}, strings.Fields(args), []string{i.Certificate})...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("openssl verify %s: %v\n%s", args, err, out)
		}
	}
}

func TestSecondRun(t *testing.T) {
	dir := t.TempDir()
	one := server(t, dir, "proxy.example.com", "192.0.2.7")
	caKey, ca, key, cert := contents(t, one.CAKey), contents(t, one.CA), contents(t, one.Key), contents(t, one.Certificate)
	two := server(t, dir) // the same names
	if two.NewCA || !slices.Equal(two.Names, one.Names) {
		t.Errorf("the second run made %+v", two)
	}
	if contents(t, one.CAKey) != caKey || contents(t, one.CA) != ca {
		t.Error("the second run has changed the CA")
	}
	if contents(t, one.Key) == key || contents(t, one.Certificate) == cert {
		t.Error("the second run has not renewed")
	}
	server(t, dir, "proxy.example.com", "localhost", "::1", "sub.proxy.example.com") // within the limits
	_, err := Server(dir, []string{"other.example"}, time.Now())
	if err == nil || !strings.Contains(err.Error(), `cannot vouch for "other.example"`) {
		t.Errorf("another name: %v", err)
	}
	_, err = Server(dir, []string{"192.0.2.8"}, time.Now())
	if err == nil || !strings.Contains(err.Error(), `cannot vouch for "192.0.2.8"`) {
		t.Errorf("another address: %v", err)
	}
}

// A CA that is nearly over issues nothing that outlives it.
func TestOldCA(t *testing.T) {
	dir := t.TempDir()
	i := server(t, dir, "a.example")
	end := certificate(t, i.CA).NotAfter
	i, err := Server(dir, nil, end.Add(-24*time.Hour))
	if err != nil || !i.NotAfter.Equal(end) {
		t.Errorf("Server = %+v, %v, want an end at %v", i, err, end)
	}
	if _, err := Server(dir, nil, end.Add(time.Second)); err == nil || !strings.Contains(err.Error(), "expired on") {
		t.Errorf("an expired CA: %v", err)
	}
}

func TestFaults(t *testing.T) {
	made := t.TempDir()
	server(t, made, "a.example")
	read := func(name string) string { return contents(t, filepath.Join(made, name)) }
	tests := []struct {
		name  string
		files map[string]string
		names []string
		want  string
	}{
		{"no name", nil, []string{"a b"}, `"a b" is neither a DNS name nor an IP address`},
		{"a port", nil, []string{"a.example:443"}, "is neither"},
		{"a wildcard of everything", nil, []string{"*"}, "is neither"},
		{"a wildcard of a top domain", nil, []string{"*.com"}, "is neither"},
		{"a flag behind", nil, []string{"--client"}, "is neither"},
		{"the key alone", map[string]string{"ca.key": read("ca.key")}, nil, "without its certificate"},
		{"the certificate alone", map[string]string{"ca.pem": read("ca.pem")}, nil, "without its key"},
		{"another key", map[string]string{"ca.pem": read("ca.pem"), "ca.key": read("server.key")}, nil, "does not belong"},
		{"no CA", map[string]string{"ca.pem": read("server.pem"), "ca.key": read("server.key")}, nil, "is no certificate of a CA"},
		{"nonsense", map[string]string{"ca.pem": "x", "ca.key": "x"}, nil, "is no PEM"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Server(dir, tt.names, time.Now())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Server = %v, want %q", err, tt.want)
			}
			for name, text := range tt.files {
				if contents(t, filepath.Join(dir, name)) != text {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

func TestClient(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]x509.Certificate{
		"alice": {DNSNames: []string{"alice"}}, "bob@example.com": {EmailAddresses: []string{"bob@example.com"}},
	} {
		i, err := Client(dir, name, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c := certificate(t, i.Certificate)
		if c.Subject.CommonName != name || !slices.Equal(c.DNSNames, want.DNSNames) || !slices.Equal(c.EmailAddresses, want.EmailAddresses) {
			t.Errorf("%s is %q, %q, %q", name, c.Subject, c.DNSNames, c.EmailAddresses)
		}
	}
	caKey := contents(t, filepath.Join(dir, "client-ca.key"))
	for _, name := range []string{"", ".", "../alice", "a/b", "ca", "CA", "a b", "a:b", strings.Repeat("a", 65), "bob."} {
		if _, err := Client(dir, name, time.Now()); err == nil || !strings.Contains(err.Error(), "client's name") {
			t.Errorf("Client(%q) = %v", name, err)
		}
	}
	if contents(t, filepath.Join(dir, "client-ca.key")) != caKey {
		t.Error("the CA of clients was changed")
	}
	if i := server(t, dir, "a.example"); !i.NewCA || filepath.Base(i.CA) != "ca.pem" {
		t.Errorf("the CA of clients was taken for that of servers: %+v", i)
	}
}

// What is made does what it is made for: curl believes the one and shows the other.
func TestCurl(t *testing.T) {
	dir := t.TempDir()
	i := server(t, dir)
	c, err := Client(dir, "alice", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(i.Certificate, i.Key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(certificate(t, c.CA))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.TLS.PeerCertificates[0].Subject.CommonName))
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.StartTLS()
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1"} {
		cmd := exec.Command("curl", "-sS", "--noproxy", "*", "--resolve", "localhost:"+port+":127.0.0.1", "--cacert", i.CA, "--cert", c.Certificate, "--key", c.Key, "https://"+host+":"+port+"/")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "alice" {
			t.Errorf("curl to %s: %v\n%s", host, err, out)
		}
	}
}

func TestGuides(t *testing.T) {
	end := time.Date(2027, 12, 29, 12, 0, 0, 0, time.UTC)
	s := Issued{
		CA: "/etc/polyport/tls/ca.pem", CAKey: "/etc/polyport/tls/ca.key", NewCA: true,
		Certificate: "/etc/polyport/tls/server.pem", Key: "/etc/polyport/tls/server.key",
		Names: []string{"localhost", "127.0.0.1", "::1"}, NotAfter: end,
	}
	again := s
	again.NewCA, again.Names = false, []string{"*.example.com"}
	address := s
	address.Names, address.CA = []string{"::1"}, `/srv/it's mine/ca "1".pem`
	c := Issued{
		CA: "/etc/polyport/tls/client-ca.pem", CAKey: "/etc/polyport/tls/client-ca.key", NewCA: true,
		Certificate: "/etc/polyport/tls/client-alice.pem", Key: "/etc/polyport/tls/client-alice.key",
		Names: []string{"alice"}, NotAfter: end,
	}
	odd := c
	odd.NewCA, odd.CA = false, `/srv/it's mine/"ca".pem`
	tests := []struct {
		file  string
		write func(*bytes.Buffer) error
	}{
		{"server.golden", func(b *bytes.Buffer) error { return s.WriteServer(b) }},
		{"again.golden", func(b *bytes.Buffer) error { return again.WriteServer(b) }},
		{"address.golden", func(b *bytes.Buffer) error { return address.WriteServer(b) }},
		{"client.golden", func(b *bytes.Buffer) error { return c.WriteClient(b) }},
		{"odd.golden", func(b *bytes.Buffer) error { return odd.WriteClient(b) }},
	}
	for _, tt := range tests {
		var got bytes.Buffer
		if err := tt.write(&got); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", tt.file)
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := contents(t, path); got.String() != want {
			t.Errorf("%s: printed\n%s\nwant\n%s", tt.file, got.String(), want)
		}
	}
}

// No key is ever printed.
func TestGuidesHaveNoSecrets(t *testing.T) {
	dir := t.TempDir()
	i := server(t, dir, "a.example")
	var got bytes.Buffer
	if err := i.WriteServer(&got); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{i.Key, i.CAKey} {
		for line := range strings.Lines(contents(t, path)) {
			if strings.Contains(got.String(), strings.TrimSpace(line)) {
				t.Errorf("a line of %s was printed", path)
			}
		}
	}
}
