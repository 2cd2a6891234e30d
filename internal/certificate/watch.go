package certificate

import (
	"slices"
	"time"

	"polyport/internal/file"
)

const (
	// lookEvery is how often the files are looked at.
	lookEvery = time.Second
	// patience is how long files may be wrong before it is said: programs that renew
	// write a certificate and its key one after the other.
	patience = 5 * time.Second
	// retryEvery is how often files are read again that were wrong and have not
	// changed since: some faults pass with time.
	retryEvery = 30 * time.Second
)

// watched are files that are taken together or not at all. Guarded by Store.reading.
type watched struct {
	paths   []string
	taken   []file.Stamp // of the content in force
	settled bool         // a later change would change taken

	failing bool
	failed  []file.Stamp // of the content that could not be taken
	since   time.Time    // when it began to be wrong
	tried   time.Time
	told    bool
}

func watch(paths ...string) watched { return watched{paths: paths} }

// look returns the stamps of this moment, and whether the files are to be read.
func (w *watched) look(now time.Time) (stamps []file.Stamp, due bool) {
	for _, p := range w.paths {
		st, _ := file.StampOf(p) // the zero stamp of a file that is not there is a change like any other
		stamps = append(stamps, st)
	}
	switch {
	case w.settled && same(stamps, w.taken):
		w.failing = false // they are again what they were
		return stamps, false
	case w.failing && w.told && same(stamps, w.failed) && now.Sub(w.tried) < retryEvery:
		return stamps, false
	}
	return stamps, true
}

// took says that what has these stamps is in force now.
func (w *watched) took(stamps []file.Stamp, now time.Time) {
	settled := !slices.ContainsFunc(stamps, func(s file.Stamp) bool { return !s.Settled(now) })
	w.taken, w.settled, w.failing = stamps, settled, false
}

// refused says that what has these stamps cannot be taken, and reports whether it
// is time to tell: once for each change.
func (w *watched) refused(stamps []file.Stamp, now time.Time) (tell bool) {
	if !w.failing || w.told && !same(stamps, w.failed) {
		w.failing, w.told, w.since = true, false, now
	}
	w.failed, w.tried = stamps, now
	if w.told || now.Sub(w.since) < patience {
		return false
	}
	w.told = true
	return true
}

func same(a, b []file.Stamp) bool {
	return slices.EqualFunc(a, b, file.Stamp.Same)
}
