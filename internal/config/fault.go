package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	File  string // as it was given to Load or Parse; "" for a flag
	Line  int    // from 1; 0 where TOML gives no honest one: below an array of tables
	Place string // "sniff.timeout", "rule[1].target[0]", "--listen"; "" for a fault of syntax
	Note  string // which rule that is, in words; "" elsewhere
	Err   error

	several bool // found by another package, of which several may stand at one place
	echo    bool // dropped where this package has found a fault at that place or below it
}

// Error returns "file:line: place (note): what is wrong", without what is not known.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			b.WriteString(":" + strconv.Itoa(f.Line))
		}
		b.WriteString(": ")
	}
	if f.Place != "" {
		b.WriteString(f.Place)
		if f.Note != "" {
			b.WriteString(" (" + f.Note + ")")
		}
		b.WriteString(": ")
	}
	b.WriteString(f.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Join makes one *multierror.Error of the faults in errs, which may be nil,
// single or lists themselves. Faults with a line come first, in order of the file; of several at the
// same place only the first is kept, since one mistake may be seen from two
// sides, and of those that AtUntold has placed none where there is another. It returns nil if there is none.
func Join(errs ...error) error {
	var all []error
	for _, err := range errs {
		all = flatten(all, err)
	}
	all = dropEchoes(all)
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(err error) bool {
		f, ok := err.(*Fault)
		if !ok || f.Place == "" {
			return false
		}
		key := f.Place
		if f.several {
			key = f.Error()
		}
		again := seen[key]
		seen[key] = true
		return again
	})
	slices.SortStableFunc(all, func(a, b error) int { return compareLines(lineOf(a), lineOf(b)) })
	list := &multierror.Error{Errors: all, ErrorFormat: FormatFaults}
	return list.ErrorOrNil()
}

// dropEchoes leaves out the echoes of faults that stand at the same place, or below it.
func dropEchoes(all []error) []error {
	told := map[string]bool{} // the places of faults, and all above them
	for _, err := range all {
		if f, ok := err.(*Fault); ok && !f.echo {
			for i, c := range f.Place {
				if c == '.' || c == '[' {
					told[f.Place[:i]] = true
				}
			}
			told[f.Place] = true
		}
	}
	return slices.DeleteFunc(all, func(err error) bool {
		f, ok := err.(*Fault)
		return ok && f.echo && told[f.Place]
	})
}

// flatten takes lists apart.
func flatten(all []error, err error) []error {
	switch e := err.(type) {
	case nil:
	case *multierror.Error:
		for _, inner := range e.WrappedErrors() {
			all = flatten(all, inner)
		}
	case *Fault:
		all = append(all, e)
	case interface{ Unwrap() []error }:
		if errors.Join(e.Unwrap()...).Error() != err.Error() {
			return append(all, err) // a sentence of its own that wraps several causes
		}
		for _, inner := range e.Unwrap() {
			all = flatten(all, inner)
		}
	default:
		all = append(all, e)
	}
	return all
}

func lineOf(err error) int {
	if f, ok := err.(*Fault); ok {
		return f.Line
	}
	return 0
}

// compareLines sorts what has no line behind what has one.
func compareLines(a, b int) int {
	switch {
	case a == b:
		return 0
	case a == 0:
		return 1
	case b == 0:
		return -1
	}
	return a - b
}

