package certificate

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// Extensions of revocation lists (RFC 5280 section 5.2).
var (
	oidDelta             = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// revoked is what the revocation lists say. It is immutable.
type revoked struct {
	lists map[string][]list // by RawSubject of the issuer
	until time.Time         // the first NextUpdate; zero does not end
}

// list is one CA's.
type list struct {
	issuerKeyID []byte
	serials     map[string]struct{} // as SerialNumber.Bytes()
}

func (r *revoked) has(c *x509.Certificate) bool {
	if r == nil {
		return false
	}
	for _, l := range r.lists[string(c.RawIssuer)] {
		other := len(l.issuerKeyID) > 0 && len(c.AuthorityKeyId) > 0 && !bytes.Equal(l.issuerKeyID, c.AuthorityKeyId)
		if _, listed := l.serials[string(c.SerialNumber.Bytes())]; listed && !other {
			return true
		}
	}
	return false
}

// parseCRLs reads revocation lists of these CAs.
func parseCRLs(path string, data []byte, cas []*x509.Certificate, now time.Time) (*revoked, error) {
	all, broken := blocks(data)
	if broken {
		return nil, fmt.Errorf("a PEM block in %s is damaged or ends too early; copy the file again", path)
	}
	ders := [][]byte{data}
	if len(all) > 0 {
		ders = nil
		for _, b := range all {
			if b.Type == "X509 CRL" {
				ders = append(ders, b.Bytes)
			}
		}
	}
	if len(ders) == 0 {
		return nil, fmt.Errorf("there is no revocation list in %s (it would begin with -----BEGIN X509 CRL-----)", path)
	}
	r := &revoked{lists: make(map[string][]list)}
	for i, der := range ders {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("revocation list %d in %s cannot be understood: %w", i+1, path, err)
		}
		if err := checkCRL(crl, cas, now); err != nil {
			return nil, fmt.Errorf("revocation list %d in %s %w", i+1, path, err)
		}
		r.add(crl)
	}
	return r, nil
}

func (r *revoked) add(crl *x509.RevocationList) {
	l := list{issuerKeyID: crl.AuthorityKeyId, serials: make(map[string]struct{}, len(crl.RevokedCertificateEntries))}
	for _, e := range crl.RevokedCertificateEntries {
		l.serials[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	issuer := string(crl.RawIssuer)
	r.lists[issuer] = append(r.lists[issuer], l)
	if !crl.NextUpdate.IsZero() && (r.until.IsZero() || crl.NextUpdate.Before(r.until)) {
		r.until = crl.NextUpdate
	}
}

func (r *revoked) over(now time.Time) bool {
	return r != nil && !r.until.IsZero() && now.After(r.until)
}

// checkCRL continues the sentence "revocation list 1 in FILE".
func checkCRL(crl *x509.RevocationList, cas []*x509.Certificate, now time.Time) error {
	if err := checkIssuer(crl, cas); err != nil {
		return err
	}
	switch {
	case !crl.NextUpdate.IsZero() && now.After(crl.NextUpdate):
		return fmt.Errorf("expired on %s; fetch a new one", crl.NextUpdate.UTC().Format(dateFormat))
	case crl.ThisUpdate.After(now.Add(clockSkew)):
		return fmt.Errorf("is of %s, which is not yet; is the clock of this machine right?", crl.ThisUpdate.UTC().Format(dateFormat))
	}
	for _, e := range crl.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return errors.New("has only the changes since another list (a delta CRL); give the whole list")
		case e.Critical && !e.Id.Equal(oidDistributionPoint):
			return fmt.Errorf("has a critical extension that is not understood (%v), so it must not be used (RFC 5280 section 5.2)", e.Id)
		}
	}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical { // an indirect list, with certificates of other CAs
				return fmt.Errorf("has an entry with a critical extension that is not understood (%v), so it must not be used (RFC 5280 section 5.3)", e.Id)
			}
		}
	}
	return nil
}

// checkIssuer verifies the signature.
func checkIssuer(crl *x509.RevocationList, cas []*x509.Certificate) error {
	err := fmt.Errorf("is of %q, who is not in client_ca; put that CA's certificate there, or leave the list out", crl.Issuer)
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, crl.RawIssuer) {
			continue
		}
		e := crl.CheckSignatureFrom(ca)
		if e == nil {
			return nil
		}
		err = fmt.Errorf("is not signed by the CA %q whose name it has: %w", crl.Issuer, e)
	}
	return err
}
