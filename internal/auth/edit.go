package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"polyport/internal/file"
)

// ErrNoUser says that a file does not hold the user.
var ErrNoUser = errors.New("there is no such user")

// SetUser adds a user to an htpasswd file, or replaces the password of one that
// is there; the file is made (mode 0600) if there is none. All other lines stay
// as they are. The file is replaced in one step, so a running gateway never
// reads half of it.
//
// The name must not be longer than 255 bytes or hold a colon or a control
// character; the password has 8 characters to 72 bytes.
func SetUser(path, name, password string) (replaced bool, err error) {
	return setUser(path, name, password, defaultBcryptCost)
}

func setUser(path, name, password string, cost int) (replaced bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	stored, err := newHash(password, cost)
	if err != nil {
		return false, err
	}
	err = rewrite(path, true, func(lines []string) ([]string, error) {
		entry := name + ":" + stored
		i := slices.IndexFunc(lines, isOf(name))
		if i < 0 {
			return append(lines, entry), nil
		}
		replaced = true
		lines[i] = entry
		rest := slices.DeleteFunc(lines[i+1:], isOf(name)) // a second line would keep the old password
		return lines[:i+1+len(rest)], nil
	})
	return replaced, err
}

// RemoveUser removes a user from an htpasswd file. The error is ErrNoUser if he
// does not stand there.
func RemoveUser(path, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return rewrite(path, false, func(lines []string) ([]string, error) {
		rest := slices.DeleteFunc(slices.Clone(lines), isOf(name))
		if len(rest) == len(lines) {
			return nil, fmt.Errorf("%w: %q in %s", ErrNoUser, name, path)
		}
		return rest, nil
	})
}

// ListUsers returns the names in an htpasswd file, in the file's order. It does
// not judge the hashes.
func ListUsers(path string) ([]string, error) {
	lines, err := readLines(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, line := range lines {
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
			names = append(names, name)
		}
	}
	return names, nil
}

// isOf tells the lines of a user.
func isOf(name string) func(line string) bool {
	return func(line string) bool { return strings.HasPrefix(line, name+":") }
}

// readLines returns the lines of an htpasswd file without their ends.
func readLines(path string) ([]string, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	var lines []string
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines, nil
}

// rewrite replaces a file by what edit makes of its lines.
func rewrite(path string, create bool, edit func([]string) ([]string, error)) error {
	lines, err := readLines(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	if lines, err = edit(lines); err != nil {
		return err
	}
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(line)
		text.WriteByte('\n')
	}
	if err := file.Replace(path, []byte(text.String()), 0o600, 0o660); err != nil { // others never read it
		return fmt.Errorf("write the users: %w", err)
	}
	return nil
}
