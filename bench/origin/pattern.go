package origin

import (
	"bytes"
	"io"
	"math/rand/v2"
)

// period is a prime: no buffer of any proxy is a multiple of it, so blocks
// that are lost, doubled or swapped are seen.
const period = 65521

// pattern is noise that begins anew after period octets, long enough to be cut at any place.
var pattern = noise()

func noise() []byte {
	b := make([]byte, period, period+Block)
	rand.NewChaCha8([32]byte{'p', 'o', 'l', 'y', 'p', 'o', 'r', 't'}).Read(b)
	for len(b) < cap(b) {
		b = append(b, b[len(b)-period])
	}
	return b
}

func patternAt(at uint64) []byte { return pattern[at%period:] }

// WritePattern writes n octets of the pattern.
func WritePattern(w io.Writer, n uint64) error { return send(w, n, patternAt) }

// CheckPattern reads n octets and counts those that differ from the pattern.
// The error wraps what ended the stream too early.
func CheckPattern(r io.Reader, n uint64) (wrong uint64, err error) {
	err = take(r, n, func(b []byte, at uint64) { wrong += differing(b, at) })
	return wrong, err
}

func differing(b []byte, at uint64) (wrong uint64) {
	for len(b) > 0 {
		want := patternAt(at)
		k := min(len(b), len(want))
		if !bytes.Equal(b[:k], want[:k]) {
			for i := range k {
				if b[i] != want[i] {
					wrong++
				}
			}
		}
		b, at = b[k:], at+uint64(k)
	}
	return wrong
}
