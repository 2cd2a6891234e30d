package file

import (
	"crypto/x509"
	"fmt"
)

// maxPool bounds a file of CAs in bytes; all that browsers believe are a quarter of a MiB.
const maxPool = 16 << 20

// CertPool reads a PEM file of CAs, of up to 16 MiB. No file, "", is nil: the CAs of the system.
func CertPool(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := Read(path, maxPool)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return pool, nil
}
