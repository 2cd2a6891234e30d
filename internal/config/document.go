package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// document is a file whose syntax is right.
//
// The toml package parses, and knows where things stand. Its own decoder is not used beyond that: it ends
// at the first fault, in the random order of a map, folds the case of keys and names no index (see decoder).
type document struct {
	name   string
	meta   toml.MetaData
	root   map[string]toml.Primitive
	values map[string]any
	tables map[string]map[string]toml.Primitive // what table has taken apart, by dotted name
}

// parseDocument parses a file. Of faults of syntax only the first is known.
func parseDocument(name string, data []byte) (d *document, fault *Fault) {
	if line, err := checkBounds(data); err != nil {
		return nil, &Fault{File: name, Line: line, Err: err}
	}
	// The parser panics where it believes that it has a bug.
	defer func() {
		if r := recover(); r != nil {
			d, fault = nil, &Fault{File: name, Err: fmt.Errorf("the TOML parser cannot read this file: %q", fmt.Sprint(r))}
		}
	}()
	d = &document{name: name}
	var err error
	d.meta, err = toml.Decode(string(data), &d.root)
	if err != nil {
		return nil, syntaxFault(name, err)
	}
	d.values = d.plainValues()
	return d, nil
}

// syntaxFault makes a sentence of a parser's error.
func syntaxFault(name string, err error) *Fault {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return &Fault{File: name, Err: err}
	}
	text := strings.TrimSuffix(harmless(pe.Message), ".")
	if pe.LastKey != "" {
		text += ", at or after the key " + harmless(pe.LastKey)
	}
	return &Fault{File: name, Line: pe.Position.Line, Err: errors.New(text)}
}

// harmless replaces what would move a terminal's cursor, or end the line.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return '\ufffd'
		}
		return r
	}, s)
}

// plainValues returns the values of the file: maps, slices, strings, numbers.
func (d *document) plainValues() map[string]any {
	values := make(map[string]any, len(d.root))
	for key, p := range d.root {
		var v any
		// Into an empty interface nothing can fail.
		_ = d.meta.PrimitiveDecode(p, &v)
		values[key] = v
	}
	return values
}

// value returns what stands at a place; nil if nothing does.
func (d *document) value(p *place) any {
	if p == nil {
		return d.values
	}
	switch v := d.value(p.up).(type) {
	case map[string]any:
		if p.index < 0 {
			return v[p.name]
		}
	case []map[string]any:
		if p.index >= 0 && p.index < len(v) {
			return v[p.index]
		}
	case []any:
		if p.index >= 0 && p.index < len(v) {
			return v[p.index]
		}
	}
	return nil
}

// errHere makes the toml package say where a value stands.
var errHere = errors.New("here")

type locator struct{}

// UnmarshalTOML implements toml.Unmarshaler: its error is what carries the place.
func (*locator) UnmarshalTOML(any) error { return errHere }

// line returns the line of a value, or 0 where the parser gives none that is
// right: below [[rule]] it would be that of the last element, whichever is asked for.
func (d *document) line(p *place) int {
	for up := p; up != nil; up = up.up {
		if up.index >= 0 {
			p = up.up // an element of an array, and what is in it, is looked for where its array begins
		}
	}
	keys, _ := p.keys()
	if len(keys) == 0 {
		return 0
	}
	last := len(keys) - 1
	value, ok := d.table(keys[:last])[keys[last]]
	switch {
	case !ok: // a key that should be there, or whose default is at fault: its table's line
		return d.line(p.up)
	case d.meta.Type(keys...) == "ArrayHash":
		return 0
	}
	var pe toml.ParseError
	if !errors.As(d.meta.PrimitiveDecode(value, new(locator)), &pe) {
		return 0
	}
	return pe.Position.Line
}

// table returns what is in a table outside arrays; nil if there is none.
func (d *document) table(keys toml.Key) map[string]toml.Primitive {
	if len(keys) == 0 {
		return d.root
	}
	name := keys.String()
	if inner, ok := d.tables[name]; ok {
		return inner
	}
	last := len(keys) - 1
	var inner map[string]toml.Primitive
	if outer, ok := d.table(keys[:last])[keys[last]]; ok && d.meta.PrimitiveDecode(outer, &inner) != nil {
		inner = nil
	}
	if d.tables == nil {
		d.tables = map[string]map[string]toml.Primitive{}
	}
	d.tables[name] = inner
	return inner
}

// ordinal returns 1st, 2nd, 3rd, 4th, ..., 11th, ...
func ordinal(n int) string {
	suffix := "th"
	if tens := n / 10 % 10; tens != 1 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n) + suffix
}
