package certificate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-multierror"
)

// Store has the certificates of the gateway. It is safe for concurrent use. No
// handshake waits for a file: a goroutine looks at them once a second.
type Store struct {
	options Options
	now     func() time.Time
	log     func(error)
	tickets *Tickets
	config  *tls.Config
	http1   *tls.Config // config without h2

	current  atomic.Pointer[material]
	failures atomic.Uint64

	// reading guards what rereads the files.
	reading     sync.Mutex
	pairs       []*pairFiles
	clients     *clients
	clientFiles watched
	overdue     *clients // whose revocation lists have been said to be over

	stop context.CancelFunc
	done chan struct{}
}

// pairFiles are the files of one Pair and what they hold.
type pairFiles struct {
	files    Pair
	pair     *pair
	cert     watched
	response watched
	overdue  *x509.Certificate // that has been said to have expired
}

// Open reads all files. The error lists every fault, each with its key in the configuration.
func Open(o Options) (*Store, error) {
	s := &Store{options: o, now: o.Now, log: o.Log, tickets: o.Tickets, done: make(chan struct{})}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = func(error) {}
	}
	if s.tickets == nil {
		s.tickets = NewTickets()
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.config = s.current.Load().config.Clone()
	s.config.GetConfigForClient = s.configFor
	s.http1 = s.current.Load().http1.Clone()
	s.http1.GetConfigForClient = s.http1ConfigFor
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.watch(ctx)
	return s, nil
}

// load reads everything for the first time.
func (s *Store) load() error {
	now := s.now()
	var errs *multierror.Error
	if v := s.options.MinVersion; v != 0 && v != tls.VersionTLS12 && v != tls.VersionTLS13 {
		errs = multierror.Append(errs, fmt.Errorf("min_version: %s is neither TLS 1.2 nor TLS 1.3", tls.VersionName(v)))
	}
	for _, files := range s.options.Pairs {
		p := &pairFiles{files: files, cert: watch(files.Certificate, files.Key), response: watch(files.OCSP)}
		s.pairs = append(s.pairs, p)
		errs = multierror.Append(errs, faults(s.readPair(p, now), s.readResponse(p, now))...)
	}
	s.clientFiles = watch(s.options.Clients.CA, s.options.Clients.CRL)
	if err := s.options.Clients.validate(); err != nil {
		errs = multierror.Append(errs, err)
	} else {
		errs = multierror.Append(errs, faults(s.readClients(now))...)
	}
	if errs.Len() == 0 { // without all certificates, names would seem to be missing
		errs = multierror.Append(errs, s.material().missing(s.options.Names)...)
	}
	if err := errs.ErrorOrNil(); err != nil {
		return err
	}
	s.publish()
	return nil
}

// faults drops what is nil, and of a failed read everything but what is wrong.
func faults(errs ...error) (some []error) {
	for _, err := range errs {
		if f, ok := errors.AsType[*failedRead](err); ok {
			err = f.err
		}
		if err != nil {
			some = append(some, err)
		}
	}
	return some
}

// material is what has been read, without a configuration. s.reading is held, or s is not open yet.
func (s *Store) material() *material {
	pairs := make([]*pair, 0, len(s.pairs))
	for _, p := range s.pairs {
		if p.pair != nil {
			pairs = append(pairs, p.pair)
		}
	}
	return newMaterial(pairs, s.options.FallbackNames, s.clients)
}

// publish makes what has been read that of all handshakes that begin now.
func (s *Store) publish() {
	m := s.material()
	m.config, m.http1 = s.configOf(m), s.configOf(m)
	m.http1.NextProtos = slices.DeleteFunc(m.http1.NextProtos, func(p string) bool { return p == protocolHTTP2 })
	s.current.Store(m)
}

