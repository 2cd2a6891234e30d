package config

import "strings"

// TLS is the [tls] table: TLS to the gateway itself, on the ports of its listeners. Without certificates there is none.
type TLS struct {
	// Names are server names of the gateway beyond those in its certificates, each covered by one of them.
	Names []string `toml:"names" reload:"live"`
	// NoSNI takes clients that send no server name for those of the gateway.
	NoSNI bool `toml:"no_sni" reload:"live"`
	// MinVersion is "1.2" or "1.3".
	MinVersion string `toml:"min_version" reload:"live"`
	// Certificate holds the [tls.certificate.NAME] tables.
	Certificate map[string]Certificate `toml:"certificate" reload:"live"`
	ACME        ACME                   `toml:"acme"`
}

// Certificate is a [tls.certificate.NAME] table. The files are PEM and are read again when they change.
type Certificate struct {
	Certificate string `toml:"certificate" reload:"live"` // the chain, the server's own first
	Key         string `toml:"key" reload:"live"`
	OCSP        string `toml:"ocsp" reload:"live"` // a response to staple; "" is none
}

// ACME is the [tls.acme] table: certificates that a CA gives by itself (RFC 8555).
type ACME struct {
	Names       []string `toml:"names" reload:"live"` // none is no ACME
	Email       string   `toml:"email" reload:"live"`
	Directory   string   `toml:"directory" reload:"live"`    // "" is Let's Encrypt's
	DirectoryCA string   `toml:"directory_ca" reload:"live"` // roots for the directory's own TLS; "" is the system's
	Storage     string   `toml:"storage" reload:"live"`      // a folder
	AcceptTerms bool     `toml:"accept_terms" reload:"live"`
	Challenges  []string `toml:"challenges" reload:"live"`
}

// HasTLS reports whether there are certificates, so that TLS to the gateway itself is served.
func (f *File) HasTLS() bool { return len(f.TLS.Certificate) > 0 || len(f.TLS.ACME.Names) > 0 }

// HasUsers reports whether there is a way to know a user: by a password or by a certificate.
func (f *File) HasUsers() bool { return f.Auth.Htpasswd != "" || f.Auth.ClientCA != "" }

// Values of Auth.ClientCertificate and Auth.ClientIdentity.
const (
	CertificateRequest = "request"
	CertificateRequire = "require"
	IdentitySAN        = "san"
	IdentityCN         = "cn"
)

// Values of ACME.Challenges.
const (
	ChallengeALPN = "tls-alpn-01"
	ChallengeHTTP = "http-01"
)

func (f *File) checkTLS(errs *faults) {
	p := root.key("tls")
	checkEnum(errs, p.key("min_version"), f.TLS.MinVersion, "1.2", "1.3")
	for _, name := range sortedKeys(f.TLS.Certificate) {
		here, c := p.key("certificate").key(name), f.TLS.Certificate[name]
		checkName(errs, here)
		if c.Certificate == "" {
			errs.addf(here.key("certificate"), `there is no file: write one such as "proxy.pem"`)
		}
		if c.Key == "" {
			errs.addf(here.key("key"), `there is no file: write one such as "proxy.key"`)
		}
	}
	if !f.HasTLS() {
		f.checkNoTLS(errs)
	}
	f.checkClientCertificates(errs)
	acme := p.key("acme")
	checkEmpty(errs, acme.key("challenges"), f.TLS.ACME.Challenges)
	for i, c := range f.TLS.ACME.Challenges {
		checkEnum(errs, acme.key("challenges").at(i), c, ChallengeALPN, ChallengeHTTP)
	}
}

// noCertificate is what keys that need one say where there is none.
const noCertificate = "there is no certificate for it: write a [tls.certificate.NAME] table, or [tls.acme]; 'polyport cert' makes one to try it out"

// checkNoTLS refuses what means nothing without certificates, since whoever wrote it believes that it holds.
func (f *File) checkNoTLS(errs *faults) {
	p := root.key("tls")
	for i := range f.TLS.Names {
		errs.addf(p.key("names").at(i), noCertificate)
	}
	if f.TLS.NoSNI {
		errs.addf(p.key("no_sni"), noCertificate)
	}
	for _, name := range f.ListenerNames() {
		if f.Listen[name].RequireTLS {
			errs.addf(root.key("listen").key(name).key("require_tls"), noCertificate)
		}
	}
	if f.Auth.ClientCA != "" {
		errs.addf(root.key("auth").key("client_ca"), "clients show certificates only to a gateway that has one, and there is none: write a [tls.certificate.NAME] table, or [tls.acme]")
	}
}

func (f *File) checkClientCertificates(errs *faults) {
	p, a := root.key("auth"), f.Auth
	checkEnum(errs, p.key("client_certificate"), a.ClientCertificate, CertificateRequest, CertificateRequire)
	checkEnum(errs, p.key("client_identity"), a.ClientIdentity, IdentitySAN, IdentityCN)
	if a.ClientCA != "" {
		return
	}
	if a.ClientCRL != "" {
		errs.addf(p.key("client_crl"), "there are no client certificates to revoke: write client_ca as well")
	}
	if a.ClientCertificate == CertificateRequire {
		errs.addf(p.key("client_certificate"), "there is no CA whose clients would be believed: write client_ca as well")
	}
}

// CertificateNames returns the names of the [tls.certificate.NAME] tables, sorted.
func (f *File) CertificateNames() []string { return sortedKeys(f.TLS.Certificate) }

// paths returns every path of a file, except for streams, for resolvePaths.
func (f *File) paths() []*string {
	all := []*string{&f.Auth.Htpasswd, &f.Auth.ClientCA, &f.Auth.ClientCRL, &f.TLS.ACME.DirectoryCA, &f.TLS.ACME.Storage, &f.GeoIP.Database, &f.DNS.CA}
	if !f.Log.accessToStream() {
		all = append(all, &f.Log.AccessTo)
	}
	return all
}

// TLSName returns the first host name under which clients reach the gateway by TLS, for the help page: one of names, a
// certificate's or an ACME one; known are those in the certificates, sorted. "" is none. A wildcard is no host name.
func (f *File) TLSName(known []string) string {
	for _, names := range [][]string{f.TLS.Names, f.TLS.ACME.Names, known} {
		for _, n := range names {
			if n != "" && !strings.HasPrefix(n, "*") {
				return n
			}
		}
	}
	return ""
}
