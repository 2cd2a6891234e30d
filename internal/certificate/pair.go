package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"

	"polyport/internal/file"
)

// dateFormat is for those who read a fault.
const dateFormat = "2006-01-02 15:04 MST"

// pair is one certificate with its key. It is immutable.
type pair struct {
	name     string
	cert     *tls.Certificate // with the staple, if there is one
	leaf     *x509.Certificate
	staple   staple
	warnings []string
}

func (p *pair) key(field string) string { return pairKey(p.name, field) }

func pairKey(name, field string) string { return "certificate." + name + "." + field }

// held is what a file holds, or why it cannot be read.
type held struct {
	data []byte
	err  error
}

func hold(path string) held {
	data, err := read(path, maxPEM)
	return held{data, err}
}

// loadPair reads the certificate and the key, but no OCSP response.
func loadPair(files Pair, now time.Time) (*pair, error) {
	p, err := parsePair(files, hold(files.Certificate), hold(files.Key), now)
	if err == nil {
		p.warnings = append(keyWarnings(files), p.warnings...)
	}
	return p, err
}

// parsePair judges what the two files hold.
func parsePair(files Pair, certFile, keyFile held, now time.Time) (*pair, error) {
	p := &pair{name: files.Name}
	var errs *multierror.Error
	fault := func(field string, err error) {
		errs = multierror.Append(errs, fmt.Errorf("%s: %w", pairKey(files.Name, field), err))
	}
	chain, chainErr := parseChain(files.Certificate, certFile)
	if chainErr != nil {
		fault("certificate", chainErr)
	}
	key, keyErr := parseKeyFile(files.Key, keyFile)
	if keyErr != nil {
		fault("key", keyErr)
	}
	if chainErr == nil && keyErr == nil {
		if err := checkBelongs(files, chain, key); err != nil {
			fault("key", err)
			return nil, errs // what follows would be said of the wrong certificate
		}
	}
	if chainErr == nil {
		for _, err := range checkChain(files.Certificate, chain, now) {
			fault("certificate", err)
		}
	}
	if err := errs.ErrorOrNil(); err != nil {
		return nil, err
	}
	raw := make([][]byte, len(chain))
	for i, c := range chain {
		raw[i] = c.Raw
	}
	p.leaf = chain[0]
	p.cert = &tls.Certificate{Certificate: raw, PrivateKey: key, Leaf: chain[0]}
	p.warnings = chainWarnings(files, chain, now)
	return p, nil
}

func parseChain(path string, h held) ([]*x509.Certificate, error) {
	if h.err != nil {
		return nil, h.err
	}
	return parseCertificates(path, h.data)
}

func parseKeyFile(path string, h held) (crypto.Signer, error) {
	if h.err != nil {
		return nil, h.err
	}
	b, err := keyBlock(path, h.data)
	if err != nil {
		return nil, err
	}
	return parseKey(path, b)
}

// parseKey reads a key in any of the three encodings that PEM files have: the
// label is not believed, since some programs write the wrong one.
func parseKey(path string, b *pem.Block) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		if k, e := x509.ParseECPrivateKey(b.Bytes); e == nil {
			key, err = k, nil
		} else if k, e := x509.ParsePKCS1PrivateKey(b.Bytes); e == nil {
			key, err = k, nil
		} else if b.Type == "RSA PRIVATE KEY" {
			err = e
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the key in %s cannot be understood: %w", path, err)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("the key in %s is of a kind that cannot sign (%T); take an ECDSA, Ed25519 or RSA key", path, key)
}

// checkBelongs says what is wrong if the key is not that of the first certificate.
func checkBelongs(files Pair, chain []*x509.Certificate, key crypto.Signer) error {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return fmt.Errorf("the key in %s cannot be compared", files.Key)
	}
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
	switch {
	case i < 0:
		return fmt.Errorf("the key in %s does not belong to the certificate in %s", files.Key, files.Certificate)
	case i > 0:
		return fmt.Errorf("the key in %s belongs to certificate %d in %s; that one must stand first, and behind each the one that issued it", files.Key, i+1, files.Certificate)
	}
	return nil
}

