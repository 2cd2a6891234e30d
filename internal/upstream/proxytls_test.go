package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// certified makes a certificate for a name and the pool in which it is trusted.
func certified(t testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// Long valid, since the clock of synctest begins in 2000.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if a, err := netip.ParseAddr(name); err == nil {
		template.IPAddresses = []net.IP{a.AsSlice()}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// served listens on the loopback, and has serve play the proxy for each connection. All of them end with the test.
func served(t *testing.T, serve func(net.Conn)) DialFunc {
	t.Helper()
	at := listening(t, serve)
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", at.String())
	}
}

// listening is served, for who dials by address.
func listening(t *testing.T, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			go func() {
				defer stop()
				defer c.Close()
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		cancel()
		<-done
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestTLS opens tunnels in TLS, half-closes them, and reads what comes after.
func TestTLS(t *testing.T) {
	cert, pool := certified(t, "gw.example")
	mine, mineToo := certified(t, "client")
	for _, tt := range tunnels {
		scheme, rest, _ := strings.Cut(tt.url, "://")
		secure := map[string]string{"http": "https", "socks5": "socks5s"}[scheme]
		if secure == "" {
			continue
		}
		t.Run(secure+", "+tt.name, func(t *testing.T) {
			dial := served(t, func(c net.Conn) {
				s := tls.Server(c, &tls.Config{
					Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: mineToo,
				})
				playSteps(t, s, tt.steps)
				echo(s)
				s.Close()
			})
			p := mustProxy(t, ProxyOptions{
				URL: secure + "://" + rest, RootCAs: pool, ServerName: "gw.example",
				Certificate: func() (*tls.Certificate, error) { return &mine, nil },
			})
			c, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", dial, tt.to)
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			defer c.Close()
			checkEcho(t, c)
		})
	}
}

// playSteps goes through the steps.
func playSteps(t *testing.T, c net.Conn, steps []step) {
	for _, s := range steps {
		got := make([]byte, len(s.read))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != s.read {
			t.Errorf("the proxy got %q, %v; want %q", got, err, s.read)
		}
		if _, err := io.WriteString(c, s.send); err != nil {
			t.Errorf("the proxy cannot answer: %v", err)
		}
	}
}

// checkEcho checks a tunnel to echo: all bytes come back, and after a half-close too.
func checkEcho(t *testing.T, c net.Conn) {
	t.Helper()
	want := strings.Repeat("0123456789abcdef", 20_000)
	go func() {
		_, err := io.WriteString(c, want)
		if err = errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite()); err != nil {
			t.Errorf("write to the tunnel: %v", err)
		}
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want {
		t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(want))
	}
}

// TestTLSFaults tells what is wrong with the TLS of a proxy.
func TestTLSFaults(t *testing.T) {
	cert, pool := certified(t, "gw.example")
	byIP, byIPPool := certified(t, "192.0.2.1")
	for _, tt := range []struct {
		name   string
		o      ProxyOptions
		config *tls.Config // nil: no TLS, but the words
		words  string
		reason string
		says   string // "": it works
	}{
		{"by address", ProxyOptions{URL: "https://192.0.2.1", RootCAs: byIPPool}, &tls.Config{Certificates: []tls.Certificate{byIP}}, "", "", ""},
		{"by name", ProxyOptions{URL: "https://gw.example", RootCAs: pool}, &tls.Config{Certificates: []tls.Certificate{cert}}, "", "", ""},
		{"untrusted", ProxyOptions{URL: "https://gw.example"}, &tls.Config{Certificates: []tls.Certificate{cert}}, "", reasonCertificate, "check ca and server_name"},
		{"other name", ProxyOptions{URL: "socks5s://gw2.example", RootCAs: pool}, &tls.Config{Certificates: []tls.Certificate{cert}}, "", reasonCertificate, "gw2.example"},
		{"no TLS", ProxyOptions{URL: "https://gw.example"}, nil, "HTTP/1.1 400 Bad Request\r\n\r\n", reasonTLS, "does not speak TLS"},
		{"closed", ProxyOptions{URL: "h2://gw.example"}, nil, "", reasonTerminated, "closed the connection in the TLS handshake"},
		{
			"no version",
			ProxyOptions{URL: "https://gw.example", RootCAs: pool},
			&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			"", reasonAlert, "refused the TLS handshake",
		},
		{
			"wants a certificate",
			ProxyOptions{URL: "https://gw.example", RootCAs: pool},
			&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12},
			"", reasonAlert, "refused the TLS handshake",
		},
		{
			"other protocol",
			ProxyOptions{URL: "h2://gw.example", RootCAs: pool},
			&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}, "", reasonAlert, "no application protocol",
		},
		{
			"no protocol",
			ProxyOptions{URL: "h2://gw.example", RootCAs: pool},
			&tls.Config{Certificates: []tls.Certificate{cert}}, "", reasonTLS, "perhaps its scheme is https",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dial := served(t, func(c net.Conn) {
				if tt.config == nil {
					_, _ = c.Read(make([]byte, 4<<10))
					_, _ = io.WriteString(c, tt.words)
					return
				}
				s := tls.Server(c, tt.config)
				_ = s.Handshake() // the client's error is what counts
				_, _ = io.Copy(io.Discard, s)
			})
			p := mustProxy(t, tt.o)
			err := p.Check(t.Context(), time.Now().Add(time.Minute), dial)
			if tt.says == "" {
				if err != nil {
					t.Errorf("Check: %v", err)
				}
				return
			}
			checkError(t, err, tt.reason, true, 0)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

// TestClientCertificateWanted has a proxy of TLS 1.3 say so where the handshake is over for us already.
func TestClientCertificateWanted(t *testing.T) {
	cert, pool := certified(t, "gw.example")
	dial := served(t, func(c net.Conn) {
		config := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2", "http/1.1"}}
		_ = tls.Server(c, config).Handshake()
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	for _, scheme := range []string{"https", "h2", "socks5s"} {
		t.Run(scheme, func(t *testing.T) {
			p := mustProxy(t, ProxyOptions{URL: scheme + "://gw.example", RootCAs: pool})
			_, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", dial, named)
			checkError(t, err, reasonAlert, true, 0)
			checkSays(t, err, "perhaps it wants a client certificate")
		})
	}
}

// TestOpenForward returns connections to the proxy itself.
func TestOpenForward(t *testing.T) {
	cert, pool := certified(t, "gw.example")
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			dial := served(t, func(c net.Conn) {
				if scheme == "https" {
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				}
				echo(c)
				c.Close()
			})
			c, err := mustProxy(t, ProxyOptions{URL: scheme + "://gw.example", RootCAs: pool}).OpenForward(t.Context(), time.Now().Add(time.Minute), dial)
			if err != nil {
				t.Fatalf("OpenForward: %v", err)
			}
			defer c.Close()
			checkEcho(t, c)
		})
	}
	for _, scheme := range []string{"h2", "socks4", "socks4a", "socks5", "socks5s"} {
		_, err := mustProxy(t, ProxyOptions{URL: scheme + "://gw.example"}).OpenForward(t.Context(), time.Time{}, nil)
		checkError(t, err, reasonConfiguration, false, 0)
	}
}

// TestCheckPlain has Check connect and say nothing.
func TestCheckPlain(t *testing.T) {
	for _, scheme := range []string{"http", "socks4", "socks4a", "socks5"} {
		heard := make(chan string, 1)
		dial := served(t, func(c net.Conn) {
			b, _ := io.ReadAll(c)
			heard <- string(b)
		})
		if err := mustProxy(t, ProxyOptions{URL: scheme + "://gw.example"}).Check(t.Context(), time.Time{}, dial); err != nil {
			t.Errorf("%s: Check: %v", scheme, err)
		}
		if got := <-heard; got != "" {
			t.Errorf("%s: the proxy heard %q", scheme, got)
		}
	}
}

// TestPrefixConn has the target speak first over TCP: the tunnel is bare TCP once that is read, and can be half-closed.
func TestPrefixConn(t *testing.T) {
	dial := served(t, func(c net.Conn) {
		playSteps(t, c, []step{{connectNamed, "HTTP/1.1 200 OK\r\n\r\nbanner"}})
		echo(c)
	})
	c, err := mustProxy(t, ProxyOptions{URL: "http://gw.example"}).Open(t.Context(), time.Now().Add(time.Minute), "", dial, named)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer c.Close()
	p, ok := c.(*prefixConn)
	if !ok {
		t.Fatalf("Open = %T", c)
	}
	for _, want := range []string{"ban", "ner"} {
		if _, ok := p.RawTCP(); ok {
			t.Error("the tunnel is bare TCP before its prefix is read")
		}
		b := make([]byte, 3)
		if _, err := io.ReadFull(p, b); err != nil || string(b) != want {
			t.Errorf("read %q, %v; want %q", b, err, want)
		}
	}
	if _, ok := p.RawTCP(); !ok {
		t.Error("the tunnel is not bare TCP after its prefix is read")
	}
	checkEcho(t, p)
	if err := (&prefixConn{Conn: struct{ net.Conn }{}}).CloseWrite(); !errors.Is(err, errNoCloseWrite) {
		t.Errorf("CloseWrite without one beneath: %v", err)
	}
}
