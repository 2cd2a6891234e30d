package daemon

import (
	"fmt"
	"slices"

	"polyport/mux"
	"polyport/protocols/spec"
)

// openings are what clients of the built-in rows send first.
var openings = []struct{ row, bytes string }{
	{"http", "GET http://example.com/ HTTP/1.1\r\n"},
	{"http", "POST http://example.com/ HTTP/1.1\r\n"},
	{"connect", "CONNECT example.com:443 HTTP/1.1\r\n"},
	{"socks4", "\x04\x01\x01\xbb\xc0\x00\x02\x01\x00"},
	{"socks5", "\x05\x01\x00"},
	{"socks5", "\x05\x02\x00\x02"},
	{"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
}

// collisions finds users' raw rows that take clients away from built-in rows,
// which is legal, since raw rows are tried first, and rarely meant.
func (a *assembly) collisions() []string {
	var found []string
	for _, r := range a.rows {
		if slices.Contains(builtInRows, r.Name) {
			continue
		}
		if row := takenRow(r); row != "" {
			found = append(found, fmt.Sprintf("protocols.raw.%s: it is tried before the row %s and matches its clients too: they will all go to its backend", r.Name, row))
		}
	}
	return found
}

// takenRow returns the first built-in row whose clients r matches.
func takenRow(r spec.Row) string {
	for _, o := range openings {
		for n := 1; n <= len(o.bytes); n++ {
			b := []byte(o.bytes[:n])
			v := r.Match(b)
			if v == mux.NeedMore && n == len(o.bytes) && r.AtPause != nil {
				v = r.AtPause(b)
			}
			if v == mux.Match {
				return o.row
			}
			if v == mux.NoMatch {
				break
			}
		}
	}
	return ""
}
