package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestOwns(t *testing.T) {
	f := newFolder(t)
	a := f.pair(t, "a", serverOf(t, nil, nil, "One.Example", "*.wild.example", "192.0.2.7"))
	b := f.pair(t, "b", serverOf(t, nil, nil, "two.example", "one.example"))
	s := open(t, Options{Pairs: []Pair{a, b}, FallbackNames: []string{"Acme.example"}})
	if got, want := s.Names(), []string{"*.wild.example", "acme.example", "one.example", "two.example"}; !slices.Equal(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	tests := []struct {
		name string
		want bool
	}{
		{"one.example", true},
		{"ONE.example", true},
		{"one.example.", true},
		{"two.example", true},
		{"acme.example", true},
		{"a.wild.example", true},
		{"A.Wild.Example.", true},
		{"wild.example", false},
		{"b.a.wild.example", false},
		{".wild.example", false},
		{"three.example", false},
		{"xone.example", false},
		{"example", false},
		{"", false},
		{".", false},
		{"192.0.2.7", false}, // no server name is an address (RFC 6066 section 3)
		{"a server", false},  // the common name
	}
	for _, tt := range tests {
		if got := s.Owns(tt.name); got != tt.want {
			t.Errorf("Owns(%q) = %v, want %v", tt.name, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.Owns("one.example") }); n > 0 {
		t.Errorf("Owns allocates %v times", n)
	}
}

// first is the certificate that the client was shown, by its names.
func first(s shaken) string {
	if len(s.client.PeerCertificates) == 0 {
		return ""
	}
	c := s.client.PeerCertificates[0]
	return c.PublicKeyAlgorithm.String() + " " + strings.Join(append(slices.Clone(c.DNSNames), ipText(c.IPAddresses)...), " ")
}

func ipText(ips []net.IP) (all []string) {
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return all
}

func TestWhoIsShown(t *testing.T) {
	f := newFolder(t)
	acme := serverOf(t, nil, nil, "acme.example")
	pairs := []Pair{
		f.pair(t, "rsa", serverOf(t, nil, rsaKey(t, 2048), "both.example")),
		f.pair(t, "ec", serverOf(t, nil, nil, "both.example")),
		f.pair(t, "wild", serverOf(t, nil, nil, "*.wild.example")),
		f.pair(t, "exact", serverOf(t, nil, nil, "a.wild.example")),
		f.pair(t, "address", serverOf(t, nil, nil, "127.0.0.1")),
	}
	fallback := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "broken.example" {
			return nil, errors.New("not yet")
		}
		c := acme.tls()
		return &c, nil
	}
	s := open(t, Options{Pairs: pairs, Fallback: fallback, FallbackNames: []string{"acme.example", "broken.example"}})
	noAddress := open(t, Options{Pairs: pairs[:4]})
	only := open(t, Options{Fallback: fallback, FallbackNames: []string{"acme.example"}})
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	tests := []struct {
		name   string
		store  *Store
		client *tls.Config
		want   string
		err    string // of the client
	}{
		{"ECDSA is preferred", s, &tls.Config{ServerName: "both.example"}, "ECDSA both.example", ""},
		{"RSA for who knows no other", s, &tls.Config{ServerName: "both.example", MaxVersion: tls.VersionTLS12, CipherSuites: onlyRSA}, "RSA both.example", ""},
		{"a wildcard", s, &tls.Config{ServerName: "b.wild.example"}, "ECDSA *.wild.example", ""},
		{"an exact name before a wildcard", s, &tls.Config{ServerName: "a.wild.example"}, "ECDSA a.wild.example", ""},
		{"capitals", s, &tls.Config{ServerName: "BOTH.example"}, "ECDSA both.example", ""},
		{"no name: the address", s, &tls.Config{ServerName: "127.0.0.1"}, "ECDSA 127.0.0.1", ""},
		{"no name, no address: the first", noAddress, &tls.Config{ServerName: "127.0.0.1"}, "ECDSA both.example", ""},
		{"a name of the fallback", s, &tls.Config{ServerName: "acme.example"}, "ECDSA acme.example", ""},
		{"no name, only the fallback", only, &tls.Config{}, "ECDSA acme.example", ""},
		{"a name of nobody", s, &tls.Config{ServerName: "nobody.example"}, "", "unrecognized name"},
		{"a name of nobody, no fallback", noAddress, &tls.Config{ServerName: "nobody.example", MaxVersion: tls.VersionTLS12}, "", "unrecognized name"},
		{"the fallback has none", s, &tls.Config{ServerName: "broken.example"}, "", "internal error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.InsecureSkipVerify = true
			got := shake(t, tt.store.Config(), tt.client)
			if first(got) != tt.want || (got.clientErr == nil) != (tt.err == "") || !strings.Contains(got.err(), tt.err) {
				t.Errorf("was shown %q, want %q; errors: %s, want %q", first(got), tt.want, got.err(), tt.err)
			}
		})
	}
}

