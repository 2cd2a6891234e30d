package certificate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// clockSkew is by how much another machine's clock may be ahead of this one's.
const clockSkew = 5 * time.Minute

// staple is an OCSP response that belongs to a certificate. The zero staple is none.
type staple struct {
	raw   []byte
	until time.Time // zero does not end
}

func (s staple) over(now time.Time) bool { return !s.until.IsZero() && now.After(s.until) }

// loadStaple reads an OCSP response for the first certificate of a chain.
func loadStaple(path string, chain [][]byte, now time.Time) (staple, error) {
	data, err := read(path, maxPEM)
	if err != nil {
		return staple{}, err
	}
	if b, _ := pem.Decode(data); b != nil {
		data = b.Bytes
	}
	if len(chain) < 2 {
		return staple{}, errors.New("the response cannot be verified: the certificate's file lacks the certificate of the CA that issued it; put it behind")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return staple{}, err
	}
	issuer, err := x509.ParseCertificate(chain[1])
	if err != nil {
		return staple{}, err
	}
	r, err := ocsp.ParseResponseForCert(data, leaf, issuer)
	if err != nil {
		return staple{}, fmt.Errorf("%s is no OCSP response of the CA for this certificate: %w", path, err)
	}
	if err := checkResponse(path, r, issuer, now); err != nil {
		return staple{}, err
	}
	return staple{raw: data, until: r.NextUpdate}, nil
}

func checkResponse(path string, r *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	// A certificate that the CA has issued for something else does not speak for it (RFC 6960 section 4.2.2.2).
	if c := r.Certificate; c != nil && !bytes.Equal(c.Raw, issuer.Raw) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return fmt.Errorf("the response in %s is signed by %q, who may not sign such", path, c.Subject)
	}
	switch {
	case r.Status == ocsp.Revoked:
		return fmt.Errorf("the response in %s says that the certificate was revoked on %s; have a new one issued", path, r.RevokedAt.UTC().Format(dateFormat))
	case r.Status != ocsp.Good:
		return fmt.Errorf("the response in %s says that the CA does not know the certificate", path)
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		return fmt.Errorf("the response in %s expired on %s; fetch a new one", path, r.NextUpdate.UTC().Format(dateFormat))
	case r.ThisUpdate.After(now.Add(clockSkew)):
		return fmt.Errorf("the response in %s is of %s, which is not yet; is the clock of this machine right?", path, r.ThisUpdate.UTC().Format(dateFormat))
	}
	return nil
}
