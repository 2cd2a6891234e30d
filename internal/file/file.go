// Package file notices that a file has changed, and writes files in one step, so
// that whoever reads one never has half of it. It does not watch: its users look
// when it suits them.
package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// tick is longer than that of any file system's clock: a file that was
// changed less than this before it was read may have been changed again
// since without a newer time.
const tick = 3 * time.Second

// Stamp is by what a change of a file is noticed. The zero Stamp is a file that
// cannot be looked at. A link is followed: one that leads elsewhere is a change.
type Stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo // tells a file that was put in its place
}

// StampOf looks at a file. It is to be called before the file is read, so that a
// change in between is noticed the next time.
func StampOf(path string) (Stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}, err
	}
	return Stamp{modified: info.ModTime(), size: info.Size(), info: info}, nil
}

// Same reports whether nothing speaks for a change between the two.
func (s Stamp) Same(o Stamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil
	}
	return s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.info, o.info)
}

// Settled reports whether a change after now would change the stamp.
func (s Stamp) Settled(now time.Time) bool { return now.Sub(s.modified) > tick }

// Mode returns the permissions, 0 of the zero Stamp.
func (s Stamp) Mode() os.FileMode {
	if s.info == nil {
		return 0
	}
	return s.info.Mode().Perm()
}

// Read reads a file of up to max bytes. Anything but a plain file is an error:
// a named pipe would be waited for.
func Read(path string, max int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no plain file", path)
	case info.Size() > max:
		return nil, fmt.Errorf("%s is larger than %d bytes", path, max)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%s is larger than %d bytes", path, max)
	}
	return data, err
}

// Replace writes a new file beside the one that path leads to and renames it
// into place. A new file has this mode. The place of an old one is taken with its
// owner, and with the permissions that it had and limit allows; the owner may read and write it.
func Replace(path string, data []byte, mode, limit os.FileMode) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	old, _ := os.Stat(path)
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if old != nil {
		err = errors.Join(err, keepOwner(f, old))
		mode = old.Mode().Perm()&limit | 0o600
	}
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Create writes a new file. The error wraps fs.ErrExist, and nothing is changed,
// if there is one already.
func Create(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path) // never over another
}
