package integration

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadme runs what the README tells its readers to type, as it stands there:
// in a network of its own with an example.com in it.
func TestReadme(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	n, readme := newInternet(t), readPage(t, "README.md")
	commands := readme.code("sh")
	if len(commands) < 2 || commands[0] != "go run .\n" || commands[1] != "make test\n" {
		t.Fatalf("the README's commands are %q", commands)
	}
	ip(t, "address", "add", lanHost+"/32", "dev", "lo")
	t.Run("without a file", func(t *testing.T) {
		g, printed := n.goRun(t, "..", commands[0])
		n.checkGreeting(t, printed)
		n.runRows(t, g, readme.tables[:len(readme.tables)-rowsWithFile])
		checkDefaults(t)
		g.interrupt(t)
	})
	t.Run("with a file", func(t *testing.T) {
		dir := cloneTop(t)
		if err := os.WriteFile(filepath.Join(dir, "polyport.toml"), []byte(readme.code("toml")[0]), 0o600); err != nil {
			t.Fatal(err)
		}
		g, _ := n.goRun(t, dir, "go run . -c polyport.toml")
		n.runRows(t, g, readme.tables[len(readme.tables)-rowsWithFile:])
		g.interrupt(t)
	})
	t.Run("for others", func(t *testing.T) {
		dir := cloneTop(t)
		lines := strings.Split(strings.TrimSpace(commands[2]), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "go run . user add alice") {
			t.Fatalf("the README's lines for others are %q", lines)
		}
		add := n.shell(dir, lines[0])
		add.Stdin = strings.NewReader("PASSWORD\n")
		if out := finish(t, add); out.code != 0 {
			t.Fatalf("%s ended with %d: %s", lines[0], out.code, out.stderr)
		}
		g, _ := n.goRun(t, dir, lines[1])
		n.checkUsers(t)
		g.interrupt(t)
	})
}

// rowsWithFile is how many rows the README's last table has: those for the
// gateway with a file.
const rowsWithFile = 3

// cloneTop has this test alone see a copy of the repository where it stands, in which
// it may leave files; builds find in their cache what they know. It returns the path.
func cloneTop(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(top, path) // path begins with top
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == ".tools" || name == "build"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		return copyFile(filepath.Join(dir, name), path)
	})
	if err != nil {
		t.Fatal(err)
	}
	cover(t, top, dir)
	return top
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// goRun runs one of the README's commands that start the gateway, until it
// listens. It also returns the lines that it prints.
func (n *internet) goRun(t *testing.T, dir, line string) (*gateway, <-chan string) {
	t.Helper()
	g := &gateway{t: t, cmd: n.shell(dir, "exec "+strings.TrimSpace(line)), exited: make(chan struct{}), news: make(chan struct{})}
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	g.run()
	t.Cleanup(func() { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }) // if the test has not come to its end
	printed := make(chan string, 64)
	go func() {
		defer close(printed)
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			printed <- sc.Text()
		}
	}()
	g.waitListening(1)
	return g, printed
}

// interrupt ends the gateway as Ctrl-C does: every process in the foreground hears of it.
// "go run" then fails whatever its program did; it says so if the program failed too.
func (g *gateway) interrupt(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-g.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.exited:
	case <-time.After(patience):
		t.Fatal("Ctrl-C does not end it")
	}
	if log := g.log(); !strings.Contains(log, `"msg":"stopped"`) || strings.Contains(log, "exit status") {
		t.Errorf("after Ctrl-C the log is %s", log)
	}
}

