package tls

import (
	"strings"
	"testing"

	"polyport/internal/target"
)

// table is a set of routes for the tests of find.
var table = map[string]Route{
	"exact":    {Backend: "exact", SNI: []string{"git.example.com"}},
	"deep":     {Backend: "deep", SNI: []string{"*.git.example.com"}},
	"shallow":  {Backend: "shallow", SNI: []string{"*.example.com"}},
	"both":     {Backend: "both", SNI: []string{".example.net"}},
	"h2":       {Backend: "h2", SNI: []string{"www.example.org"}, ALPN: []string{"h2"}},
	"http1":    {Backend: "http1", SNI: []string{"www.example.org"}, ALPN: []string{"http/1.1", "http/1.0"}},
	"acme":     {Backend: "acme", SNI: []string{"*"}, ALPN: []string{"acme-tls/1"}},
	"plain":    {Backend: "plain", SNI: []string{"*.example.org"}},
	"idna":     {Backend: "idna", SNI: []string{"Bücher.example"}},
	"nameless": {Backend: "nameless", SNI: []string{""}},
}

func TestFind(t *testing.T) {
	tests := []struct {
		name string
		alpn string // with commas
		want string
	}{
		{"git.example.com", "", "exact"},
		{"a.git.example.com", "", "deep"},
		{"a.b.git.example.com", "h2", "deep"},
		{"www.example.com", "", "shallow"},
		{"xgit.example.com", "", "shallow"},
		{"example.com", "", ""}, // the apex is not below itself
		{"example.net", "", "both"},
		{"a.b.example.net", "", "both"},
		{"badexample.net", "", ""},
		{"net", "", ""},
		{"www.example.org", "h2,http/1.1", "h2"},
		{"www.example.org", "http/1.1,h2", "http1"}, // the client's preference
		{"www.example.org", "foo,http/1.0", "http1"},
		{"www.example.org", "", "plain"}, // a route whose protocols are not offered is passed over
		{"www.example.org", "foo", "plain"},
		{"www.example.org", "acme-tls/1", "plain"}, // the longer name comes first
		{"git.example.com", "acme-tls/1", "exact"},
		{"else.where", "acme-tls/1", "acme"},
		{"else.where", "", ""},
		{"xn--bcher-kva.example", "", "idna"},
		{"", "", "nameless"},
		{"", "acme-tls/1", "nameless"}, // "*" wants a name
	}
	names := []string{}
	for name := range table {
		names = append(names, name)
	}
	rows, err := New(backends(names...), decoded(Options{Route: table}))
	if err != nil {
		t.Fatal(err)
	}
	r := rows[0].Handler.(*handler).routes
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.alpn, func(t *testing.T) {
			var alpn []string
			if tt.alpn != "" {
				alpn = strings.Split(tt.alpn, ",")
			}
			got := ""
			if b := r.find(tt.name, alpn); b != nil {
				got = b.Name()
			}
			if got != tt.want {
				t.Errorf("find(%q, %q) = %q, want %q", tt.name, alpn, got, tt.want)
			}
		})
	}
}

// The longest suffix wins, whatever else there is: find agrees with a look at
// every suffix in turn.
func FuzzFind(f *testing.F) {
	for _, name := range []string{"git.example.com", "a.b.c.d.e.example.com", "com", "..", ".", "a..example.com", "example.com"} {
		f.Add(name)
	}
	o := Options{Route: map[string]Route{
		"a": {Backend: "one", SNI: []string{"*.com", "*.b.example.com"}},
		"b": {Backend: "two", SNI: []string{"*.example.com", "*.d.e.f"}},
	}}
	rows, err := New(backends("one", "two"), decoded(o))
	if err != nil {
		f.Fatal(err)
	}
	r := rows[0].Handler.(*handler).routes
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return
		}
		var want string
		longest := 0
		for suffix, c := range r.suffix {
			if strings.HasSuffix(name, suffix) && len(suffix) > longest {
				longest, want = len(suffix), c.plain.backend.Name()
			}
		}
		got := ""
		if b := r.find(name, nil); b != nil {
			got = b.Name()
		}
		if got != want {
			t.Errorf("find(%q) = %q, want %q", name, got, want)
		}
	})
}

// Route tells those who explain what a session would ask.
func TestRouteOfAName(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		t       target.Target
		want    string // "asked -> backend", or what the error says
	}{
		{"a route", routed, mustTarget(t, "git.example.com:443"), "git.example.com:443 -> one"},
		{"another port means nothing", routed, mustTarget(t, "git.example.com:8443"), "git.example.com:443 -> one"},
		{"a route for a protocol that is not offered", routed, mustTarget(t, "www.example.com:443"), "no route takes the server name www.example.com"},
		{"no name", routed, target.Target{}, "no-sni -> three"},
		{"no name and no route", Options{}, target.Target{}, "the client sent no server name"},
		{"the name itself", Options{DialSNI: true}, mustTarget(t, "www.example.com:443"), "www.example.com:443"},
		{"an address", Options{DialSNI: true}, mustTarget(t, "192.0.2.1:443"), "the server name is an IP address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked, b, err := newHandler(t, tt.options).Route(tt.t)
			got := asked.String()
			if b != nil {
				got += " -> " + b.Name()
			}
			if err != nil {
				got = err.Error()
			}
			if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
				t.Errorf("Route(%v) = %q, want %q", tt.t, got, tt.want)
			}
		})
	}
}

func mustTarget(t *testing.T, s string) target.Target {
	t.Helper()
	parsed, err := target.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
