package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// pebbleHost is where every pebble and its name server listen.
const pebbleHost = "127.0.7.1"

// pebble is a running pebble, an ACME CA for tests, with a name server that
// gives one address for every name.
type pebble struct {
	directory  string         // URL
	rootFile   string         // PEM, of the directory's own certificate
	issued     *x509.CertPool // the root of what it issues
	issuedFile string         // PEM, the same
	kill       func()
}

// shortLived has pebble issue certificates of so many seconds.
func shortLived(seconds int) func(map[string]any) {
	return func(c map[string]any) {
		c["profiles"] = map[string]any{"default": map[string]any{"description": "short", "validityPeriod": seconds}}
	}
}

// startPebble starts a CA that asks for HTTP-01 at httpPort and for TLS-ALPN-01
// at tlsPort of 127.0.0.1.
func startPebble(t *testing.T, httpPort, tlsPort int, settings ...func(map[string]any)) *pebble {
	t.Helper()
	return startPebbleFor(t, "127.0.0.1", httpPort, tlsPort, settings...)
}

// startPebbleFor starts a CA that asks at host. It rejects some good nonces, as a CA may.
func startPebbleFor(t *testing.T, host string, httpPort, tlsPort int, settings ...func(map[string]any)) *pebble {
	t.Helper()
	dir := t.TempDir()
	cert, root := certificate(t, pebbleHost)
	ca, management, dns, dnsManagement := freeAddress(t, pebbleHost), freeAddress(t, pebbleHost), freeAddress(t, pebbleHost), freeAddress(t, pebbleHost)
	config := map[string]any{
		"listenAddress": ca, "managementListenAddress": management,
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": httpPort, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]any{"authz": 1, "order": 1},
	}
	for _, set := range settings {
		set(config)
	}
	text, err := json.Marshal(map[string]any{"pebble": config})
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"pebble.json": text,
		"cert.pem":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"key.pem":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runTool(t, "pebble-challtestsrv", "-dnsserver", dns, "-management", dnsManagement,
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv4", host, "-defaultIPv6", "")
	p := &pebble{directory: fmt.Sprintf("https://%s/dir", config["listenAddress"]), rootFile: root, issued: x509.NewCertPool()}
	p.kill = runTool(t, "pebble", "-strict", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", dns)
	p.fetch(t, p.directory)
	text = p.fetch(t, "https://"+management+"/roots/0")
	if !p.issued.AppendCertsFromPEM(text) {
		t.Fatal("pebble's root is no certificate")
	}
	p.issuedFile = filepath.Join(dir, "issued.pem")
	write(t, p.issuedFile, string(text))
	return p
}

// fetch asks until pebble answers, which it does once it has started.
func (p *pebble) fetch(t *testing.T, url string) []byte {
	t.Helper()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(p.rootFile)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s: %v", p.rootFile, err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}, Timeout: patience}
	var body []byte
	eventually(t, "GET "+url, "200 OK", slowly(func() string {
		resp, err := client.Get(url)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return resp.Status
	}))
	return body
}

// runTool runs a program that make deps builds, until the test ends or kill is called.
func runTool(t *testing.T, program string, args ...string) (kill func()) {
	t.Helper()
	path := filepath.Join("..", ".tools", program)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: make deps builds it (%v)", program, err)
	}
	var said bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=15", "PEBBLE_AUTHZREUSE=0")
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, tail(said.String(), 4000))
		}
	})
	return kill
}

// slowly asks at most every few milliseconds, and so leaves the processor to whom it waits for.
func slowly(ask func() string) func() string {
	return func() string {
		<-time.After(20 * time.Millisecond)
		return ask()
	}
}

// tail returns the end of a text.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return fmt.Sprintf("(%d octets before)%s", len(s)-n, s[len(s)-n:])
}
