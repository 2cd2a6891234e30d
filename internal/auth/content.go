package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"polyport/internal/file"
)

// lookEvery is how often the file is looked at, at most.
const lookEvery = time.Second

// content is one state of the file. It is immutable.
type content struct {
	table
	stamp   file.Stamp
	settled bool // a later change would change the stamp
}

// load reads the file. The stamp is taken first, so that a change in between is
// noticed the next time.
func load(path string, now time.Time) (*content, file.Stamp, error) {
	st, err := file.StampOf(path)
	if err != nil {
		return nil, st, explainMissing(path, err)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, st, fmt.Errorf("read the users: %w", err)
	}
	t, err := parseTable(path, data)
	if err != nil {
		return nil, st, err
	}
	return &content{table: t, stamp: st, settled: st.Settled(now)}, st, nil
}

// explainMissing says what to do about a file that cannot be found.
func explainMissing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the users: there is no file %s; make it with: polyport user add --htpasswd %s NAME (%w)", path, path, fs.ErrNotExist)
	}
	return fmt.Errorf("read the users: %w", err)
}

// content returns the file's content, read again if the file has changed. It
// looks at most once a second; a file that cannot be taken leaves the old content in force.
func (u *Users) content(now time.Time) *content {
	last := u.looked.Load()
	if since := now.UnixNano() - last; since >= 0 && since < int64(lookEvery) {
		return u.now.Load()
	}
	if !u.looked.CompareAndSwap(last, now.UnixNano()) {
		return u.now.Load() // another one looks
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	u.reread(now)
	return u.now.Load()
}

// Refresh reads the file now if it has changed. The error lists every bad line;
// the old content then holds.
func (u *Users) Refresh() error {
	u.reading.Lock()
	defer u.reading.Unlock()
	now := time.Now()
	old := u.now.Load()
	if st, err := file.StampOf(u.path); err == nil && old.settled && st.Same(old.stamp) {
		return nil
	}
	fresh, _, err := load(u.path, now)
	if err != nil {
		return err
	}
	u.took(fresh)
	u.looked.Store(now.UnixNano())
	return nil
}

// took goes over to new content. u.reading is held.
func (u *Users) took(fresh *content) {
	u.now.Store(fresh)
	u.faulty = file.Stamp{}
	u.complained = false
}

// reread takes the file's new content, if there is some. u.reading is held.
func (u *Users) reread(now time.Time) {
	old := u.now.Load()
	if st, err := file.StampOf(u.path); err == nil && old.settled && st.Same(old.stamp) {
		return
	}
	fresh, st, err := load(u.path, now)
	if err == nil {
		u.took(fresh)
		return
	}
	if u.complained && st.Same(u.faulty) {
		return
	}
	u.complained, u.faulty = true, st
	u.log(fmt.Errorf("the users were changed, but the change cannot be taken and the old ones hold: %w", err))
}
