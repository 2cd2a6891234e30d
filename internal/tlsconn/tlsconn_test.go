package tlsconn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// patience bounds what should come at once.
const patience = 20 * time.Second

// serverTLS is the configuration of a server with a certificate of its own.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"server.test"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// pair is both ends of a TCP connection.
func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{client, server} {
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return client, server
}

// secure does the handshake over a connection.
func secure(t *testing.T, client, server net.Conn) (*Conn, *tls.Conn) {
	t.Helper()
	s := tls.Server(server, serverTLS(t))
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	c := Client(client, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c, s
}

// known is a connection that says itself whether it is quiet.
type known struct {
	net.Conn
	quiet bool
}

func (k *known) Quiet() bool { return k.quiet }

func TestQuietBelow(t *testing.T) {
	client, server := pair(t)
	k := &known{Conn: client}
	c, s := secure(t, k, server)
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // and with it the session tickets
		t.Fatal(err)
	}
	if k.quiet = true; !c.Quiet() {
		t.Error("it is not quiet above what is")
	}
	if _, err := s.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if k.quiet = false; c.Quiet() {
		t.Error("it is quiet above what is not")
	}
	client, server = pair(t)
	c, _ = secure(t, struct{ net.Conn }{client}, server)
	if c.Quiet() {
		t.Error("it is quiet where nobody can look")
	}
}

// TestCut tells an end that the peer has meant from one that it has not.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(s *tls.Conn, tcp *net.TCPConn)
		want bool
	}{
		{"close_notify", func(s *tls.Conn, _ *net.TCPConn) { _ = s.CloseWrite() }, false},
		{"none", func(_ *tls.Conn, tcp *net.TCPConn) { _ = tcp.CloseWrite() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := pair(t)
			c, s := secure(t, client, server)
			tt.end(s, server)
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("Read: %v, want io.EOF", err)
			}
			if c.Cut() != tt.want {
				t.Errorf("Cut() = %v, want %v", c.Cut(), tt.want)
			}
		})
	}
}

// TestReset says nothing of TLS: the peer must not take what it got for the whole.
func TestReset(t *testing.T) {
	for _, layers := range []int{1, 2} {
		client, server := pair(t)
		c, s := secure(t, client, server)
		if layers == 2 {
			c, s = secure(t, c, s)
		}
		if err := c.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF || os.IsTimeout(err) {
			t.Errorf("%d layers: the peer reads %v, want a reset", layers, err)
		}
	}
}
