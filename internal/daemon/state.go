package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"polyport/internal/accesslog"
	"polyport/internal/auth"
	"polyport/internal/certificate"
	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/pool"
	"polyport/internal/resolve"
	"polyport/internal/udprelay"
	"polyport/mux"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// state is what outlives one configuration: a reload lends it to the next.
type state struct {
	log      *slog.Logger
	own      *ownSockets
	binds    *egress.Binds
	udp      *udprelay.Relay
	resolver *resolve.Resolver
	roots    *x509.CertPool      // that it believes; nil is those of the system
	retired  []*resolve.Resolver // of earlier configurations, which still look something up
	lockout  *auth.Lockout
	users    *auth.Users // nil: there are none
	access   *accesslog.Log
	lent
}

// newKept makes what a state lends to one configuration after the other.
func newKept(log *slog.Logger) lent {
	var failures atomic.Uint64
	return lent{
		tickets: certificate.NewTickets(), acme: new(acmeSource),
		upstreams: pool.NewMemory(), backends: pool.NewMemory(), families: egress.NewFamilies(), terms: egress.NewTerms(), told: (&serverLog{log: log}).tell,
		log: func(err error) { log.Error(err.Error(), slog.Uint64("failures", failures.Add(1))) },
	}
}

// newState makes the state that f asks for. The caller closes it.
func newState(f *config.File, o Options, log *slog.Logger, keep lent) (*state, error) {
	st := &state{
		log:     log,
		lent:    keep,
		own:     newOwnSockets(),
		lockout: auth.NewLockout(lockoutOptions(f)),
	}
	var err error
	if st.resolver, err = newResolver(f); err != nil {
		return nil, err
	}
	if st.roots, err = dnsRoots(f); err != nil {
		return nil, errors.Join(err, st.resolver.Close())
	}
	st.binds = egress.NewBinds(mux.ClientKey, st.own.open, st.own.close)
	st.udp = udprelay.New(udpOptions(f), st.ownPort)
	if st.users, err = st.openUsers(f); err != nil {
		return nil, errors.Join(err, st.close())
	}
	if st.access, err = accesslog.New(accessOptions(f, o, log)); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

// update goes over to what f asks for, or, with an error, changes nothing.
func (st *state) update(running, f *config.File, o Options) error {
	users, err := st.nextUsers(running, f)
	if err != nil {
		return err
	}
	certs, err := st.nextACME(running, f)
	if err != nil {
		return err
	}
	resolver, roots, err := st.nextResolver(running, f)
	if err != nil {
		return err
	}
	// Also when nothing of it has changed: logrotate may have moved the file away.
	if err := st.access.Reconfigure(accessOptions(f, o, st.log)); err != nil {
		if certs != nil && certs != st.acme.now.Load() {
			err = errors.Join(err, certs.Close())
		}
		if resolver != st.resolver {
			err = errors.Join(err, resolver.Close())
		}
		return err
	}
	st.switchACME(certs)
	st.users = users
	st.lockout.SetOptions(lockoutOptions(f))
	st.udp.SetOptions(udpOptions(f))
	if resolver != st.resolver {
		st.retire(st.resolver)
		st.resolver, st.roots = resolver, roots
	}
	return nil
}

// nextResolver returns the resolver of f, and the CAs that it believes: the same as before, with what it knows, where nothing of it has
// changed, nor what stands in the file of CAs.
func (st *state) nextResolver(running, f *config.File) (*resolve.Resolver, *x509.CertPool, error) {
	roots, err := dnsRoots(f)
	if err != nil {
		return nil, nil, err
	}
	if sameNames(running, f) && (roots == nil || roots.Equal(st.roots)) {
		return st.resolver, st.roots, nil
	}
	resolver, err := newResolver(f)
	return resolver, roots, err
}

// retire keeps a resolver to be closed in the end. One that runs nothing needs no closing:
// the sessions that began with it may ask it as long as they like.
func (st *state) retire(old *resolve.Resolver) {
	st.retired = slices.DeleteFunc(append(st.retired, old), func(r *resolve.Resolver) bool { return r.Stats().Running == 0 })
}

// nextUsers returns the users of f: the same as before where only the file's content
// may have changed, since they know whose passwords have been checked of late, and a
// reload that forgot it would have everybody's hashed again at once.
func (st *state) nextUsers(running, f *config.File) (*auth.Users, error) {
	same := running.Auth.Htpasswd == f.Auth.Htpasswd && maps.EqualFunc(running.Auth.Groups, f.Auth.Groups, slices.Equal)
	if st.users == nil || !same {
		return st.openUsers(f)
	}
	return st.users, config.Join(st.users.Refresh())
}

// close ends what runs in the background.
func (st *state) close() error {
	for _, r := range append(st.retired, st.resolver) {
		r.Close()
	}
	err := st.useACME(nil)
	if st.access == nil {
		return err
	}
	return errors.Join(err, st.access.Close())
}

// accessOptions is what [log] says about the access log.
func accessOptions(f *config.File, o Options, log *slog.Logger) accesslog.Options {
	a := accesslog.Options{Format: accesslog.Format(f.Log.Access), RedactQuery: f.Log.RedactQuery, Log: log}
	switch f.Log.AccessTo {
	case config.ToStderr:
		a.Writer = o.Stderr
	case config.ToStdout:
		a.Writer = o.Stdout
	default:
		a.Path = f.Log.AccessTo
	}
	if f.Log.Access == config.AccessAuto {
		a.Format = accesslog.JSON
		if w, ok := a.Writer.(*os.File); ok && isTerminal(w) {
			a.Format = accesslog.Text
		}
	}
	return a
}

func lockoutOptions(f *config.File) auth.LockoutOptions {
	l := f.Auth.Lockout
	return auth.LockoutOptions{Failures: l.Failures, Window: time.Duration(l.Window), Ban: time.Duration(l.Ban)}
}

// openUsers reads the users of f; nil is none.
func (st *state) openUsers(f *config.File) (*auth.Users, error) {
	if f.Auth.Htpasswd == "" {
		return nil, nil
	}
	users, err := auth.Open(auth.Options{
		Path:    f.Auth.Htpasswd,
		Groups:  f.Auth.Groups,
		Lockout: st.lockout,
		Log:     func(err error) { st.log.Error(config.Join(err).Error()) },
	})
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("POLYPORT_CONTAINER") != "" {
		return nil, fmt.Errorf("there are no users yet, and without any this container would serve nobody. Make one with:\n"+
			"  docker run --rm -it -v polyport:%s polyport user add NAME\nand run the container with the same -v", filepath.Dir(f.Auth.Htpasswd))
	}
	return users, config.Join(err)
}

// checkUsers finds the faults of the file of users.
func checkUsers(f *config.File) error {
	_, err := (&state{}).openUsers(f)
	return err
}
