package tls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"polyport/internal/auth"
	"polyport/internal/clienthello"
	"polyport/mux"
	"polyport/protocols/spec"
)

var gatewayCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"gw.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// errChallenge ends handshakes as the configuration does that answers a CA.
var errChallenge = errors.New("the CA has seen the certificate")

// ownTLS terminates what is for "gw.test", and whoever offers acme-tls/1; asked is told of every question.
func ownTLS(asked func(name string, protocols []string)) *spec.TLS {
	return &spec.TLS{
		Owns: func(name string, protocols []string) bool {
			if asked != nil {
				asked(name, protocols)
			}
			return name == "gw.test" || slices.Contains(protocols, "acme-tls/1")
		},
		Config: &tls.Config{
			Certificates: []tls.Certificate{gatewayCertificate()},
			NextProtos:   []string{"h2", "http/1.1", "acme-tls/1"},
			MinVersion:   tls.VersionTLS12,
		},
		Challenged: func(err error) bool { return errors.Is(err, errChallenge) },
		Identity:   func(state tls.ConnectionState) auth.Identity { return auth.Identity{Name: "of " + state.ServerName} },
	}
}

// ownHandler is the handler of options and a certificate.
func ownHandler(t *testing.T, o Options, own *spec.TLS) *handler {
	t.Helper()
	env := backends("one", "two", "three")
	env.TLS = own
	rows, err := New(env, decoded(o))
	if err != nil {
		t.Fatal(err)
	}
	return rows[0].Handler.(*handler)
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp4", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	return client, server
}

// terminated has a handler serve a client, and returns how both ended. afterwards is what the client does
// with its end once its handshake is over.
func terminated(t *testing.T, h *handler, f *fake, config *tls.Config, afterwards func(c *tls.Conn)) (served, handshake error) {
	t.Helper()
	ours, theirs := tcpPair(t)
	f.conn = mux.NewConn(theirs, "main", Name, nil)
	client := tls.Client(ours, config)
	done := make(chan error, 1)
	go func() {
		err := client.Handshake()
		done <- err
		if err != nil {
			ours.Close()
		}
	}()
	served = h.serve(context.Background(), f)
	if served != nil {
		theirs.Close()
	}
	if handshake = <-done; handshake == nil && afterwards != nil {
		afterwards(client)
	}
	return served, handshake
}

func config(name string, alpn ...string) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}
}

func TestTerminate(t *testing.T) {
	tls12 := config("gw.test")
	tls12.MaxVersion = tls.VersionTLS12
	for _, tt := range []struct {
		name     string
		config   *tls.Config
		injected string
		reason   string
		agreed   string
	}{
		{"no ALPN", config("gw.test"), "row ", "", ""},
		{"TLS 1.2", tls12, "row ", "", ""},
		{"http/1.1", config("gw.test", "http/1.1"), "row ", "", "http/1.1"},
		{"h2", config("gw.test", "http/1.1", "h2"), "row h2", "", "h2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{}
			h := ownHandler(t, Options{DialSNI: true}, ownTLS(nil)) // which is second to a name of our own
			served, handshake := terminated(t, h, f, tt.config, func(c *tls.Conn) {
				if got := c.ConnectionState().NegotiatedProtocol; got != tt.agreed {
					t.Errorf("agreed on %q, want %q", got, tt.agreed)
				}
				go func() { _, _ = io.WriteString(f.conn, "from inside") }()
				b := make([]byte, 11)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "from inside" {
					t.Errorf("the client reads %q, %v", b, err)
				}
			})
			if served != nil || handshake != nil {
				t.Fatalf("serve: %v, the client's handshake: %v", served, handshake)
			}
			if f.injected != tt.injected || f.reason != tt.reason {
				t.Errorf("injected %q with reason %q, want %q, %q", f.injected, f.reason, tt.injected, tt.reason)
			}
			if f.secured == nil || f.conn.TLS() == nil || f.identity.Name != "of "+tt.config.ServerName || f.asked != "" || f.relayed != nil || f.left {
				t.Errorf("secured %v, identity %q, asked for %q, relayed %v, left %v", f.secured != nil, f.identity.Name, f.asked, f.relayed, f.left)
			}
		})
	}
}

