package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/internal/acme"
	"polyport/internal/auth"
	"polyport/internal/certificate"
	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/pool"
	"polyport/protocols/spec"
)

// Protocols of ALPN that are spoken inside, the most wanted first.
var protocolsInside = []string{"h2", "http/1.1"}

// security is what TLS to the gateway itself needs of one configuration.
type security struct {
	certs  *certificate.Store
	noSNI  bool
	acme   []string            // the names that the CA gives certificates for, as clients send them
	groups map[string][]string // by user
}

// lent is what outlives a configuration and is lent to its security. The zero value serves those who only look at a file.
type lent struct {
	tickets *certificate.Tickets
	acme    *acmeSource
	log     func(error)

	upstreams, backends *pool.Memory // what is known of their servers; nil starts from nothing
	families            *egress.Families
	terms               *egress.Terms
	told                func(place string, e pool.Event) // a server has changed its state; nil tells nobody
}

// complain logs a fault that is found in the background.
func (l lent) complain(err error) {
	if l.log != nil {
		l.log(err)
	}
}

// openSecurity reads the certificates that f names; nil is TLS to the gateway itself switched off. The error lists every fault.
func openSecurity(f *config.File, l lent) (*security, error) {
	if !f.HasTLS() {
		return nil, nil
	}
	if l.acme == nil {
		l.acme = new(acmeSource)
	}
	var errs *multierror.Error
	if len(f.TLS.ACME.Names) > 0 {
		errs = multierror.Append(errs, f.At("tls.acme", acmeOptions(f, nil).Validate()))
	}
	certs, err := certificate.Open(certificateOptions(f, l))
	errs = multierror.Append(errs, certificateFaults(f, err))
	if err := errs.ErrorOrNil(); err != nil {
		if certs != nil {
			certs.Close()
		}
		return nil, config.Join(err)
	}
	return &security{certs: certs, noSNI: f.TLS.NoSNI, acme: acme.HostNames(f.TLS.ACME.Names), groups: auth.GroupsByUser(f.Auth.Groups)}, nil
}

// certificateFaults places the faults of certificates: those of clients stand in [auth], all others in [tls].
func certificateFaults(f *config.File, err error) error {
	var list *multierror.Error
	if !errors.As(err, &list) {
		list = multierror.Append(nil, err)
	}
	var placed *multierror.Error
	for _, e := range list.WrappedErrors() {
		placed = multierror.Append(placed, f.At(certificateTable(e.Error()), e))
	}
	return placed.ErrorOrNil()
}

// certificateTable is the table in which the key stands that a fault or a warning begins with.
func certificateTable(about string) string {
	if strings.HasPrefix(about, "client_") {
		return "auth"
	}
	return "tls"
}

// certificateOptions is what [tls] and [auth] say of certificates.
func certificateOptions(f *config.File, l lent) certificate.Options {
	o := certificate.Options{
		Clients: certificate.Clients{
			CA: f.Auth.ClientCA, CRL: f.Auth.ClientCRL,
			Require:  f.Auth.ClientCertificate == config.CertificateRequire,
			Identity: f.Auth.ClientIdentity,
		},
		MinVersion:    tls.VersionTLS12,
		NextProtos:    protocolsInside,
		FallbackNames: acme.HostNames(f.TLS.ACME.Names),
		Names:         f.TLS.Names,
		Tickets:       l.tickets,
		Log:           l.log,
	}
	if f.TLS.MinVersion == "1.3" {
		o.MinVersion = tls.VersionTLS13
	}
	if len(f.TLS.ACME.Names) > 0 {
		o.Fallback = l.acme.certificate
	}
	for _, name := range f.CertificateNames() {
		c := f.TLS.Certificate[name]
		o.Pairs = append(o.Pairs, certificate.Pair{Name: name, Certificate: c.Certificate, Key: c.Key, OCSP: c.OCSP})
	}
	return o
}

// spec is what the row tls needs; nil for a nil security.
func (s *security) spec() *spec.TLS {
	if s == nil {
		return nil
	}
	return &spec.TLS{Owns: s.owns, Names: s.certs.Names(), Config: s.certs.Config(), HTTP1Config: s.certs.HTTP1Config(), Challenged: challenged, Identity: s.identity}
}

// owns reports whether a client means the gateway. A CA that looks for our answer to its challenge does.
func (s *security) owns(serverName string, protocols []string) bool {
	if serverName == "" {
		return s.noSNI
	}
	if len(s.acme) > 0 && slices.Contains(protocols, certificate.ChallengeProtocol) {
		return slices.ContainsFunc(s.acme, func(name string) bool { return equalHost(name, serverName) })
	}
	return s.certs.Owns(serverName)
}

func challenged(err error) bool { return errors.Is(err, certificate.ErrChallenge) }

// identity is who a client's certificate says it is.
func (s *security) identity(state tls.ConnectionState) auth.Identity {
	name := s.certs.Identity(state)
	if name == "" {
		return auth.Identity{}
	}
	return auth.Identity{Name: name, Groups: s.groups[name]}
}

