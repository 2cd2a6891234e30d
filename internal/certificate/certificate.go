// Package certificate has what TLS to the gateway itself needs: the server's
// certificates from files that are read again when they change, with stapled
// OCSP responses (RFC 6066 section 8), the certificates of clients, their
// revocation (RFC 5280) and session tickets whose keys change.
//
// It asks nobody on the network: ACME and the fetching of OCSP responses and
// CRLs are done elsewhere. It knows nothing of sessions or of the configuration.
package certificate

import (
	"crypto/tls"
	"time"
)

// ChallengeProtocol is the ALPN protocol of an ACME validation (RFC 8737).
const ChallengeProtocol = "acme-tls/1"

// protocolHTTP2 is the ALPN protocol of HTTP/2 (RFC 9113 section 3.2).
const protocolHTTP2 = "h2"

// Pair names the files of one certificate.
type Pair struct {
	// Name is that of its table in the configuration, for messages.
	Name string
	// Certificate is the PEM file of the certificate and those that lead from it
	// to a CA, in this order. Key is the PEM file of its private key.
	Certificate, Key string
	// OCSP is a file with an OCSP response, PEM or DER, that is stapled. "" is none.
	OCSP string
}

// Sources of a client's identity.
const (
	// IdentitySAN takes the first email address of the certificate, else its first
	// DNS name, else its first URI.
	IdentitySAN = "san"
	// IdentityCN takes the common name of the subject.
	IdentityCN = "cn"
)

// Clients configures client certificates. The zero value asks for none.
type Clients struct {
	// CA is the PEM file of the CAs whose clients are believed. "" asks for no certificate.
	CA string
	// CRL is a file of their revocation lists: one in DER, or any number in PEM. "" is none.
	CRL string
	// Require turns away who has no certificate. Else it is only asked for; one that
	// is shown must be good all the same.
	Require bool
	// Identity is IdentitySAN or IdentityCN; "" is IdentitySAN.
	Identity string
}

// Options configures a Store.
type Options struct {
	Pairs   []Pair
	Clients Clients
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13; zero is TLS 1.2.
	MinVersion uint16
	// NextProtos are the protocols of ALPN, the most wanted first. A client that
	// offers protocols, but none of these, gets the alert no_application_protocol
	// (RFC 7301 section 3.2); one that offers none goes on. Empty ignores ALPN.
	NextProtos []string
	// Fallback has the certificates of FallbackNames that no file has. It also
	// answers ACME validations (ChallengeProtocol), whatever the name. It must
	// return at once. Nil has none.
	Fallback func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// FallbackNames are the names that Fallback has.
	FallbackNames []string
	// Names are names that some certificate must have: their lack is a fault.
	Names []string
	// Tickets has the keys of session tickets. It may outlive this Store, so that
	// clients resume their sessions after a reload. Nil makes its own.
	Tickets *Tickets
	// Log hears of every change that cannot be taken, once; of an OCSP response and
	// a CRL whose time is over, too. Nil hears nothing.
	Log func(error)
	// Now is the clock. Nil is time.Now.
	Now func() time.Time
}

// Stats is what can be said of a Store at one moment.
type Stats struct {
	// Failures counts the changes of files that could not be taken.
	Failures uint64
	// Pairs are in the order of Options.Pairs.
	Pairs []PairStats
}

// PairStats describes the certificate of one Pair that is in force.
type PairStats struct {
	Name     string    // of the Pair
	NotAfter time.Time // when the first certificate of the chain expires
	Stapled  bool      // an OCSP response is stapled
}
