package auth

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"
)

// maxFile bounds an htpasswd file, in bytes: some 40,000 users.
const maxFile = 4 << 20

// table is what an htpasswd file says.
type table struct {
	users map[string]entry
	// decoy is what unknown users are checked against, so that they cost the
	// same as most known ones.
	decoy verifier
}

// entry is one user.
type entry struct {
	verifier verifier
	// version stands for the stored password: it changes when that does, and is
	// the same in every table of this process. 0 is an unknown user's.
	version uint64
}

// matches computes the hash, for unknown users too.
func (e entry) matches(password string) bool {
	right := e.verifier.matches(password)
	return right && e.version != 0
}

// lookup returns a user, or for an unknown one the decoy.
func (t *table) lookup(name string) entry {
	if e, ok := t.users[name]; ok {
		return e
	}
	return entry{verifier: t.decoy}
}

// versionSeed makes versions of stored passwords comparable within the process.
var versionSeed = maphash.MakeSeed()

func versionOf(stored string) uint64 { return max(1, maphash.String(versionSeed, stored)) }

// parseTable reads "name:hash" lines; empty lines and those that begin with #
// are skipped. The error lists every bad line as "file:line", and no hash.
func parseTable(file string, data []byte) (table, error) {
	p := parser{file: file, users: make(map[string]entry), lines: make(map[string]int)}
	text := strings.TrimPrefix(string(data), "\ufeff") // what some editors put in front
	for line := range strings.Lines(text) {
		p.line++
		if err := p.add(strings.TrimRight(line, "\r\n")); err != nil {
			p.faults = multierror.Append(p.faults, fmt.Errorf("%s:%d: %w", file, p.line, err))
		}
	}
	return table{users: p.users, decoy: p.decoy()}, p.faults.ErrorOrNil()
}

// parser gathers a table.
type parser struct {
	file    string
	line    int
	users   map[string]entry
	lines   map[string]int // of the users
	efforts []effort
	faults  *multierror.Error
}

// effort counts the users whose verifiers take the same time.
type effort struct {
	name  string
	users int
	like  verifier
}

func (p *parser) add(line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	name, stored, ok := strings.Cut(line, ":")
	if !ok {
		return errors.New("the line is not of the form NAME:HASH") // it may be a password: not shown
	}
	if err := checkName(name); err != nil {
		return err
	}
	if first, twice := p.lines[name]; twice {
		return fmt.Errorf("user %q stands in line %d already; remove one of the two", name, first)
	}
	p.lines[name] = p.line
	v, err := parseVerifier(stored)
	if err != nil {
		return fmt.Errorf("user %q: %w", name, err)
	}
	p.users[name] = entry{verifier: v, version: versionOf(stored)}
	p.count(v)
	return nil
}

func (p *parser) count(v verifier) {
	name := v.effort()
	for i := range p.efforts {
		if p.efforts[i].name == name {
			p.efforts[i].users++
			return
		}
	}
	p.efforts = append(p.efforts, effort{name: name, users: 1, like: v})
}

// decoy is like the verifiers of most users. Without users it is what a new
// one would get.
func (p *parser) decoy() verifier {
	if len(p.efforts) == 0 {
		return bcryptHash(fmt.Sprintf("$2a$%02d$", defaultBcryptCost)).decoy()
	}
	most := p.efforts[0]
	for _, e := range p.efforts[1:] {
		if e.users > most.users {
			most = e
		}
	}
	return most.like.decoy()
}

// checkName says what is wrong with a user's name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the user name is empty")
	case len(name) > maxUserName:
		return fmt.Errorf("the user name is longer than %d bytes, which SOCKS5 cannot carry (RFC 1929)", maxUserName)
	case !utf8.ValidString(name):
		return errors.New("the user name is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the user name holds a control character")
	case strings.Contains(name, ":"):
		return errors.New("the user name holds a colon, behind which HTTP begins the password (RFC 7617)")
	case name[0] == '#':
		return errors.New("the user name begins with #, which begins a comment in the file")
	case strings.TrimSpace(name) != name:
		return errors.New("the user name begins or ends with a space")
	}
	return nil
}

// checkPassword says what is wrong with a new password.
func checkPassword(password string) error {
	switch {
	case utf8.RuneCountInString(password) < minNewPassword:
		return fmt.Errorf("the password is shorter than %d characters", minNewPassword)
	case len(password) > maxBcryptPassword:
		return fmt.Errorf("the password is longer than %d bytes, and bcrypt would ignore the rest", maxBcryptPassword)
	case strings.ContainsFunc(password, unicode.IsControl):
		return errors.New("the password holds a control character, which HTTP cannot carry (RFC 7617)")
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
		err = fmt.Errorf("%s is larger than %d bytes, so it is hardly a file of users", path, maxFile)
	}
	return data, err
}