// checkChain finds what clients would refuse.
func checkChain(path string, chain []*x509.Certificate, now time.Time) (faults []error) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	leaf := chain[0]
	switch {
	case now.After(leaf.NotAfter):
		fault("the certificate in %s expired on %s; renew it", path, leaf.NotAfter.UTC().Format(dateFormat))
	case now.Before(leaf.NotBefore):
		fault("the certificate in %s is not valid before %s; is the clock of this machine right?", path, leaf.NotBefore.UTC().Format(dateFormat))
	}
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 {
		fault("the certificate in %s has no subject alternative name, and clients ignore the common name (RFC 9525); have it issued with DNS names", path)
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(leaf.ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
		return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny
	}) {
		fault("the certificate in %s is not for servers (its extended key usage lacks serverAuth)", path)
	}
	for i, c := range chain {
		if err := checkStrength(c); err != nil {
			fault("certificate %d in %s %w", i+1, path, err)
		}
	}
	for i := range chain[1:] {
		if err := issued(chain[i+1], chain[i]); err != nil {
			fault("certificate %d in %s does not have behind it the one that issued it (%w): the chain is in the wrong order, or a certificate is missing or does not belong", i+1, path, err)
			break
		}
	}
	return faults
}

// issued checks that parent has issued c. Weak signatures have been found before.
func issued(parent, c *x509.Certificate) error {
	if !bytes.Equal(parent.RawSubject, c.RawIssuer) {
		return fmt.Errorf("it is of %q", c.Issuer)
	}
	if err := checkStrength(c); err != nil {
		return nil
	}
	return c.CheckSignatureFrom(parent)
}

// checkStrength says what makes clients refuse a certificate whoever issued it.
func checkStrength(c *x509.Certificate) error {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("has an RSA key of only %d bits; 2048 is the least that clients accept", k.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return errors.New("has a key of the curve P-224, which TLS does not know; take P-256")
		}
	case ed25519.PublicKey:
	default:
		return errors.New("has a key of a kind that TLS does not know; take ECDSA, Ed25519 or RSA")
	}
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		if !bytes.Equal(c.RawSubject, c.RawIssuer) || !c.IsCA { // nobody checks the signature of a root
			return fmt.Errorf("is signed with %v, which clients refuse; have it issued again with SHA-256", c.SignatureAlgorithm)
		}
	}
	return nil
}

// keyWarnings complains of a key that others can read.
func keyWarnings(files Pair) []string {
	st, err := file.StampOf(files.Key)
	if err != nil || st.Mode()&0o077 == 0 || runtime.GOOS == "windows" {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s can be read by other users of this machine (mode %04o); run: chmod 600 %s", pairKey(files.Name, "key"), files.Key, st.Mode(), files.Key)}
}

// chainWarnings complains of what only some clients refuse.
func chainWarnings(files Pair, chain []*x509.Certificate, now time.Time) (warnings []string) {
	for i, c := range chain[1:] {
		if now.After(c.NotAfter) {
			warnings = append(warnings, fmt.Sprintf("%s: certificate %d in %s, an issuer, expired on %s", pairKey(files.Name, "certificate"), i+2, files.Certificate, c.NotAfter.UTC().Format(dateFormat)))
		}
	}
	return warnings
}

// rank orders keys by what they cost: ECDSA, then Ed25519, then RSA.
func (p *pair) rank() int {
	switch p.leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return 0
	case ed25519.PublicKey:
		return 1
	}
	return 2
}

// names returns the certificate's names, normalised.
func (p *pair) names() []string {
	var names []string
	for _, n := range p.leaf.DNSNames {
		if n = normal(n); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// normal is a name without what makes no difference in DNS.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
