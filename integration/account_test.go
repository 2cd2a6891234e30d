package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// failure is how fail2ban finds those who guess: "<HOST>" stands for the group.
var failure = regexp.MustCompile(`"msg":"authentication failed","client":"(?P<host>[0-9a-f.:]+)"`)

// failures counts the lines of the log that fail2ban would count for a client.
func (g *gateway) failures(client string) int {
	n := 0
	for _, m := range failure.FindAllStringSubmatch(g.log(), -1) {
		if m[1] == client {
			n++
		}
	}
	return n
}

// try has curl log in from an address of its own, and returns curl's exit code and the
// status of the answer.
func try(t *testing.T, g *gateway, w *web, from, way, login string) string {
	t.Helper()
	args := []string{"-q", "-sS", "-o", "/dev/null", "--interface", from, "-w", "%{http_code} %{http_connect}", "http://" + w.plain + "/"}
	if way == "connect" {
		args, way = append(args, "--proxytunnel"), "http"
	}
	got := run(t, "curl", append(args, "-x", way+"://"+login+"@"+g.addr("users"))...)
	return fmt.Sprintf("%d: %s", got.code, got.stdout)
}

// What try returns.
const (
	welcomeHTTP    = "0: 200 000"
	welcomeConnect = "0: 200 200"
	welcomeSOCKS   = "0: 200 000"
	wrongHTTP      = "0: 407 000"
	wrongConnect   = "56: 000 407"
	refusedSOCKS   = "97: 000 000"
	bannedHTTP     = "0: 429 000"
	bannedConnect  = "56: 000 429"
)

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	tests := []struct {
		name, way, login, from, want string
		protocol                     string
		status                       float64
	}{
		{"http", "http", "alice:wrong-one", "127.0.1.1", wrongHTTP, "http", 407},
		{"connect", "connect", "alice:wrong-one", "127.0.1.2", wrongConnect, "connect", 407},
		{"socks5", "socks5", "alice:wrong-one", "127.0.1.3", refusedSOCKS, "socks5", 1},
		{"socks5h", "socks5h", "alice:wrong-one", "127.0.1.4", refusedSOCKS, "socks5", 1},
		{"unknown user", "http", "nobody:correct%3Ahorse-9", "127.0.1.5", wrongHTTP, "http", 407},
		{"empty password", "socks5h", "alice:", "127.0.1.6", refusedSOCKS, "socks5", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			if got := try(t, g, w, tt.from, tt.way, tt.login); got != tt.want {
				t.Errorf("curl ended with %s, want %s", got, tt.want)
			}
			l := g.recordSince(mark, "protocol="+tt.protocol)
			check(t, l, map[string]any{"status": tt.status, "identity": "", "address": "", "reason": "bad_credentials"})
			if !strings.HasPrefix(l.str("client"), tt.from+":") {
				t.Errorf("the record is of %s, want %s", l.str("client"), tt.from)
			}
			if n := g.failures(tt.from); n != 1 {
				t.Errorf("fail2ban would count %d failures of %s, want 1", n, tt.from)
			}
		})
	}
	for _, secret := range []string{"wrong-one", "horse", "Proxy-Authorization", "Basic "} {
		if strings.Contains(g.log(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestLockout(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	const right = "alice:correct%3Ahorse-9"
	from := "127.0.2.1"
	step := func(what, from, way, login, want string) {
		t.Helper()
		if got := try(t, g, w, from, way, login); got != want {
			t.Errorf("%s: curl ended with %s, want %s", what, got, want)
		}
	}
	for range 7 {
		step("the same wrong password again", from, "http", "alice:wrong-1", wrongHTTP)
	}
	step("a second wrong one", from, "connect", "alice:wrong-2", wrongConnect)
	step("a third", from, "socks5h", "alice:wrong-3", refusedSOCKS)
	step("of another user", from, "http", "bob:wrong-1", wrongHTTP)
	if n := strings.Count(g.log(), `"reason":"locked_out"`); n > 0 {
		t.Fatalf("after four distinct wrong passwords the client is locked out:\n%s", g.log())
	}
	step("the fifth", from, "http", "mallory:wrong-1", wrongHTTP)
	step("the right one, too late, by http", from, "http", right, bannedHTTP)
	step("the right one, too late, by connect", from, "connect", right, bannedConnect)
	step("the right one, too late, by socks5", from, "socks5h", right, refusedSOCKS)
	for _, protocol := range []string{"http", "connect", "socks5"} {
		g.record("protocol="+protocol, "reason=locked_out")
	}
	if n := g.failures(from); n < 14 {
		t.Errorf("fail2ban would count %d failures, want all 14", n)
	}
	got := run(t, "curl", "-q", "-sS", "-i", "--interface", from, "-x", "http://"+right+"@"+g.addr("users"), "http://"+w.plain+"/")
	if !strings.Contains(got.stdout, "\r\nRetry-After: ") {
		t.Errorf("the answer does not say when to come back:\n%s", got.stdout)
	}
	step("the same user from another address", "127.0.2.2", "http", right, welcomeHTTP)
}

// TestLockoutSparesWhoHasLoggedIn guesses from an address where a user is at home.
func TestLockoutSparesWhoHasLoggedIn(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, "[auth.lockout]\nfailures = 3\nwindow = \"5m\"\nban = \"5m\"\n"), newWeb(t)
	const home, right = "127.0.3.1", "alice:correct%3Ahorse-9"
	if got := try(t, g, w, home, "http", right); got != welcomeHTTP {
		t.Fatalf("curl ended with %s, want %s", got, welcomeHTTP)
	}
	for i := range 3 {
		if got := try(t, g, w, home, "http", fmt.Sprintf("alice:guess-%d", i)); got != wrongHTTP {
			t.Errorf("guess %d: curl ended with %s, want %s", i, got, wrongHTTP)
		}
	}
	for way, want := range map[string]string{"http": welcomeHTTP, "connect": welcomeConnect, "socks5h": welcomeSOCKS} {
		if got := try(t, g, w, home, way, right); got != want {
			t.Errorf("the user at home by %s: curl ended with %s, want %s", way, got, want)
		}
	}
	if got := try(t, g, w, home, "http", "alice:guess-3"); got != bannedHTTP {
		t.Errorf("the next guess: curl ended with %s, want %s", got, bannedHTTP)
	}
}

// TestUserCommandUnderARunningGateway edits the file that it reads.
func TestUserCommandUnderARunningGateway(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	steps := []struct {
		name  string
		act   func()
		login string
		want  string
	}{
		{"before", func() {}, "carol:a%20new%20one", wrongHTTP},
		{"added", func() { g.addUser("carol", "a new one") }, "carol:a%20new%20one", welcomeHTTP},
		{"removed", func() {
			if out := run(t, binary, "user", "remove", "--htpasswd", g.dir+"/users.htpasswd", "carol"); out.code != 0 {
				t.Fatalf("user remove ended with %d: %s", out.code, out.stderr)
			}
		}, "carol:a%20new%20one", wrongHTTP},
	}
	for _, s := range steps {
		s.act()
		eventually(t, s.name, s.want, func() string { return try(t, g, w, "127.0.4.1", "http", s.login) })
	}
}

// eventually asks until it gets what is wanted.
func eventually(t *testing.T, what, want string, ask func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := ask()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %s, want %s", what, got, want)
		}
	}
}
