package raw

import (
	"errors"
	"regexp/syntax"
	"strings"
	"testing"
	"unicode/utf8"

	"polyport/mux"
)

func TestMatchRegex(t *testing.T) {
	tests := []struct {
		expr, bytes string
		want        mux.Verdict
		whole       mux.Verdict // when the bytes are all there will be
	}{
		{`^SSH-`, "S", mux.NeedMore, mux.NoMatch},
		{`^SSH-`, "SSH", mux.NeedMore, mux.NoMatch},
		{`^SSH-`, "SSH-", mux.Match, mux.Match},
		{`^SSH-`, "T", mux.NoMatch, mux.NoMatch},
		{`^SSH-`, "SSL", mux.NoMatch, mux.NoMatch},
		{`(?i)^helo\s`, "HeLo", mux.NeedMore, mux.NoMatch},
		{`(?i)^helo\s`, "HeLo\t", mux.Match, mux.Match},
		{`^(?:A|B\d+)\n`, "B1", mux.NeedMore, mux.NoMatch},
		{`^(?:A|B\d+)\n`, "B1\n", mux.Match, mux.Match},
		{`^(?:A|B\d+)\n`, "Bx", mux.NoMatch, mux.NoMatch},
		{`^\w+ .*HTTP/2`, "GET / HTTP/1.1", mux.NeedMore, mux.NoMatch},
		{`^\w+ .*HTTP/2`, "GET / HTTP/1.1\r\n", mux.NoMatch, mux.NoMatch}, // a dot stops at the line's end
		{`(?s)^\w+ .*HTTP/2`, "GET / HTTP/1.1\r\n", mux.NeedMore, mux.NoMatch},
		{`^PING$`, "PING", mux.NeedMore, mux.Match}, // only a pause shows the end
		{`^PING$`, "PING\n", mux.NoMatch, mux.NoMatch},
		{`(?m)\APING$`, "PING", mux.NeedMore, mux.Match},
		{`(?m)\APING$`, "PING\n", mux.Match, mux.Match},
		{`^PING\b`, "PING", mux.NeedMore, mux.Match},
		{`^PING\b`, "PING ", mux.Match, mux.Match},
		{`^PING\b`, "PINGS", mux.NoMatch, mux.NoMatch},
		{`^PING\B`, "PING", mux.NeedMore, mux.NoMatch},
		{`^PING\B`, "PINGS", mux.Match, mux.Match},
		{`(?m)^A\n^B`, "A\n", mux.NeedMore, mux.NoMatch},
		{`^€`, "\xe2", mux.NeedMore, mux.NoMatch}, // a rune in parts
		{`^€`, "\xe2\x82", mux.NeedMore, mux.NoMatch},
		{`^€`, "€", mux.Match, mux.Match},
		{`^€`, "\xe2\x82\xad", mux.NoMatch, mux.NoMatch},
		{`^a\x{fffd}b`, "a\xff", mux.NeedMore, mux.NoMatch}, // a byte that is no UTF-8 reads as U+FFFD
		{`^a\x{fffd}b`, "a\xffb", mux.Match, mux.Match},
		{`^a|^b`, "b", mux.Match, mux.Match},
	}
	for _, tt := range tests {
		e, err := compile(tt.expr)
		if strings.HasPrefix(tt.expr, `(?m)^`) {
			if err == nil {
				t.Errorf("compile(%q) took an expression that matches in the middle", tt.expr)
			}
			continue
		}
		if err != nil {
			t.Errorf("compile(%q): %v", tt.expr, err)
			continue
		}
		if got := e.match([]byte(tt.bytes)); got != tt.want {
			t.Errorf("match of %q with %q = %v, want %v", tt.bytes, tt.expr, got, tt.want)
		}
		if got := e.matchAll([]byte(tt.bytes)); got != tt.whole {
			t.Errorf("matchAll of %q with %q = %v, want %v", tt.bytes, tt.expr, got, tt.whole)
		}
	}
}

