package socks

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// fuzzMessage states what holds of a Parse function for any octets: it takes no more than there
// is; a message that it takes is encoded again to the same message and parses alike whatever follows; every part of
// one is short; what is short asks for more than there is; what is malformed stays so.
func fuzzMessage[M any](t *testing.T, b []byte, parse func([]byte) (M, int, error), encode func(M) ([]byte, error)) {
	m, n, err := parse(b)
	switch {
	case err == nil:
		if n <= 0 || n > len(b) {
			t.Fatalf("parse(%q) took %d octets of %d", b, n, len(b))
		}
		for i := range n {
			if _, need, err := parse(b[:i:i]); err != ErrShort || need <= i || need > n {
				t.Fatalf("parse(%q) = %d, %v, though %d octets are a message", b[:i], need, err, n)
			}
		}
		wire, err := encode(m)
		if err != nil {
			t.Fatalf("encode(%+v), which was parsed from %q: %v", m, b, err)
		}
		again, n, err := parse(append(wire, b...))
		if err != nil || n != len(wire) || !reflect.DeepEqual(again, m) {
			t.Fatalf("parse(encode(%+v)) = %+v, %d, %v, want %d octets of %q", m, again, n, err, len(wire), wire)
		}
	case err == ErrShort:
		if need := n; need <= len(b) || need > maxMessage {
			t.Fatalf("parse(%q) asks for %d octets and has %d", b, need, len(b))
		}
	case !errors.Is(err, ErrMalformed):
		t.Fatalf("parse(%q): %v, which is neither short nor malformed", b, err)
	default:
		for _, more := range []string{"\x00", "\x05\x01\x00", "aaaa"} {
			if _, _, err := parse(append(bytes.Clone(b), more...)); !errors.Is(err, ErrMalformed) {
				t.Fatalf("parse(%q) is malformed, but with %q behind it: %v", b, more, err)
			}
		}
	}
}

func seeds(f *testing.F, wires ...string) {
	for _, w := range wires {
		f.Add([]byte(w))
		f.Add([]byte(w + "data ahead"))
		f.Add([]byte(w[:len(w)-1]))
	}
	f.Add([]byte{})
}

func FuzzParseGreeting(f *testing.F) {
	seeds(f, "\x05\x01\x00", "\x05\x02\x00\x02", "\x05\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseGreeting, func(g Greeting) ([]byte, error) {
			methods := make([]Method, len(g.Methods))
			for i, m := range g.Methods {
				methods[i] = Method(m)
			}
			return AppendGreeting(nil, methods...)
		})
	})
}

func FuzzParseSelection(f *testing.F) {
	seeds(f, "\x05\x00", "\x05\xff", "\x04\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseSelection, func(m Method) ([]byte, error) { return AppendSelection(nil, m), nil })
	})
}

func FuzzParseCredentials(f *testing.F) {
	seeds(f, "\x01\x01u\x01p", "\x01\x04root\x00", "\x01\x00\x00", "\x01\x01\x00\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseCredentials, func(c Credentials) ([]byte, error) { return AppendCredentials(nil, c) })
	})
}

func FuzzParseStatus(f *testing.F) {
	seeds(f, "\x01\x00", "\x01\x01", "\x05\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseStatus, func(s byte) ([]byte, error) { return AppendStatus(nil, s), nil })
	})
}

func FuzzParseRequest5(f *testing.F) {
	seeds(f, "\x05\x01\x00\x01\xc0\x00\x02\x01\x00P", "\x05\x01\x00\x03\x0bexample.com\x00P", "\x05\x01\x00\x03\x00\x00P",
		"\x05\x03\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00P", "\x05\x01\x00\x05\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseRequest5, func(r Request5) ([]byte, error) { return AppendRequest5(nil, r) })
	})
}

func FuzzParseReply5(f *testing.F) {
	seeds(f, "\x05\x00\x00\x01\x7f\x00\x00\x01\x04\xd2", "\x05\x00\x00\x03\x02gw\x04\xd2", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseReply5, func(r Reply5) ([]byte, error) { return AppendReply5(nil, r) })
	})
}

func FuzzParseRequest4(f *testing.F) {
	seeds(f, "\x04\x01\x00P\xc0\x00\x02\x01root\x00", "\x04\x01\x00P\x00\x00\x00\x01\x00example.com\x00",
		"\x04\x02\x00P\x00\x00\x00\x00\x00", "\x04\x01\x00P\x00\x00\x00\x01\x00\x00", "\x04\x03")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseRequest4, func(r Request4) ([]byte, error) { return AppendRequest4(nil, r) })
	})
}

func FuzzParseReply4(f *testing.F) {
	seeds(f, "\x00\x5a\x04\xd2\x7f\x00\x00\x01", "\x04\x5b\x04\xd2\x7f\x00\x00\x01", "\x05\x00\x00\x01")
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, ParseReply4, func(r Reply4) ([]byte, error) { return AppendReply4(nil, r), nil })
	})
}
