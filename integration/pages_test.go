package integration

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is a Markdown file, taken apart as far as tests need it.
type page struct {
	blocks []block    // fenced code, in order
	tables [][]string // the rows of all tables but for their heads: cells
	items  []string   // of lists: the bold words that they begin with
}

// block is a piece of fenced code.
type block struct{ language, text string }

// readPage reads a page, by its path from the top of the repository.
func readPage(t *testing.T, path string) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	var p page
	var open *block
	inTable := false
	for line := range strings.Lines(string(text)) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case open != nil && isFence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		case isFence:
			open = &block{language: fence}
		case strings.HasPrefix(line, "|---"):
			inTable = true
		case inTable && strings.HasPrefix(line, "|"):
			p.tables = append(p.tables, cells(line))
		default:
			inTable = false
			if item, ok := strings.CutPrefix(line, "- **"); ok {
				bold, _, _ := strings.Cut(item, "**")
				p.items = append(p.items, bold)
			}
		}
	}
	if open != nil {
		t.Fatalf("%s: a block of code does not end", path)
	}
	return p
}

// cells takes a row of a table apart.
func cells(line string) []string {
	var out []string
	for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
		out = append(out, strings.TrimSpace(cell))
	}
	return out
}

// code returns the blocks of a language.
func (p page) code(language string) []string {
	var out []string
	for _, b := range p.blocks {
		if b.language == language {
			out = append(out, b.text)
		}
	}
	return out
}

// spans returns what stands between backquotes.
func spans(cell string) []string {
	var out []string
	for i, part := range strings.Split(cell, "`") {
		if i%2 == 1 {
			out = append(out, part)
		}
	}
	return out
}

// pages are the Markdown files for users, by their paths from the top of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../docs/*.md")
	if err != nil || len(list) == 0 {
		t.Fatalf("docs holds %v, %v", list, err)
	}
	for i, path := range list {
		list[i] = filepath.Join("docs", filepath.Base(path))
	}
	return append(list, "README.md")
}

// userFolder is a folder with a file of users, alice and bob, and the certificates that the pages have made.
func userFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"alice", "bob"} {
		if out := polyport(t, dir, "correct horse\n", "user", "add", name); out.code != 0 {
			t.Fatalf("user add ended with %d: %s", out.code, out.stderr)
		}
	}
	for _, args := range [][]string{{"cert", "proxy.example.net"}, {"cert", "--client", "alice"}} {
		if out := polyport(t, dir, "", args...); out.code != 0 {
			t.Fatalf("%v ended with %d: %s", args, out.code, out.stderr)
		}
	}
	writeFile(t, dir, "upstream.password", "correct horse\n")
	// The site that the pages reach, and the network that their clients are in, have a country.
	writeFile(t, dir, "GeoLite2-Country.mmdb", countries(t, map[string]string{"93.184.215.0/24": "US", "203.0.113.0/24": "DE"}))
	return dir
}

// TestConfigurationsOfThePages has polyport check whatever the pages show as a
// configuration. What is marked check=fails shows a fault.
func TestConfigurationsOfThePages(t *testing.T) {
	t.Parallel()
	dir, seen := userFolder(t), 0
	for _, path := range pages(t) {
		for i, b := range readPage(t, path).blocks {
			language, mark, _ := strings.Cut(b.language, " ")
			if language != "toml" {
				continue
			}
			seen++
			t.Run(fmt.Sprintf("%s block %d", path, i), func(t *testing.T) {
				writeFile(t, dir, "polyport.toml", b.text)
				want := map[string]int{"": 0, "check=fails": 1}[mark]
				if got := polyport(t, dir, "", "check", "-c", "polyport.toml"); got.code != want {
					t.Errorf("check ends with %d, want %d, and says %s%s", got.code, want, got.stdout, got.stderr)
				}
			})
		}
	}
	if seen < 8 {
		t.Errorf("the pages show %d configurations, want 8 or more", seen)
	}
}

func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestConsolesOfThePages types what the pages show to be typed, with the last
// configuration shown above, and compares what comes back.
func TestConsolesOfThePages(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	n, bin := newInternet(t), t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "polyport")); err != nil {
		t.Fatal(err)
	}
	n.env = append(n.env, "PATH="+bin+":"+os.Getenv("PATH"))
	dir := userFolder(t)
	for _, path := range pages(t) {
		t.Run(path, func(t *testing.T) {
			for _, b := range readPage(t, path).blocks {
				switch language, _, _ := strings.Cut(b.language, " "); language {
				case "toml":
					writeFile(t, dir, "polyport.toml", b.text)
				case "console":
					if got := n.console(dir, b.text); got != b.text {
						t.Errorf("the page shows\n%s\nand what comes is\n%s", b.text, got)
					}
				}
			}
		})
	}
}

