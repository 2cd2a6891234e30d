package certificate

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"
)

// maxIdentity bounds an identity, in bytes: as that of a user in SOCKS5 (RFC 1929).
const maxIdentity = 255

// Errors of a client's certificate, besides those of crypto/x509.
var (
	// ErrRevoked says that a revocation list has the client's certificate, or one above it.
	ErrRevoked = errors.New("the client's certificate has been revoked")
	// ErrNoIdentity says that a good certificate has no name that can be used.
	ErrNoIdentity = errors.New("the client's certificate has no usable identity")
	// ErrNoCertificate says that the client has shown no certificate and must.
	ErrNoCertificate = errors.New("the client has shown no certificate")
)

// clients is who is believed. It is immutable.
type clients struct {
	options     Clients
	roots       *x509.CertPool
	revoked     *revoked
	fingerprint [sha256.Size]byte // of all that decides who is believed
	warnings    []string
}

func (c Clients) validate() error {
	var errs *multierror.Error
	if c.CA == "" && c.Require {
		errs = multierror.Append(errs, errors.New("client_ca: clients must show a certificate, but it is not said of which CA; write the path of its certificate"))
	}
	if c.CA == "" && c.CRL != "" {
		errs = multierror.Append(errs, errors.New("client_crl: a revocation list means nothing without client_ca"))
	}
	if c.Identity != "" && c.Identity != IdentitySAN && c.Identity != IdentityCN {
		errs = multierror.Append(errs, fmt.Errorf("client_identity: %q is neither %q nor %q", c.Identity, IdentitySAN, IdentityCN))
	}
	return errs.ErrorOrNil()
}

// loadClients reads the CAs and the revocation lists. Nil asks for no certificate.
func loadClients(o Clients, now time.Time) (*clients, error) {
	if o.CA == "" {
		return nil, nil
	}
	c := &clients{options: o, roots: x509.NewCertPool()}
	data, err := read(o.CA, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("client_ca: %w", err)
	}
	cas, err := parseCertificates(o.CA, data)
	if err != nil {
		return nil, fmt.Errorf("client_ca: %w", err)
	}
	if c.warnings, err = checkCAs(o.CA, cas, now); err != nil {
		return nil, err
	}
	for _, ca := range cas {
		c.roots.AddCert(ca)
	}
	var list []byte
	if o.CRL != "" {
		if list, err = read(o.CRL, maxCRL); err == nil {
			c.revoked, err = parseCRLs(o.CRL, list, cas, now)
		}
		if err != nil {
			return nil, fmt.Errorf("client_crl: %w", err)
		}
	}
	c.fingerprint = fingerprint(o, data, list)
	return c, nil
}

// fingerprint differs whenever another certificate could be believed, or the same
// one could have another identity.
func fingerprint(o Clients, ca, crl []byte) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%t %q %d %d\n", o.Require, o.identity(), len(ca), len(crl))
	h.Write(ca)
	h.Write(crl)
	return [sha256.Size]byte(h.Sum(nil))
}

func (c Clients) identity() string {
	if c.Identity == "" {
		return IdentitySAN
	}
	return c.Identity
}

// checkCAs finds certificates that no client's can come from.
func checkCAs(path string, cas []*x509.Certificate, now time.Time) (warnings []string, err error) {
	var errs *multierror.Error
	expired := 0
	for i, ca := range cas {
		switch {
		case !ca.BasicConstraintsValid || !ca.IsCA:
			errs = multierror.Append(errs, fmt.Errorf("client_ca: certificate %d in %s (%q) is none of a CA; take the certificate that the clients' ones were issued with", i+1, path, ca.Subject))
		case now.After(ca.NotAfter):
			expired++
			warnings = append(warnings, fmt.Sprintf("client_ca: certificate %d in %s (%q) expired on %s", i+1, path, ca.Subject, ca.NotAfter.UTC().Format(dateFormat)))
		}
	}
	if expired == len(cas) {
		errs = multierror.Append(errs, fmt.Errorf("client_ca: the certificate in %s expired on %s, and no client would be believed; renew it", path, cas[expired-1].NotAfter.UTC().Format(dateFormat)))
	}
	return warnings, errs.ErrorOrNil()
}

func (c *clients) authType() tls.ClientAuthType {
	if c.options.Require {
		return tls.RequireAndVerifyClientCert
	}
	return tls.VerifyClientCertIfGiven
}

// verify judges what a client has shown, in a whole handshake or in the one that
// its ticket is of.
func (c *clients) verify(cs tls.ConnectionState, now time.Time) error {
	if len(cs.PeerCertificates) == 0 {
		if c.options.Require {
			return ErrNoCertificate
		}
		return nil
	}
	leaf := cs.PeerCertificates[0]
	o := x509.VerifyOptions{
		Roots: c.roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, i := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(i)
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return fmt.Errorf("verify the client's certificate: %w", err)
	}
	if !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return !slices.ContainsFunc(chain, c.revoked.has) }) {
		return fmt.Errorf("%w: number %x of %q", ErrRevoked, leaf.SerialNumber, leaf.Issuer)
	}
	if identityOf(leaf, c.options.identity()) == "" {
		return fmt.Errorf("%w: %q has no %s that is printable and of up to %d bytes", ErrNoIdentity, leaf.Subject, identityWords[c.options.identity()], maxIdentity)
	}
	return nil
}

var identityWords = map[string]string{IdentitySAN: "email address, DNS name or URI", IdentityCN: "common name"}

// identityOf returns a certificate's identity, or "".
func identityOf(c *x509.Certificate, source string) string {
	if source == IdentityCN {
		return usable(c.Subject.CommonName)
	}
	switch {
	case len(c.EmailAddresses) > 0:
		return usable(c.EmailAddresses[0])
	case len(c.DNSNames) > 0:
		return usable(c.DNSNames[0])
	case len(c.URIs) > 0:
		return usable(c.URIs[0].String())
	}
	return ""
}

// usable refuses what would be another thing in a log, or could not be a user.
func usable(identity string) string {
	if len(identity) > maxIdentity || !utf8.ValidString(identity) || strings.TrimSpace(identity) != identity ||
		strings.ContainsFunc(identity, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return identity
}
