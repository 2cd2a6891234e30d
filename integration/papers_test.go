package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ownName is the name under which clients of these tests reach the gateway by TLS.
const ownName = "proxy.test"

// papers are the certificates of a gateway and of its clients, made by the program itself, and what
// openssl's CA adds to them.
type papers struct {
	t   *testing.T
	dir string
}

// newPapers makes the gateway's.
func newPapers(t *testing.T) *papers {
	t.Helper()
	p := &papers{t, t.TempDir()}
	p.renew()
	return p
}

// renew replaces the gateway's certificate by a new one of the same CA.
func (p *papers) renew() {
	p.t.Helper()
	mustSay(p.t, polyport(p.t, p.dir, "", "cert", "--dir", ".", ownName, "127.0.0.1"), 0, p.path("ca.pem"), ownName)
}

func (p *papers) path(name string) string { return filepath.Join(p.dir, name) }

// ca is the file that clients have to trust.
func (p *papers) ca() string { return p.path("ca.pem") }

// table is the configuration's.
func (p *papers) table() string {
	return fmt.Sprintf("[tls.certificate.main]\ncertificate = %q\nkey = %q\n", p.path("server.pem"), p.path("server.key"))
}

// clientTable asks for certificates of clients: those of auth are the keys of [auth].
func (p *papers) clientTable(auth string) string {
	return fmt.Sprintf("[auth]\nclient_ca = %q\n%s", p.path("client-ca.pem"), auth)
}

// login is a client's certificate.
type login struct{ cert, key string }

// curl is how curl shows it.
func (l login) curl() []string {
	if l.cert == "" {
		return nil
	}
	return []string{"--proxy-cert", l.cert, "--proxy-key", l.key}
}

// openssl is how s_client shows it.
func (l login) openssl() []string {
	if l.cert == "" {
		return nil
	}
	return []string{"-cert", l.cert, "-key", l.key}
}

// client has the program make a client's certificate.
func (p *papers) client(name string) login {
	p.t.Helper()
	mustSay(p.t, polyport(p.t, p.dir, "", "cert", "--dir", ".", "--client", name), 0, name)
	return login{p.path("client-" + name + ".pem"), p.path("client-" + name + ".key")}
}

// opensslCA is the configuration of openssl's CA over the clients' CA.
const opensslCA = `
[ca]
default_ca = clients
[clients]
database         = %[1]s/index
rand_serial      = yes
new_certs_dir    = %[1]s
certificate      = %[1]s/client-ca.pem
private_key      = %[1]s/client-ca.key
default_md       = sha256
default_days     = 1
default_crl_days = 1
policy           = any
x509_extensions  = client
crl_extensions   = list
[any]
commonName = supplied
[client]
extendedKeyUsage = clientAuth
[named]
extendedKeyUsage = clientAuth
subjectAltName   = email:copy, DNS:second.test
[list]
authorityKeyIdentifier = keyid
`

// openssl runs one of its commands in the folder of the papers.
func (p *papers) openssl(args ...string) string {
	p.t.Helper()
	cmd := command(p.t, "openssl", args...)
	cmd.Dir = p.dir
	out := finish(p.t, cmd)
	if out.code != 0 {
		p.t.Fatalf("openssl %s ended with %d: %s", strings.Join(args, " "), out.code, out.stderr)
	}
	return out.stdout
}

// signed has openssl's CA make a client's certificate.
func (p *papers) signed(name string, args ...string) login {
	p.t.Helper()
	l := login{p.path(name + ".pem"), p.path(name + ".key")}
	p.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN="+name, "-keyout", l.key, "-out", name+".csr")
	p.authority(append([]string{"-in", name + ".csr", "-out", l.cert, "-notext"}, args...)...)
	return l
}

// authority runs openssl's CA.
func (p *papers) authority(args ...string) {
	p.t.Helper()
	if _, err := os.Stat(p.path("ca.cnf")); err != nil {
		write(p.t, p.path("ca.cnf"), fmt.Sprintf(opensslCA, p.dir))
		write(p.t, p.path("index"), "")
		write(p.t, p.path("index.attr"), "unique_subject = no\n")
	}
	p.openssl(append([]string{"ca", "-batch", "-config", "ca.cnf"}, args...)...)
}

// revoke puts certificates on the list, which it returns.
func (p *papers) revoke(list ...login) string {
	p.t.Helper()
	for _, l := range list {
		p.authority("-revoke", l.cert)
	}
	p.authority("-gencrl", "-out", "clients.crl")
	return p.path("clients.crl")
}

// trust is the pool of the gateway's CA.
func (p *papers) trust() *x509.CertPool {
	p.t.Helper()
	return pool(p.t, p.ca())
}

// end is one end of a connection, of which each direction can be ended by itself.
type end interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// inside is a client's connection inside TLS.
type inside struct {
	*tls.Conn
	bare  *net.TCPConn
	abort bool
}

// SetLinger is that of the TCP connection: with 0 the coming Close is a reset.
func (c *inside) SetLinger(sec int) error {
	c.abort = sec == 0
	return c.bare.SetLinger(sec)
}

// Close says that nothing more comes, unless the connection is to be reset.
func (c *inside) Close() error {
	if c.abort {
		return c.bare.Close()
	}
	return c.Conn.Close()
}

// dial opens a connection to the gateway and TLS in it.
func (p *papers) dial(addr string, change ...func(*tls.Config)) *inside {
	p.t.Helper()
	config := &tls.Config{RootCAs: p.trust(), ServerName: ownName}
	for _, f := range change {
		f(config)
	}
	bare := dial(p.t, addr)
	c := &inside{Conn: tls.Client(bare, config), bare: bare}
	if err := c.Handshake(); err != nil {
		p.t.Fatalf("TLS handshake with the gateway: %v", err)
	}
	return c
}

// with has a client show its certificate, whatever CA the gateway names.
func (l login) with(t *testing.T) func(*tls.Config) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(l.cert, l.key)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
}

// background starts a program that runs until the test's end, and waits until it has written
// a line that find takes something out of. That is what background returns.
func background(t *testing.T, find func(line string) string, program string, args ...string) string {
	t.Helper()
	words := filepath.Join(t.TempDir(), "words")
	f, err := os.Create(words)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := command(t, program, args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // nothing tells when a file grows
		text, err := os.ReadFile(words)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if found := find(line); found != "" {
				return found
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s says nothing of where it listens: %s", program, text)
		}
	}
}
