// Package localca makes certificates for trying TLS out: a CA of its own for each
// folder, a certificate of the gateway, and certificates of clients from a second
// CA. The CA of the gateway can vouch for the names of its certificate and for
// nothing else (RFC 5280 section 4.2.1.10), so whoever steals its key cannot be
// anybody else to those who trust it.
//
// It is no CA for a company: it revokes nothing and keeps no list of what it has issued.
package localca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"polyport/internal/file"
)

const (
	caLife = 10 * 365 * 24 * time.Hour
	// certificateLife is the longest that browsers accept, in whole days.
	certificateLife = 397 * 24 * time.Hour
	// backdated is for clients whose clock is slow.
	backdated = time.Hour

	maxPEM = 1 << 20
)

// Issued says what has been made.
type Issued struct {
	CA          string // path of the CA's certificate
	CAKey       string
	NewCA       bool // the CA has been made too
	Certificate string
	Key         string
	Names       []string // of the certificate; of a client its identity
	NotAfter    time.Time
}

// Server issues a certificate of the gateway for these names and addresses, with a
// new key; the files in dir are replaced. Without names it takes those of the
// certificate that is there, else DefaultNames. A CA that is in dir is used, else one is made.
func Server(dir string, names []string, now time.Time) (Issued, error) {
	if len(names) == 0 {
		names = namesOf(filepath.Join(dir, "server.pem"))
	}
	if len(names) == 0 {
		names = DefaultNames()
	}
	dns, ips, err := sort(names)
	if err != nil {
		return Issued{}, err
	}
	ca, err := openCA(dir, "ca", now, func() *x509.Certificate { return serverCA(dns, ips) })
	if err != nil {
		return Issued{}, err
	}
	if err := ca.permits(dns, ips); err != nil {
		return Issued{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: slices.Concat(dns, addresses(ips))[0]},
		DNSNames:    dns,
		IPAddresses: ips,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return ca.issue(template, "server", slices.Concat(dns, addresses(ips)), now)
}

// Client issues a certificate of a client with a new key; the client's files in dir
// are replaced. The name is the common name and the subject alternative name, so
// the gateway finds it by either.
func Client(dir, name string, now time.Time) (Issued, error) {
	if err := checkClient(name); err != nil {
		return Issued{}, err
	}
	ca, err := openCA(dir, "client-ca", now, clientCA)
	if err != nil {
		return Issued{}, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if strings.Contains(name, "@") {
		template.EmailAddresses = []string{name}
	} else {
		template.DNSNames = []string{name}
	}
	return ca.issue(template, "client-"+name, []string{name}, now)
}

// DefaultNames are those by which this machine reaches itself, and its own name.
func DefaultNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	host, err := os.Hostname()
	if err != nil {
		return names
	}
	if host, err = normal(host); err == nil && !slices.Contains(names, host) {
		names = append(names, host)
	}
	return names
}

// namesOf returns the names of the certificate in a file, nil if there is none.
func namesOf(path string) []string {
	c, err := readCertificate(path)
	if err != nil {
		return nil
	}
	return slices.Concat(c.DNSNames, addresses(c.IPAddresses))
}

func addresses(ips []net.IP) []string {
	var all []string
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return all
}

// sort tells names from addresses and drops what stands twice.
func sort(names []string) (dns []string, ips []net.IP, err error) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			if !slices.ContainsFunc(ips, ip.Equal) {
				ips = append(ips, ip)
			}
			continue
		}
		n, err := normal(name)
		if err != nil {
			return nil, nil, err
		}
		if !slices.Contains(dns, n) {
			dns = append(dns, n)
		}
	}
	return dns, ips, nil
}

// normal returns a DNS name as it stands in certificates. A wildcard is one.
func normal(name string) (string, error) {
	rest, wild := strings.CutPrefix(name, "*.")
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(rest, "."))
	if err != nil || ascii == "" || strings.ContainsAny(ascii, ":/ ") || wild && !strings.Contains(ascii, ".") {
		return "", fmt.Errorf("%q is neither a DNS name nor an IP address, as in: polyport cert proxy.example.com 192.0.2.7", name)
	}
	if wild {
		ascii = "*." + ascii
	}
	return ascii, nil
}

// checkClient allows what is a file name on every system, too.
func checkClient(name string) error {
	const others = "._@-"
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r))
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, odd) || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
		return fmt.Errorf("the client's name %q must be of 1 to 64 letters, digits, and %s between them, as in: polyport cert --client alice", name, others)
	}
	if strings.EqualFold(name, "ca") { // client-ca.pem is the CA
		return fmt.Errorf("the client's name %q is that of the CA's own files; take another", name)
	}
	return nil
}

