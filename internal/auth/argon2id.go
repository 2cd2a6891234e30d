package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Bounds of argon2id parameters. The second choice of RFC 9106 section 4
// (64 MiB, 3 passes, 4 lanes) lies well inside. As many hashes as there are
// processors are computed at once, each with its memory.
const (
	maxArgonMemory = 128 << 10 // KiB
	maxArgonPasses = 16
	maxArgonWork   = 512 << 10 // memory x passes, in KiB
	maxArgonLanes  = 16
	minArgonSalt   = 8 // RFC 9106 section 3.1
	minArgonKey    = 16
	maxArgonBytes  = 64 // of salt and of key
)

// argonHash is a PHC string "$argon2id$v=19$m=..,t=..,p=..$salt$key" (RFC 9106).
type argonHash struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

func parseArgon(s string) (verifier, error) {
	f := strings.Split(s, "$") // "", "argon2id", "v=19", "m=..,t=..,p=..", salt, key
	if len(f) != 6 || f[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, errGarbledArgon
	}
	h, ok := argonParameters(f[3])
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(f[4])
	key, err2 := base64.RawStdEncoding.Strict().DecodeString(f[5])
	if !ok || errors.Join(err1, err2) != nil || len(salt) < minArgonSalt || len(key) < minArgonKey {
		return nil, errGarbledArgon
	}
	if h.memory > maxArgonMemory || h.passes > maxArgonPasses || h.lanes > maxArgonLanes ||
		h.memory*h.passes > maxArgonWork || len(salt) > maxArgonBytes || len(key) > maxArgonBytes {
		return nil, fmt.Errorf("the argon2id hash asks for too much time or memory; at most m=%d, t=%d, p=%d and m*t=%d are taken, with a salt and a key of %d bytes",
			maxArgonMemory, maxArgonPasses, maxArgonLanes, maxArgonWork, maxArgonBytes)
	}
	h.salt, h.key = salt, key
	return &h, nil
}

var errGarbledArgon = errors.New("the argon2id hash is cut short or garbled; it is written $argon2id$v=19$m=65536,t=3,p=4$SALT$KEY")

// argonParameters reads "m=..,t=..,p=..", in this order and in plain decimal.
func argonParameters(s string) (h argonHash, ok bool) {
	f := strings.Split(s, ",")
	if len(f) != 3 {
		return h, false
	}
	m, ok1 := parameter(f[0], "m=", 32)
	t, ok2 := parameter(f[1], "t=", 32)
	p, ok3 := parameter(f[2], "p=", 8)
	h.memory, h.passes, h.lanes = uint32(m), uint32(t), uint8(p)
	// RFC 9106 section 3.1: each lane has at least 8 KiB.
	return h, ok1 && ok2 && ok3 && h.memory >= 8*uint32(h.lanes)
}

// parameter reads a positive number behind its name.
func parameter(s, name string, bits int) (uint64, bool) {
	digits, ok := strings.CutPrefix(s, name)
	n, err := strconv.ParseUint(digits, 10, bits)
	return n, ok && err == nil && n > 0 && strconv.FormatUint(n, 10) == digits
}

func (h *argonHash) matches(password string) bool {
	got := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(got, h.key) == 1
}

func (h *argonHash) effort() string {
	return fmt.Sprintf("argon2id %d %d %d", h.memory, h.passes, h.lanes)
}

func (h *argonHash) decoy() verifier {
	return &argonHash{
		memory: h.memory, passes: h.passes, lanes: h.lanes,
		salt: make([]byte, len(h.salt)), key: make([]byte, len(h.key)),
	}
}
