package certificate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-multierror"

	"polyport/internal/file"
)

// failedRead is an error of files that are read again.
type failedRead struct {
	files  *watched
	stamps []file.Stamp
	err    error
}

// Error implements error.
func (f *failedRead) Error() string { return f.err.Error() }

// Unwrap returns what is wrong.
func (f *failedRead) Unwrap() error { return f.err }

// watch looks at the files until ctx ends.
func (s *Store) watch(ctx context.Context) {
	defer close(s.done)
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.look()
		}
	}
}

// look rereads what has changed.
func (s *Store) look() {
	s.reading.Lock()
	defer s.reading.Unlock()
	now := s.now()
	changed, errs := s.reread(now, false)
	for _, err := range errs {
		s.tell(err, now)
	}
	changed = s.expire(now) || changed
	if changed {
		s.publish()
	}
}

// Refresh reads all files now, whether they have changed or not. The error lists
// every fault; what the faulty files held before stays in force.
func (s *Store) Refresh() error {
	s.reading.Lock()
	defer s.reading.Unlock()
	now := s.now()
	_, errs := s.reread(now, true)
	s.expire(now)
	s.publish()
	var all *multierror.Error
	for _, err := range errs {
		s.failures.Add(1)
		if f, ok := errors.AsType[*failedRead](err); ok { // who asked hears it: it is not logged too
			f.files.refused(f.stamps, now)
			f.files.told = true
			err = f.err
		}
		all = multierror.Append(all, err)
	}
	return all.ErrorOrNil()
}

// reread reads the files that have changed, or all. s.reading is held.
func (s *Store) reread(now time.Time, all bool) (changed bool, errs []error) {
	read := func(w *watched, load func() error) {
		if _, due := w.look(now); !due && !all {
			return
		}
		if err := load(); err != nil {
			errs = append(errs, err)
			return
		}
		changed = true
	}
	for _, p := range s.pairs {
		read(&p.cert, func() error { return s.readPair(p, now) })
		if p.files.OCSP != "" {
			read(&p.response, func() error { return s.readResponse(p, now) })
		}
	}
	if s.options.Clients.CA != "" {
		read(&s.clientFiles, func() error { return s.readClients(now) })
	}
	return changed, errs
}

// tell logs a failed read when it is time to.
func (s *Store) tell(err error, now time.Time) {
	f, ok := errors.AsType[*failedRead](err)
	if ok && !f.files.refused(f.stamps, now) {
		return
	}
	s.failures.Add(1)
	s.log(fmt.Errorf("files of TLS were changed, but the change cannot be taken and what was read before stays in force: %w", err))
}

// expire complains, once, of what the time has run out for. Responses are stapled
// no longer. Certificates are shown on, since there is no other; revocation lists
// stay in force, since a revoked certificate stays revoked. s.reading is held.
func (s *Store) expire(now time.Time) (changed bool) {
	complain := func(format string, a ...any) {
		s.failures.Add(1)
		s.log(fmt.Errorf(format, a...))
	}
	for _, p := range s.pairs {
		if leaf := p.pair.leaf; now.After(leaf.NotAfter) && p.overdue != leaf {
			p.overdue = leaf
			complain("%s: the certificate expired on %s and there is no other, so clients refuse it; renew it", p.pair.key("certificate"), leaf.NotAfter.UTC().Format(dateFormat))
		}
		if len(p.pair.staple.raw) > 0 && p.pair.staple.over(now) {
			complain("%s: the response in %s expired on %s and is no longer stapled; fetch a new one", p.pair.key("ocsp"), p.files.OCSP, p.pair.staple.until.UTC().Format(dateFormat))
			p.pair = p.pair.with(staple{})
			changed = true
		}
	}
	if c := s.clients; c != nil && c.revoked.over(now) && s.overdue != c {
		s.overdue = c
		complain("client_crl: a revocation list in %s expired on %s; fetch a new one. Until then what it says stays in force, and later revocations are not known", c.options.CRL, c.revoked.until.UTC().Format(dateFormat))
	}
	return changed
}

// with returns the pair with another OCSP response.
func (p *pair) with(s staple) *pair {
	fresh, cert := *p, *p.cert
	cert.OCSPStaple = bytes.Clone(s.raw)
	fresh.cert, fresh.staple = &cert, s
	return &fresh
}

// issuer returns the certificate behind the first, nil if there is none.
func (p *pair) issuer() []byte {
	if len(p.cert.Certificate) < 2 {
		return nil
	}
	return p.cert.Certificate[1]
}
