package socks5

import (
	"errors"
	"testing"

	"polyport/internal/socks"
	"polyport/mux"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		name, prefix string
		want         mux.Verdict
	}{
		{"version alone", "\x05", mux.NeedMore},
		{"one method announced", "\x05\x01", mux.Match},
		{"nc, Chromium, Go", "\x05\x01\x00", mux.Match},
		{"255 methods announced", "\x05\xff", mux.Match},
		{"no method", "\x05\x00", mux.NoMatch},
		{"no method, more behind", "\x05\x00\x00", mux.NoMatch},
		{"SOCKS4", "\x04\x01", mux.NoMatch},
		{"TLS", "\x16\x03\x01", mux.NoMatch},
		{"HTTP", "GET / HTTP/1.1\r\n", mux.NoMatch},
		{"digit 5", "5", mux.NoMatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := match([]byte(tt.prefix)); got != tt.want {
				t.Errorf("match(%q) = %v, want %v", tt.prefix, got, tt.want)
			}
		})
	}
}

// FuzzMatch states that the matcher never changes its mind, and that it and the
// parser of the greeting agree about what is none.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"\x05\x01\x00", "\x05\x00", "\x05", "\x04\x01", "GET / HTTP/1.1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decided := mux.NeedMore
		for i := 1; i <= len(b); i++ {
			v := match(b[:i])
			if decided != mux.NeedMore && v != decided {
				t.Fatalf("match(%q) = %v, but %v for fewer octets", b[:i], v, decided)
			}
			decided = v
			_, _, err := socks.ParseGreeting(b[:i])
			if malformed := errors.Is(err, socks.ErrMalformed); malformed != (v == mux.NoMatch) {
				t.Fatalf("match(%q) = %v, but the greeting's error is %v", b[:i], v, err)
			}
		}
	})
}
