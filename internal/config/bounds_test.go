package config

import (
	"strings"
	"testing"
)

// What would cost the parser memory in the square of its size is refused, on the right line.
func TestBounds(t *testing.T) {
	tests := []struct {
		name, file string
		line       int
		want       string
	}{
		{"dots", "a = 1\n" + strings.Repeat("a.", 5000) + "b = 1\n", 2, "more than 16 dots"},
		{"dots with blanks", strings.Repeat("a . ", 50) + "b = 1\n", 1, "more than 16 dots"},
		{"quoted dots", strings.Repeat(`"a".`, 50) + "b = 1\n", 1, "more than 16 dots"},
		{"dots in a header", "[" + strings.Repeat("a.", 50) + "b]\n", 1, "more than 16 dots"},
		{"dots in an inline table", "x = { " + strings.Repeat("a.", 50) + "b = 1 }\n", 1, "more than 16 dots"},
		{"a long header", "\n\n[" + strings.Repeat("a", 500) + "]\n", 3, "longer than 256 bytes"},
		{"a long key", strings.Repeat("a", 500) + " = 1\n", 1, "longer than 256 bytes"},
		{"a long quoted key", `"` + strings.Repeat("a", 500) + `" = 1`, 1, "longer than 256 bytes"},
		{"brackets", "x = " + strings.Repeat("[", 100_000), 1, "nested more than 8 deep"},
		{"braces", "x = " + strings.Repeat("{a=", 100_000), 1, "nested more than 8 deep"},
		{"keys", strings.Repeat("[[a]]\nb=1\n", maxKeys), 20001, "more than 20000 keys"},
		{"behind a string with lines", "x = \"\"\"\n\\\n[[[[[[[[[[\n\"\"\"\"\"\ny = [[[[[[[[[1]]]]]]]]]\n", 5, "nested more than 8 deep"},
		{"behind a literal string with lines", "x = '''\n\"\n\\'''\ny = [[[[[[[[[1]]]]]]]]]\n", 4, "nested more than 8 deep"},
		{"size", strings.Repeat("#", maxFileSize+1), 0, "larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line, err := checkBounds([]byte(tt.file))
			if err == nil || line != tt.line || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("checkBounds = line %d, %v; want line %d, %q", line, err, tt.line, tt.want)
			}
		})
	}
}

// Strings and comments hold what they like.
func TestBoundsLetStringsBe(t *testing.T) {
	dots, brackets := strings.Repeat("a.", 500), strings.Repeat("[{", 500)
	for _, file := range []string{
		`x = "` + dots + brackets + `\"` + brackets + `"`,
		`x = '` + dots + brackets + `\'`,
		"x = [\n  \"" + dots + "\", '" + brackets + "',\n]\n",
		"x = \"\"\"\n" + dots + "\n" + brackets + "\"\" \\\"\"\" \"\"\"\n",
		"x = '''\n" + dots + "\n" + brackets + "'' ''\n'''''\n",
		"# " + dots + brackets + "\"'\nx = 1 # " + brackets,
		"x = \"\"\ny = ''\n",
		"[a] # =\nx = { b = [1, 2], c.d = 1.5 }\n",
	} {
		if line, err := checkBounds([]byte(file)); err != nil {
			t.Errorf("checkBounds(%.60q...) = line %d, %v", file, line, err)
		}
		if _, fault := parseDocument("f", []byte(file)); fault != nil {
			t.Errorf("the file of the test is no TOML: %v", fault)
		}
	}
}
