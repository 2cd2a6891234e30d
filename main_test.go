package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"polyport/internal/daemon"
)

// ran is what one command left.
type ran struct {
	code           int
	stdout, stderr string
}

// command runs polyport with these arguments and this standard input, without the
// settings of whoever runs the tests.
func command(t *testing.T, stdin string, args ...string) ran {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "POLYPORT_") {
			t.Setenv(name, "") // so that it is put back
			os.Unsetenv(name)
		}
	}
	var stdout, stderr strings.Builder
	code := run(append([]string{"polyport"}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return ran{code, stdout.String(), stderr.String()}
}

// written writes a file and returns its path.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodes(t *testing.T) {
	fine, broken := written(t, "fine.toml", "[listen.main]\n"), written(t, "broken.toml", "[listen.main]\nadress = []\n")
	tests := []struct {
		args   string
		code   int
		stderr string // "" is nothing at all
	}{
		{"version", 0, ""},
		{"help", 0, ""},
		{"--help", 0, ""},
		{"check", 0, ""},
		{"check -c " + fine, 0, ""},
		{"check -c " + broken, 1, "did you mean"},
		{"serve -c " + broken, 1, "did you mean"},
		{"-c " + broken, 1, "did you mean"},
		{"check -c " + fine + ".no", 1, "there is no file"},
		{"explain 192.0.32.7:80", 0, ""},
		{"explain 127.0.0.1:80", 1, ""},
		{"explain --client 192.0.2.7 192.0.32.7:80", 1, ""},
		{"explain", 2, "explain takes one TARGET"},
		{"explain a:1 b:2", 2, "explain takes one TARGET"},
		{"explain --client here a:1", 2, `"here" is neither an IP address nor one with a port`},
		{"chek", 2, `there is no command "chek" (did you mean check?). See 'polyport --help'`},
		{"frobnicate", 2, `there is no command "frobnicate". See 'polyport --help'`},
		{"serve now", 2, `"now" has no place here. See 'polyport serve --help'`},
		{"check now", 2, `"now" has no place here. See 'polyport check --help'`},
		{"--lisen 127.0.0.1:0", 2, "there is no flag --lisen (did you mean --listen?). See 'polyport --help'"},
		{"serve --alow-client 10.0.0.0/8", 2, "there is no flag --alow-client (did you mean --allow-client?). See 'polyport serve --help'"},
		{"check --zzz", 2, "there is no flag --zzz. See 'polyport check --help'"},
		{"doctor --timeout soon 127.0.0.1:1", 2, "See 'polyport doctor --help'"},
		{"doctor 127.0.0.1:1 127.0.0.1:2", 2, "doctor takes one PROXY_ADDR"},
		{"user", 2, "user takes add, remove or list"},
		{"user lst", 2, `there is no command "lst" (did you mean list?). See 'polyport user --help'`},
		{"user add", 2, "polyport user add takes one NAME"},
		{"user add --htpaswd x alice", 2, "did you mean --htpasswd?"},
		{"cert a/b", 1, `"a/b" is neither a DNS name nor an IP address`},
		{"cert --client a/b", 1, "the client's name"},
		{"cert --client alice b", 2, `"b" has no place here. See 'polyport cert --help'`},
		{"cert --clint alice", 2, "there is no flag --clint (did you mean --client?). See 'polyport cert --help'"},
		{"completion", 2, "bash, zsh or fish"},
		{"completion tcsh", 2, "bash, zsh or fish"},
		{"completion bash", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			got := command(t, "", strings.Fields(tt.args)...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.stderr) || tt.stderr == "" && got.stderr != "" {
				t.Errorf("ended with %d and said %q, want %d and %q", got.code, got.stderr, tt.code, tt.stderr)
			}
		})
	}
}

