package raw

import (
	"strings"
	"testing"

	"polyport/mux"
)

func TestParsePrefix(t *testing.T) {
	tests := []struct{ text, want string }{
		{"SSH-", "SSH-"},
		{"\u0003\u0000", "\x03\x00"},
		{"hex:16 03", "\x16\x03"},
		{"hex:fFfe", "\xff\xfe"},
		{"hex:6865783a", "hex:"}, // the form itself as text
		{"HEX:00", "HEX:00"},
		{"ü", "\xc3\xbc"},
		{strings.Repeat("x", 1024), strings.Repeat("x", 1024)},
	}
	for _, tt := range tests {
		if got, err := parsePrefix(tt.text); got != tt.want || err != nil {
			t.Errorf("parsePrefix(%q) = %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

func TestMatchPrefix(t *testing.T) {
	match := matchPrefix([]string{"SSH-", "SMB2\x00", "\xff"})
	tests := []struct {
		bytes string
		want  mux.Verdict
	}{
		{"S", mux.NeedMore},
		{"SS", mux.NeedMore},
		{"SSH", mux.NeedMore},
		{"SSH-", mux.Match},
		{"SSH-2.0-x\r\n", mux.Match},
		{"SX", mux.NoMatch},
		{"SMB", mux.NeedMore},
		{"SMB1", mux.NoMatch},
		{"SMB2\x00", mux.Match},
		{"\xff", mux.Match},
		{"ssh-", mux.NoMatch},
		{"\x00", mux.NoMatch},
	}
	for _, tt := range tests {
		if got := match([]byte(tt.bytes)); got != tt.want {
			t.Errorf("match(%q) = %v, want %v", tt.bytes, got, tt.want)
		}
	}
}

// FuzzMatch: the verdict is a yes exactly when the bytes begin with a prefix, a no exactly when no
// more bytes can bring that about, and never changes once it is one of these.
func FuzzMatch(f *testing.F) {
	f.Add("SSH-", "SMB", []byte("SSH-2.0-OpenSSH\r\n"))
	f.Add("a", "ab", []byte("abc"))
	f.Add("\x00\x00", "\xff", []byte("\x00\x01"))
	f.Fuzz(func(t *testing.T, p, q string, b []byte) {
		if p == "" || q == "" {
			return
		}
		match, last := matchPrefix([]string{p, q}), mux.NeedMore
		for n := 1; n <= len(b); n++ {
			s := string(b[:n])
			want := mux.NoMatch
			switch {
			case strings.HasPrefix(s, p), strings.HasPrefix(s, q):
				want = mux.Match
			case strings.HasPrefix(p, s), strings.HasPrefix(q, s):
				want = mux.NeedMore
			}
			got := match(b[:n])
			if got != want {
				t.Fatalf("match(%q) for %q and %q = %v, want %v", s, p, q, got, want)
			}
			if last != mux.NeedMore && got != last {
				t.Fatalf("match(%q) = %v, after %v", s, got, last)
			}
			last = got
		}
	})
}
