package http1

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// parseHead returns the fields of a head made of these lines.
func parseHead(t testing.TB, lines ...string) *Fields {
	t.Helper()
	req, _, err := readRequest("GET / HTTP/1.0\r\n" + strings.Join(append(lines, "", ""), "\r\n"))
	if err != nil {
		t.Fatalf("head of %q: %v", lines, err)
	}
	return &req.Fields
}

// lines returns the fields as "name: value".
func (f *Fields) lines() (lines []string) {
	for name, value := range f.All() {
		lines = append(lines, fmt.Sprintf("%s: %s", name, value))
	}
	return lines
}

func TestFieldsLookUp(t *testing.T) {
	f := parseHead(t, "A: 1", "b: x, Y", "a: 2", "E:", "B: \"q, z\", w")
	if got, want := f.Len(), 5; got != want {
		t.Errorf("Len() = %d, want %d", got, want)
	}
	for _, tt := range []struct {
		name, first string
		count       int
	}{{"a", "1", 2}, {"A", "1", 2}, {"B", "x, Y", 2}, {"e", "", 1}, {"c", "", 0}, {"", "", 0}} {
		first := f.Get(tt.name)
		if string(first) != tt.first || (first == nil) != (tt.count == 0) {
			t.Errorf("Get(%q) = %q (nil: %v), want %q", tt.name, first, first == nil, tt.first)
		}
		if got := f.Count(tt.name); got != tt.count {
			t.Errorf("Count(%q) = %d, want %d", tt.name, got, tt.count)
		}
		values := 0
		for range f.Values(tt.name) {
			values++
		}
		if values != tt.count {
			t.Errorf("Values(%q) gave %d, want %d", tt.name, values, tt.count)
		}
	}
	if name, value := f.At(2); string(name) != "a" || string(value) != "2" {
		t.Errorf("At(2) = %q, %q", name, value)
	}
}

func TestFieldsIterationStops(t *testing.T) {
	f := parseHead(t, "A: 1", "A: 2", "A: 3")
	var got []string
	for _, v := range f.All() {
		if got = append(got, string(v)); len(got) == 2 {
			break
		}
	}
	for v := range f.Values("a") {
		got = append(got, string(v))
		break
	}
	for e := range List([]byte("x, y")) {
		got = append(got, string(e))
		break
	}
	if want := []string{"1", "2", "1", "x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFieldsHasToken(t *testing.T) {
	f := parseHead(t, "A: x, Y", "A: \"q, z\" , w")
	for token, want := range map[string]bool{"x": true, "y": true, "Y": true, "z": false, "w": true, "q": false, "": false, "x, y": false} {
		if got := f.HasToken("a", token); got != want {
			t.Errorf("HasToken(a, %q) = %v, want %v", token, got, want)
		}
	}
	if f.HasToken("B", "x") {
		t.Error("a field that is not there has a token")
	}
}

func TestFieldsRemove(t *testing.T) {
	f := parseHead(t, "A: 1", "B: 2", "a: 3", "C: 4")
	f.Remove("a")
	if got, want := f.lines(), []string{"B: 2", "C: 4"}; !slices.Equal(got, want) {
		t.Errorf("after Remove: %q, want %q", got, want)
	}
	f.RemoveFunc(func(name []byte) bool { return EqualFold(name, "c") })
	if got, want := f.lines(), []string{"B: 2"}; !slices.Equal(got, want) {
		t.Errorf("after RemoveFunc: %q, want %q", got, want)
	}
	f.Remove("none")
	f.Remove("B")
	if f.Len() != 0 || f.Get("B") != nil {
		t.Errorf("still %d fields", f.Len())
	}
}

func TestList(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  []string
	}{
		{"", nil},
		{" , \t,,", nil},
		{"a", []string{"a"}},
		{"foo , ,bar,charlie", []string{"foo", "bar", "charlie"}}, // RFC 9110 section 5.6.1.2
		{", a\t,b c ,", []string{"a", "b c"}},
		{`"a, b", c`, []string{`"a, b"`, "c"}},
		{`a="x\",y", z`, []string{`a="x\",y"`, "z"}},
		{`"a, b`, []string{`"a, b`}},
		{`a\,b`, []string{`a\`, "b"}},
		{`"\`, []string{`"\`}},
	} {
		var got []string
		for e := range List([]byte(tt.value)) {
			got = append(got, string(e))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("List(%q) = %q, want %q", tt.value, got, tt.want)
		}
	}
}

func TestEqualFold(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"Host", "hOST", true},
		{"Host", "Hos", false},
		{"a-b", "A-B", true},
		{"a@", "a`", false}, // a bit apart, like a letter from its capital
		{"\xe4", "\xc4", false},
		{"\u212a", "k", false}, // the Kelvin sign folds to k in Unicode
	} {
		if got := EqualFold([]byte(tt.a), tt.b); got != tt.want {
			t.Errorf("EqualFold(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestLookUp(t *testing.T) {
	for _, k := range knownNames {
		for _, name := range []string{k.name, strings.ToLower(k.name), strings.ToUpper(k.name)} {
			if id, class := lookUp([]byte(name)); id != k.id || class != k.class {
				t.Errorf("lookUp(%q) = %d, %b, want %d, %b", name, id, class, k.id, k.class)
			}
		}
		if k.class&(hopByHop|endToEnd) == 0 || k.class&hopByHop != 0 && k.class&endToEnd != 0 {
			t.Errorf("%s is not just one of hop-by-hop and end-to-end", k.name)
		}
	}
	for _, name := range []string{"", "X-Other", "Hos", "Hostx", strings.Repeat("x", 40)} {
		if id, class := lookUp([]byte(name)); id != 0 || class != 0 {
			t.Errorf("lookUp(%q) = %d, %b, want nothing", name, id, class)
		}
	}
}

// validValue looks at eight bytes at a time; every byte must be judged the same
// wherever it stands.
func TestValidValue(t *testing.T) {
	for c := range 256 {
		want := c == '\t' || c >= 0x20 && c != 0x7f
		for _, n := range []int{1, 7, 8, 9, 17} {
			for at := range n {
				for _, filler := range []string{" ", "\x80"} {
					b := []byte(strings.Repeat(filler, n))
					b[at] = byte(c)
					if got := validValue(b); got != want {
						t.Fatalf("validValue(%q) = %v, want %v", b, got, want)
					}
				}
			}
		}
	}
}
