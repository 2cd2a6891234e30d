package raw

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-multierror"

	"polyport/mux"
)

// hexForm begins a prefix that is written in hexadecimal. TOML strings are UTF-8, so
// bytes above 0x7f cannot be written as text.
const hexForm = "hex:"

// parsePrefix returns the bytes that a prefix of the configuration stands for.
func parsePrefix(text string) (string, error) {
	s := text
	if digits, ok := strings.CutPrefix(text, hexForm); ok {
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			return "", fmt.Errorf(`%q is not "hex:" and pairs of hexadecimal digits, such as "hex:00 ff"`, text)
		}
		s = string(b)
	}
	switch {
	case s == "":
		return "", errors.New("an empty prefix would match every connection")
	case len(s) > maxBytes:
		return "", fmt.Errorf("it has %d bytes; a row looks at no more than %d", len(s), maxBytes)
	}
	return s, nil
}

// matchPrefix matches what begins with one of the prefixes. It says no at the first byte
// that rules out all of them.
func matchPrefix(prefixes []string) mux.Matcher {
	return func(b []byte) mux.Verdict {
		verdict := mux.NoMatch
		for _, p := range prefixes {
			if len(b) >= len(p) {
				if string(b[:len(p)]) == p {
					return mux.Match
				}
			} else if p[:len(b)] == string(b) {
				verdict = mux.NeedMore
			}
		}
		return verdict
	}
}

// collisions finds prefixes that can never be reached, because a row that is tried
// earlier, or the same one, takes everything that begins with them.
func collisions(rows []parsedRow) error {
	var errs *multierror.Error
	for i, row := range rows {
		for n, p := range row.prefixes {
			if p == "" {
				continue // a fault that has been reported
			}
			for _, earlier := range rows[:i] {
				if q, ok := shadow(earlier.prefixes, p); ok {
					errs = multierror.Append(errs, fmt.Errorf("%s.prefix[%d]: %q can never be reached, since row %s takes what begins with %q",
						row.name, n, p, earlier.name, q))
				}
			}
			if q, ok := shadow(row.prefixes[:n], p); ok {
				errs = multierror.Append(errs, fmt.Errorf("%s.prefix[%d]: %q is needless beside %q", row.name, n, p, q))
			}
		}
	}
	return errs.ErrorOrNil()
}

// shadow returns the first of prefixes with which p begins.
func shadow(prefixes []string, p string) (string, bool) {
	for _, q := range prefixes {
		if q != "" && strings.HasPrefix(p, q) {
			return q, true
		}
	}
	return "", false
}