// console returns what a block of commands looks like once they have run.
func (n *internet) console(dir, text string) string {
	n.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(text) {
		typed, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		b.WriteString(line)
		out := finish(n.t, n.shell(dir, strings.TrimSpace(typed)+" 2>&1"))
		for answer := range strings.Lines(out.stdout) {
			b.WriteString(strings.TrimRight(answer, " \n") + "\n")
		}
	}
	return b.String()
}

// TestLinksOfThePages follows every link that stays in the repository.
func TestLinksOfThePages(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, path := range append(pages(t), "CHANGELOG.md", "CONTRIBUTING.md") {
		text, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			to, err := url.Parse(string(m[1]))
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if to.Scheme != "" {
				continue
			}
			file := path
			if to.Path != "" {
				file = filepath.Join(filepath.Dir(path), to.Path)
			}
			there, err := os.Stat(filepath.Join("..", file))
			if err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", path, to, err)
			} else if to.Fragment != "" && (there.IsDir() || !hasHeading(t, file, to.Fragment)) {
				t.Errorf("%s: the link %s leads to no heading", path, to)
			}
		}
	}
}

// hasHeading reports whether a page has a heading that is linked to in this way.
func hasHeading(t *testing.T, path, fragment string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	dropped := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.Lines(string(text)) {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			words := dropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			if strings.ReplaceAll(words, " ", "-") == fragment {
				return true
			}
		}
	}
	return false
}

// TestFail2banFilter has the filter of the pages find the address in the line of
// a failed login, whatever the client says that its name is.
func TestFail2banFilter(t *testing.T) {
	t.Parallel()
	var filter *regexp.Regexp
	for _, ini := range readPage(t, "docs/operating.md").code("ini") {
		for line := range strings.Lines(ini) {
			if pattern, ok := strings.CutPrefix(line, "failregex = "); ok {
				filter = regexp.MustCompile(strings.Replace(strings.TrimSpace(pattern), "<ADDR>", `([0-9a-fA-F.:]+)`, 1))
			}
		}
	}
	if filter == nil {
		t.Fatal("docs/operating.md has no filter")
	}
	g := members(t, listenAnywhere+allowLoopback+"[auth]\nhtpasswd = \"users.htpasswd\"\n")
	names := []string{
		clubUser, `","client":"198.51.100.9","reason":"bad_credentials"`, `x","msg":"authentication failed","client":"198.51.100.9",`, "{\"a\u2028\xff\\",
	}
	for _, name := range names { // as RFC 1929 has it
		c := dial(t, g.at())
		say(t, c, "\x05\x01\x02")
		hear(t, c, "\x05\x02")
		say(t, c, "\x01"+string(rune(len(name)))+name+"\x05wrong")
		hear(t, c, "\x01\x01")
		g.record("client="+c.LocalAddr().String(), "reason=bad_credentials") // it stands behind the line in question
	}
	found := 0
	for line := range strings.Lines(g.log()) {
		m := filter.FindStringSubmatch(line)
		if failed := strings.Contains(line, `"msg":"authentication failed"`); failed != (m != nil) {
			t.Errorf("the filter matches: %v, want %v: %s", m != nil, failed, line)
		}
		if m != nil {
			found++
			if m[1] != "127.0.0.1" {
				t.Errorf("the filter finds %q in %s", m[1], line)
			}
		}
	}
	if found < len(names) {
		t.Errorf("%d failed logins are in the log, want %d", found, len(names))
	}
}

// TestSystemdUnit has systemd judge the unit that the pages offer.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../docs/polyport.service")
	if err != nil {
		t.Fatal(err)
	}
	const program = "/usr/local/bin/polyport "
	if strings.Count(string(unit), program) != 1 {
		t.Fatalf("the unit does not run %s", program)
	}
	dir := t.TempDir()
	writeFile(t, dir, "polyport.service", strings.Replace(string(unit), program, binary+" ", 1))
	file := filepath.Join(dir, "polyport.service")
	if out := run(t, "systemd-analyze", "verify", "--man=no", file); out.code != 0 || out.stderr != "" {
		t.Errorf("systemd says %s%s", out.stdout, out.stderr)
	}
	// The scale goes from 0, nothing exposed, to 10; most services of a system are at 9.
	if out := run(t, "systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", file); out.code != 0 {
		t.Errorf("systemd finds the service exposed: %s%s", out.stdout, out.stderr)
	}
}