// checkGreeting runs the lines that the gateway prints, up to the last.
func (n *internet) checkGreeting(t *testing.T, printed <-chan string) {
	t.Helper()
	timeout := time.After(patience)
	for ran := 0; ; {
		select {
		case line := <-printed:
			kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			text = strings.TrimSpace(text)
			switch {
			case strings.HasPrefix(text, "curl "):
				ran++
				if out := finish(t, n.shell(t.TempDir(), text)); strings.TrimSpace(out.stdout) != presence {
					t.Errorf("it says to type %s, which prints %q, %q", text, out.stdout, out.stderr)
				}
			case kind == "help":
				if ran < 4 || text != "http://127.0.0.1:7659/ in a browser" {
					t.Errorf("%d lines for curl were printed, and %q", ran, line)
				}
				return
			}
		case <-timeout:
			t.Fatalf("the greeting ends after %d lines for curl", ran)
		}
	}
}

// runRows runs the rows of the README's tables: client, command, row of the protocol table.
func (n *internet) runRows(t *testing.T, g *gateway, rows [][]string) {
	t.Helper()
	for _, row := range rows {
		t.Run(row[0], func(t *testing.T) {
			dir := n.workplace(t, row[1])
			mark := g.mark()
			out := finish(t, n.shell(dir, spans(row[1])[0]))
			if out.code != 0 || !strings.Contains(out.stdout, presence) && !holds(t, dir, presence) {
				t.Fatalf("%s\nends with %d and prints %q, %q; want 0 and %q", spans(row[1])[0], out.code, out.stdout, out.stderr, presence)
			}
			l := g.wait("the session", func(l logLine) bool {
				mark--
				place, _, _ := strings.Cut(l.str("target"), ":")
				return mark < 0 && l.str("protocol") == row[2] && (place == "example.com" || place == publicHost || place == row[2])
			})
			if reason := l.str("reason"); reason != "" && reason != "reset" { // clients that end TLS do not always wait for the last word
				t.Errorf("the session ended as %v", l)
			}
		})
	}
}

