package integration

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// web is an origin over clear text and over TLS, at 127.0.0.1 and by the name localhost.
type web struct {
	plain, secure           string // "127.0.0.1:port"
	plainNamed, secureNamed string // "localhost:port"
	ca                      string // the file of the root that its certificate is of
}

// bulk is how much /bulk serves, and bulkSum its checksum.
const bulk = 64 << 20

// bulkBytes is what /bulk serves: nothing that could be compressed or guessed.
func bulkBytes() io.Reader { return io.LimitReader(randv2.NewChaCha8([32]byte{64}), bulk) }

// sum is the checksum that the tests compare, as text.
func sum(r io.Reader) string {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("%x %v", h.Sum(nil), err)
}

// newWeb starts one.
func newWeb(t *testing.T) *web {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("GET /bulk", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, bulkBytes()) })
	mux.HandleFunc("POST /sum", answerSum)
	mux.HandleFunc("PUT /sum/{name}", answerSum)
	mux.HandleFunc("PUT /full/{name}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "no room", http.StatusInsufficientStorage) // before the body is asked for
	})
	mux.HandleFunc("GET /parrot", parrot)
	cert, ca := certificate(t, "127.0.0.1", "::1", "localhost", "www.test")
	quiet := log.New(io.Discard, "", 0) // handshakes that a test breaks off
	plain, secure := httptest.NewUnstartedServer(mux), httptest.NewUnstartedServer(mux)
	plain.Config.ErrorLog, secure.Config.ErrorLog = quiet, quiet
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	plain.Start()
	secure.StartTLS()
	t.Cleanup(func() { plain.Close(); secure.Close() })
	w := &web{plain: plain.Listener.Addr().String(), secure: secure.Listener.Addr().String(), ca: ca}
	w.plainNamed = strings.Replace(w.plain, "127.0.0.1", "localhost", 1)
	w.secureNamed = strings.Replace(w.secure, "127.0.0.1", "localhost", 1)
	return w
}

// answerSum tells what came, and whether the client had asked first.
func answerSum(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s expecting %q", sum(r.Body), r.Header.Get("Expect"))
}

// parrot switches to a protocol that repeats lines.
func parrot(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "parrot" {
		http.Error(w, "only parrots", http.StatusUpgradeRequired)
		return
	}
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n")
	for sc := bufio.NewScanner(rw); rw.Flush() == nil && sc.Scan(); {
		fmt.Fprintf(rw, "%s %[1]s\n", sc.Text())
	}
}

// certificate makes a server's certificate for hosts, and writes the root that it
// is of to a file.
func certificate(t *testing.T, hosts ...string) (tls.Certificate, string) {
	t.Helper()
	rootKey, root := signed(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	leaf := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	key, cert := signed(t, leaf, root, rootKey)
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, file
}

// signed completes a certificate and has parent sign it; nil is itself.
func signed(t *testing.T, c, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: fmt.Sprintf("polyport test %v", c.SerialNumber)}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, made
}

// Whom the gateway of the clients' tests knows.
const (
	clubUser     = "alice"
	clubPassword = "correct:horse-9"
	clubLogin    = clubUser + ":correct%3Ahorse-9@" // in a URL
)

// newClub starts a gateway with two listeners: everybody may come in by "main", and
// only users by "users".
func newClub(t *testing.T, more string) *gateway {
	t.Helper()
	return members(t, more+listenAnywhere+"require_user = false\n[listen.users]\naddress = [\"127.0.0.1:0\"]\n[auth]\nhtpasswd = \"users.htpasswd\"\n"+allowLoopback)
}

// members starts a gateway that knows the user of these tests.
func members(t *testing.T, config string) *gateway {
	t.Helper()
	g := prepare(t, config)
	g.addUser(clubUser, clubPassword)
	g.run()
	g.waitListening(strings.Count(config, "[listen."))
	return tidy(g, config)
}

// startTidy is start for a gateway that has to leave nothing behind.
func startTidy(t *testing.T, config string) *gateway {
	t.Helper()
	return tidy(start(t, config), config)
}

// tidy wants as many sockets at the test's end as there are now. A reload with the
// same configuration lets go of the idle connections to origins.
func tidy(g *gateway, config string) *gateway {
	idle := g.sockets()
	g.t.Cleanup(func() {
		if g.t.Failed() {
			return // there is enough to look at
		}
		if l := g.reload(config); l.str("msg") != "reloaded" {
			g.t.Errorf("reload: %v", l)
		}
		g.settleSockets(idle)
	})
	return g
}

// sockets returns how many sockets the process has open. Other than descriptors it does
// not count pipes, of which Go keeps those that HTTP bodies were spliced through until it collects garbage.
func (g *gateway) sockets() int {
	g.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		g.t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// settleSockets waits until the process has at most n sockets open.
func (g *gateway) settleSockets(n int) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); g.sockets() > n; time.Sleep(20 * time.Millisecond) { // nothing tells when a process closes one
		if time.Now().After(deadline) {
			g.t.Errorf("%d sockets are open, want at most %d", g.sockets(), n)
			return
		}
	}
}

// mark returns how many lines the log has.
func (g *gateway) mark() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.lines)
}

// recordSince is record for the lines behind a mark.
func (g *gateway) recordSince(mark int, want ...string) logLine {
	g.t.Helper()
	i := 0
	return g.wait("a later session with "+strings.Join(want, " "), func(l logLine) bool {
		if i++; i <= mark || l.str("msg") != "session end" {
			return false
		}
		for _, w := range want {
			key, value, _ := strings.Cut(w, "=")
			if fmt.Sprint(l[key]) != value {
				return false
			}
		}
		return true
	})
}