// certified is identity for a certificate that was shown before s was there.
func (s *security) certified(state tls.ConnectionState) auth.Identity {
	if s.certs.Verify(state) != nil {
		return auth.Identity{}
	}
	return s.identity(state)
}

// close ends the rereading of files. Connections that began with s go on.
func (s *security) close() {
	if s != nil {
		s.certs.Close()
	}
}

// name is the host name under which clients reach the gateway by TLS; "" is none.
func (s *security) name(f *config.File) string {
	if s == nil {
		return ""
	}
	return acme.HostNames([]string{f.TLSName(s.certs.Names())})[0]
}

// warnings is what is legal of certificates and should not stay so, each with its key in front.
func (s *security) warnings() (all []string) {
	if s == nil {
		return nil
	}
	for _, w := range s.certs.Warnings() {
		all = append(all, certificateTable(w)+"."+w)
	}
	for i, name := range s.acme {
		if s.certs.FromFile(name) {
			all = append(all, fmt.Sprintf("tls.acme.names[%d]: a file has a certificate for %q already and answers for it: take it out here, or there", i, name))
		}
	}
	return all
}

// acmeSource is where the certificates of [tls.acme] come from at the moment. It knows none before there is a manager.
type acmeSource struct{ now atomic.Pointer[acme.Manager] }

var errNoACME = errors.New("there is no certificate yet for this name: the CA has not been asked")

func (a *acmeSource) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if m := a.now.Load(); m != nil {
		return m.GetCertificate(h)
	}
	return nil, errNoACME
}

// answer answers the HTTP-01 challenges of the CA.
func (a *acmeSource) answer(host, path string) (string, bool) {
	if m := a.now.Load(); m != nil {
		return m.HTTPChallenge(host, path)
	}
	return "", false
}

// acmeOptions is what [tls.acme] says.
func acmeOptions(f *config.File, log *slog.Logger) acme.Options {
	a := f.TLS.ACME
	return acme.Options{
		Names: a.Names, Email: a.Email, Directory: a.Directory, DirectoryCA: a.DirectoryCA,
		Storage: a.Storage, AcceptTerms: a.AcceptTerms, Challenges: challenges(f), Log: log,
	}
}

// challenges are those of [tls.acme] that some listener can answer; all of them if there is none such, which is worth a warning.
func challenges(f *config.File) []string {
	var some []string
	for _, c := range f.TLS.ACME.Challenges {
		if answersChallenge(f, c) {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return f.TLS.ACME.Challenges
	}
	return some
}

// answersChallenge reports whether a challenge can reach what answers it through some listener: tls-alpn-01 comes
// in TLS, http-01 outside of it.
func answersChallenge(f *config.File, challenge string) bool {
	for _, l := range f.Listen {
		if challenge == config.ChallengeHTTP && l.Serves("http") && !l.RequireTLS || challenge == config.ChallengeALPN && l.Serves(rowTLS) {
			return true
		}
	}
	return false
}

// nextACME opens what [tls.acme] of f asks for, ready to serve what is in its storage: the manager that runs already where
// nothing of it has changed; nil is none.
func (st *state) nextACME(running, f *config.File) (*acme.Manager, error) {
	old := st.acme.now.Load()
	switch {
	case len(f.TLS.ACME.Names) == 0:
		return nil, nil
	case old != nil && reflect.DeepEqual(acmeOptions(running, nil), acmeOptions(f, nil)):
		return old, nil
	}
	m, err := acme.Open(acmeOptions(f, st.log))
	if err != nil {
		return nil, f.At("tls.acme", err)
	}
	m.Load() // before anybody is handed to it
	return m, nil
}

// useACME goes over to m, and ends the one before.
func (st *state) useACME(m *acme.Manager) error {
	old := st.acme.now.Swap(m)
	if old == nil || old == m {
		return nil
	}
	return old.Close()
}

// openACME serves what the storage of [tls.acme] holds. The CA is not asked yet.
func (st *state) openACME(f *config.File) error {
	m, err := st.nextACME(f, f)
	if err != nil {
		return err
	}
	return st.useACME(m)
}

// startACME has the CA asked for what is missing, now that its challenges can be answered. The gateway serves already, so what
// fails is logged.
func (st *state) startACME() {
	if m := st.acme.now.Load(); m != nil {
		st.acmeFault(m.Start(context.Background()))
	}
}

// switchACME goes over to m in a running gateway, whose reload nothing may stop any more.
func (st *state) switchACME(m *acme.Manager) {
	old := st.acme.now.Load()
	err := st.useACME(m)
	if m != nil && m != old {
		err = errors.Join(err, m.Start(context.Background()))
	}
	st.acmeFault(err)
}

// acmeFault logs that the CA cannot be asked. A nil error is none.
func (st *state) acmeFault(err error) {
	if err != nil {
		st.log.Error("ask the CA of [tls.acme] for certificates", slog.String("err", err.Error()))
	}
}

// equalHost compares host names, in any case and with or without the dot at the end.
func equalHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}
