package httpproxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// authority signs the certificates of origins.
type authority struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, roots: x509.NewCertPool()}
	a.key, a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.roots.AddCert(a.cert)
	return a
}

func (a *authority) sign(c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore = big.NewInt(1), time.Now().Add(-2*time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, made
}

// server is the configuration of a TLS server for a name.
func (a *authority) server(name string) *tls.Config {
	a.t.Helper()
	key, cert := a.sign(&x509.Certificate{DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
}

// secured is one TLS connection of an origin, in a test's hand.
type secured struct {
	*tls.Conn
	tcp *net.TCPConn
	t   *testing.T
	r   *bufio.Reader
}

func (p *secured) send(s string) {
	if _, err := io.WriteString(p.Conn, s); err != nil {
		p.t.Errorf("send %.60q: %v", s, err)
	}
}

// head reads a request head; "" is the end.
func (p *secured) head() string {
	var b strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

// newSecured makes an origin that serves each TLS connection with script.
func newSecured(t *testing.T, config *tls.Config, script func(p *secured)) *scripted {
	return newScripted(t, func(p *peer) {
		c := tls.Server(p.TCPConn, config)
		if c.Handshake() == nil {
			script(&secured{Conn: c, tcp: p.TCPConn, t: t, r: bufio.NewReader(c)})
			c.Close()
		}
	})
}

// answering answers every request of a connection.
func answering(answer string, heads chan<- string) func(*secured) {
	return func(p *secured) {
		for h := p.head(); h != ""; h = p.head() {
			heads <- h
			p.send(answer)
		}
	}
}

// secureGateway is a gateway that fetches https URIs of secure.test.
func secureGateway(t *testing.T, a *authority, change func(*gatewayOptions)) *gateway {
	t.Helper()
	o := gatewayOptions{https: true, roots: a.roots, names: names{"secure.test": {"127.0.0.1"}, "other.test": {"127.0.0.1"}}}
	if change != nil {
		change(&o)
	}
	return newGateway(t, o)
}
