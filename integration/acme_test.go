package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"polyport/internal/acme"
)

// front is what a CA and clients reach: a TLS port and an HTTP port, both answered by one manager.
type front struct {
	manager           atomic.Pointer[acme.Manager]
	tlsPort, httpPort int
	tlsAsked          atomic.Int32
	httpAsked         atomic.Int32
	intruders         atomic.Int32 // listeners at 80 and 443 while a challenge was open
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{}
	secure, plain := listenAt(t, "127.0.0.1:0"), listenAt(t, "127.0.0.1:0")
	f.tlsPort, f.httpPort = secure.Addr().(*net.TCPAddr).Port, plain.Addr().(*net.TCPAddr).Port
	go f.serveTLS(secure)
	server := &http.Server{Handler: f, ReadHeaderTimeout: patience}
	t.Cleanup(func() { server.Close() })
	go server.Serve(plain)
	return f
}

func (f *front) serveTLS(ln net.Listener) {
	config := &tls.Config{NextProtos: []string{"acme-tls/1", "http/1.1"}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if len(h.SupportedProtos) == 1 && h.SupportedProtos[0] == "acme-tls/1" {
			f.tlsAsked.Add(1)
			f.intruders.Add(int32(wellKnownListeners()))
		}
		return f.manager.Load().GetCertificate(h)
	}}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			_ = tls.Server(c, config).Handshake()
		}()
	}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.httpAsked.Add(1)
	f.intruders.Add(int32(wellKnownListeners()))
	if auth, ok := f.manager.Load().HTTPChallenge(r.Host, r.RequestURI); ok {
		_, _ = io.WriteString(w, auth)
		return
	}
	http.NotFound(w, r)
}

// wellKnownListeners counts this process's listeners at ports 80 and 443.
func wellKnownListeners() int {
	ours := map[string]bool{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		link, _ := os.Readlink("/proc/self/fd/" + e.Name())
		ours[link] = true
	}
	n := 0
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && (strings.HasSuffix(f[1], ":0050") || strings.HasSuffix(f[1], ":01BB")) && ours["socket:["+f[9]+"]"] {
				n++
			}
		}
	}
	return n
}

// open makes and starts a manager, and has the front use it.
func (f *front) open(t *testing.T, o acme.Options) *acme.Manager {
	t.Helper()
	o.AcceptTerms = true
	m, err := acme.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f.manager.Store(m)
	t.Cleanup(func() { m.Close() })
	if err := m.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return m
}

// serial returns the number of the certificate that a client of name sees, or the error.
func (f *front) serial(name string, roots *x509.CertPool) string {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{ServerName: name, RootCAs: roots}}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.tlsPort))
	if err != nil {
		return "error: " + err.Error()
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// waitSerial waits for a certificate other than old.
func (f *front) waitSerial(t *testing.T, name string, roots *x509.CertPool, old string) string {
	t.Helper()
	var got string
	eventually(t, "certificate of "+name, "new", slowly(func() string {
		if got = f.serial(name, roots); got == old || strings.HasPrefix(got, "error: ") {
			return got
		}
		return "new"
	}))
	return got
}

// logText is a log that tests read.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logText) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestACMEObtainsByEachChallenge(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{acme.TLSALPN01, acme.HTTP01} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			f, log := newFront(t), &logText{}
			ca := startPebble(t, f.httpPort, f.tlsPort)
			names := []string{"one." + challenge + ".test", "two." + challenge + ".test"}
			o := acme.Options{
				Names: names, Email: "admin@example.com", Directory: ca.directory, DirectoryCA: ca.rootFile,
				Storage: filepath.Join(t.TempDir(), "acme"), Challenges: []string{challenge}, Log: log.logger(),
			}
			m := f.open(t, o)
			serials := map[string]string{}
			for _, name := range names {
				serials[name] = f.waitSerial(t, name, ca.issued, "")
			}
			checkAsked(t, f, challenge)
			s := m.Stats()
			if s.Obtained != 2 || s.Renewed != 0 || s.Failures != 0 || time.Until(s.Expiry[names[1]]) < time.Hour {
				t.Errorf("Stats() = %+v, want 2 obtained and their expiry", s)
			}
			if log := log.String(); strings.Contains(log, "PRIVATE KEY") || strings.Contains(log, "Replay-Nonce") {
				t.Errorf("the log has what it must not: %s", log)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}

			// The CA is gone, the storage is not.
			ca.kill()
			again := f.open(t, o)
			for _, name := range names {
				if got := f.serial(name, ca.issued); got != serials[name] {
					t.Errorf("after a restart %s has %s, want %s at once", name, got, serials[name])
				}
			}
			if s := again.Stats(); s.Obtained != 0 || len(s.Expiry) != 2 {
				t.Errorf("after a restart Stats() = %+v, want nothing obtained", s)
			}
			checkStorageModes(t, o.Storage)
		})
	}
}

