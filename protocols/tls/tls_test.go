package tls

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"polyport/mux"
)

func TestNew(t *testing.T) {
	rows, err := New(backends(), decoded(Options{}))
	if err != nil || len(rows) != 1 || rows[0].Name != "tls" || rows[0].Handler == nil || rows[0].AtPause != nil {
		t.Errorf("New of no options = %+v, %v, want the one row tls", rows, err)
	}
	bad := errors.New("bad table")
	if _, err := New(backends(), func(any) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("New: %v, want decode's error", err)
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		prefix string
		want   mux.Verdict
	}{
		{"\x16", mux.NeedMore},
		{"\x16\x03", mux.Match},
		{"\x16\x03\x01\x02\x00\x01", mux.Match},
		{"\x16\x02", mux.NoMatch},
		{"\x16\x04", mux.NoMatch},
		{"\x15\x03\x01", mux.NoMatch},     // an alert
		{"\x80\x2e\x01\x03", mux.NoMatch}, // SSL 2.0
		{"\x05\x01\x00", mux.NoMatch},
		{"G", mux.NoMatch},
	}
	for _, tt := range tests {
		if got := match([]byte(tt.prefix)); got != tt.want {
			t.Errorf("match(%q) = %v, want %v", tt.prefix, got, tt.want)
		}
	}
}

func TestMatchCorpus(t *testing.T) {
	text, err := os.ReadFile("testdata/first-bytes.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 || fields[2] != Name {
			t.Fatalf("%q is not a name, quoted bytes and the row %s", line, Name)
		}
		first, err := strconv.Unquote(fields[1])
		if err != nil {
			t.Fatalf("%s: %v", fields[0], err)
		}
		for n := 1; n <= len(first); n++ {
			want := mux.Match
			if n == 1 {
				want = mux.NeedMore
			}
			if got := match([]byte(first[:n])); got != want {
				t.Errorf("%s: match of %d bytes = %v, want %v", fields[0], n, got, want)
			}
		}
	}
}

// FuzzMatch: a definite verdict never changes with more bytes, two bytes are always enough, and the
// prefix is left as it was.
func FuzzMatch(f *testing.F) {
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte("\x16"))
	f.Add([]byte("GET / HTTP/1.1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		last, before := mux.NeedMore, string(b)
		for n := 1; n <= len(b); n++ {
			got := match(b[:n])
			if last != mux.NeedMore && got != last {
				t.Fatalf("match of %d bytes = %v, after %v", n, got, last)
			}
			if last = got; n >= 2 && got == mux.NeedMore {
				t.Fatalf("match of %d bytes needs more", n)
			}
		}
		if string(b) != before {
			t.Fatal("match changed its prefix")
		}
	})
}
