package accesslog

import (
	"strings"
	"unicode/utf8"
)

// maxField bounds one field of a line, in bytes.
const maxField = 4 << 10

const (
	hex      = "0123456789abcdef"
	upperHex = "0123456789ABCDEF"
)

// cut bounds a field.
func cut(s string) string {
	if len(s) > maxField {
		return s[:maxField] + "..."
	}
	return s
}

// redacted drops the query of a URL, as Squid's strip_query_terms does; the
// question mark stays, to show that there was one.
func redacted(u string, redact bool) string {
	if i := strings.IndexByte(u, '?'); redact && i >= 0 {
		return u[:i+1]
	}
	return u
}

// appendJSONString appends s in quotes. Control characters, C1 ones too (a
// terminal may take them for escapes), are written as \u00xx, and bytes that
// are no UTF-8 as U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	s = cut(s)
	b = append(b, '"')
	plain := 0
	for plain < len(s) && isPlain(s[plain]) {
		plain++
	}
	b = append(b, s[:plain]...)
	for i := plain; i < len(s); {
		c := s[i]
		switch {
		case isPlain(c):
			b = append(b, c)
			i++
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < utf8.RuneSelf:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = appendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}

// isPlain reports whether c stands for itself in a JSON string.
func isPlain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

// appendRune appends a rune beyond ASCII; those that move text about on a
// screen are escaped.
func appendRune(b []byte, r rune) []byte {
	if r == utf8.RuneError || movesText(r) {
		return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	return utf8.AppendRune(b, r)
}

// movesText reports whether r is a C1 control, a line or paragraph separator,
// or one that changes the direction of writing or cannot be seen.
func movesText(r rune) bool {
	return r < 0xa0 || r == 0x061c || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}

// appendApache escapes as Apache's logs do: a backslash before quotes and
// backslashes, \xhh for what is not printable ASCII. A field outside quotes may
// hold no space either.
func appendApache(b []byte, s string, quoted bool) []byte {
	for _, c := range []byte(cut(s)) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c > ' ' && c < 0x7f || c == ' ' && quoted:
			b = append(b, c)
		default:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		}
	}
	return b
}

// appendPercent escapes as in URLs whatever would end a field of Squid's format
// or is not printable.
func appendPercent(b []byte, s string) []byte {
	for _, c := range []byte(cut(s)) {
		if c > ' ' && c < 0x7f {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}