// workplace is the folder in which a command of the README runs, with the files
// that it names: programs, and a configuration with the one line that the README gives.
func (n *internet) workplace(t *testing.T, cell string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/readme")); err != nil {
		t.Fatal(err)
	}
	if s := spans(cell); len(s) == 2 {
		config := "strict_chain\nproxy_dns\n[ProxyList]\n" + s[1] + "\n"
		if err := os.WriteFile(filepath.Join(dir, "proxychains.conf"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// holds reports whether a file below dir holds text.
func holds(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkDefaults tries what the gateway without a file must not allow.
func checkDefaults(t *testing.T) {
	t.Helper()
	denied := []struct{ name, target, says string }{
		{"loopback", "http://127.0.0.1:22/", "destination_ip_prohibited"},
		{"loopback as a number", "http://2130706433:22/", "destination_ip_prohibited"},
		{"private", "http://10.1.2.3/", "destination_ip_prohibited"},
		{"private by name", "http://intranet.example.com/", "destination_ip_prohibited"},
		{"metadata", "http://169.254.169.254/", "destination_ip_prohibited"},
		{"private in IPv6", "http://[::ffff:10.1.2.3]/", "destination_ip_prohibited"},
		{"the gateway itself", "http://127.0.0.1:7659/", "error="},
		{"mail", "http://example.com:25/", "http_request_denied"},
	}
	for _, tt := range denied {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, "curl", "-q", "-sS", "-o", "/dev/null", "-D", "-", "-x", "http://127.0.0.1:7659", tt.target)
			if !strings.HasPrefix(got.stdout, "HTTP/1.1 403 ") || !strings.Contains(got.stdout, tt.says) {
				t.Errorf("curl prints %q, %q; want 403 and %q", got.stdout, got.stderr, tt.says)
			}
		})
	}
	t.Run("from elsewhere", func(t *testing.T) {
		got := run(t, "curl", "-q", "-sS", "-x", "http://"+lanHost+":7659", "http://example.com/")
		if got.code != 7 { // failed to connect
			t.Errorf("by another address curl ends with %d and prints %q, want 7: nothing listens there", got.code, got.stdout)
		}
	})
}

// checkUsers tries the port from outside and from this machine.
func (n *internet) checkUsers(t *testing.T) {
	t.Helper()
	for _, host := range []string{lanHost, "127.0.0.1"} {
		at := host + ":7659 https://example.com/"
		if got := finish(t, n.shell(n.home, "curl -q -sSx http://alice:PASSWORD@"+at)); strings.TrimSpace(got.stdout) != presence {
			t.Errorf("by %s with a user curl ends with %d and prints %q, %q", host, got.code, got.stdout, got.stderr)
		}
		if got := finish(t, n.shell(n.home, "curl -q -sSx http://"+at)); !strings.Contains(got.stderr, "407") {
			t.Errorf("by %s without a user curl ends with %d and prints %q, %q; want 407", host, got.code, got.stdout, got.stderr)
		}
	}
}

// TestReadmeTestCommand looks at the second command, which cannot be run here: this very
// test is part of it, and would run itself without end. So: the target is
// there, it does what the README says, CI calls it, and its first step, the one
// that does not run tests, works.
func TestReadmeTestCommand(t *testing.T) {
	dry := exec.Command("make", "-n", "test")
	dry.Dir = ".."
	out, err := dry.Output()
	if err != nil {
		t.Fatalf("make -n test: %v", err)
	}
	for _, step := range []string{"integration/install.sh", "vet ./...", "test -race", "./..."} {
		if !strings.Contains(string(out), step) {
			t.Errorf("make test does not run %q: %s", step, out)
		}
	}
	ci, err := os.ReadFile("../.ci/run")
	if err != nil || !regexp.MustCompile(`(?m)^exec make test$`).Match(ci) {
		t.Errorf("CI does not run make test: %s, %v", ci, err)
	}
	deps := exec.Command("make", "deps")
	deps.Dir = ".."
	if out, err := deps.CombinedOutput(); err != nil {
		t.Errorf("make deps: %v\n%s", err, out)
	}
}

// claims are the tests behind what the README says in bold: each is a folder
// and the name of a test in it.
var claims = map[string][]string{
	"It listens on 127.0.0.1 alone":               {"integration TestReadme"},
	"Only public addresses can be reached.":       {"integration TestReadme", "acl TestGuardYieldsOnlyInside", "acl TestGuardSeesHiddenAddresses"},
	"It never becomes an open proxy by accident.": {"integration TestOpenProxyDoesNotStart", "acl TestOpenToNeverSaysNoWrongly"},
	"Names are resolved once":                     {"internal/egress TestRebinding", "internal/egress TestControlRefusesForReal"},
	"Passwords are kept as bcrypt or argon2id":    {"integration TestUserCommand", "internal/auth TestParseTable", "integration TestLockout"},
	"Ambiguous HTTP is refused":                   {"internal/http1 TestReadRequestRefuses", "integration TestMalformedRequests", "integration TestMalformedBodies"},
	"Nobody can hold the port.":                   {"mux TestFloodOfSilentClientsLocksNobodyOut", "mux TestCapsEvictTheOldestUnfinishedOfTheClient", "protocols/httpproxy TestSlowHead"},
	"No password reaches a log or a page":         {"integration TestChromiumLogsIn", "internal/http1 TestReadRequestErrorNeverEchoes", "internal/accesslog TestQueryStaysWhereItIsWanted"},
	"HTTP forward proxy":                          {"integration TestHTTP10", "integration TestKeepAlive", "integration TestPipelining", "integration TestChunkedBothWaysWithTrailers", "integration TestUpgrade", "integration TestGibibyteDoesNotGrowMemory"},
	"CONNECT, SOCKS4, SOCKS4a and SOCKS5":         {"integration TestTunnels", "integration TestCurl", "integration TestCurlIPv6", "integration TestActiveFTP"},
	"UDP by SOCKS5":                               {"integration TestUDPAssociate", "integration TestUDPRules", "integration TestUDPFilter", "integration TestUDPStrangers"},
	"Only current TLS is spoken":                  {"integration TestHandshakes", "integration TestOldTLSIsTurnedOff", "integration TestACMEOnTheGatewaysPort", "integration TestTLSPage"},
	"HTTP/2":                                      {"integration TestTLSPage", "integration TestHTTP1WhereHTTP2WasAgreedOn"},
	"TLS to the gateway":                          {"integration TestTLSPage", "integration TestCurlByTLS", "integration TestOwnNameAndOthers", "integration TestOCSP"},
	"Certificates by ACME":                        {"integration TestACMEOnTheGatewaysPort", "integration TestACMEReload", "integration TestACMERenews"},
	"Client certificates":                         {"integration TestClientCertificates", "integration TestCertificateIsTheUser"},
	"Upstreams":                                   {"integration TestUpstreams", "integration TestUpstreamsCarry", "integration TestManyTunnelsOnOneConnection", "internal/egress TestChain", "integration TestUDPThroughDante"},
	"Pools":                                       {"integration TestFlappingServers", "integration TestBalance", "integration TestHealthOfABackend", "integration TestDrainByReload", "internal/pool TestBalanceFollowsWeights", "internal/pool TestHealth", "internal/pool TestSlowStart", "internal/pool TestDrainedServerLosesItsSessions"},
	"Exits":                                       {"integration TestExits", "integration TestUserParameters", "integration TestSessionsOfUsers", "integration TestExitsOfManyAddresses", "internal/session TestWishes", "internal/pool TestSessionKeepsItsServer"},
	"Names":                                       {"integration TestNameServers", "integration TestNamesOutliveTheirServer", "integration TestNamesThatManyAskFor", "integration TestHappyEyeballs"},
	"Web sites":                                   {"protocols/httpproxy TestSite", "protocols/httpproxy TestNoSite", "protocols/httpproxy TestSiteInTLS"},
	"TLS passthrough":                             {"integration TestPassthrough", "integration TestPassthroughToTheName"},
	"Rows of your own":                            {"integration TestTunnels", "integration TestServerSpeaksFirst"},
	"Rules":                                       {"acl TestGolden", "acl TestSchedule", "integration TestCountries", "integration TestExplainAgreesWithTheGateway"},
	"Users":                                       {"integration TestCurl", "integration TestUsersOfOtherTools", "integration TestUsersChange"},
	"PROXY protocol":                              {"integration TestBalancer", "mux TestProxyHeader", "integration TestProxyHeaderValues", "internal/egress TestABackendThatWantsAHeader"},
	"Tunnels":                                     {"integration TestTunnels", "internal/relay TestHalfCloseKeepsTheOtherDirection", "internal/relay TestPipePool"},
	"An access log":                               {"internal/accesslog TestLines", "integration TestTunnels"},
	"Reload without losing a connection":          {"integration TestReloadLosesNoConnection", "integration TestBrokenReloadChangesNothing", "integration TestShutdownDrains"},
	"A help page and a PAC file":                  {"integration TestChromiumShowsTheHelpPage", "integration TestChromium", "protocols/httpproxy TestPAC"},
	"`doctor`":                                    {"integration TestDoctorCommand"},
	"A container image":                           {"integration TestContainer"},
}

func TestEveryClaimOfTheReadmeHasATest(t *testing.T) {
	items := readPage(t, "README.md").items
	if len(items) == 0 {
		t.Fatal("the README claims nothing")
	}
	for _, item := range items {
		if len(claims[item]) == 0 {
			t.Errorf("no test is named for the claim %q", item)
		}
		for _, test := range claims[item] {
			dir, name, _ := strings.Cut(test, " ")
			if !slices.Contains(testsIn(t, dir), name) {
				t.Errorf("for the claim %q there is no test %s in %s", item, name, dir)
			}
		}
	}
	for claim := range claims {
		if !slices.Contains(items, claim) {
			t.Errorf("the README does not claim %q any more", claim)
		}
	}
}

// testsIn lists the tests of a package.
func testsIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names
}
