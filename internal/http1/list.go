package http1

import (
	"bytes"
	"iter"
)

// List iterates over the elements of a comma-separated value (RFC 9110 section 5.6.1):
// without the white space around them, empty ones left out. A comma inside a
// quoted-string does not separate.
func List(value []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(value) > 0 {
			var e []byte
			if e, value = nextElement(value); len(e) > 0 && !yield(e) {
				return
			}
		}
	}
}

// nextElement returns the first element of a list, which may be empty, and the list
// behind its comma.
func nextElement(list []byte) (element, rest []byte) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++ // a quoted-pair: the next byte means itself
		case c == ',' && !quoted:
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// hasElement reports whether a list has an element that is token, in any case.
func hasElement(list []byte, token string) bool {
	for len(list) > 0 {
		var e []byte
		if e, list = nextElement(list); EqualFold(e, token) {
			return true
		}
	}
	return false
}

// nextToken is nextElement for a list of tokens, in which a quotation mark is merely
// wrong: it must not hide what follows it.
func nextToken(list []byte) (token, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		return trim(list[:i]), list[i+1:]
	}
	return trim(list), nil
}
