// Package integration runs the built binary against real clients and real
// servers: programs from Debian's packages, started by the tests on loopback
// addresses. A program that is missing is an error that names its package.
package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that has to happen. It is only
// reached when a test fails.
const patience = 60 * time.Second

// binary is the gateway under test, built with the race detector.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	os.Setenv("GORACE", "atexit_sleep_ms=50")             // else every process that we end lingers for a second
	if binary = os.Getenv(binaryVariable); binary != "" { // a test that runs itself again (apart)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "polyport-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "polyport")
	if out, err := exec.Command("go", "build", "-race", "-o", binary, "polyport").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// allowLoopback is the rule that lets tests reach their servers, which live
// where the guard lets nobody go by default.
const allowLoopback = `
[[rule]]
name   = "test servers"
action = "allow"
target = ["127.0.0.0/8", "::1/128", "localhost"]
`

// listenAnywhere lets the system choose the port.
const listenAnywhere = `
[listen.main]
address = ["127.0.0.1:0"]
`

// gateway is a running polyport.
type gateway struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string // of its configuration
	file   string
	stdout bytes.Buffer
	exited chan struct{}
	status error           // valid once exited is closed
	given  map[string]bool // ids of records; belongs to the test's goroutine

	mu    sync.Mutex
	lines []logLine
	raw   bytes.Buffer
	news  chan struct{} // closed and replaced at each line
}

// logLine is one line of the JSON log.
type logLine map[string]any

func (l logLine) str(key string) string { s, _ := l[key].(string); return s }
func (l logLine) num(key string) int64  { f, _ := l[key].(float64); return int64(f) }

// start runs polyport with a configuration file and waits until it listens. At
// the test's end it is stopped by SIGTERM and must leave in order, without a
// data race and without a panic.
func start(t *testing.T, config string, args ...string) *gateway {
	t.Helper()
	g := prepare(t, config, args...)
	g.run()
	g.waitListening(strings.Count(config, "[listen."))
	return g
}

// prepare writes the configuration ("" is none) and makes the command, which does not run yet.
func prepare(t *testing.T, config string, args ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir(), exited: make(chan struct{}), news: make(chan struct{}), given: map[string]bool{}}
	if config != "" {
		g.file = filepath.Join(g.dir, "polyport.toml")
		g.write("polyport.toml", config)
		args = append([]string{"-c", g.file}, args...)
	}
	g.cmd = exec.Command(binary, append([]string{"serve"}, args...)...)
	g.cmd.Stdout = &g.stdout
	return g
}

// write writes a file beside the configuration, as an editor does: whole, then renamed into place.
func (g *gateway) write(name, content string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		g.t.Fatal(err)
	}
	return path
}

// run starts the process.
func (g *gateway) run() {
	g.t.Helper()
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatalf("start polyport: %v", err)
	}
	go func() {
		g.read(stderr)
		g.status = g.cmd.Wait()
		close(g.exited)
	}()
	g.t.Cleanup(g.stop)
}

// read takes the log in, line by line.
func (g *gateway) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := logLine{}
		parsed := json.Unmarshal(sc.Bytes(), &line) == nil
		g.mu.Lock()
		g.raw.Write(append(sc.Bytes(), '\n'))
		if parsed {
			g.lines = append(g.lines, line)
		}
		close(g.news)
		g.news = make(chan struct{})
		g.mu.Unlock()
	}
}

// stop ends the process in order and looks at what it left.
func (g *gateway) stop() {
	select {
	case <-g.exited:
	default:
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-g.exited:
	case <-time.After(patience):
		_ = g.cmd.Process.Kill()
		<-g.exited
		g.t.Errorf("polyport did not end within %v of SIGTERM", patience)
	}
	log := g.log()
	for _, bad := range []string{"DATA RACE", "panic:", "a handler panicked", "fatal error:"} {
		if strings.Contains(log, bad) {
			g.t.Errorf("the log holds %q", bad)
		}
	}
	if g.t.Failed() {
		g.t.Logf("the gateway's log:\n%s", log)
	}
}

// log returns all that was written to stderr so far.
func (g *gateway) log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.raw.String()
}

// wait returns the first log line that ok accepts, waiting for it.
func (g *gateway) wait(what string, ok func(logLine) bool) logLine {
	g.t.Helper()
	timeout := time.After(patience)
	seen := 0
	for ended := false; ; {
		g.mu.Lock()
		fresh, news := g.lines[seen:], g.news
		g.mu.Unlock()
		for _, l := range fresh { // without the lock: ok may look at the gateway itself
			if seen++; ok(l) {
				return l
			}
		}
		select {
		case <-news:
		case <-g.exited:
			if ended {
				g.t.Fatalf("polyport ended (%v) and its log does not show %s:\n%s", g.status, what, g.log())
			}
			ended = true // once more, for its last words
		case <-timeout:
			g.t.Fatalf("the log does not show %s:\n%s", what, g.log())
		}
	}
}

func (g *gateway) waitListening(n int) {
	g.t.Helper()
	n = max(n, 1)
	g.wait(fmt.Sprintf("%d listening sockets", n), func(l logLine) bool {
		if l.str("msg") == "listening" {
			n--
		}
		return n == 0
	})
}

// addr returns the address of the first socket of a listener.
func (g *gateway) addr(listener string) string {
	g.t.Helper()
	return g.wait("the listener "+listener, func(l logLine) bool {
		return l.str("msg") == "listening" && l.str("listener") == listener
	}).str("address")
}

// at is addr of the listener that most tests use.
func (g *gateway) at() string { g.t.Helper(); return g.addr("main") }

// record waits for the access-log line of a session whose keys have the given
// values, written as "key=value".
func (g *gateway) record(want ...string) logLine {
	g.t.Helper()
	// The system hands a client's port out again soon after a reset, so a record
	// that was asked for by its client is given out once.
	once := slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(w, "client=") })
	return g.wait("a session with "+strings.Join(want, " "), func(l logLine) bool {
		if l.str("msg") != "session end" {
			return false
		}
		for _, w := range want {
			key, value, _ := strings.Cut(w, "=")
			if fmt.Sprint(l[key]) != value {
				return false
			}
		}
		return !once || g.give(l.str("id"))
	})
}

// give reports whether a session is given out for the first time. Tests that run side by side ask one gateway.
func (g *gateway) give(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.given[id]
	g.given[id] = true
	return first
}

// signal sends a signal.
func (g *gateway) signal(s syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		g.t.Fatal(err)
	}
}

// reload replaces the configuration, sends SIGHUP and waits for the answer.
func (g *gateway) reload(config string) logLine {
	g.t.Helper()
	g.mu.Lock()
	before := len(g.lines)
	g.mu.Unlock()
	g.write("polyport.toml", config)
	g.signal(syscall.SIGHUP)
	i := 0
	return g.wait("the answer to SIGHUP", func(l logLine) bool {
		i++
		return i > before && (l.str("msg") == "reloaded" || strings.HasPrefix(l.str("msg"), "not reloaded"))
	})
}

// descriptors returns how many descriptors the process has open.
func (g *gateway) descriptors() int {
	g.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	return len(fds)
}

// settle waits until the process has at most n descriptors open.
func (g *gateway) settle(n int) {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	for g.descriptors() > n {
		if time.Now().After(deadline) {
			g.t.Errorf("%d descriptors are open, want at most %d", g.descriptors(), n)
			return
		}
		time.Sleep(20 * time.Millisecond) // nothing tells when a process closes a descriptor
	}
}
