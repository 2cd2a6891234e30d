package auth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	multierror "github.com/hashicorp/go-multierror"
)

// maxFile bounds an htpasswd file, in bytes: some 40,000 users.
const maxFile = 4 << 20

// table is the content of an htpasswd file.
type table map[string]hash

// parseTable reads "name:hash" lines; empty lines and those that begin with # are skipped. The
// error lists every bad line, without the hash.
func parseTable(name string, data []byte) (table, error) {
	t := table{}
	var errs *multierror.Error
	fault := func(line int, format string, a ...any) {
		errs = multierror.Append(errs, fmt.Errorf("%s:%d: "+format, append([]any{name, line}, a...)...))
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		user, stored, ok := strings.Cut(line, ":")
		if !ok {
			fault(n, "the line is not of the form NAME:HASH")
			continue
		}
		if err := checkName(user); err != nil {
			fault(n, "%w", err)
			continue
		}
		if _, twice := t[user]; twice {
			fault(n, "the user %q is there twice; remove one of the lines", user)
			continue
		}
		h, err := parseHash(stored)
		if err != nil {
			fault(n, "user %q: %w", user, err)
			continue
		}
		t[user] = h
	}
	return t, errs.ErrorOrNil()
}

// checkName says what is wrong with a user's name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the user name is empty")
	case len(name) > maxUserNameLength:
		return fmt.Errorf("the user name is longer than %d bytes, and SOCKS5 cannot carry that (RFC 1929)", maxUserNameLength)
	case !utf8.ValidString(name):
		return errors.New("the user name is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the user name holds a control character")
	case strings.Contains(name, ":"):
		return errors.New("the user name holds a colon, and HTTP could not tell where the password begins (RFC 7617)")
	case name[0] == '#':
		return errors.New("the user name begins with #, which is a comment in the file")
	}
	return nil
}

// readFile reads an htpasswd file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// SetUser adds a user to an htpasswd file, or replaces the password of one that
// is there; the file is made (mode 0600) if there is none. All other lines stay as they are.
// The file is replaced as a whole, so a running gateway never reads half of it.
func SetUser(path, name, password string) (replaced bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	stored, err := newHash(password)
	if err != nil {
		return false, err
	}
	err = rewrite(path, true, func(lines []string) ([]string, error) {
		entry := name + ":" + stored
		for i, line := range lines {
			if strings.HasPrefix(line, name+":") {
				lines[i], replaced = entry, true
				return lines, nil
			}
		}
		return append(lines, entry), nil
	})
	return replaced, err
}

// ErrNoUser says that a file does not hold the user.
var ErrNoUser = errors.New("there is no such user")

// RemoveUser removes a user from an htpasswd file.
func RemoveUser(path, name string) error {
	return rewrite(path, false, func(lines []string) ([]string, error) {
		for i, line := range lines {
			if strings.HasPrefix(line, name+":") {
				return append(lines[:i], lines[i+1:]...), nil
			}
		}
		return nil, fmt.Errorf("%w: %q in %s", ErrNoUser, name, path)
	})
}

// ListUsers returns the names in an htpasswd file, in the file's order.
func ListUsers(path string) ([]string, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
			names = append(names, name)
		}
	}
	return names, nil
}

// rewrite replaces a file by what edit makes of its lines, in one step.
func rewrite(path string, create bool, edit func([]string) ([]string, error)) error {
	data, err := readFile(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read the users: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	if lines, err = edit(lines); err != nil {
		return err
	}
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("write the users: %w", err)
	}
	return nil
}

// replaceFile writes a new file beside path and renames it into place, with the
// mode of the old one.
func replaceFile(path, text string) (err error) {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".htpasswd-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.WriteString(f, text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
