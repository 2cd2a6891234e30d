package geoip

import (
	"context"
	"errors"
	"time"

	"polyport/internal/file"
)

const (
	// lookEvery is how often the file is looked at.
	lookEvery = time.Second
	// stillFor is how long a file has to be left alone before it is read: who copies a database over another one takes
	// his time, and half of it is none.
	stillFor = 3 * time.Second
	// retryEvery is how often a file is read again that could not be read and has not changed since: some faults,
	// such as permissions, pass with no trace in it.
	retryEvery = 30 * time.Second
)

// watched is what is known of the file.
type watched struct {
	taken   file.Stamp // of the content in force
	settled bool       // a later change would change taken

	seen  file.Stamp // of the last look
	since time.Time  // when the file was first seen so

	failing bool // the last content that was tried could not be taken
	final   bool // and will not be, as long as the file does not change
	failed  file.Stamp
	tried   time.Time
}

// watch looks at the file until ctx ends.
func (d *Database) watch(ctx context.Context) {
	defer close(d.done)
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			d.reread(ctx, time.Now())
		}
	}
}

// look returns the file's stamp, the zero one if it cannot be looked at, and whether it is to be read.
func (w *watched) look(path string, now time.Time) (st file.Stamp, due bool) {
	st, err := file.StampOf(path)
	if w.since.IsZero() || !st.Same(w.seen) {
		w.seen, w.since = st, now
	}
	still := err == nil && st.Settled(now) || now.Sub(w.since) >= stillFor
	switch {
	case w.settled && st.Same(w.taken):
		w.failing = false // it is again what it was
		return st, false
	case w.failing && st.Same(w.failed) && (w.final || now.Sub(w.tried) < retryEvery):
		return st, false
	}
	return st, still
}

// took says that the content with this stamp is in force.
func (w *watched) took(st file.Stamp, settled bool) {
	w.taken, w.settled, w.failing = st, settled, false
}

// refused says why the content with this stamp cannot be taken, and reports whether that is new.
func (w *watched) refused(st file.Stamp, now time.Time, why error) (fresh bool) {
	fresh = !w.failing || !st.Same(w.failed)
	w.failing, w.failed, w.tried = true, st, now
	var content *contentError
	w.final = st.Settled(now) && errors.As(why, &content)
	return fresh
}