// TestDoctorOfServers: a file that is named, and no other, says which servers to look at, and each line says how it is.
func TestDoctorOfServers(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path := filepath.Join(t.TempDir(), "polyport.toml")
	text := fmt.Sprintf("[upstream.a]\nservers = [\"socks5://%s\"]\n[backend.b]\nservers = [%q]\n", ln.Addr(), "127.0.0.1:1")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := command(t, "", "doctor", "-c", path, "127.0.0.1:1")
	for _, want := range []string{fmt.Sprintf("connect to socks5://%s: it is up\n", ln.Addr()), "connect to 127.0.0.1:1: it is down: "} {
		if got.code != exitBad || !strings.Contains(got.stdout, want) {
			t.Errorf("doctor -c ended with %d and printed %q, want 1 and %q", got.code, got.stdout, want)
		}
	}
	t.Setenv("POLYPORT_CONFIG", path) // as in a container, whose health is not that of servers
	if got := command(t, "", "doctor", "127.0.0.1:1"); strings.Contains(got.stdout, "upstream") {
		t.Errorf("doctor without a file printed %q", got.stdout)
	}
	if err := os.WriteFile(path, []byte("[upstream.a]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := command(t, "", "doctor", "-c", path, "127.0.0.1:1"); got.code != exitBad || got.stdout != "" || !strings.Contains(got.stderr, "there is no server") {
		t.Errorf("doctor of a faulty file ended with %d, printed %q and said %q", got.code, got.stdout, got.stderr)
	}
}

func TestTakenPortIsThree(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := command(t, "", "--listen", ln.Addr().String())
	if want := fmt.Sprintf("(pid %d) holds it", os.Getpid()); got.code != exitPortTaken || !strings.Contains(got.stderr, want) {
		t.Errorf("ended with %d and said %q, want 3 and %q", got.code, got.stderr, want)
	}
}

func TestExitCode(t *testing.T) {
	taken := &daemon.PortTakenError{Err: errors.New("x")}
	tests := []struct {
		err  error
		want int
	}{
		{errors.New("x"), exitBad},
		{silentError{}, exitBad},
		{usagef("x"), exitUsage},
		{fmt.Errorf("wrapped: %w", usagef("x")), exitUsage},
		{taken, exitPortTaken},
		{errors.Join(errors.New("x"), fmt.Errorf("wrapped: %w", taken)), exitPortTaken},
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

// What is written in the environment and what is written in a flag are the same.
func TestEveryServeFlagHasATwin(t *testing.T) {
	t.Setenv("POLYPORT_LISTEN", "")
	for _, f := range serveFlags() {
		name := f.Names()[0]
		env, ok := f.(interface{ GetEnvVars() []string })
		if !ok {
			t.Fatalf("--%s cannot have a twin", name)
		}
		want := "POLYPORT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if got := env.GetEnvVars(); len(got) != 1 || got[0] != want {
			t.Errorf("the twins of --%s are %q, want %s", name, got, want)
		}
	}
}

// Every flag of the doctor arrives where it should: the rows, the name for TLS, the target, the user.
func TestDoctorFlags(t *testing.T) {
	tests := []struct {
		name, args string
		want       []string
	}{
		{"an unknown row", "doctor --row htp 127.0.0.1:1", []string{`no check for the row "htp"`, "http, connect, h2, socks4, socks5, tls"}},
		{"several rows, the second unknown", "doctor --row http --row soks5 127.0.0.1:1", []string{`no check for the row "soks5"`}},
		{"no port", "doctor --timeout 1s 127.0.0.1", []string{"is not host:port"}},
		{"a bad target", "doctor --target nowhere 127.0.0.1:1", []string{"what to reach through the proxy"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := command(t, "", strings.Fields(tt.args)...)
			if got.code != exitBad || got.stderr != "" {
				t.Errorf("ended with %d and said %q, want 1 and nothing", got.code, got.stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.stdout, want) {
					t.Errorf("the table lacks %q:\n%s", want, got.stdout)
				}
			}
		})
	}
}

func TestUserCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	const argon = "bob:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$1FYXnYM9uWYkDwZ2J1Xq6LFP0G8Q8sZ0XH9oF1E7d2I"
	if err := os.WriteFile(path, []byte("# staff\n"+argon+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name, stdin, args string
		code              int
		stdout, stderr    string
	}{
		{"add", "correct horse\n", "user add --htpasswd " + path + " alice", 0, "alice added to " + path + "\n", ""},
		{"list", "", "user list --htpasswd " + path, 0, "bob\nalice\n", ""},
		{"change, without a line end", "another horse", "user add --htpasswd " + path + " alice", 0, "alice has a new password in " + path + "\n", ""},
		{"too short", "short\n", "user add --htpasswd " + path + " carol", 1, "", "shorter than"},
		{"nothing", "", "user add --htpasswd " + path + " carol", 1, "", "password"},
		{"a name with a colon", "correct horse\n", "user add --htpasswd " + path + " a:b", 1, "", "colon"},
		{"remove a stranger", "", "user remove --htpasswd " + path + " dave", 1, "", `"dave"`},
		{"remove", "", "user remove --htpasswd " + path + " alice", 0, "alice removed from " + path + "\n", ""},
		{"list what is left", "", "user list --htpasswd " + path, 0, "bob\n", ""},
		{"no file", "", "user list --htpasswd " + path + ".no", 1, "", "no such file"},
	}
	for _, s := range steps {
		got := command(t, s.stdin, strings.Fields(s.args)...)
		if got.code != s.code || got.stdout != s.stdout || !strings.Contains(got.stderr, s.stderr) {
			t.Errorf("%s: ended with %d, printed %q and said %q; want %d, %q and %q", s.name, got.code, got.stdout, got.stderr, s.code, s.stdout, s.stderr)
		}
	}
	left, err := os.ReadFile(path)
	if err != nil || string(left) != "# staff\n"+argon+"\n" {
		t.Errorf("the file holds %q, %v; want the lines that were there before", left, err)
	}
}

func TestCertCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	steps := []struct{ args, first, config string }{
		{"cert --dir " + dir, "A new CA, for these names only:\n", `certificate = "` + filepath.Join(dir, "server.pem") + `"`},
		{"cert --dir " + dir, "The CA that was there has issued it", `key = "` + filepath.Join(dir, "server.key") + `"`},
		{"cert --dir " + dir + " --client alice", "A new CA for clients:\n", `client_ca = "` + filepath.Join(dir, "client-ca.pem") + `"`},
		{"cert --dir " + dir + " localhost 127.0.0.1", "The CA that was there has issued it", "A certificate for localhost, 127.0.0.1, good until"},
	}
	for _, s := range steps {
		got := command(t, "", strings.Fields(s.args)...)
		if got.code != exitFine || got.stderr != "" || !strings.HasPrefix(got.stdout, s.first) || !strings.Contains(got.stdout, s.config) {
			t.Errorf("%s: ended with %d, said %q and printed\n%s", s.args, got.code, got.stderr, got.stdout)
		}
	}
	got := command(t, "", "cert", "--dir", dir, "other.example")
	if got.code != exitBad || got.stdout != "" || !strings.Contains(got.stderr, `cannot vouch for "other.example"`) {
		t.Errorf("another name: ended with %d, said %q and printed\n%s", got.code, got.stderr, got.stdout)
	}
}

// Nothing in a help text is left to cli's own words, which say "value" and no more.
func TestHelpSaysWhatEachFlagTakes(t *testing.T) {
	for _, args := range []string{"", "serve", "check", "explain", "doctor", "user add", "user remove", "user list", "cert", "completion", "version"} {
		got := command(t, "", append(strings.Fields(args), "--help")...)
		if got.code != exitFine || got.stderr != "" {
			t.Errorf("%s --help: ended with %d and said %q", args, got.code, got.stderr)
		}
		for line := range strings.Lines(got.stdout) {
			if regexp.MustCompile(`^ +--\S+ value`).MatchString(line) {
				t.Errorf("%s --help does not say what this takes: %q", args, line)
			}
		}
	}
}

func TestVersionIsOneLine(t *testing.T) {
	got := command(t, "", "version")
	if !regexp.MustCompile(`^polyport \S+ \(commit \S+, go\S+ \w+/\w+\)\n$`).MatchString(got.stdout) {
		t.Errorf("printed %q", got.stdout)
	}
}
