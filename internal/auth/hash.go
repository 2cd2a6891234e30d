package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// hash is a stored password.
type hash interface {
	// matches costs tens of milliseconds; that is its purpose.
	matches(password string) bool
}

// bcryptHash is a modular crypt string with $2a$, $2b$ or $2y$.
type bcryptHash []byte

// Bounds of what a file may ask for, so that one line cannot stop the gateway.
const (
	maxBcryptCost      = 14 // about a second
	maxBcryptPassword  = 72 // bcrypt reads no further, so more would be ignored silently
	maxArgonMemory     = 256 << 10
	maxArgonTime       = 16
	maxArgonThreads    = 16
	maxArgonKey        = 64
	minArgonSalt       = 8
	argonVersion       = argon2.Version
	defaultBcryptCost  = 10 // 50 ms
	maxPasswordLength  = 1024
	maxUserNameLength  = 255 // RFC 1929 section 2
	argonFieldsInOrder = "m=%d,t=%d,p=%d"
)

func (h bcryptHash) matches(password string) bool {
	return len(password) <= maxBcryptPassword && bcrypt.CompareHashAndPassword(h, []byte(password)) == nil
}

// argonHash is a PHC string $argon2id$v=19$m=..,t=..,p=..$salt$key (RFC 9106).
type argonHash struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

func (h *argonHash) matches(password string) bool {
	got := argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(got, h.key) == 1
}

// parseHash reads a stored password. The error never repeats it.
func parseHash(s string) (hash, error) {
	switch {
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon(s)
	}
	return nil, fmt.Errorf("the password is stored as %s; only bcrypt and argon2id are taken. Set it again with 'polyport user add' or 'htpasswd -B'", scheme(s))
}

// scheme names the schemes that are refused, for whoever has to replace them.
func scheme(s string) string {
	for prefix, name := range map[string]string{
		"$apr1$": "Apache MD5", "$1$": "MD5 crypt", "$5$": "SHA-256 crypt", "$6$": "SHA-512 crypt", "$y$": "yescrypt",
		"{SHA}": "plain SHA-1", "{SSHA}": "salted SHA-1", "$argon2i$": "argon2i", "$argon2d$": "argon2d",
	} {
		if strings.HasPrefix(s, prefix) {
			return name
		}
	}
	return "plain text or an old crypt"
}

func parseBcrypt(s string) (hash, error) {
	cost, err := bcrypt.Cost([]byte(s))
	const length = 60
	if err != nil || len(s) != length {
		return nil, errors.New("the bcrypt hash is cut short or garbled")
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("the bcrypt cost is %d, and each login would take seconds; at most %d is taken", cost, maxBcryptCost)
	}
	return bcryptHash(s), nil
}

func parseArgon(s string) (hash, error) {
	garbled := errors.New("the argon2id hash is cut short or garbled; it is written $argon2id$v=19$m=65536,t=3,p=4$SALT$KEY")
	f := strings.Split(s, "$")
	if len(f) != 6 || f[2] != fmt.Sprintf("v=%d", argonVersion) {
		return nil, garbled
	}
	var h argonHash
	if n, err := fmt.Sscanf(f[3], argonFieldsInOrder, &h.memory, &h.time, &h.threads); n != 3 || err != nil ||
		f[3] != fmt.Sprintf(argonFieldsInOrder, h.memory, h.time, h.threads) {
		return nil, garbled
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.DecodeString(f[4])
	h.key, err2 = base64.RawStdEncoding.DecodeString(f[5])
	if err1 != nil || err2 != nil || len(h.salt) < minArgonSalt || len(h.key) < minArgonSalt || h.time == 0 || h.threads == 0 {
		return nil, garbled
	}
	if h.memory > maxArgonMemory || h.time > maxArgonTime || h.threads > maxArgonThreads || len(h.key) > maxArgonKey {
		return nil, fmt.Errorf("the argon2id parameters ask for too much: at most m=%d, t=%d and p=%d are taken", maxArgonMemory, maxArgonTime, maxArgonThreads)
	}
	return &h, nil
}

// newHash makes the string that is stored for a password.
func newHash(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > maxBcryptPassword:
		return "", fmt.Errorf("the password is longer than %d bytes, and bcrypt would ignore the rest", maxBcryptPassword)
	}
	b, err := bcrypt.GenerateFromPassword([]byte(password), defaultBcryptCost)
	return string(b), err
}