// At 1 KiB the answer is definite, and bytes beyond are not looked at.
func TestMatchRegexLimit(t *testing.T) {
	e, err := compile(`(?s)^A.*Z`)
	if err != nil {
		t.Fatal(err)
	}
	long := "A" + strings.Repeat(".", 1022)
	tests := []struct {
		name, bytes string
		want        mux.Verdict
	}{
		{"1023 bytes", long, mux.NeedMore},
		{"Z is the 1024th byte", long + "Z", mux.Match},
		{"1024 bytes without Z", long + ".", mux.NoMatch},
		{"Z is the 1025th byte", long + ".Z", mux.NoMatch},
	}
	for _, tt := range tests {
		if got := e.match([]byte(tt.bytes)); got != tt.want {
			t.Errorf("%s: match = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzRegexMatch compares with package regexp: a yes is a yes for the text so far and for every longer one, a no
// is a no for all of these, and where neither ends of texts nor of words matter the yes comes with the rune that brings it.
func FuzzRegexMatch(f *testing.F) {
	for _, expr := range []string{
		`^SSH-`, `^a*b`, `^(a|b)*c`, `^PING$`, `^\w+\b.`, `^a\B`, `(?m)\Aa$\n^b`, `(?is)^k.*é`, `^[^\n]{3}\n`, `^\pL+\x{fffd}`,
		`^(?:a?){10}a{10}`, `^a|^b`, `^$`, `^\z|^a`, `^a\b\B`, `(?i)^kelvin`, `(?i)^[^k]`, `(?s)^.$`, `^.\b`, `^(?:\b|\B)a`, `^(?:)+a`, `^(?i:ſ)`,
	} {
		for _, b := range []string{"SSH-2.0", "aaab", "PING", "PING\n", "ab\xffé", "\xe2\x82\xac", "\xe2\x82", "a\nb", "aaaaaaaaaaaaaaa", "K\n\xc3\xa9", "S"} {
			f.Add(expr, []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, expr string, b []byte) {
		if len(expr) > 200 {
			return
		}
		e, err := compile(expr)
		if err != nil {
			return
		}
		exact := !looksAhead(t, expr)
		last := mux.NeedMore
		for n := 1; n <= len(b); n++ {
			got, text := e.match(b[:n]), b[:min(n, maxBytes)]
			if last != mux.NeedMore && got != last {
				t.Fatalf("match(%q) with %q = %v, after %v", b[:n], expr, got, last)
			}
			last = got
			matches := e.re.Match(text)
			if got == mux.Match && !matches || got == mux.NoMatch && matches {
				t.Fatalf("match(%q) with %q = %v, package regexp says %v", b[:n], expr, got, matches)
			}
			if exact && utf8.Valid(text) && matches != (got == mux.Match) {
				t.Fatalf("match(%q) with %q = %v, package regexp says %v and nothing is open", b[:n], expr, got, matches)
			}
			if n >= maxBytes && got == mux.NeedMore {
				t.Fatalf("match of %d bytes with %q needs more", n, expr)
			}
		}
	})
}

// looksAhead reports whether expr has assertions about what follows.
func looksAhead(t *testing.T, expr string) bool {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		t.Fatal(err)
	}
	for _, inst := range prog.Inst {
		if inst.Op == syntax.InstEmptyWidth && syntax.EmptyOp(inst.Arg)&lookAhead != 0 {
			return true
		}
	}
	return false
}

// Compiling is bounded, whatever the expression.
func BenchmarkCompile(b *testing.B) {
	for _, bm := range []struct {
		name, expr string
		want       error
	}{
		{"plain", `^SSH-2\.0-\w+`, nil},
		{"letters", `^\pL{1,200} \d+\n`, nil},
		{"too-complex", `(?s)^.*a.{20}`, errTooComplex},
		{"too-complex-by-letters", `(?s)^.*\pL.{14}\d`, errTooComplex},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := compile(bm.expr); !errors.Is(err, bm.want) {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMatchRegex(b *testing.B) {
	for _, bm := range []struct{ name, expr, bytes string }{
		{"first-byte-no", `^SSH-`, "GET / HTTP/1.1\r\n"},
		{"yes", `^SSH-2\.0-\w+`, "SSH-2.0-OpenSSH_9.2p1\r\n"},
		{"open-1KiB", `(?s)^.*(?:foo|bar)`, strings.Repeat("x", 1023)},
	} {
		e, err := compile(bm.expr)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bm.name, func(b *testing.B) {
			first := []byte(bm.bytes)
			b.ReportAllocs()
			for b.Loop() {
				e.match(first)
			}
		})
	}
}
