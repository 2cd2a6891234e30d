package config

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"
)

func TestJoin(t *testing.T) {
	if err := Join(nil, (*multierror.Error)(nil).ErrorOrNil(), errors.Join(nil, nil)); err != nil {
		t.Errorf("Join of nothing = %#v; want nil", err)
	}
	at := func(line int, place string) error {
		return &Fault{File: "f", Line: line, Place: place, Err: errors.New("bad")}
	}
	sentence := fmt.Errorf("read %w and %w", fs.ErrNotExist, fs.ErrExist)
	err := Join(
		at(0, "rule[0]"),
		multierror.Append(nil, at(9, "b"), errors.Join(at(3, "a"), errors.New("loose"))),
		at(0, "rule[0]"), // seen from two sides
		sentence,
	)
	want := "5 faults:\n  - f:3: a: bad\n  - f:9: b: bad\n  - f: rule[0]: bad\n  - loose\n  - read file does not exist and file already exists"
	if err.Error() != want {
		t.Errorf("Join prints\n%s\nwant\n%s", err, want)
	}
	var fault *Fault
	if !errors.As(err, &fault) || fault.Line != 3 || !errors.Is(err, fs.ErrExist) {
		t.Errorf("errors.As and Is do not see through: %v", fault)
	}
	if got := Join(at(3, "a")).Error(); got != "f:3: a: bad" {
		t.Errorf("one fault prints as %q", got)
	}
}

// What other packages find is given its place in the file.
func TestAt(t *testing.T) {
	f := parseWell(t, "[protocols.tls.route.git]\nbackend = \"gti\"\n[[rule]]\nname = \"x\"\ntarget = [\"a\", \"b c\"]\n")
	cause := errors.New("no such zone")
	tests := []struct {
		name   string
		prefix string
		err    error
		want   []string
	}{
		{"nil", "protocols.tls", nil, nil},
		{"a key", "protocols.tls", errors.New("route.git.backend: there is none"), []string{"f.toml:2: protocols.tls.route.git.backend: there is none"}},
		{"several", "protocols.tls", multierror.Append(nil, errors.New("route.git.backend: a"), errors.New("route.git.sni: b")), []string{
			"f.toml:1: protocols.tls.route.git.sni: b", "f.toml:2: protocols.tls.route.git.backend: a",
		}},
		{"an index", "", fmt.Errorf("rule[0].time: %w", cause), []string{`f.toml: rule[0].time (the 1st [[rule]], "x"): no such zone`}},
		{"an index beyond what there is", "", fmt.Errorf("rule[7].time: %w", cause), []string{`f.toml: rule[7].time (the 8th [[rule]]): no such zone`}},
		{"an element", "", errors.New(`rule[0].target: "b c" is no name`), []string{`f.toml: rule[0].target[1] (the 1st [[rule]], "x"): "b c" is no name`}},
		{"several at one place", "", errors.Join(errors.New("rule[0].port: a"), errors.New("rule[0].port: b"), errors.New("rule[0].port: a")), []string{
			`f.toml: rule[0].port (the 1st [[rule]], "x"): a`, `f.toml: rule[0].port (the 1st [[rule]], "x"): b`,
		}},
		{"a list in a sentence", "protocols", fmt.Errorf("tls.route.git: %w", multierror.Append(nil, errors.New("backend: a"), errors.New("sni: b"))), []string{
			"f.toml:1: protocols.tls.route.git.sni: b", "f.toml:2: protocols.tls.route.git.backend: a",
		}},
		{"an element without quotes", "", errors.New(`rule[0].target: a is no name`), []string{`f.toml: rule[0].target[0] (the 1st [[rule]], "x"): a is no name`}},
		{"no key", "protocols.tls", errors.New("it is all wrong: really"), []string{"f.toml: protocols.tls: it is all wrong: really"}},
		{"placed already", "protocols.tls", &Fault{Place: "x", Err: cause}, []string{"x: no such zone"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := f.At(tt.prefix, tt.err)
			if diff := cmp.Diff(tt.want, faultTexts(err)); diff != "" {
				t.Errorf("At (-want +got):\n%s", diff)
			}
		})
	}
	if err := f.At("", fmt.Errorf("rule[0].time: %w", cause)); !errors.Is(err, cause) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestPlaceRoundTrip(t *testing.T) {
	for _, s := range []string{"", "a", "a.b", "rule[1].target[0]", "a[1][2].b", "--listen[3]"} {
		p, ok := parsePlace(s)
		if !ok || p.String() != s {
			t.Errorf("parsePlace(%q) = %q, %v", s, p, ok)
		}
	}
	for _, s := range []string{".", "a.", ".a", "a[", "a[x]", "a[1", "a[1]b", "a b", "[1]", `a."b"`, "a[-1]", "a[99999999999]"} {
		if p, ok := parsePlace(s); ok {
			t.Errorf("parsePlace(%q) = %q; want none", s, p)
		}
	}
}

func TestOrdinal(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 111: "111th", 112: "112th", 123: "123rd"} {
		if got := ordinal(n); got != want {
			t.Errorf("ordinal(%d) = %s; want %s", n, got, want)
		}
	}
}

func TestClosest(t *testing.T) {
	keys := []string{"timeout", "silent_after", "silent_to", "ssh", "http", "socks5"}
	for wrong, want := range map[string]string{
		"timout": "timeout", "tiemout": "timeout", "TIMEOUT": "timeout", "silent-after": "silent_after",
		"silentafter": "silent_after", "silent_too": "silent_to", "ssg": "ssh", "htpp": "http", "sock5": "socks5",
		"gopher": "", "x": "", "": "", "completely_different": "",
	} {
		if got, _ := closest(wrong, keys); got != want {
			t.Errorf("closest(%q) = %q; want %q", wrong, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"abc", "acb", 1},
		{"abcd", "badc", 2},
		{"kitten", "sitting", 3},
		{"a", "b", 1},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d; want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
