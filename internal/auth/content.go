package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const (
	// lookEvery is how often the file is looked at, at most.
	lookEvery = time.Second
	// tick is longer than that of any file system's clock: a file that was
	// changed less than this before it was read may have been changed again
	// since without a newer time.
	tick = 3 * time.Second
)

// content is one state of the file. It is immutable.
type content struct {
	table
	stamp   stamp
	settled bool // a later change would change the stamp
}

// stamp is by what a change of the file is noticed. The zero stamp is a file
// that cannot be looked at.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo // tells a file that was put in its place
}

func (s stamp) same(o stamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil
	}
	return s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.info, o.info)
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{modified: info.ModTime(), size: info.Size(), info: info}, nil
}

// load reads the file. The stamp is taken first, so that a change in between is
// noticed the next time.
func load(path string, now time.Time) (*content, stamp, error) {
	st, err := stampOf(path)
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
	return &content{table: t, stamp: st, settled: now.Sub(st.modified) > tick}, st, nil
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
	if st, err := stampOf(u.path); err == nil && old.settled && st.same(old.stamp) {
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
	u.faulty = stamp{}
	u.complained = false
}

// reread takes the file's new content, if there is some. u.reading is held.
func (u *Users) reread(now time.Time) {
	old := u.now.Load()
	if st, err := stampOf(u.path); err == nil && old.settled && st.same(old.stamp) {
		return
	}
	fresh, st, err := load(u.path, now)
	if err == nil {
		u.took(fresh)
		return
	}
	if u.complained && st.same(u.faulty) {
		return
	}
	u.complained, u.faulty = true, st
	u.log(fmt.Errorf("the users were changed, but the change cannot be taken and the old ones hold: %w", err))
}
