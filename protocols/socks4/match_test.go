package socks4

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
		{"version alone", "\x04", mux.NeedMore},
		{"CONNECT", "\x04\x01", mux.Match},
		{"BIND", "\x04\x02", mux.Match},
		{"a whole request", "\x04\x01\x00P\xc0\x00\x02\x01\x00", mux.Match},
		{"command 0", "\x04\x00", mux.NoMatch},
		{"command 3", "\x04\x03\x00P", mux.NoMatch},
		{"command 255", "\x04\xff", mux.NoMatch},
		{"SOCKS5", "\x05\x01\x00", mux.NoMatch},
		{"TLS", "\x16\x03\x01", mux.NoMatch},
		{"HTTP", "GET / HTTP/1.1\r\n", mux.NoMatch},
		{"digit 4", "4", mux.NoMatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := match([]byte(tt.prefix)); got != tt.want {
				t.Errorf("match(%q) = %v, want %v", tt.prefix, got, tt.want)
			}
		})
	}
}

// FuzzMatch states that the matcher never changes its mind, and that it says no to
// nothing that the parser of the request would take.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"\x04\x01\x00P\xc0\x00\x02\x01\x00", "\x04\x03", "\x04", "\x05\x01\x00", "GET / HTTP/1.1\r\n"} {
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
			_, _, err := socks.ParseRequest4(b[:i])
			if v == mux.NoMatch && !errors.Is(err, socks.ErrMalformed) {
				t.Fatalf("match(%q) = %v, but the request's error is %v", b[:i], v, err)
			}
			if i == 2 && v == mux.Match && !errors.Is(err, socks.ErrShort) {
				t.Fatalf("match(%q) = %v, but the request's error is %v", b[:i], v, err)
			}
		}
	})
}
