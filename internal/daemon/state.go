package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/term"

	"polyport/internal/auth"
	"polyport/internal/config"
	"polyport/internal/resolve"
	"polyport/internal/session"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// state is what outlives one configuration: a reload lends it to the next.
type state struct {
	log      *slog.Logger
	own      *ownSockets
	resolver *resolve.Resolver
	retired  []*resolve.Resolver // of earlier configurations
	lockout  *auth.Lockout
	users    *auth.Users // nil: there are none
	access   *tempAccess
}

// newState makes the state that f asks for. The caller closes it.
func newState(f *config.File, log *slog.Logger) (*state, error) {
	st := &state{
		log:      log,
		own:      newOwnSockets(),
		lockout:  auth.NewLockout(lockoutOptions(f)),
		resolver: newResolver(f),
	}
	var err error
	if st.users, err = st.openUsers(f); err != nil {
		return nil, errors.Join(err, st.close())
	}
	st.access = &tempAccess{log}
	return st, nil
}

// update goes over to what f asks for, or, with an error, changes nothing.
func (st *state) update(running, f *config.File) error {
	users, err := st.openUsers(f)
	if err != nil {
		return err
	}
	st.users = users
	st.lockout.SetOptions(lockoutOptions(f))
	if !slices.Equal(running.DNS.Servers, f.DNS.Servers) {
		st.retired = append(st.retired, st.resolver) // sessions that run may still ask it
		st.resolver = newResolver(f)
	}
	return nil
}

// close ends what runs in the background.
func (st *state) close() error {
	for _, r := range append(st.retired, st.resolver) {
		r.Close()
	}
	return nil
}

func newResolver(f *config.File) *resolve.Resolver {
	var servers []netip.AddrPort
	for _, s := range f.DNS.Servers {
		servers = append(servers, s.Addr)
	}
	return resolve.New(resolve.Options{Servers: servers})
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
		Log:     func(err error) { st.log.Error(err.Error()) },
	})
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("POLYPORT_CONTAINER") != "" {
		return nil, fmt.Errorf("there are no users yet, and without any this container would serve nobody. Make one with:\n"+
			"  docker run --rm -it -v polyport:%s polyport user add NAME\nand run the container with the same -v", filepath.Dir(f.Auth.Htpasswd))
	}
	return users, err
}

// checkUsers finds the faults of the file of users.
func checkUsers(f *config.File) error {
	_, err := (&state{}).openUsers(f)
	return err
}

type tempAccess struct{ log *slog.Logger }

func (a *tempAccess) Reopen()                       {}
func (a *tempAccess) SessionStarted(session.Record) {}
func (a *tempAccess) SessionEnded(r session.Record) {
	e := ""
	if r.Err != nil {
		e = r.Err.Error()
	}
	a.log.Info("session end", "id", r.ID, "protocol", r.Protocol, "client", r.Client.String(), "target", r.Target, "rule", r.Rule, "reason", r.Reason, "status", r.Status, "method", r.Method, "url", r.URL, "version", r.Version,
		"address", r.Address.String(), "bytes_from_client", r.BytesFromClient, "bytes_from_target", r.BytesFromTarget, "setup_s", r.Setup.Seconds(), "duration_s", r.Duration.Seconds(), "err", e)
}
