package daemon

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckFindsWhatStartDoes has files beside the configuration be at fault.
func TestCheckFindsWhatStartDoes(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"no CAs for name servers", "[dns]\nca = \"none.pem\"\n", "polyport.toml:2: dns.ca: "},
		{"CAs for name servers that are none", "[dns]\nca = \"empty.pem\"\n", "empty.pem has no certificate in PEM"},
		{"no users", "[auth]\nhtpasswd = \"none\"\n", "read the users: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "polyport.toml")
			for name, text := range map[string]string{path: tt.file, filepath.Join(dir, "empty.pem"): ""} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := Check(Options{Path: path}, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v; want %q in it", err, tt.want)
			}
		})
	}
}
