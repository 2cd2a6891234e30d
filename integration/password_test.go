package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUserCommand(t *testing.T) {
	t.Parallel()
	const others = "# kept as it is\n\nbob:$2y$05$abcdefghijklmnopqrstuuBsTnRSfI4oLsMTkBDKcWaAZ7x.GMEnO\n"
	dir := inFolder(t, "users", others)
	path := filepath.Join(dir, "users")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	mustSay(t, polyport(t, dir, "a fine password\n", "user", "add", "--htpasswd", "users", "alice"), 0, "alice added to users")
	mustSay(t, polyport(t, dir, "", "user", "list", "--htpasswd", "users"), 0, "bob\nalice\n")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(content), others) || !strings.Contains(string(content), "\nalice:$2") || strings.Contains(string(content), "fine") {
		t.Errorf("the file holds %q; want the lines of before, and alice with a hash", content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v), want 0600", info.Mode(), err)
	}
	mustSay(t, polyport(t, dir, "", "user", "remove", "--htpasswd", "users", "alice"), 0, "alice removed")
	if content, err = os.ReadFile(path); err != nil || string(content) != others {
		t.Errorf("the file holds %q (%v), want %q", content, err, others)
	}
	mustSay(t, polyport(t, dir, "a fine password\n", "user", "add", "--htpasswd", "new", "alice"), 0)
	if info, err := os.Stat(filepath.Join(dir, "new")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new file's mode is %v (%v), want 0600", info.Mode(), err)
	}
}

// typist runs a program on a terminal, answers each of its questions for a password in turn, and
// ends with its exit code. It prints what a person would have seen.
const typist = `
import os, pty, sys, termios, time
answers = sys.argv[1].split("|")
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
seen = b""
while True:
    try:
        more = os.read(terminal, 1024)
    except OSError:
        break
    if not more:
        break
    seen += more
    if more.rstrip().endswith(b":") and answers:
        while termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.005) # nobody types that fast
        os.write(terminal, answers.pop(0).encode() + b"\n")
sys.stdout.write(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

// At a terminal the password is asked for twice, and not shown.
func TestPasswordPrompt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ask := func(answers string) output {
		cmd := command(t, "python3", "-c", typist, answers, binary, "user", "add", "--htpasswd", "users", "alice")
		cmd.Dir = dir
		return finish(t, cmd)
	}
	got := ask("correct horse|correct house")
	mustSay(t, got, 1, "password for alice: ", "once more: ", "the two passwords differ; nothing was changed")
	if _, err := os.Stat(filepath.Join(dir, "users")); err == nil {
		t.Error("a file was made")
	}
	got = ask("correct horse|correct horse")
	mustSay(t, got, 0, "password for alice: ", "once more: ", "alice added to users")
	if strings.Contains(got.stdout, "horse") {
		t.Errorf("the password was shown: %q", got.stdout)
	}
	mustSay(t, polyport(t, dir, "", "user", "list", "--htpasswd", "users"), 0, "alice\n")
}

// TestUsersOfOtherTools logs in with the hashes that Apache's htpasswd and argon2 make.
func TestUsersOfOtherTools(t *testing.T) {
	t.Parallel()
	hash := command(t, "argon2", "a salt of a test", "-id", "-e", "-t", "2", "-m", "12")
	hash.Stdin = strings.NewReader("correct horse")
	apache := run(t, "htpasswd", "-nbB", "carol", "correct horse")
	dir := inFolder(t, "users", "# argon2id, bcrypt by htpasswd, bcrypt by polyport\nargo:"+finish(t, hash).stdout+strings.TrimSpace(apache.stdout)+"\n")
	mustSay(t, polyport(t, dir, "correct horse\n", "user", "add", "--htpasswd", "users", "alice"), 0)
	g := start(t, listenAnywhere+"[auth]\nhtpasswd = \""+filepath.Join(dir, "users")+"\"\n"+allowLoopback)
	origin := helloServer(t)
	for _, user := range []string{"argo", "carol", "alice"} {
		for _, proxy := range []string{"http://", "socks5h://"} {
			t.Run(proxy+user, func(t *testing.T) {
				args := []string{"-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", proxy + g.at(), "http://" + origin + "/", "-U"}
				if got := run(t, "curl", append(args, user+":correct horse")...); got.stdout != "200" {
					t.Errorf("curl got %q, %q; want 200", got.stdout, got.stderr)
				}
				if got := run(t, "curl", append(args, user+":wrong horse")...); got.stdout == "200" {
					t.Error("a wrong password is taken")
				}
			})
		}
	}
}
