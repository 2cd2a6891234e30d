package raw

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"polyport/internal/pool"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

// env is an Env that knows one backend, "one".
func env(silentTo string) spec.Env {
	one := newBackend("one", "127.0.0.1:1")
	return spec.Env{
		SilentTo: silentTo,
		Backend:  func(name string) (*upstream.Backend, bool) { return one, name == one.Name() },
	}
}

// decoded is a decode function that gives these options.
func decoded(o Options) func(any) error {
	return func(into any) error {
		*into.(*Options) = o
		return nil
	}
}

func prefix(p ...string) Row { return Row{Prefix: p, Backend: "one"} }
func regex(expr string) Row  { return Row{Regex: expr, Backend: "one"} }

func TestNewOrder(t *testing.T) {
	rows, err := New(env("one"), decoded(Options{
		"ssh":     prefix("SSH-"),
		"ssh2":    prefix("SSH-2.0-", "SSH-1.99-"),
		"b-lines": regex(`^B\w+\n`),
		"a-lines": regex(`^A\w+\n`),
		"magic":   prefix("hex:00 00 00 08"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r.Name)
		if r.Handler == nil || r.Match == nil {
			t.Errorf("row %s is incomplete", r.Name)
		}
		if asks := strings.HasSuffix(r.Name, "lines"); (r.AtPause != nil) != asks {
			t.Errorf("row %s: AtPause is set: %v, want %v", r.Name, r.AtPause != nil, asks)
		}
	}
	if want := []string{"ssh2", "magic", "ssh", "a-lines", "b-lines", "silent"}; !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	if h := rows[5].Handler.(*handler); h.row != "silent" || h.backend.Name() != "one" {
		t.Errorf("the silent row hands to %v", h.backend)
	}
	for _, b := range []string{"S", "SSH-2.0-x\r\n", "\x00"} {
		if got := rows[5].Match([]byte(b)); got != mux.NoMatch {
			t.Errorf("the silent row says %v to %q", got, b)
		}
	}
}

func TestNewNothing(t *testing.T) {
	if rows, err := New(env(""), decoded(nil)); err != nil || len(rows) != 0 {
		t.Errorf("New of no options = %v, %v, want no rows", rows, err)
	}
	bad := errors.New("bad table")
	if _, err := New(env(""), func(any) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("New: %v, want decode's error", err)
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name     string
		options  Options
		silentTo string
		want     []string // the beginning of each fault, in order
	}{
		{"nothing filled in", Options{"x": {}}, "", []string{"x.backend: no backend is named", "x: nothing says what it matches"}},
		{"unknown backends", Options{"x": {Prefix: []string{"a"}, Backend: "two"}}, "three", []string{
			"x.backend: there is no [backend.two] table", "silent_to: there is no [backend.three] table",
		}},
		{"both forms", Options{"x": {Prefix: []string{"a"}, Regex: "^a", Backend: "one"}}, "", []string{"x: it has both prefix and regex"}},
		{"built-in names", Options{"http": prefix("a"), "silent": prefix("b"), "tls": prefix("c")}, "", []string{
			`http: "http" is the name of a built-in row`, `silent: "silent" is`, `tls: "tls" is`,
		}},
		{"odd names", Options{"": prefix("a"), "10.0.0.1": prefix("b"), "*": prefix("c"), "SSH": prefix("d"), "a.b": prefix("e"), "ok": prefix("f"), strings.Repeat("n", 33): prefix("g")}, "", []string{
			": a row's name begins", "*: a row's", "10.0.0.1: a row's", "SSH: a row's", "a.b: a row's", "nnn",
		}},
		{"bad prefixes", Options{"x": prefix("", "hex:", "hex:0", "hex:zz", strings.Repeat("x", 1025))}, "", []string{
			"x.prefix[0]: an empty prefix", "x.prefix[1]: an empty prefix", `x.prefix[2]: "hex:0" is not`, `x.prefix[3]: "hex:zz" is not`, "x.prefix[4]: it has 1025 bytes",
		}},
		{"bad expressions", Options{"a": regex("("), "b": regex("SSH"), "c": regex("^a|b"), "d": regex("(?m)^a"), "e": regex("^a*"), "f": regex(`^a\A`), "g": regex("^(a{1000}){2}"), "h": regex("^[a-z]{1,500}[0-9]{1,500}"), "i": regex("(?s)^.*a.{20}"), "j": regex(`^[^\x00-\x{10ffff}]`), "k": regex("^$")}, "", []string{
			"a.regex: error parsing regexp", "b.regex: it must begin with ^", "c.regex: it must", "d.regex: it must", "e.regex: it matches every connection", "f.regex: it can never match", "g.regex: error parsing regexp", "h.regex: it compiles to more", "i.regex: it needs a table", "j.regex: it can never match", "k.regex: it can never match",
		}},
		{"the same prefix twice", Options{"a": prefix("SSH-"), "b": prefix("SSH-")}, "", []string{`b.prefix[0]: "SSH-" can never be reached, since row a takes what begins with "SSH-"`}},
		{"a knot", Options{"a": prefix("A", "BB12"), "b": prefix("AA", "BB1")}, "", []string{`b.prefix[0]: "AA" can never be reached, since row a takes what begins with "A"`}},
		{"needless", Options{"a": prefix("A", "AB")}, "", []string{`a.prefix[1]: "AB" is needless beside "A"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(env(tt.silentTo), decoded(tt.options))
			got := faults(err)
			if len(got) != len(tt.want) {
				t.Fatalf("New: %d faults, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("fault %d is %q, want it to begin with %q", i, got[i], tt.want[i])
				}
			}
		})
	}
}

// faults returns the single faults in err.
func faults(err error) []string {
	var list []string
	if all, ok := err.(interface{ WrappedErrors() []error }); ok {
		for _, one := range all.WrappedErrors() {
			list = append(list, one.Error())
		}
	}
	return list
}

// readme is the configuration of the README's examples, which the corpus is made for.
var readme = Options{
	"ssh":        prefix("SSH-"),
	"postgres":   prefix("hex:00 00 00 08 04 d2 16 2f"),
	"redis":      regex(`^\*[1-9][0-9]{0,5}\r\n\$`),
	"mqtt":       regex(`^\x10[\x01-\x7f]\x00\x04MQTT`),
	"rdp":        prefix("\u0003\u0000\u0000"),
	"bittorrent": prefix("\u0013BitTorrent protocol"),
}

func TestMatchCorpus(t *testing.T) {
	rows, err := New(env(""), decoded(readme))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/first-bytes.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 {
			t.Fatalf("%q is not a name, quoted bytes and a row", line)
		}
		first, err := strconv.Unquote(fields[1])
		if err != nil {
			t.Fatalf("%s: %v", fields[0], err)
		}
		matched := ""
		for _, r := range rows {
			switch r.Match([]byte(first)) {
			case mux.Match:
				matched += r.Name
			case mux.NeedMore:
				t.Errorf("%s: row %s needs more", fields[0], r.Name)
			}
		}
		if matched != fields[2] {
			t.Errorf("%s: rows %q match, want %q", fields[0], matched, fields[2])
		}
	}
}

// newBackend makes a backend of servers that are well written.
func newBackend(name string, servers ...string) *upstream.Backend {
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: servers, Pool: pool.Options{Name: name}}, nil)
	if err != nil {
		panic(err)
	}
	return b
}
