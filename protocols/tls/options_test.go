package tls

import (
	"strings"
	"testing"
)

func TestFaults(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name   string
		routes map[string]Route
		want   []string // the beginning of each fault, in order
	}{
		{"nothing filled in", map[string]Route{"git": {}}, []string{
			"route.git.backend: no backend is named", "route.git.sni: no name is given",
		}},
		{"unknown backend", map[string]Route{"git": {SNI: []string{"a.example"}, Backend: "gti"}}, []string{
			"route.git.backend: there is no [backend.gti] table",
		}},
		{"bad patterns", map[string]Route{"git": {Backend: "one", SNI: []string{"a.example", "a.*.example", "a b", "*.", ".", "192.0.2.1", "*.1", "[::1]"}}}, []string{
			`route.git.sni[1]: "*" may only stand alone or in front`, "route.git.sni[2]:", "route.git.sni[3]:", "route.git.sni[4]:",
			`route.git.sni[5]: "192.0.2.1" is an address`, "route.git.sni[6]:", `route.git.sni[7]: "[::1]" is an address`,
		}},
		{"bad protocols", map[string]Route{"git": {Backend: "one", SNI: []string{"a.example"}, ALPN: []string{"h2", "", long, "h2"}}}, []string{
			"route.git.alpn[1]:", "route.git.alpn[2]:", `route.git.alpn[3]: "h2" stands here twice`,
		}},
		{
			"one name in two routes",
			map[string]Route{"b": {Backend: "one", SNI: []string{"A.example."}}, "a": {Backend: "two", SNI: []string{"a.example", "a.example"}}},
			[]string{`route.a.sni[1]: "a.example" is already taken by this route itself`, `route.b.sni[0]: "A.example." is already taken by route.a`},
		},
		{
			"one name and protocol in two routes",
			map[string]Route{
				"b": {Backend: "one", SNI: []string{"*"}, ALPN: []string{"http/1.1", "h2"}},
				"a": {Backend: "two", SNI: []string{"*"}, ALPN: []string{"h2"}},
			},
			[]string{`route.b.sni[0]: "*" with "h2" is already taken by route.a`},
		},
		{
			"both forms at once",
			map[string]Route{"b": {Backend: "one", SNI: []string{".a.example"}}, "c": {Backend: "two", SNI: []string{"a.example", "*.a.example", ""}}, "d": {Backend: "one", SNI: []string{""}}},
			[]string{`route.c.sni[0]:`, `route.c.sni[1]:`, `route.d.sni[0]: "" is already taken by route.c`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(backends("one", "two"), decoded(Options{Route: tt.routes}))
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
