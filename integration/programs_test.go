package integration

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need returns the path of a program, or ends the test with the name of the
// Debian package that brings it.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if _, err := os.Stat(program); filepath.IsAbs(program) && err == nil { // no program: a library, say
		return program
	}
	list, readErr := os.ReadFile("packages.txt")
	if readErr != nil {
		t.Fatal(readErr)
	}
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == program {
			t.Fatalf("%s is missing: install the Debian package %s (make deps does, as root)", program, f[0])
		}
	}
	t.Fatalf("%s is missing, and packages.txt does not name its package: %v", program, err)
	return ""
}

// output is what a program left.
type output struct {
	stdout, stderr string
	code           int
}

// lasting is command for a program that lasts until the test ends it: tests in parallel may begin long after it has started.
func lasting(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	timed := command(t, program, args...)
	cmd := exec.Command(timed.Path, args...)
	cmd.Env = timed.Env
	return cmd
}

// command makes a command that is killed when patience runs out, without the
// proxy settings of whoever runs the tests.
func command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, need(t, program), args...)
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+t.TempDir(), "LC_ALL=C")
	return cmd
}

// run runs a program to its end.
func run(t *testing.T, program string, args ...string) output {
	t.Helper()
	return finish(t, command(t, program, args...))
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
