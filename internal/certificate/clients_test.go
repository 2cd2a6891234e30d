package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

func named(cn string) pkix.Name { return pkix.Name{CommonName: cn} }

func uris(t *testing.T, all ...string) (out []*url.URL) {
	t.Helper()
	for _, s := range all {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

// showing is a client that shows a certificate, asked for or not; nil shows none.
func showing(c *issuedCert, version uint16) *tls.Config {
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", MaxVersion: version}
	if c != nil {
		cert := c.tls()
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return cfg
}

// Each client gets the alert of RFC 8446 section 6.2 that crypto/tls has for it.
func TestClientCertificates(t *testing.T) {
	f := newFolder(t)
	root, stranger := caOf(t, "root", nil), caOf(t, "stranger", nil)
	middle, bad := caOf(t, "middle", root), caOf(t, "bad", root)
	revokedClient := clientOf(t, root, "mallory")
	crl := f.write(t, "crl", crlPEM(crlOf(t, root, x509.RevocationList{}, revokedClient, bad)))
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	ca := f.write(t, "ca", root.pem())
	impostor := caOf(t, "root", nil)
	expired := certOf(t, x509.Certificate{NotBefore: time.Now().AddDate(-1, 0, 0), EmailAddresses: []string{"o@example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, root, nil)
	tests := []struct {
		name     string
		client   *issuedCert
		o        Clients
		identity string
		alert    string // that the client gets
		err      error  // that the server has
	}{
		{"nobody asks", clientOf(t, root, "alice"), Clients{CRL: "-", CA: "-"}, "", "", nil},
		{"requested, shown", clientOf(t, root, "alice"), Clients{}, "alice@example.com", "", nil},
		{"requested, by common name", clientOf(t, root, "alice"), Clients{Identity: IdentityCN}, "alice", "", nil},
		{"requested, none", nil, Clients{}, "", "", nil},
		{"requested, of a stranger", clientOf(t, stranger, "alice"), Clients{}, "", "unknown certificate authority", nil},
		{"required, shown", clientOf(t, root, "alice"), Clients{Require: true}, "alice@example.com", "", nil},
		{"required, by an intermediate", clientOf(t, middle, "alice"), Clients{Require: true}, "alice@example.com", "", nil},
		{"required, none", nil, Clients{Require: true}, "", "none", nil},
		{"required, of a stranger", clientOf(t, stranger, "alice"), Clients{Require: true}, "", "unknown certificate authority", nil},
		{"of an impostor", clientOf(t, impostor, "alice"), Clients{}, "", "unknown certificate authority", nil},
		{"expired", expired, Clients{}, "", "expired certificate", nil},
		{"a server's", serverOf(t, root, nil, "b.example"), Clients{}, "", "bad certificate", nil},
		{"revoked", revokedClient, Clients{}, "", "bad certificate", ErrRevoked},
		{"by a revoked intermediate", clientOf(t, bad, "alice"), Clients{}, "", "bad certificate", ErrRevoked},
		{"without an identity", certOf(t, x509.Certificate{Subject: named("alice"), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, root, nil), Clients{}, "", "bad certificate", ErrNoIdentity},
	}
	for _, tt := range tests {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+", "+tls.VersionName(version), func(t *testing.T) {
				o := tt.o
				if o.CA == "" {
					o.CA, o.CRL = ca, crl
				} else {
					o.CA, o.CRL = "", ""
				}
				s := open(t, Options{Pairs: []Pair{p}, Clients: o})
				alert := tt.alert
				if alert == "none" {
					alert = map[uint16]string{tls.VersionTLS12: "handshake failure", tls.VersionTLS13: "certificate required"}[version]
				}
				got := shake(t, s.Config(), showing(tt.client, version))
				if (got.clientErr == nil) != (alert == "") || got.clientErr != nil && !strings.Contains(got.clientErr.Error(), alert) {
					t.Errorf("the client ends with %v, want %q; the server with %v", got.clientErr, alert, got.serverErr)
				}
				if tt.err != nil && !errors.Is(got.serverErr, tt.err) {
					t.Errorf("the server ends with %v, want %v", got.serverErr, tt.err)
				}
				if id := s.Identity(got.server); id != tt.identity {
					t.Errorf("the identity is %q, want %q", id, tt.identity)
				}
			})
		}
	}
}

// An intermediate that is trusted by itself is revoked all the same.
func TestRevokedAnchor(t *testing.T) {
	f := newFolder(t)
	root := caOf(t, "root", nil)
	middle := caOf(t, "middle", root)
	s := open(t, Options{
		Pairs: []Pair{f.pair(t, "x", serverOf(t, nil, nil, "a.example"))},
		Clients: Clients{
			CA:  f.write(t, "ca", root.pem()+middle.pem()),
			CRL: f.write(t, "crl", crlPEM(crlOf(t, middle, x509.RevocationList{}))+crlPEM(crlOf(t, root, x509.RevocationList{}, middle))),
		},
	})
	if got := shake(t, s.Config(), showing(clientOf(t, middle, "alice"), 0)); !errors.Is(got.serverErr, ErrRevoked) {
		t.Errorf("the server ends with %v, want %v", got.serverErr, ErrRevoked)
	}
}

// resuming is a client that keeps its tickets.
func resuming(c *issuedCert, version uint16) *tls.Config {
	cfg := showing(c, version)
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	return cfg
}

func TestTickets(t *testing.T) {
	f := newFolder(t)
	root, second := caOf(t, "root", nil), caOf(t, "second", nil)
	alice := clientOf(t, root, "alice")
	pairs := []Pair{f.pair(t, "x", serverOf(t, nil, nil, "a.example", "b.example"))}
	both, one, none := f.write(t, "both", root.pem()+second.pem()), f.write(t, "one", root.pem()), f.write(t, "none", second.pem())
	crl := f.write(t, "crl", crlPEM(crlOf(t, root, x509.RevocationList{}, alice)))
	tests := []struct {
		name          string
		before, after Clients
		client        *issuedCert
		serverName    string // of the second connection
		resumed       bool
		err           string
		identity      string
	}{
		{"no clients' certificates", Clients{}, Clients{}, nil, "", true, "", ""},
		{"the same clients", Clients{CA: one}, Clients{CA: one}, alice, "", true, "", "alice@example.com"},
		{"the same, required", Clients{CA: one, Require: true}, Clients{CA: one, Require: true}, alice, "", true, "", "alice@example.com"},
		{"another name", Clients{}, Clients{}, nil, "b.example", false, "", ""},
		{"certificates are asked for now", Clients{}, Clients{CA: one}, alice, "", false, "", "alice@example.com"},
		{"certificates are required now", Clients{CA: one}, Clients{CA: one, Require: true}, nil, "", false, "certificate", ""},
		{"certificates are not asked for now", Clients{CA: one}, Clients{}, alice, "", false, "", ""},
		{"another source of the identity", Clients{CA: one}, Clients{CA: one, Identity: IdentityCN}, alice, "", false, "", "alice"},
		{"another CA is removed", Clients{CA: both}, Clients{CA: one}, alice, "", false, "", "alice@example.com"},
		{"the CA is removed", Clients{CA: both}, Clients{CA: none}, alice, "", false, "unknown certificate authority", ""},
		{"revoked", Clients{CA: one}, Clients{CA: one, CRL: crl}, alice, "", false, "bad certificate", ""},
	}
	for _, tt := range tests {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+", "+tls.VersionName(version), func(t *testing.T) {
				tickets := NewTickets()
				client := resuming(tt.client, version)
				got := shake(t, open(t, Options{Pairs: pairs, Clients: tt.before, Tickets: tickets}).Config(), client)
				if got.err() != "" {
					t.Fatal(got.err())
				}
				if tt.serverName != "" { // a client that confuses the two offers the ticket all the same
					client.ServerName = tt.serverName
					client.ClientSessionCache = confused{client.ClientSessionCache, "a.example"}
				}
				s := open(t, Options{Pairs: pairs, Clients: tt.after, Tickets: tickets})
				got = shake(t, s.Config(), client)
				if (got.clientErr == nil) != (tt.err == "") || !strings.Contains(got.err(), tt.err) {
					t.Errorf("errors: %s, want %q", got.err(), tt.err)
				}
				if got.server.DidResume != tt.resumed || s.Identity(got.server) != tt.identity {
					t.Errorf("resumed %v with identity %q, want %v and %q", got.server.DidResume, s.Identity(got.server), tt.resumed, tt.identity)
				}
			})
		}
	}
}

// confused keeps all tickets under one name.
type confused struct {
	tls.ClientSessionCache
	name string
}

func (c confused) Get(string) (*tls.ClientSessionState, bool) {
	return c.ClientSessionCache.Get(c.name)
}

func (c confused) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put(c.name, s) }

// What a resumed session carries is judged again, even if its ticket was taken.
func TestResumedSessionsAreVerified(t *testing.T) {
	root := caOf(t, "root", nil)
	alice := clientOf(t, root, "alice")
	cs := tls.ConnectionState{DidResume: true, PeerCertificates: []*x509.Certificate{alice.cert}, VerifiedChains: [][]*x509.Certificate{{alice.cert, root.cert}}}
	f := newFolder(t)
	now := time.Now()
	s := open(t, Options{Clients: Clients{CA: f.write(t, "ca", root.pem()), Require: true}, Now: func() time.Time { return now }})
	if err := s.Verify(cs); err != nil {
		t.Errorf("a good certificate: %v", err)
	}
	if err := s.Verify(tls.ConnectionState{DidResume: true}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("no certificate: %v", err)
	}
	now = alice.cert.NotAfter.Add(time.Second)
	if err := s.Verify(cs); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired certificate: %v", err)
	}
	now = time.Now()
	f.write(t, "ca", caOf(t, "root", nil).pem())
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(cs); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another CA of the same name: %v", err)
	}
}
