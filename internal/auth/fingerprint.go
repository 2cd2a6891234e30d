package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// fingerprint stands for a pair of credentials in memory: HMAC-SHA256 under a
// key that is the process's own and random, so a leak of one tells nothing.
type fingerprint [sha256.Size]byte

// macs holds keyed hashes for reuse.
var macs = sync.Pool{New: func() any { return hmac.New(sha256.New, fingerprintKey()) }}

var fingerprintKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // documented never to fail
	return key
})

// fingerprintOf tells every pair from every other: the user's length comes
// first, so "ab", "c" is not "a", "bc".
func fingerprintOf(c Credentials) (f fingerprint) {
	mac := macs.Get().(hash.Hash)
	defer macs.Put(mac)
	mac.Reset()
	b := make([]byte, 0, 128)
	b = binary.BigEndian.AppendUint64(b, uint64(len(c.User)))
	b = append(b, c.User...)
	b = append(b, c.Password...)
	mac.Write(b)
	clear(b)
	mac.Sum(f[:0])
	return f
}
