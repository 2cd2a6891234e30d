package config

import (
	"fmt"
	"strings"
)

// didYouMean returns `: did you mean "x"?` for the known name that is closest to
// a wrong one, or "" if none is close. It is made to be put behind a sentence.
func didYouMean(wrong string, known []string) string {
	if best, ok := closest(wrong, known); ok {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ""
}

// oneOf returns what a value may be, in words, with the closest one first where there is one.
func oneOf(wrong string, known []string) string {
	if hint := didYouMean(wrong, known); hint != "" {
		return hint
	}
	return ": write one of " + list(known)
}

// list returns names in quotes with commas; of many only the first.
func list(names []string) string {
	const most = 24
	quoted := make([]string, 0, most)
	for i, n := range names {
		if i == most {
			return strings.Join(quoted, ", ") + ", ..."
		}
		quoted = append(quoted, quote(n))
	}
	return strings.Join(quoted, ", ")
}

// closest returns the known name to which wrong needs the fewest edits, if they
// are few for its length. Case and the kind of dash do not count as edits.
func closest(wrong string, known []string) (best string, ok bool) {
	const longest, most = 64, 1000 // the cost grows with their product, and nobody types so much
	if wrong == "" || len(wrong) > longest || len(known) > most {
		return "", false
	}
	w := plain(wrong)
	fewest := 1 + min(3, max(1, len(w)/3))
	for _, k := range known {
		if len(k) > longest {
			continue
		}
		if d := distance(w, plain(k)); d < fewest {
			best, fewest, ok = k, d, true
		}
	}
	return best, ok
}

// plain folds what users mix up most: case, "-" and "_".
func plain(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that make a into b (optimal string alignment).
func distance(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}

// later holds what the documentation of the whole product names and this version
// does not have yet. The index of an array is left out.
var later = map[string]bool{"metrics": true, "admin": true, "rule.limit": true}

// unknownKey says that a key means nothing, and what may have been meant.
func unknownKey(p *place, known []string) error {
	if isLater(p) {
		return fmt.Errorf("%s is not supported by this version of polyport: remove it", quote(p.name))
	}
	if best, ok := closest(p.name, known); ok {
		return fmt.Errorf("unknown key%s", fmt.Sprintf(": did you mean %q?", best))
	}
	if len(known) == 0 {
		return fmt.Errorf("unknown key: nothing may stand here")
	}
	return fmt.Errorf("unknown key: what may stand here is %s", list(known))
}

func isLater(p *place) bool {
	var names []string
	for ; p != nil; p = p.up {
		if p.index < 0 {
			names = append([]string{p.name}, names...)
		}
	}
	return later[strings.Join(names, ".")]
}
