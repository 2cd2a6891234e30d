// Package acme obtains and renews certificates from an ACME CA (RFC 8555) and
// answers the CA's challenges on connections that others have accepted:
// TLS-ALPN-01 (RFC 8737) in GetCertificate, HTTP-01 (RFC 8555 section 8.3) in
// HTTPChallenge. It opens no port. DNS-01, and so wildcards, certificates of IP
// addresses (RFC 8738) and external account bindings are not supported.
package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
)

// ErrNoCertificate is in the errors of GetCertificate: the name is none of
// Options.Names, its certificate has not been obtained yet, or a CA asks for a
// challenge that nobody has begun.
var ErrNoCertificate = errors.New("no certificate")

// Manager holds the certificates of Options.Names and keeps them fresh. It is
// safe for concurrent use; Close it in any case.
type Manager struct {
	names     []string
	log       *slog.Logger
	store     *storage
	issuer    *issuer
	cache     *certmagic.Cache
	config    *certmagic.Config
	life      context.Context // certmagic's maintenance works under a context of its own, which ends too late
	end       context.CancelFunc
	renewing  sync.WaitGroup
	mu        sync.Mutex // guards what follows, up to closed
	loaded    bool
	missing   []string // names without a certificate in the storage
	late      []string // names whose certificate is to be renewed at once
	started   bool
	closed    bool
	obtained  atomic.Uint64
	renewed   atomic.Uint64
	failures  atomic.Uint64
	closeOnce sync.Once
}

// Stats counts what happened since Open.
type Stats struct {
	Obtained, Renewed uint64
	// Failures is how often the CA did not give a certificate.
	Failures uint64
	// Expiry is when the certificate of each name ends; a name without one is missing.
	Expiry map[string]time.Time
}

// Open validates o and makes its storage. It asks nobody anything: Start does. Nothing is served before Load or Start.
func Open(o Options) (*Manager, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	store, err := openStorage(o.Storage)
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	client, err := newHTTPClient(o.DirectoryCA)
	if err != nil {
		return nil, fmt.Errorf("directory_ca: %w", err)
	}
	m := &Manager{log: log, store: store, names: HostNames(o.Names)}
	m.life, m.end = context.WithCancel(context.Background())
	m.issuer = newIssuer(m.life, o, client, store, log)
	m.issuer.replaces = m.leaf
	m.manage(o.CheckEvery)
	return m, nil
}

// manage makes certmagic's cache and configuration. Every field that has a
// default of the whole process is set, as far as it can be.
func (m *Manager) manage(checkEvery time.Duration) {
	logger := zap.New(zapCore{m.log})
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		RenewCheckInterval: checkEvery,
		Logger:             logger,
	})
	m.config = certmagic.New(m.cache, certmagic.Config{
		RenewalWindowRatio: certmagic.DefaultRenewalWindowRatio,
		OnEvent:            m.observe,
		Issuers:            []certmagic.Issuer{m.issuer},
		KeySource:          certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		// Certificates of today name no responder, and one that does would have us dial an address out of a certificate.
		OCSP:    certmagic.OCSPConfig{DisableStapling: true},
		Storage: m.store,
		// The issuer looks itself: certmagic would before it takes a lock, which Close could not wait for.
		DisableStorageCheck: true,
		Logger:              logger,
	})
}

// Load serves what is in the storage. It asks nobody anything.
func (m *Manager) Load() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loadAll()
}

// loadAll is Load with m.mu held.
func (m *Manager) loadAll() {
	if m.loaded || m.closed {
		return
	}
	m.loaded = true
	for _, name := range m.names {
		cert, ok := m.load(name)
		switch {
		case !ok:
			m.missing = append(m.missing, name)
		case cert.NeedsRenewal(m.config):
			m.late = append(m.late, name)
		}
	}
}

// Start serves what is in the storage and begins to obtain and renew in the
// background, until ctx is done or Close. A name that the CA refuses is
// tried again, later and later; its old certificate stays.
func (m *Manager) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.started {
		return errors.New("acme: started before, or closed")
	}
	m.started = true
	context.AfterFunc(ctx, m.end)

	m.loadAll()
	for _, name := range m.late {
		m.renewing.Go(func() { m.renewStored(name) })
	}
	if err := m.config.ManageAsync(m.life, m.missing); err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	return nil
}