func TestVersionsAndSuites(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	s := open(t, Options{Pairs: []Pair{p}, NextProtos: []string{"h2", "http/1.1"}})
	strict := open(t, Options{Pairs: []Pair{p}, MinVersion: tls.VersionTLS13})
	tests := []struct {
		name   string
		store  *Store
		client *tls.Config
		proto  string
		err    string
	}{
		{"TLS 1.3", s, &tls.Config{}, "", ""},
		{"TLS 1.2", s, &tls.Config{MaxVersion: tls.VersionTLS12}, "", ""},
		{"TLS 1.1", s, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", "protocol version not supported"},
		{"TLS 1.2 where 1.3 is the least", strict, &tls.Config{MaxVersion: tls.VersionTLS12}, "", "protocol version not supported"},
		{"CBC", s, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "", "handshake failure"},
		{"ALPN by the server's order", s, &tls.Config{NextProtos: []string{"http/1.1", "h2"}}, "h2", ""},
		{"ALPN, the second", s, &tls.Config{NextProtos: []string{"spdy/3", "http/1.1"}}, "http/1.1", ""},
		{"ALPN with nothing that fits", s, &tls.Config{NextProtos: []string{"spdy/3"}}, "", "no application protocol"},
		{"ALPN, not asked for", strict, &tls.Config{NextProtos: []string{"spdy/3"}}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.InsecureSkipVerify, tt.client.ServerName = true, "a.example"
			got := shake(t, tt.store.Config(), tt.client)
			if got.server.NegotiatedProtocol != tt.proto || (got.clientErr == nil) != (tt.err == "") || !strings.Contains(got.err(), tt.err) {
				t.Errorf("agreed on %q, want %q; errors: %s, want %q", got.server.NegotiatedProtocol, tt.proto, got.err(), tt.err)
			}
		})
	}
}

// A validation gets its certificate and nothing else: it must not be a way around
// the question for a client's certificate.
func TestChallenge(t *testing.T) {
	f := newFolder(t)
	challenge := serverOf(t, nil, nil, "a.example")
	o := Options{
		Pairs:    []Pair{f.pair(t, "x", serverOf(t, nil, nil, "a.example"))},
		Clients:  Clients{CA: f.write(t, "ca", caOf(t, "ca", nil).pem()), Require: true},
		Fallback: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { c := challenge.tls(); return &c, nil },
	}
	s := open(t, o)
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", NextProtos: []string{ChallengeProtocol}}
	got := shake(t, s.Config(), client)
	if !errors.Is(got.serverErr, ErrChallenge) {
		t.Errorf("the server ends with %v, want ErrChallenge", got.serverErr)
	}
	if got.client.NegotiatedProtocol != ChallengeProtocol || !got.client.PeerCertificates[0].Equal(challenge.cert) {
		t.Errorf("the validator got %q and %v", got.client.NegotiatedProtocol, first(got))
	}
	client.NextProtos = []string{ChallengeProtocol, "h2"} // no validator says that
	if got := shake(t, s.Config(), client); got.clientErr == nil || errors.Is(got.serverErr, ErrChallenge) {
		t.Errorf("who offers more than the validation ends with %s", got.err())
	}
	o.Fallback = nil
	client.NextProtos = client.NextProtos[:1]
	if got := shake(t, open(t, o).Config(), client); got.clientErr == nil || errors.Is(got.serverErr, ErrChallenge) {
		t.Errorf("a validation without ACME ends with %s", got.err())
	}
}

func TestMaterialWithoutConnection(t *testing.T) {
	m := newMaterial(nil, nil, nil)
	if c := m.choose(&tls.ClientHelloInfo{}); c != nil {
		t.Errorf("nothing to choose from gave %v", c)
	}
	if c := localIP(nil); c.IsValid() {
		t.Errorf("no connection has the address %v", c)
	}
}

func TestIdentities(t *testing.T) {
	root := caOf(t, "ca", nil)
	tests := []struct {
		name     string
		template x509.Certificate
		san, cn  string
	}{
		{"all", x509.Certificate{EmailAddresses: []string{"a@b.example"}, DNSNames: []string{"c.example"}, URIs: uris(t, "spiffe://d/e")}, "a@b.example", ""},
		{"DNS before URI", x509.Certificate{DNSNames: []string{"c.example", "x.example"}, URIs: uris(t, "spiffe://d/e")}, "c.example", ""},
		{"a URI", x509.Certificate{URIs: uris(t, "spiffe://d/e")}, "spiffe://d/e", ""},
		{"only a common name", x509.Certificate{Subject: named("alice")}, "", "alice"},
		{"a line end", x509.Certificate{Subject: named("alice\nbob")}, "", ""},
		{"spaces around", x509.Certificate{Subject: named(" alice")}, "", ""},
		{"a space within", x509.Certificate{Subject: named("Alice B.")}, "", "Alice B."},
		{"too long", x509.Certificate{Subject: named(strings.Repeat("a", 256))}, "", ""},
		{"a mark that turns the line", x509.Certificate{Subject: named("a\u202eb")}, "", ""},
	}
	for _, tt := range tests {
		c := certOf(t, tt.template, root, nil).cert
		if got := identityOf(c, IdentitySAN); got != tt.san {
			t.Errorf("%s: the identity by SAN is %q, want %q", tt.name, got, tt.san)
		}
		if got := identityOf(c, IdentityCN); got != tt.cn {
			t.Errorf("%s: the identity by CN is %q, want %q", tt.name, got, tt.cn)
		}
	}
}