// checkAsked looks at how the CA came.
func checkAsked(t *testing.T, f *front, challenge string) {
	t.Helper()
	if byTLS := f.tlsAsked.Load() > 0; byTLS != (challenge == acme.TLSALPN01) {
		t.Errorf("the CA asked by TLS: %v", byTLS)
	}
	if byHTTP := f.httpAsked.Load() > 0; byHTTP != (challenge == acme.HTTP01) {
		t.Errorf("the CA asked by HTTP: %v", byHTTP)
	}
	if n := f.intruders.Load(); n != 0 {
		t.Errorf("%d listeners were open at ports 80 and 443", n)
	}
}

// checkStorageModes looks that nobody else can read anything.
func checkStorageModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestACMERenews(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	ca := startPebble(t, f.httpPort, f.tlsPort, shortLived(12))
	const name = "renewed.test"
	o := acme.Options{
		Names: []string{name}, Directory: ca.directory, DirectoryCA: ca.rootFile,
		Storage: t.TempDir(), CheckEvery: 100 * time.Millisecond, Log: (&logText{}).logger(),
	}
	m := f.open(t, o)
	first := f.waitSerial(t, name, ca.issued, "")
	f.waitSerial(t, name, ca.issued, first)
	if s := m.Stats(); s.Obtained != 1 || s.Renewed < 1 {
		t.Errorf("Stats() = %+v, want 1 obtained and 1 renewed", s)
	}
}

func TestACMEWithoutItsCAKeepsTheOldCertificate(t *testing.T) {
	t.Parallel()
	f, log := newFront(t), &logText{}
	ca := startPebble(t, f.httpPort, f.tlsPort, shortLived(20))
	name := fmt.Sprintf("kept-%d.test", time.Now().UnixNano()) // certmagic counts failures of a name for the whole process
	m := f.open(t, acme.Options{
		Names: []string{name}, Directory: ca.directory, DirectoryCA: ca.rootFile,
		Storage: t.TempDir(), CheckEvery: 100 * time.Millisecond, Log: log.logger(),
	})
	first := f.waitSerial(t, name, ca.issued, "")
	ca.kill()
	eventually(t, "failures", "some", slowly(func() string {
		if m.Stats().Failures > 0 {
			return "some"
		}
		return "none"
	}))
	if got := f.serial(name, ca.issued); got != first {
		t.Errorf("without its CA %s has %s, want %s still", name, got, first)
	}
	eventually(t, "the log warns", "yes", slowly(func() string {
		if text := log.String(); strings.Contains(text, "level=WARN") && strings.Contains(text, "connection refused") {
			return "yes"
		}
		return "no"
	}))
}

// A certificate that is late is renewed at the start, also by a CA that has forgotten account and certificate.
func TestACMERenewsAtTheStart(t *testing.T) {
	t.Parallel()
	f, address := newFront(t), freeAddress(t, pebbleHost)
	at := func(c map[string]any) { c["listenAddress"] = address }
	ca := startPebble(t, f.httpPort, f.tlsPort, shortLived(120), at)
	const name = "late.test"
	o := acme.Options{
		Names: []string{name}, Storage: t.TempDir(), Directory: ca.directory, DirectoryCA: ca.rootFile, Log: (&logText{}).logger(),
	}
	m := f.open(t, o)
	f.waitSerial(t, name, ca.issued, "")
	m.Close()
	ca.kill()

	o.DirectoryCA = startPebble(t, f.httpPort, f.tlsPort, at).rootFile // of the same address, with an empty memory
	again := f.open(t, o)
	if len(again.Stats().Expiry) != 1 {
		t.Error("the old certificate is not served")
	}
	eventually(t, "renewal", "1, for long", slowly(func() string {
		s := again.Stats()
		if time.Until(s.Expiry[name]) < time.Hour {
			return fmt.Sprintf("%d, ends soon", s.Renewed)
		}
		return fmt.Sprintf("%d, for long", s.Renewed)
	}))
}

func TestACMERefusedByTheCA(t *testing.T) {
	t.Parallel()
	f, log := newFront(t), &logText{}
	ca := startPebble(t, f.httpPort, f.tlsPort, func(c map[string]any) { c["domainBlocklist"] = []string{"refused.test"} })
	m := f.open(t, acme.Options{
		Names: []string{"refused.test", "allowed.test"}, Directory: ca.directory, DirectoryCA: ca.rootFile, Storage: t.TempDir(), Log: log.logger(),
	})
	f.waitSerial(t, "allowed.test", ca.issued, "")
	eventually(t, "failures", "1", slowly(func() string {
		return fmt.Sprint(m.Stats().Failures)
	}))
	eventually(t, "the log says why", "yes", slowly(func() string {
		if strings.Contains(log.String(), "rejectedIdentifier") {
			return "yes"
		}
		return log.String()
	}))
}
