package acme

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challengePath begins what a CA asks for in HTTP-01 (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// maxToken bounds what is looked up; tokens have 128 bits or more and the CAs' are of 43 octets.
const maxToken = 128

// challenges are those that the CA may ask about now. Its two solvers only
// write them down; that is what keeps certmagic from listening.
type challenges struct {
	mu    sync.RWMutex
	certs map[string]*tls.Certificate // by host name
	auths map[string]httpAnswer       // by token
}

// httpAnswer is the key authorization (RFC 8555 section 8.1) to give at a host.
type httpAnswer struct{ host, keyAuth string }

func newChallenges() *challenges {
	return &challenges{certs: map[string]*tls.Certificate{}, auths: map[string]httpAnswer{}}
}

// certificate returns nil for a name that no challenge is open for.
func (c *challenges) certificate(name string) *tls.Certificate {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.certs[name]
}

func (c *challenges) keyAuthorization(host, path string) (string, bool) {
	token, ok := strings.CutPrefix(path, challengePath)
	if !ok || token == "" || len(token) > maxToken || len(host) > 253+len(":65535") {
		return "", false
	}
	c.mu.RLock()
	answer, ok := c.auths[token]
	c.mu.RUnlock()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !ok || !strings.EqualFold(strings.TrimSuffix(host, "."), answer.host) {
		return "", false
	}
	return answer.keyAuth, true
}

// solvers returns those of the types that may be used.
func (c *challenges) solvers(types []string) map[string]acmez.Solver {
	all := map[string]acmez.Solver{TLSALPN01: alpnSolver{c}, HTTP01: httpSolver{c}}
	used := map[string]acmez.Solver{}
	for _, t := range types {
		used[t] = all[t]
	}
	return used
}

// alpnSolver implements acmez.Solver for TLS-ALPN-01.
type alpnSolver struct{ *challenges }

// Present implements acmez.Solver.
func (s alpnSolver) Present(_ context.Context, chal acme.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(chal)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certs[strings.ToLower(chal.Identifier.Value)] = cert
	return nil
}

// CleanUp implements acmez.Solver.
func (s alpnSolver) CleanUp(_ context.Context, chal acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.certs, strings.ToLower(chal.Identifier.Value))
	return nil
}

// httpSolver implements acmez.Solver for HTTP-01.
type httpSolver struct{ *challenges }

// Present implements acmez.Solver.
func (s httpSolver) Present(_ context.Context, chal acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auths[chal.Token] = httpAnswer{chal.Identifier.Value, chal.KeyAuthorization}
	return nil
}

// CleanUp implements acmez.Solver.
func (s httpSolver) CleanUp(_ context.Context, chal acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.auths, chal.Token)
	return nil
}