// A route that names the very name goes before a certificate that has it by a wildcard.
func TestRouteBeforeOwnWildcard(t *testing.T) {
	own := ownTLS(nil)
	own.Owns = func(name string, _ []string) bool { return strings.HasSuffix(name, ".example.com") }
	for name, asked := range map[string]string{"git.example.com": "git.example.com:443 -> one", "www.example.com": ""} {
		w := &wire{in: strings.NewReader("")}
		f := &fake{onLoop: true, conn: mux.NewConn(w, "main", Name, []byte(hello(t, name, "h2")))}
		if err := ownHandler(t, routed, own).serve(context.Background(), f); err != nil || f.asked != asked || f.left != (asked == "") {
			t.Errorf("%s: %v, asked for %q, left %v", name, err, f.asked, f.left)
		}
	}
}

// Whoever does not mean us is none of our business, and Owns is told what the hello says as it says it.
func TestOwns(t *testing.T) {
	for _, tt := range []struct {
		name, sends, asked string
		own                bool
	}{
		{"ours", hello(t, "gw.test", "h2", "http/1.1"), "gw.test [h2 http/1.1]", true},
		{"in another case", renamed(hello(t, "gw.test"), "gw.test", "Gw.TEST"), "Gw.TEST []", false},
		{"with a dot", renamed(hello(t, "gw.testx"), "gw.testx", "gw.test."), "gw.test. []", false},
		{"another's", hello(t, "git.example.com"), "git.example.com []", false},
		{"nobody's", hello(t, ""), " []", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			h := ownHandler(t, routed, ownTLS(func(name string, protocols []string) { asked = append(asked, fmt.Sprint(name, " ", protocols)) }))
			w := &wire{in: strings.NewReader("")}
			f := &fake{onLoop: true, conn: mux.NewConn(w, "main", Name, []byte(tt.sends))}
			_ = h.serve(context.Background(), f)
			if len(asked) != 1 || asked[0] != tt.asked || f.left != tt.own {
				t.Errorf("asked for %q and left the loop: %v; want %q, %v", asked, f.left, tt.asked, tt.own)
			}
			if tt.own && (f.asked != "" || string(f.conn.Prefix()) != tt.sends) {
				t.Errorf("asked the rules for %q; %d bytes of the hello are left", f.asked, len(f.conn.Prefix()))
			}
		})
	}
}

// TestTerminateLeavesTheLoopFirst: the handshake is done once the handler is called in a goroutine.
func TestTerminateLeavesTheLoopFirst(t *testing.T) {
	h := ownHandler(t, Options{}, ownTLS(nil))
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
	f := &fake{onLoop: true, conn: mux.NewConn(theirs, "main", Name, nil)}
	client := tls.Client(ours, config("gw.test"))
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := h.serve(context.Background(), f); err != nil || !f.left || f.secured != nil || f.injected != "" {
		t.Fatalf("on the loop: %v, left %v, secured %v, injected %q", err, f.left, f.secured != nil, f.injected)
	}
	if err := h.serve(context.Background(), f); err != nil || f.secured == nil || f.injected != "row " {
		t.Errorf("in a goroutine: %v, secured %v, injected %q", err, f.secured != nil, f.injected)
	}
	if err := <-done; err != nil {
		t.Errorf("the client's handshake: %v", err)
	}
}

// TestNested: inside TLS to the gateway there is no other TLS to the gateway, but routes go on.
func TestNested(t *testing.T) {
	inside := func(sends string) (*fake, *handler, *tls.Conn) {
		f := &fake{}
		h := ownHandler(t, routed, ownTLS(nil))
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close(); theirs.Close() })
		_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
		f.conn = mux.NewConn(theirs, "main", Name, nil)
		client := tls.Client(ours, config("gw.test"))
		go func() {
			if client.Handshake() == nil {
				_, _ = io.WriteString(client, sends)
			}
		}()
		if err := h.serve(context.Background(), f); err != nil {
			t.Fatal(err)
		}
		f.injected = ""
		return f, h, client
	}
	f, h, client := inside(hello(t, "gw.test"))
	answered := make(chan string, 1)
	go func() {
		b := make([]byte, len(clienthello.AlertAccessDenied.Record()))
		_, _ = io.ReadFull(client, b)
		answered <- string(b)
	}()
	err := h.serve(context.Background(), f)
	if !errors.Is(err, errNested) || f.reason != "tls_in_tls" || f.injected != "" || f.left {
		t.Errorf("serve: %v, reason %q, injected %q, left %v", err, f.reason, f.injected, f.left)
	}
	if got := <-answered; got != string(clienthello.AlertAccessDenied.Record()) {
		t.Errorf("the client got %x, want access_denied", got)
	}

	f, h, _ = inside(hello(t, "git.example.com"))
	if err := h.serve(context.Background(), f); err != nil || f.asked != "git.example.com:443 -> one" || f.relayed != server {
		t.Errorf("another's name inside: %v, asked for %q", err, f.asked)
	}
}

