package certificate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
)

// ErrChallenge ends the handshake of an ACME validation, after the validator has
// been shown the certificate that it asked for (RFC 8737 section 3): such a
// connection carries nothing, least of all past the question for a client's certificate.
var ErrChallenge = errors.New("the connection was an ACME validation, which ends here")

// suites are those of TLS 1.2 with forward secrecy and authenticated encryption.
// TLS 1.3 has no others, and crypto/tls orders them by the hardware.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Config is the configuration of all TLS connections of this Store: it goes with
// the files. It must not be changed.
//
// The alerts are those of crypto/tls, which has no certificate_revoked: a revoked
// certificate and one without an identity get bad_certificate, as everything that
// no other alert of RFC 8446 section 6.2 is sent for. A name that no certificate has
// gets unrecognized_name (RFC 6066 section 3).
func (s *Store) Config() *tls.Config { return s.config }

// HTTP1Config is Config for where HTTP/2 is not served: a client that offers it and something else gets the other.
func (s *Store) HTTP1Config() *tls.Config { return s.http1 }

// configFor picks the configuration of one connection.
func (s *Store) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if s.validates(hello) {
		return s.challengeConfig(), nil
	}
	return s.current.Load().config, nil
}

// http1ConfigFor is configFor for HTTP1Config.
func (s *Store) http1ConfigFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if s.validates(hello) {
		return s.challengeConfig(), nil
	}
	return s.current.Load().http1, nil
}

// validates reports whether the client is a CA that looks for an answer to its challenge.
func (s *Store) validates(hello *tls.ClientHelloInfo) bool {
	return s.options.Fallback != nil && slices.Equal(hello.SupportedProtos, []string{ChallengeProtocol})
}

func (s *Store) configOf(m *material) *tls.Config {
	c := &tls.Config{
		Time:             s.now,
		MinVersion:       max(s.options.MinVersion, tls.VersionTLS12),
		CipherSuites:     suites,
		NextProtos:       slices.Clone(s.options.NextProtos),
		GetCertificate:   s.certificate,
		VerifyConnection: s.Verify,
		WrapSession: func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
			return s.tickets.wrap(cs, ss, m.binding(cs.ServerName))
		},
		UnwrapSession: func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
			return s.tickets.unwrap(ticket, cs, m.binding(cs.ServerName))
		},
	}
	if m.clients != nil {
		c.ClientAuth, c.ClientCAs = m.clients.authType(), m.clients.roots
	}
	return c
}

// challengeConfig answers an ACME validation. It is of TLS 1.3, where the
// validator has everything it wants before the handshake is ended.
func (s *Store) challengeConfig() *tls.Config {
	return &tls.Config{
		Time:                   s.now,
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ChallengeProtocol},
		GetCertificate:         s.options.Fallback,
		SessionTicketsDisabled: true,
		VerifyConnection:       func(tls.ConnectionState) error { return ErrChallenge },
	}
}

// certificate chooses a certificate. Nil without an error is the alert unrecognized_name.
func (s *Store) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	m := s.current.Load()
	if c := m.choose(hello); c != nil {
		return c, nil
	}
	name := normal(hello.ServerName)
	if name == "" && len(s.options.FallbackNames) > 0 { // a client that names nobody is shown what there is
		name = normal(s.options.FallbackNames[0])
	}
	if _, has := m.fallback[name]; !has || s.options.Fallback == nil {
		return nil, nil
	}
	asked := *hello
	asked.ServerName = name
	c, err := s.options.Fallback(&asked)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", name, err)
	}
	return c, nil
}

// Verify judges the client of a connection by who is believed now. It runs in
// every handshake, and so for resumed sessions too, whose certificates nobody has looked at since.
func (s *Store) Verify(cs tls.ConnectionState) error {
	c := s.current.Load().clients
	if c == nil {
		return nil
	}
	return c.verify(cs, s.now())
}
