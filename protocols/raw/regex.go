package raw

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	"polyport/mux"
)

// Bounds of a compiled expression. Only the configuration can reach them, but each
// connection pays for what they allow.
const (
	maxInstructions = 1000
	maxTransitions  = 1 << 16
)

// What an expression may not be.
var (
	errNotAnchored = errors.New("it must begin with ^, in every alternative and outside of (?m): a row knows a connection by how it begins")
	errAlways      = errors.New("it matches every connection; let it name at least one byte")
	errNever       = errors.New("it can never match")
	errTooLong     = fmt.Errorf("it compiles to more than %d instructions; shorten its repetitions", maxInstructions)
	errTooComplex  = fmt.Errorf("it needs a table of more than %d entries to be matched byte by byte; "+
		"most often .* or .{n} in front of something else is the reason", maxTransitions)
)

// expression is an anchored RE2 expression that can be asked while its text is
// still arriving. Package regexp says only whether a text matches; the
// automaton says as well that no further byte can make it match, or unmatch it.
type expression struct {
	re   *regexp.Regexp
	auto *automaton
}

// compile refuses expressions that could not tell one connection from another.
func compile(expr string) (*expression, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(expr, syntax.Perl) // as package regexp does
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	switch {
	case err != nil:
		return nil, err
	case len(prog.Inst) > maxInstructions:
		return nil, errTooLong
	case !anchored(prog):
		return nil, errNotAnchored
	}
	auto, err := newAutomaton(prog)
	if err != nil {
		return nil, err
	}
	return &expression{re, auto}, nil
}

// match says Match once the expression matches b whatever follows, and NoMatch
// once it matches nothing that begins with b. It looks at the first maxBytes; with
// these it always knows.
func (e *expression) match(b []byte) mux.Verdict {
	if len(b) >= maxBytes {
		return e.matchAll(b)
	}
	return e.auto.run(b)
}

// matchAll judges b as the whole text: what match still left open ("$", a word's end)
// is decided by b's end.
func (e *expression) matchAll(b []byte) mux.Verdict {
	if e.re.Match(b[:min(len(b), maxBytes)]) {
		return mux.Match
	}
	return mux.NoMatch
}
