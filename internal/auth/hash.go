package auth

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// verifier is a stored password.
type verifier interface {
	// matches costs tens of milliseconds; that is its purpose.
	matches(password string) bool
	// effort names what sets the time that matches takes.
	effort() string
	// decoy returns a verifier of the same effort that no password matches.
	decoy() verifier
}

// Bounds of what a file may ask for, so that no line of it can stop the gateway.
const (
	maxBcryptCost     = 14 // about a second
	defaultBcryptCost = 10 // about 50 ms
	bcryptLength      = 60
	// maxBcryptPassword is all that bcrypt reads; more would be ignored silently.
	maxBcryptPassword = 72
	minNewPassword    = 8 // characters, for a new password (NIST SP 800-63B section 5.1.1.2)
	maxPassword       = 1024
	maxUserName       = 255 // RFC 1929 section 2
)

// parseVerifier reads a stored password. The error never repeats it.
func parseVerifier(s string) (verifier, error) {
	switch {
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon(s)
	}
	return nil, fmt.Errorf("the password is stored as %s, and only bcrypt and argon2id are taken; set it again with 'polyport user add' or 'htpasswd -B'", scheme(s))
}

// schemes are the refused ones that can be told by how they begin.
var schemes = []struct{ prefix, name string }{
	{"$apr1$", "Apache MD5"},
	{"$1$", "MD5 crypt"},
	{"$2$", "an early bcrypt"},
	{"$2x$", "a faulty bcrypt"},
	{"$5$", "SHA-256 crypt"},
	{"$6$", "SHA-512 crypt"},
	{"$7$", "scrypt"},
	{"$y$", "yescrypt"},
	{"$argon2i$", "argon2i"},
	{"$argon2d$", "argon2d"},
	{"{SHA}", "plain SHA-1"},
	{"{SSHA}", "salted SHA-1"},
}

// scheme names a refused scheme for whoever has to replace it.
func scheme(s string) string {
	for _, sc := range schemes {
		if strings.HasPrefix(s, sc.prefix) {
			return sc.name
		}
	}
	return "plain text or an old crypt"
}

// bcryptHash is a modular crypt string.
type bcryptHash string

func parseBcrypt(s string) (verifier, error) {
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil || len(s) != bcryptLength || s[6] != '$' || strings.ContainsFunc(s[7:], notBcryptDigit) {
		return nil, errors.New("the bcrypt hash is cut short or garbled; set the password again with 'polyport user add'")
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("the bcrypt cost is %d, with which each login would take seconds; at most %d is taken", cost, maxBcryptCost)
	}
	return bcryptHash(s), nil
}

// notBcryptDigit reports whether r is none of bcrypt's own base64 alphabet.
func notBcryptDigit(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '/')
}

func (h bcryptHash) matches(password string) bool {
	ok := bcrypt.CompareHashAndPassword([]byte(h), []byte(password)) == nil
	return ok && len(password) <= maxBcryptPassword
}

func (h bcryptHash) effort() string { return "bcrypt " + string(h[4:6]) }

// decoy keeps version and cost. The key of all dots is 23 zero bytes, which no
// one knows a password for; that it is refused does not rest on that.
func (h bcryptHash) decoy() verifier {
	return bcryptHash(string(h[:7]) + strings.Repeat(".", bcryptLength-7))
}

// newHash makes the string that is stored for a password. It is bcrypt, since
// every other program that reads such a file knows it.
func newHash(password string, cost int) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	b, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	return string(b), err
}
