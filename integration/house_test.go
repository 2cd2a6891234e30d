package integration

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Dir, Doc, Name string
	GoFiles, Imports           []string
}

// packages lists the packages of the module.
func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Name,GoFiles,Imports", "polyport/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// mayImport says which packages of this module each package may import.
// Arrows run one way: what a package may not see, it cannot come to depend on.
var mayImport = map[string][]string{
	"":                     {"internal/daemon", "internal/doctor", "internal/file", "internal/auth", "internal/localca"},
	"mux":                  {"internal/reactor"},
	"internal/reactor":     {},
	"acl":                  {"internal/target"},
	"internal/target":      {},
	"internal/relay":       {"internal/reactor"},
	"internal/http1":       {},
	"internal/http2":       {},
	"internal/nonblock":    {},
	"internal/socks":       {},
	"internal/clienthello": {},
	"internal/resolve":     {},
	"internal/acme":        {"internal/file"},
	"internal/auth":        {"internal/file"},
	"internal/certificate": {"internal/file"},
	"internal/localca":     {"internal/file"},
	"internal/exit":        {},
	"internal/file":        {},
	"internal/freeport":    {}, // for tests alone
	"internal/geoip":       {"internal/file"},
	"internal/lease":       {},
	"internal/pool":        {"internal/lease"},
	"internal/config":      {},
	"internal/tlsconn":     {"internal/nonblock"},
	"internal/upstream":    {"internal/pool", "internal/target", "internal/tlsconn", "internal/http1", "internal/socks"},
	"internal/egress":      {"acl", "internal/exit", "internal/lease", "internal/pool", "internal/reactor", "internal/socks", "internal/target", "internal/upstream", "internal/resolve"},
	"internal/udprelay":    {"mux", "internal/egress", "internal/reactor", "internal/socks", "internal/target"},
	"internal/session":     {"mux", "internal/udprelay", "acl", "internal/auth", "internal/egress", "internal/exit", "internal/reactor", "internal/relay", "internal/target", "internal/upstream"},
	"internal/accesslog":   {"internal/session"},
	"internal/doctor":      {"internal/http1", "internal/socks", "internal/clienthello", "internal/target"},
	"internal/daemon": {
		"mux", "acl", "protocols", "protocols/spec", "internal/accesslog", "internal/acme", "internal/auth", "internal/certificate", "internal/config",
		"internal/egress", "internal/exit", "internal/file", "internal/geoip", "internal/pool", "internal/reactor", "internal/resolve", "internal/session", "internal/target",
		"internal/udprelay", "internal/upstream",
	},
	"protocols":      {"protocols/spec", "protocols/raw", "protocols/httpproxy", "protocols/socks4", "protocols/socks5", "protocols/tls", "protocols/reject"},
	"protocols/spec": {"mux", "internal/auth", "internal/session", "internal/upstream"},
	"integration":    {},

	// The benchmark runs the built binary and sees nothing of what is in it; nothing of the gateway sees the benchmark.
	"bench":             {"bench/certificate", "bench/load", "bench/loopback", "bench/measure", "bench/origin", "bench/peer", "bench/report", "bench/yardstick"},
	"bench/batch":       {},
	"bench/certificate": {},
	"bench/load":        {"bench/batch", "bench/loopback", "bench/measure", "bench/origin"},
	"bench/loopback":    {},
	"bench/measure":     {},
	"bench/origin":      {"bench/batch", "bench/certificate", "bench/loopback"},
	"bench/peer":        {"bench/certificate", "bench/load", "bench/loopback"},
	"bench/report":      {"bench/measure"},
	"bench/yardstick":   {"bench/loopback"},
}

// handlerMayImport is what every protocol folder may import.
var handlerMayImport = []string{
	"mux", "acl", "protocols/spec", "internal/session", "internal/egress", "internal/reactor", "internal/auth", "internal/target", "internal/upstream",
	"internal/http1", "internal/http2", "internal/nonblock", "internal/socks", "internal/clienthello", "internal/tlsconn", "internal/udprelay",
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "polyport"), "/")
		allowed, known := mayImport[name]
		if !known && strings.HasPrefix(name, "protocols/") {
			allowed, known = handlerMayImport, true
		}
		if !known {
			t.Errorf("package %s is not in the plan: say in mayImport what it may import", p.ImportPath)
		}
		for _, imp := range p.Imports {
			if short, ours := strings.CutPrefix(imp, "polyport/"); ours && !slices.Contains(allowed, short) {
				t.Errorf("%s imports %s, which the plan of the house does not allow", p.ImportPath, imp)
			}
		}
	}
}

func TestOnlyOneFileImportsCmux(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range f.Imports {
				if strings.Contains(imp.Path.Value, "cmux") && !strings.HasSuffix(path, "mux/server.go") {
					t.Errorf("%s imports cmux; only mux/server.go may", path)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("package %s has no package comment", p.ImportPath)
		}
	}
}

func TestEveryProtocolFolderIsDocumented(t *testing.T) {
	sections := []string{"## Name", "## Description", "## Syntax", "## Examples", "## Metrics", "## Standards"}
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, "polyport/protocols/") || p.Name == "spec" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.Dir, "README.md"))
		if err != nil {
			t.Errorf("%s: %v", p.ImportPath, err)
			continue
		}
		at := 0
		for _, s := range sections {
			i := strings.Index(string(text)[at:], s+"\n")
			if i < 0 {
				t.Errorf("%s/README.md lacks the section %q, or has it in another place", p.ImportPath, s)
				continue
			}
			at += i
		}
	}
}
