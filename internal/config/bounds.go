package config

import "fmt"

// What a file may hold. A parser keeps for every key the whole path to it, so that
// without bounds a megabyte of dots or brackets would cost it gigabytes.
const (
	maxKeys       = 20_000
	maxKeyLength  = 256 // bytes of one dotted key or table header
	maxKeyDots    = 16
	maxNestedness = 8 // brackets and braces inside one another
)

// bounds walks over the tokens of a TOML file just far enough to tell keys and
// brackets from strings and comments.
type bounds struct {
	data  []byte
	pos   int
	line  int
	start int // where the key or value began that is being read
	dots  int // in it, outside strings
	depth int
	keys  int
	table bool // a table header, or the blanks at the beginning of a line that may become one
}

// checkBounds refuses what no honest file needs, with the line it is on.
func checkBounds(data []byte) (line int, err error) {
	if len(data) > maxFileSize {
		return 0, fmt.Errorf("the file is larger than %d bytes", maxFileSize)
	}
	b := bounds{data: data, line: 1, table: true}
	for b.pos < len(b.data) {
		if err := b.next(); err != nil {
			return b.line, err
		}
	}
	return 0, nil
}

// next takes one token.
func (b *bounds) next() error {
	c := b.data[b.pos]
	b.pos++
	switch c {
	case '\n':
		b.line++
		b.begin()
		b.table = b.depth == 0
	case '#':
		for b.pos < len(b.data) && b.data[b.pos] != '\n' {
			b.pos++
		}
	case '"', '\'':
		b.skipString(c)
	case ',':
		b.begin()
	case '.':
		b.dots++
	case '=':
		b.keys++
		b.table = false
		err := b.checkKey()
		b.begin()
		return err
	case '[', '{':
		b.begin()
		if b.depth++; b.depth > maxNestedness {
			return fmt.Errorf("brackets are nested more than %d deep", maxNestedness)
		}
	case ']', '}':
		b.depth = max(b.depth-1, 0)
		if b.table && b.depth == 0 {
			b.keys++
			return b.checkKey()
		}
	}
	return nil
}

func (b *bounds) begin() { b.start, b.dots = b.pos, 0 }

// checkKey checks what has been read since begin.
func (b *bounds) checkKey() error {
	switch {
	case b.keys > maxKeys:
		return fmt.Errorf("the file has more than %d keys", maxKeys)
	case b.dots > maxKeyDots:
		return fmt.Errorf("a key has more than %d dots", maxKeyDots)
	case b.pos-b.start > maxKeyLength:
		return fmt.Errorf("a key is longer than %d bytes", maxKeyLength)
	}
	return nil
}

// skipString goes behind the string whose first quote has been taken.
func (b *bounds) skipString(quote byte) {
	if b.pos+1 < len(b.data) && b.data[b.pos] == quote && b.data[b.pos+1] == quote {
		b.pos += 2
		b.skipMultiline(quote)
		return
	}
	for ; b.pos < len(b.data) && b.data[b.pos] != '\n'; b.pos++ {
		switch c := b.data[b.pos]; {
		case c == quote:
			b.pos++
			return
		case c == '\\' && quote == '"' && b.pos+1 < len(b.data) && b.data[b.pos+1] != '\n':
			b.pos++
		}
	}
}

// skipMultiline goes behind the next three quotes in a row.
func (b *bounds) skipMultiline(quote byte) {
	for run := 0; b.pos < len(b.data) && run < 3; b.pos++ {
		switch c := b.data[b.pos]; {
		case c == quote:
			run++
			continue
		case c == '\\' && quote == '"' && b.pos+1 < len(b.data):
			b.pos++
			if b.data[b.pos] == '\n' {
				b.line++
			}
		case c == '\n':
			b.line++
		}
		run = 0
	}
	for extra := 0; extra < 2 && b.pos < len(b.data) && b.data[b.pos] == quote; extra++ {
		b.pos++ // the string itself may end in up to two quotes
	}
}
