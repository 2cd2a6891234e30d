package http1

import "testing"

func TestForReceiver(t *testing.T) {
	for _, tt := range []struct {
		in    Framing
		minor int
		want  Framing
	}{
		{Framing{NoBody, 0}, 1, Framing{NoBody, 0}},
		{Framing{NoBody, 0}, 0, Framing{NoBody, 0}},
		{Framing{Length, 5}, 1, Framing{Length, 5}},
		{Framing{Length, 5}, 0, Framing{Length, 5}},
		{Framing{Chunked, 0}, 1, Framing{Chunked, 0}},
		{Framing{Chunked, 0}, 0, Framing{UntilClose, 0}},
		{Framing{UntilClose, 0}, 1, Framing{Chunked, 0}},
		{Framing{UntilClose, 0}, 0, Framing{UntilClose, 0}},
	} {
		if got := tt.in.ForReceiver(tt.minor); got != tt.want {
			t.Errorf("%v for HTTP/1.%d: %v, want %v", tt.in, tt.minor, got, tt.want)
		}
	}
}

func TestFramingEmpty(t *testing.T) {
	for f, want := range map[Framing]bool{
		{NoBody, 0}: true, {Length, 0}: true, {Length, 1}: false, {Chunked, 0}: false, {UntilClose, 0}: false,
	} {
		if got := f.Empty(); got != want {
			t.Errorf("%v.Empty() = %v, want %v", f, got, want)
		}
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{
		NoBody: "no body", Length: "length", Chunked: "chunked", UntilClose: "until close", 9: "invalid kind",
	} {
		if got := kind.String(); got != want {
			t.Errorf("Kind(%d).String() = %q, want %q", kind, got, want)
		}
	}
}

func TestParseDigits(t *testing.T) {
	for _, tt := range []struct {
		in string
		n  int64
		ok bool
	}{
		{"0", 0, true},
		{"0000000000000000019", 19, true},
		{"9223372036854775807", 1<<63 - 1, true},
		{"9223372036854775808", 0, false},
		{"9999999999999999999", 0, false},
		{"", 0, false},
		{"1 ", 0, false},
		{"1a", 0, false},
	} {
		n, ok := parseDigits([]byte(tt.in))
		if ok != tt.ok || ok && n != tt.n {
			t.Errorf("parseDigits(%q) = %d, %v, want %d, %v", tt.in, n, ok, tt.n, tt.ok)
		}
	}
}