func TestTerminateFails(t *testing.T) {
	tls11 := config("gw.test")
	tls11.MinVersion, tls11.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	distrusts := config("gw.test")
	distrusts.InsecureSkipVerify, distrusts.RootCAs = false, x509.NewCertPool()
	for _, tt := range []struct {
		name   string
		config *tls.Config
	}{
		{"too old", tls11},
		{"no protocol in common", config("gw.test", "spdy/1")},
		{"the client does not trust us", distrusts},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{}
			served, handshake := terminated(t, ownHandler(t, Options{}, ownTLS(nil)), f, tt.config, nil)
			if served == nil || handshake == nil || f.reason != "tls_handshake_failed" || f.secured != nil || f.injected != "" {
				t.Errorf("serve: %v, the client's: %v, reason %q, secured %v, injected %q", served, handshake, f.reason, f.secured != nil, f.injected)
			}
			if strings.Contains(fmt.Sprint(served), "\n") {
				t.Errorf("the error can forge a line of a log: %q", served)
			}
		})
	}
}

// A CA that has seen our certificate is gone then: nothing is inside, and nothing has failed.
func TestTerminateForACA(t *testing.T) {
	for _, name := range []string{"gw.test", "else.test"} {
		own := ownTLS(nil)
		own.Config.VerifyConnection = func(tls.ConnectionState) error { return errChallenge }
		f := &fake{}
		served, _ := terminated(t, ownHandler(t, Options{DialSNI: true}, own), f, config(name, "acme-tls/1"), nil)
		if served != nil || f.reason != "acme_challenge" || f.injected != "" || f.secured != nil || f.asked != "" {
			t.Errorf("%s: %v, reason %q, injected %q, asked for %q", name, served, f.reason, f.injected, f.asked)
		}
	}
}

func TestTerminateInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error // of the client's reads behind its hello
		reason string
	}{
		{"client hangs up", io.EOF, "client_closed"},
		{"client is slow", os.ErrDeadlineExceeded, "handshake_timeout"},
		{"client is reset", net.ErrClosed, "tls_handshake_failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &mortal{wire{in: failing{tt.err}}}
			f := &fake{conn: mux.NewConn(w, "main", Name, []byte(hello(t, "gw.test")))}
			err := ownHandler(t, Options{}, ownTLS(nil)).serve(context.Background(), f)
			if !errors.Is(err, tt.err) || f.reason != tt.reason || f.secured != nil || f.injected != "" {
				t.Errorf("serve: %v, reason %q, want %v, %q", err, f.reason, tt.err, tt.reason)
			}
		})
	}
	f := &fake{conn: mux.NewConn(&wire{}, "main", Name, []byte(hello(t, "gw.test")))}
	f.conn = mux.NewConn(lost{&wire{}}, "main", Name, []byte(hello(t, "gw.test")))
	if err := ownHandler(t, Options{}, ownTLS(nil)).serve(context.Background(), f); !errors.Is(err, net.ErrClosed) {
		t.Errorf("on a connection that is gone already: %v", err)
	}
}

// failing is a reader that fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// mortal is a wire that takes deadlines.
type mortal struct{ wire }

func (*mortal) SetDeadline(time.Time) error      { return nil }
func (*mortal) SetReadDeadline(time.Time) error  { return nil }
func (*mortal) SetWriteDeadline(time.Time) error { return nil }
func (*mortal) Close() error                     { return nil }

// lost is a wire that is closed.
type lost struct{ *wire }

func (lost) SetDeadline(time.Time) error { return net.ErrClosed }

func TestAlertInClear(t *testing.T) {
	tests := []struct {
		name, last, want string
	}{
		{"unknown CA, as OpenSSL sends it", "\x15\x03\x03\x00\x02\x02\x30", "remote error: tls: unknown certificate authority"},
		{"bad certificate, in a record of TLS 1.0", "\x15\x03\x01\x00\x02\x02\x2a", "remote error: tls: bad certificate"},
		{"a warning", "\x15\x03\x03\x00\x02\x01\x00", ""},
		{"the end of an encrypted one", "\x13\x9a\x03\x00\x02\x02\x30", ""},
		{"a longer record", "\x15\x03\x03\x00\x12\x02\x30", ""},
		{"too little", "\x15\x03\x03", ""},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		got := ""
		if err := alertInClear([]byte(tt.last)); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: alertInClear says %q, want %q", tt.name, got, tt.want)
		}
	}
}
