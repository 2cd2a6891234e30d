package certificate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"polyport/internal/file"
)

const (
	// maxPEM bounds a file of certificates or of a key, in bytes.
	maxPEM = 1 << 20
	// maxCRL bounds a file of revocation lists: some 700,000 revoked certificates.
	maxCRL = 32 << 20
)

// read reads a file of a key of the configuration.
func read(path string, limit int64) ([]byte, error) {
	data, err := file.Read(path, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s; write the path of one that is there, or leave the key out (%w)", path, fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s cannot be read by the user that polyport runs as; give it to that user or its group: %w", path, err)
	}
	return data, err
}

// blocks returns the PEM blocks of a file, and whether something stands behind
// the last of them that begins like one more.
func blocks(data []byte) (all []*pem.Block, broken bool) {
	for {
		b, rest := pem.Decode(data)
		if b == nil {
			return all, bytes.Contains(data, []byte("-----BEGIN "))
		}
		all = append(all, b)
		data = rest
	}
}

func isPrivateKey(b *pem.Block) bool { return strings.HasSuffix(b.Type, "PRIVATE KEY") }

// parseCertificates reads all certificates of a PEM file. There is at least one if there is no error.
func parseCertificates(path string, data []byte) ([]*x509.Certificate, error) {
	all, broken := blocks(data)
	if broken {
		return nil, fmt.Errorf("a PEM block in %s is damaged or ends too early; copy the file again", path)
	}
	var certs []*x509.Certificate
	key := false
	for _, b := range all {
		key = key || isPrivateKey(b)
		if b.Type != "CERTIFICATE" && b.Type != "X509 CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in %s cannot be understood: %w", len(certs)+1, path, err)
		}
		certs = append(certs, c)
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case key:
		return nil, fmt.Errorf("%s has a private key and no certificate; perhaps the two paths are swapped", path)
	}
	if _, err := x509.ParseCertificate(data); err == nil {
		return nil, fmt.Errorf("%s is a certificate in DER; make it PEM with: openssl x509 -inform der -in %s -out %s.pem", path, path, path)
	}
	return nil, fmt.Errorf("there is no PEM certificate in %s (it would begin with -----BEGIN CERTIFICATE-----)", path)
}

// keyBlock finds the one private key of a PEM file.
func keyBlock(path string, data []byte) (*pem.Block, error) {
	all, broken := blocks(data)
	if broken {
		return nil, fmt.Errorf("a PEM block in %s is damaged or ends too early; copy the file again", path)
	}
	var key *pem.Block
	for _, b := range all {
		switch {
		case !isPrivateKey(b):
			continue
		case b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "":
			return nil, fmt.Errorf("the key in %s is encrypted, and nobody is there to type its password at a start; decrypt it with: openssl pkey -in %s -out NEW", path, path)
		case key != nil:
			return nil, fmt.Errorf("there is more than one private key in %s; leave only that of the certificate", path)
		}
		key = b
	}
	switch {
	case key != nil:
		return key, nil
	case len(all) > 0 && all[0].Type == "CERTIFICATE":
		return nil, fmt.Errorf("%s has a certificate and no private key; perhaps the two paths are swapped", path)
	}
	return nil, fmt.Errorf("there is no PEM private key in %s (it would begin with -----BEGIN PRIVATE KEY-----)", path)
}