// serverCA is limited to the names that its certificate will have, and to loopback
// ones: a kind of name without a limit would be open.
func serverCA(dns []string, ips []net.IP) *x509.Certificate {
	domains := []string{"localhost"}
	for _, name := range dns {
		if name = strings.TrimPrefix(name, "*."); !slices.Contains(domains, name) {
			domains = append(domains, name)
		}
	}
	var ranges []*net.IPNet
	for _, ip := range slices.Concat([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, ips) {
		if slices.ContainsFunc(ranges, func(r *net.IPNet) bool { return r.Contains(ip) }) {
			continue
		}
		if four := ip.To4(); four != nil {
			ip = four
		}
		ranges = append(ranges, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	return &x509.Certificate{
		Subject:                     pkix.Name{CommonName: "polyport local CA"},
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         domains,
		PermittedIPRanges:           ranges,
	}
}

func clientCA() *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: "polyport local client CA"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// authority is a CA that can issue.
type authority struct {
	dir, certPath, keyPath string
	cert                   *x509.Certificate
	key                    crypto.Signer
	fresh                  bool
}

// openCA opens the CA of this name in dir, or makes it. The key of one that is
// there is never written over.
func openCA(dir, name string, now time.Time, template func() *x509.Certificate) (*authority, error) {
	a := &authority{dir: dir, certPath: filepath.Join(dir, name+".pem"), keyPath: filepath.Join(dir, name+".key")}
	cert, certErr := readCertificate(a.certPath)
	key, keyErr := readKey(a.keyPath)
	noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCert && noKey:
		if err := a.make(template(), now); err != nil {
			return nil, fmt.Errorf("make the CA: %w", err)
		}
		return a, nil
	case noCert:
		return nil, fmt.Errorf("there is the key %s without its certificate %s; bring that back, or move the key away and a new CA is made", a.keyPath, a.certPath)
	case noKey:
		return nil, fmt.Errorf("there is the certificate %s without its key %s; bring that back, or name another folder with --dir", a.certPath, a.keyPath)
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	a.cert, a.key = cert, key
	return a, a.check(now)
}

// check says why a CA that was found cannot issue.
func (a *authority) check(now time.Time) error {
	public, ok := a.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(a.cert.PublicKey):
		return fmt.Errorf("the key %s does not belong to %s", a.keyPath, a.certPath)
	case !a.cert.IsCA:
		return fmt.Errorf("%s is no certificate of a CA; name another folder with --dir", a.certPath)
	case now.After(a.cert.NotAfter):
		return fmt.Errorf("the CA in %s expired on %s; move it and its key away and a new one is made, which clients must then trust", a.certPath, a.cert.NotAfter.Format(time.DateOnly))
	}
	return nil
}

func (a *authority) make(template *x509.Certificate, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id := make([]byte, 4) // two CAs of one name would be taken for each other
	rand.Read(id)
	template.Subject.CommonName += " " + hex.EncodeToString(id)
	template.NotBefore, template.NotAfter = now.Add(-backdated), now.Add(caLife)
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.BasicConstraintsValid, template.IsCA, template.MaxPathLenZero = true, true, true
	if a.cert, err = sign(template, template, key.Public(), key); err != nil {
		return err
	}
	a.key, a.fresh = key, true
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return err
	}
	if err := file.Create(a.keyPath, text, 0o600); err != nil {
		return err
	}
	return file.Replace(a.certPath, certPEM(a.cert), 0o644, 0o666)
}

// permits checks the names against what the CA is limited to.
func (a *authority) permits(dns []string, ips []net.IP) error {
	limited := len(a.cert.PermittedDNSDomains)+len(a.cert.PermittedIPRanges) > 0
	if !limited {
		return nil
	}
	refuse := func(name string) error {
		var all []string
		all = append(all, a.cert.PermittedDNSDomains...)
		for _, r := range a.cert.PermittedIPRanges {
			all = append(all, r.IP.String())
		}
		return fmt.Errorf("the CA in %s was made for %s and nothing else, so it cannot vouch for %q; make another with --dir, or move this one and its key away and a new one is made, which clients must then trust",
			a.certPath, strings.Join(all, ", "), name)
	}
	for _, name := range dns {
		base := strings.TrimPrefix(name, "*.")
		if !slices.ContainsFunc(a.cert.PermittedDNSDomains, func(d string) bool { return base == d || strings.HasSuffix(base, "."+d) }) {
			return refuse(name)
		}
	}
	for _, ip := range ips {
		if !slices.ContainsFunc(a.cert.PermittedIPRanges, func(r *net.IPNet) bool { return r.Contains(ip) }) {
			return refuse(ip.String())
		}
	}
	return nil
}

// issue writes a certificate and its new key. A gateway that reads the files in
// between finds that they do not fit together and tries again.
func (a *authority) issue(template *x509.Certificate, name string, names []string, now time.Time) (Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issued{}, err
	}
	template.NotBefore = now.Add(-backdated)
	template.NotAfter = template.NotBefore.Add(certificateLife - time.Second) // both ends count
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	cert, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		return Issued{}, fmt.Errorf("issue the certificate: %w", err)
	}
	if err := a.believed(cert, now); err != nil {
		return Issued{}, fmt.Errorf("the CA in %s issues what nobody would believe: %w", a.certPath, err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return Issued{}, err
	}
	i := Issued{
		CA: a.certPath, CAKey: a.keyPath, NewCA: a.fresh,
		Certificate: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+".key"),
		Names: names, NotAfter: cert.NotAfter,
	}
	if err := file.Replace(i.Key, text, 0o600, 0o660); err != nil {
		return Issued{}, fmt.Errorf("write the key: %w", err)
	}
	if err := file.Replace(i.Certificate, certPEM(cert), 0o644, 0o666); err != nil {
		return Issued{}, fmt.Errorf("write the certificate: %w", err)
	}
	return i, nil
}

// believed verifies a certificate as a client would.
func (a *authority) believed(cert *x509.Certificate, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: cert.ExtKeyUsage})
	return err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := file.Read(path, maxPEM)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(bytes.TrimSpace(data))
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s is no PEM certificate", path)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be understood: %w", path, err)
	}
	return c, nil
}

func readKey(path string) (crypto.Signer, error) {
	data, err := file.Read(path, maxPEM)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(data)
	if b == nil || b.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s is no PEM private key (PKCS #8)", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be understood: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key in %s cannot sign", path)
	}
	return signer, nil
}