// FormatFaults prints one fault as it is, and several as a list of one line each.
// It is a multierror.ErrorFormatFunc.
func FormatFaults(errs []error) string {
	if len(errs) == 1 {
		return errs[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults:", len(errs))
	for _, err := range errs {
		b.WriteString("\n  - " + err.Error())
	}
	return b.String()
}

// maxFaults is how many faults of one pass are kept: behind the first few dozen nobody
// reads on, and a file of a million typos must not cost a million searches.
const maxFaults = 64

// faults collects the faults of one pass over a file.
type faults struct {
	f    *File
	list []error
	more int // faults beyond maxFaults
}

func (f *File) newFaults() *faults { return &faults{f: f} }

// full reports whether one more fault would only be counted.
func (e *faults) full() bool { return len(e.list) >= maxFaults }

// add notes a fault at a place of the file.
func (e *faults) add(p *place, err error) {
	if e.full() {
		e.more++
		return
	}
	fault := &Fault{Place: p.String(), Err: err}
	onCommandLine := strings.HasPrefix(fault.Place, "--")
	if d := e.f.doc; d != nil && !onCommandLine {
		fault.File = d.name
		fault.Line = d.line(p)
		fault.Note = e.f.ruleNote(p)
	}
	e.list = append(e.list, fault)
}

// addf is add with a text.
func (e *faults) addf(p *place, format string, args ...any) {
	e.add(p, fmt.Errorf(format, args...))
}

// ruleNote says in words which [[rule]] a place is in, since no line can.
func (f *File) ruleNote(p *place) string {
	first, second := p.top()
	if first == nil || first.name != "rule" || second == nil || second.index < 0 {
		return ""
	}
	note := "the " + ordinal(second.index+1) + " [[rule]]"
	if second.index < len(f.Rule) && f.Rule[second.index].Name != "" {
		note += ", " + quote(f.Rule[second.index].Name)
	}
	return note
}

// err returns what was collected, or nil.
func (e *faults) err() error {
	if e.more > 0 {
		e.list = append(e.list, fmt.Errorf("%d more faults like these", e.more))
	}
	return Join(e.list...)
}

// At gives a place in the file to faults that another package found. Each error in
// err that begins with a key, as in "route.git.backend: there is none", is moved to that key
// below prefix ("protocols.tls"; "" for the top of the file), and to the element of an array that it goes on to
// quote; any other is moved to prefix itself. A nil err stays nil.
func (f *File) At(prefix string, err error) error {
	var placed []error
	for _, e := range flatten(nil, err) {
		placed = append(placed, f.at(prefix, e)...)
	}
	return Join(placed...)
}

// AtUntold is At for faults that Load and Validate may have found as well: Join leaves out those at whose places, or below them, these have
// found something.
func (f *File) AtUntold(prefix string, err error) error {
	placed := flatten(nil, f.At(prefix, err))
	for _, e := range placed {
		if fault, ok := e.(*Fault); ok {
			fault.echo = true
		}
	}
	return Join(placed...)
}

func (f *File) at(prefix string, err error) []error {
	if fault := (*Fault)(nil); errors.As(err, &fault) {
		return []error{err}
	}
	p, _ := parsePlace(prefix)
	key, rest, found := strings.Cut(err.Error(), ": ")
	full := strings.Trim(prefix+"."+key, ".")
	if below, ok := parsePlace(full); found && ok {
		if list := (*multierror.Error)(nil); errors.As(err, &list) && list.Error() == rest {
			return []error{f.At(full, list)}
		}
		p, err = f.flagged(below), moved{rest, err}
	}
	element := f.element(p, err.Error())
	errs := f.newFaults()
	errs.add(element, err)
	fault := errs.list[0].(*Fault)
	fault.several = element == p
	return errs.list
}

// flagged turns the place of a rule that a flag has made into that flag's.
func (f *File) flagged(p *place) *place {
	if first, _ := p.top(); f.flagRules != "" && first.name == "rule" {
		return root.key(f.flagRules)
	}
	return p
}

// element returns the element of the array of strings at p that text begins with, in quotes or
// not, else p.
func (f *File) element(p *place, text string) *place {
	if f.doc == nil || p == nil {
		return p
	}
	elements, _ := f.doc.value(p).([]any)
	for i, e := range elements {
		s, ok := e.(string)
		if ok && (strings.HasPrefix(text, strconv.Quote(s)) || strings.HasPrefix(text, s+" ")) {
			return p.at(i)
		}
	}
	return p
}

// moved is an error without the key that it began with.
type moved struct {
	text string
	err  error
}

// Error implements error.
func (m moved) Error() string { return m.text }

// Unwrap returns the error with its key.
func (m moved) Unwrap() error { return m.err }
