package raw

import (
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// alphabet sorts all runes into classes that no instruction of a program tells apart.
type alphabet struct {
	ascii    [utf8.RuneSelf]uint16
	from     []rune   // where a run of one class begins, ascending
	of       []uint16 // the class of the run
	classes  int
	examples []rune // one rune of each class
}

func newAlphabet(prog *syntax.Prog) alphabet {
	var a alphabet
	known := map[string]uint16{}
	for _, r := range boundaries(prog) {
		signature := signature(prog, r)
		class, ok := known[signature]
		if !ok {
			class = uint16(len(a.examples))
			known[signature] = class
			a.examples = append(a.examples, r)
		}
		a.from, a.of = append(a.from, r), append(a.of, class)
	}
	a.classes = len(a.examples)
	for c := range a.ascii {
		a.ascii[c] = a.find(rune(c))
	}
	return a
}

// class returns the class of the first rune of b and its length, 0 if b holds only
// its beginning. A byte that is no UTF-8 is U+FFFD, as in package regexp.
func (a *alphabet) class(b []byte) (class uint16, n int) {
	if b[0] < utf8.RuneSelf {
		return a.ascii[b[0]], 1
	}
	if !utf8.FullRune(b) {
		return 0, 0
	}
	r, n := utf8.DecodeRune(b)
	return a.find(r), n
}

func (a *alphabet) find(r rune) uint16 {
	i, exact := slices.BinarySearch(a.from, r)
	if !exact {
		i--
	}
	return a.of[i]
}

// boundaries returns every rune at which the answer of some instruction or
// assertion may change, ascending from 0.
func boundaries(prog *syntax.Prog) []rune {
	at := []rune{0, '\n', '\n' + 1, '0', '9' + 1, 'A', 'Z' + 1, '_', '_' + 1, 'a', 'z' + 1}
	for i := range prog.Inst {
		if inst := &prog.Inst[i]; awaits(inst) {
			at = appendBoundaries(at, inst)
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

func appendBoundaries(at []rune, inst *syntax.Inst) []rune {
	if inst.Op == syntax.InstRuneAny || inst.Op == syntax.InstRuneAnyNotNL {
		return at
	}
	if len(inst.Rune) == 1 { // with its other cases, if these are to match
		first := inst.Rune[0]
		at = append(at, first, first+1)
		for r := unicode.SimpleFold(first); r != first; r = unicode.SimpleFold(r) {
			at = append(at, r, r+1)
		}
		return at
	}
	for i := 0; i+1 < len(inst.Rune); i += 2 {
		at = append(at, inst.Rune[i], inst.Rune[i+1]+1)
	}
	return at
}

// signature says how every instruction and every assertion takes r.
func signature(prog *syntax.Prog, r rune) string {
	s := make([]byte, 0, len(prog.Inst)+1)
	switch {
	case r == '\n':
		s = append(s, 'n')
	case syntax.IsWordChar(r):
		s = append(s, 'w')
	default:
		s = append(s, ' ')
	}
	for i := range prog.Inst {
		if consumes(&prog.Inst[i], r) {
			s = append(s, 1)
		} else {
			s = append(s, 0)
		}
	}
	return string(s)
}