// load serves a name's certificate out of the storage, if there is one. One that
// cannot be used, as a machine that lost its power in the middle of a write
// leaves behind, is deleted: certmagic would never replace it.
func (m *Manager) load(name string) (cert certmagic.Certificate, ok bool) {
	cert, err := m.config.CacheManagedCertificate(m.life, name)
	if err == nil {
		return cert, true
	}
	if errors.Is(err, fs.ErrNotExist) {
		return cert, false
	}
	m.log.Warn("stored certificate is unusable", slog.String("name", name), slog.Any("err", err))
	if m.store.torn(m.life, m.issuer.IssuerKey(), name) {
		err = m.store.Delete(m.life, certmagic.StorageKeys.CertsSitePrefix(m.issuer.IssuerKey(), name))
		if err != nil {
			m.log.Warn("delete stored certificate", slog.String("name", name), slog.Any("err", err))
		}
	}
	return cert, false
}

// renewStored renews at once what was loaded too late. certmagic's own look is
// minutes away, and after failures of a Manager before this one hours: it
// counts them for the whole process.
func (m *Manager) renewStored(name string) {
	err := m.config.RenewCertAsync(m.life, name, false) // which waits, and tries again
	if err == nil {
		_, err = m.config.CacheManagedCertificate(m.life, name)
	}
	if err != nil && m.life.Err() == nil {
		m.log.Warn("renew certificate", slog.String("name", name), slog.Any("err", err))
	}
}

// Names returns the host names that certificates are obtained for, in lower-case ASCII.
func (m *Manager) Names() []string { return slices.Clone(m.names) }

// GetCertificate is for tls.Config. It waits for nothing. A hello without a
// server name is answered with the first name's certificate; errors wrap ErrNoCertificate.
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := m.names[0]
	if hello.ServerName != "" {
		name = strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	}
	if !slices.Contains(m.names, name) {
		return nil, fmt.Errorf("acme: %w: the server name is none of ours", ErrNoCertificate)
	}
	// RFC 8737 section 3: this single protocol, and a server name.
	if hello.ServerName != "" && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol {
		if c := m.issuer.challenges.certificate(name); c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("acme: %w: no challenge is open for %s", ErrNoCertificate, name)
	}
	choices := m.cache.AllMatchingCertificates(name)
	if len(choices) == 0 {
		return nil, fmt.Errorf("acme: %w for %s yet", ErrNoCertificate, name)
	}
	best, err := certmagic.DefaultCertificateSelector(hello, choices)
	if err != nil {
		return nil, fmt.Errorf("acme: %w: %w", ErrNoCertificate, err)
	}
	return &best.Certificate, nil
}

// HTTPChallenge returns the body that answers a GET of path at host, which may
// have a port; path is a request target in origin-form. ok is false for everything
// that is no challenge of a CA in progress.
func (m *Manager) HTTPChallenge(host, path string) (keyAuth string, ok bool) {
	return m.issuer.challenges.keyAuthorization(host, path)
}

// Stats returns the counters.
func (m *Manager) Stats() Stats {
	s := Stats{
		Obtained: m.obtained.Load(), Renewed: m.renewed.Load(), Failures: m.failures.Load(),
		Expiry: make(map[string]time.Time, len(m.names)),
	}
	for _, name := range m.names {
		for _, c := range m.cache.AllMatchingCertificates(name) {
			if c.Leaf != nil && c.Leaf.NotAfter.After(s.Expiry[name]) {
				s.Expiry[name] = c.Leaf.NotAfter
			}
		}
	}
	return s
}

// Close ends everything and waits for it: an order in progress is abandoned.
// What was loaded is still served.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.closeOnce.Do(func() {
		m.end()
		m.renewing.Wait()
		m.cache.Stop()
		m.store.close() // whoever writes holds a lock of the storage all the while
		m.issuer.close()
	})
	return nil
}

// observe counts what certmagic reports.
func (m *Manager) observe(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	switch {
	case event == "cert_failed" && m.life.Err() == nil:
		m.failures.Add(1)
	case event == "cert_obtained" && renewal:
		m.renewed.Add(1)
		m.log.Info("certificate renewed", slog.String("name", name))
	case event == "cert_obtained":
		m.obtained.Add(1)
		m.log.Info("certificate obtained", slog.String("name", name))
	}
	return nil
}
