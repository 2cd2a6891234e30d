// Package raw serves protocols that the gateway does not speak: connections whose
// first bytes match a row that the owner wrote are handed, untouched, to a backend. So are
// clients that send nothing at all, because their server speaks first (SSH, SMTP, MySQL). No credentials can
// be presented here: the rules decide on the row's name, for sessions without a user.
package raw

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/go-multierror"

	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

// Silent is the row of clients that send nothing. No byte ever matches it:
// the classifier chooses it once a client has been silent for silent_after.
const Silent = "silent"

// Options is the [protocols.raw] table: the rows by name.
type Options map[string]Row

// Row is one [protocols.raw.NAME] table. One of Prefix and Regex is required.
type Row struct {
	// Prefix lists what a connection may begin with: text, or "hex:" and hexadecimal
	// digits for any bytes ("hex:00 00 00 08"). Each has 1 to 1024 bytes.
	Prefix []string `toml:"prefix"`
	// Regex is an RE2 expression, anchored by ^, over the first 1024 bytes.
	Regex string `toml:"regex"`
	// Backend is the name of a [backend.NAME] table. Required.
	Backend string `toml:"backend"`
}

// maxBytes is how far a row looks into a connection.
const maxBytes = 1 << 10

// New makes the rows in the order in which they are to be tried: prefixes, longest first, then
// regular expressions, each by name; last the row Silent, if env has a backend for it.
func New(env spec.Env, decode func(into any) error) ([]spec.Row, error) {
	var o Options
	if err := decode(&o); err != nil {
		return nil, err
	}
	var errs *multierror.Error
	var parsed []parsedRow
	for _, name := range slices.Sorted(maps.Keys(o)) {
		row, err := o[name].parse(name, env)
		if err != nil {
			errs = multierror.Append(errs, err)
			continue
		}
		parsed = append(parsed, row)
	}
	slices.SortStableFunc(parsed, func(a, b parsedRow) int { return b.longest() - a.longest() })
	if err := collisions(parsed); err != nil {
		errs = multierror.Append(errs, err)
	}
	rows := make([]spec.Row, 0, len(parsed)+1)
	for _, p := range parsed {
		rows = append(rows, p.row())
	}
	if env.SilentTo != "" {
		b, err := env.FindBackend(env.SilentTo)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("silent_to: %w", err))
		}
		rows = append(rows, spec.Row{
			Row:     mux.Row{Name: Silent, Match: never},
			OnLoop:  true,
			Handler: &handler{row: Silent, backend: b},
		})
	}
	if err := errs.ErrorOrNil(); err != nil {
		return nil, err
	}
	return rows, nil
}

func never([]byte) mux.Verdict { return mux.NoMatch }

// parsedRow is a Row without faults.
type parsedRow struct {
	name     string
	backend  *upstream.Backend
	prefixes []string
	expr     *expression // nil for a row of prefixes
}

// longest orders rows: the longer its longest prefix, the more specific a row.
func (p parsedRow) longest() int {
	n := 0
	for _, s := range p.prefixes {
		n = max(n, len(s))
	}
	return n
}

func (p parsedRow) row() spec.Row {
	r := spec.Row{
		Row:     mux.Row{Name: p.name, Match: matchPrefix(p.prefixes)},
		OnLoop:  true,
		Handler: &handler{row: p.name, backend: p.backend},
	}
	if p.expr != nil {
		r.Match, r.AtPause = p.expr.match, p.expr.matchAll
	}
	return r
}

// parse checks one row. The error lists every fault, each beginning with its key.
func (r Row) parse(name string, env spec.Env) (parsedRow, error) {
	var errs *multierror.Error
	fault := func(key string, err error) {
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("%s%s: %w", name, key, err))
		}
	}
	p := parsedRow{name: name}
	fault("", checkName(name))
	var err error
	p.backend, err = env.FindBackend(r.Backend)
	fault(".backend", err)
	switch {
	case len(r.Prefix) > 0 && r.Regex != "":
		fault("", errors.New("it has both prefix and regex; make two rows of it"))
	case len(r.Prefix) == 0 && r.Regex == "":
		fault("", errors.New(`nothing says what it matches; write prefix = ["..."] or regex = "^..."`))
	case r.Regex != "":
		p.expr, err = compile(r.Regex)
		fault(".regex", err)
	}
	for i, text := range r.Prefix {
		s, err := parsePrefix(text)
		fault(fmt.Sprintf(".prefix[%d]", i), err)
		p.prefixes = append(p.prefixes, s)
	}
	return p, errs.ErrorOrNil()
}

// builtin are the names that rows and folders of the protocol table have already.
var builtin = []string{"http", "connect", "socks4", "socks5", "tls", "reject", "raw", Silent}

// maxName bounds a row's name, which stands in each line of the log.
const maxName = 32

// checkName admits names that no host name, address or pattern of a rule can
// be mistaken for, and that need no quoting in a log or as a metric's label.
func checkName(name string) error {
	if slices.Contains(builtin, name) {
		return fmt.Errorf("%q is the name of a built-in row; choose another", name)
	}
	ok := name != "" && len(name) <= maxName && 'a' <= name[0] && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("a row's name begins with a small letter and has small letters, digits, - and _, %d at most", maxName)
	}
	return nil
}
