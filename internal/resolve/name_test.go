package resolve

import (
	"errors"
	"strings"
	"testing"
)

func TestNormalName(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "." + strings.Repeat("a", 61) // 253 octets
	tests := []struct {
		name, in, want string // "" is an error
	}{
		{"plain", "www.example.com", "www.example.com"},
		{"upper case", "WWW.Example.COM", "www.example.com"},
		{"trailing dot", "www.example.com.", "www.example.com"},
		{"one label", "intranet", "intranet"},
		{"underscore", "_srv.example", "_srv.example"},
		{"as long as can be", long, long},
		{"as long as can be, with the dot", long + ".", long},
		{"too long", "a" + long, ""},
		{"longest label", label, label},
		{"label too long", label + "a", ""},
		{"empty", "", ""},
		{"only a dot", ".", ""},
		{"two dots", "a..b", ""},
		{"dot in front", ".a", ""},
		{"two trailing dots", "a..", ""},
		{"space", "a b", ""},
		{"NUL", "a\x00b", ""},
		{"line end", "a\nb", ""},
		{"not ASCII", "bücher.example", ""},
		{"slash", "a/b", ""},
		{"colon", "a:80", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := normalName(tt.in)
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("normalName(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
			}
			if err != nil && !errors.Is(err, ErrName) {
				t.Errorf("normalName(%q) fails with %v, want ErrName", tt.in, err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the error %q holds control bytes", err)
			}
		})
	}
}

// FuzzNormalName: a normal name is its own normal form, and short enough.
func FuzzNormalName(f *testing.F) {
	for _, s := range []string{"www.example.com", "A.B.", "..", "\x00", strings.Repeat("a.", 127)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		name, err := normalName(in)
		if err != nil {
			return
		}
		again, err := normalName(name)
		if err != nil || again != name || len(name) > maxName || !strings.EqualFold(name, strings.TrimSuffix(in, ".")) {
			t.Errorf("normalName(%q) = %q, whose own normal form is %q, %v", in, name, again, err)
		}
	})
}

func TestBelow(t *testing.T) {
	tests := []struct {
		name, zone string
		want       bool
	}{
		{"localhost", "localhost", true},
		{"a.localhost", "localhost", true},
		{"notlocalhost", "localhost", false},
		{"localhost.example", "localhost", false},
		{"", "localhost", false},
	}
	for _, tt := range tests {
		if got := below(tt.name, tt.zone); got != tt.want {
			t.Errorf("below(%q, %q) = %v, want %v", tt.name, tt.zone, got, tt.want)
		}
	}
}
