package httpproxy

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"polyport/mux"
)

// sample is one line of testdata/first-bytes.txt.
type sample struct{ name, bytes, row string }

func samples(t testing.TB) []sample {
	t.Helper()
	f, err := os.Open("testdata/first-bytes.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []sample
	for lines := bufio.NewScanner(f); lines.Scan(); {
		parts := strings.Split(lines.Text(), "\t")
		if len(parts) != 3 {
			t.Fatalf("line %q has %d columns, want 3", lines.Text(), len(parts))
		}
		b, err := strconv.Unquote(parts[1])
		if err != nil {
			t.Fatalf("%s: %v", parts[0], err)
		}
		all = append(all, sample{parts[0], b, parts[2]})
	}
	return all
}

// verdicts feeds p one byte more at a time and returns the final verdict. It
// fails when a matcher changes its mind.
func finalVerdict(t testing.TB, name string, match mux.Matcher, p []byte) mux.Verdict {
	t.Helper()
	decided := mux.NeedMore
	for n := 1; n <= len(p); n++ {
		v := match(p[:n])
		if decided != mux.NeedMore && v != decided {
			t.Fatalf("%s said %v and then, at %q, %v", name, decided, p[:n], v)
		}
		decided = v
	}
	return decided
}

func TestMatchCorpus(t *testing.T) {
	matchers := map[string]mux.Matcher{rowHTTP: matchHTTP, rowConnect: matchConnect}
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			for row, match := range matchers {
				want := mux.NoMatch
				if row == s.row {
					want = mux.Match
				}
				if got := finalVerdict(t, row, match, []byte(s.bytes)); got != want {
					t.Errorf("row %s says %v of %q, want %v", row, got, s.bytes, want)
				}
			}
		})
	}
}

func TestMatchDecidesEarly(t *testing.T) {
	tests := []struct {
		name  string
		match mux.Matcher
		in    string
		want  int // the byte at which it is decided
	}{
		{"known method at its space", matchHTTP, "GET http://example.com/ HTTP/1.1\r\n", 4},
		{"connect at its space", matchConnect, "CONNECT example.com:443 HTTP/1.1\r\n", 8},
		{"http gives connect up at the space", matchHTTP, "CONNECT example.com:443 HTTP/1.1\r\n", 8},
		{"connect gives http up at once", matchConnect, "GET http://example.com/ HTTP/1.1\r\n", 1},
		{"connect gives COPY up at its third letter", matchConnect, "COPY http://example.com/ HTTP/1.1\r\n", 3},
		{"socks5 at once", matchHTTP, "\x05\x01\x00", 1},
		{"tls at once", matchHTTP, "\x16\x03\x01", 1},
		{"unknown method at the version", matchHTTP, "PURGE http://a/ HTTP/1.1\r\n", len("PURGE http://a/ HTTP/1.")},
		{"smtp at the line's end", matchHTTP, "EHLO host\r\n", len("EHLO host\r")},
		{"h2 preface at its version", matchHTTP, "PRI * HTTP/2.0\r\n", len("PRI * HTTP/2")},
		{"a lone line feed", matchHTTP, "FOO\n", 4},
		{"an empty line and no method", matchHTTP, "\r\n\r\n", 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := 0
			for n := 1; n <= len(tt.in) && got == 0; n++ {
				if tt.match([]byte(tt.in[:n])) != mux.NeedMore {
					got = n
				}
			}
			if got != tt.want {
				t.Errorf("%q is decided at byte %d, want %d", tt.in, got, tt.want)
			}
		})
	}
}

func TestMatchBounds(t *testing.T) {
	long := strings.Repeat("a", maxSniffedLine)
	tests := []struct {
		name, in string
		want     mux.Verdict
	}{
		{"known method with an endless target", "GET http://example.com/" + long, mux.Match},
		{"unknown method with an endless target", "PURGE http://example.com/" + long, mux.NoMatch},
		{"unknown method, version behind the bound", "PURGE http://example.com/" + long + " HTTP/1.1\r\n", mux.NoMatch},
		{"unknown method, just inside", "PURGE " + long[:maxSniffedLine-len("PURGE  HTTP/1.")] + " HTTP/1.", mux.Match},
		{"longest method", strings.Repeat("M", maxMethod) + " / HTTP/1.1", mux.Match},
		{"too long a method", strings.Repeat("M", maxMethod+1) + " / HTTP/1.1", mux.NoMatch},
		{"endless token", long, mux.NoMatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := finalVerdict(t, rowHTTP, matchHTTP, []byte(tt.in)); got != tt.want {
				t.Errorf("byte by byte: %v, want %v", got, tt.want)
			}
			if got := matchHTTP([]byte(tt.in)); got != tt.want {
				t.Errorf("in one piece: %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzMatch: a matcher never changes its mind, never decides on more than its
// bounds, and never lets both rows have the same bytes.
func FuzzMatch(f *testing.F) {
	for _, s := range samples(f) {
		f.Add([]byte(s.bytes))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == 0 {
			return
		}
		p = p[:min(len(p), 600)] // what is behind costs the square of it
		http := finalVerdict(t, rowHTTP, matchHTTP, p)
		connect := finalVerdict(t, rowConnect, matchConnect, p)
		if http == mux.Match && connect == mux.Match {
			t.Errorf("both rows take %q", p)
		}
		if connect == mux.Match && !strings.HasPrefix(strings.TrimPrefix(string(p), "\r\n"), "CONNECT ") {
			t.Errorf("connect takes %q", p)
		}
	})
}