// readPair reads a certificate and its key. After an error the old ones stay.
func (s *Store) readPair(p *pairFiles, now time.Time) error {
	stamps, _ := p.cert.look(now)
	fresh, err := loadPair(p.files, now)
	if err == nil && p.pair != nil {
		err = s.keepsNames(p, fresh, now)
	}
	if err != nil {
		return &failedRead{&p.cert, stamps, err}
	}
	p.cert.took(stamps, now)
	switch old := p.pair; {
	case old != nil && bytes.Equal(old.leaf.Raw, fresh.leaf.Raw) && bytes.Equal(old.issuer(), fresh.issuer()):
		fresh = fresh.with(old.staple)
	default:
		p.response = watch(p.files.OCSP) // it must be verified against this certificate
	}
	p.pair = fresh
	return nil
}

// keepsNames refuses a certificate that leaves a name of Options.Names without
// one, as long as the old one is of use.
func (s *Store) keepsNames(p *pairFiles, fresh *pair, now time.Time) error {
	if now.After(p.pair.leaf.NotAfter) {
		return nil
	}
	old := p.pair
	p.pair = fresh
	missing := s.material().missing(s.options.Names)
	p.pair = old
	return errors.Join(missing...)
}

// readResponse reads an OCSP response. After an error the old one stays, if it
// is of the certificate in force.
func (s *Store) readResponse(p *pairFiles, now time.Time) error {
	if p.files.OCSP == "" || p.pair == nil {
		return nil
	}
	stamps, _ := p.response.look(now)
	st, err := loadStaple(p.files.OCSP, p.pair.cert.Certificate, now)
	if err != nil {
		return &failedRead{&p.response, stamps, fmt.Errorf("%s: %w", p.pair.key("ocsp"), err)}
	}
	p.response.took(stamps, now)
	p.pair = p.pair.with(st)
	return nil
}

// readClients reads the CAs and revocation lists. After an error the old ones stay.
func (s *Store) readClients(now time.Time) error {
	stamps, _ := s.clientFiles.look(now)
	fresh, err := loadClients(s.options.Clients, now)
	if err != nil {
		return &failedRead{&s.clientFiles, stamps, err}
	}
	s.clientFiles.took(stamps, now)
	s.clients = fresh
	return nil
}

// Close ends the rereading of the files. What is in force stays so.
func (s *Store) Close() {
	s.stop()
	<-s.done
}

// Names returns the own names, sorted, with wildcards as they are.
func (s *Store) Names() []string { return s.current.Load().names() }

// Owns reports whether a certificate has this name, itself or by a wildcard for
// its leftmost label. "" is nobody's. It never waits.
func (s *Store) Owns(serverName string) bool { return s.current.Load().owns(serverName) }

// FromFile reports whether the certificate of a name is that of a file, so that Options.Fallback is not asked for it.
func (s *Store) FromFile(serverName string) bool {
	return s.current.Load().fromFile(normal(serverName))
}

// Identity returns the identity of the client of this connection, or "" if it has
// shown no certificate.
func (s *Store) Identity(cs tls.ConnectionState) string {
	c := s.current.Load().clients
	if c == nil || len(cs.VerifiedChains) == 0 || len(cs.PeerCertificates) == 0 {
		return ""
	}
	return identityOf(cs.PeerCertificates[0], c.options.identity())
}

// Stats describes the certificates in force.
func (s *Store) Stats() Stats {
	st := Stats{Failures: s.failures.Load()}
	for _, p := range s.current.Load().pairs {
		st.Pairs = append(st.Pairs, PairStats{Name: p.name, NotAfter: p.leaf.NotAfter, Stapled: len(p.staple.raw) > 0})
	}
	return st
}

// Warnings says what is no fault and should not stay so.
func (s *Store) Warnings() []string { return s.current.Load().warnings() }

// binding says for whom a ticket is good: for who asks for the same name (RFC 6066
// section 3) while the same clients are believed.
func (m *material) binding(serverName string) []byte {
	h := sha256.New()
	if m.clients != nil {
		h.Write(m.clients.fingerprint[:])
	}
	h.Write([]byte("\n" + normal(serverName)))
	return h.Sum(nil)
}
