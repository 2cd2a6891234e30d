package integration

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReloadLosesNoConnection(t *testing.T) {
	const head = "[limits]\nunfinished_per_client = 100\n"
	g := start(t, head+listenAnywhere+allowLoopback)
	target := tcpServer(t, echo)
	before := tunnel(t, g.at(), target)
	say(t, before, "one")
	hear(t, before, "one")
	deny := head + listenAnywhere + "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n"
	if l := g.reload(deny); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	say(t, before, "two")
	hear(t, before, "two")
	c := dial(t, g.at())
	say(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	if line := hearHead(t, c); !strings.Contains(line, " 403 ") {
		t.Errorf("after the reload a new tunnel got %q, want 403", line)
	}
	g.record("rule=nobody", "protocol=connect")
}

func TestReloadOnAKeptAliveConnection(t *testing.T) {
	g := start(t, listenAnywhere+allowLoopback)
	origin := helloServer(t)
	c := dial(t, g.at())
	get := "GET http://" + origin + "/ HTTP/1.1\r\nHost: " + origin + "\r\n\r\n"
	say(t, c, get)
	if line := hearHead(t, c); !strings.Contains(line, " 200 ") {
		t.Fatalf("first request: %s", line)
	}
	g.record("protocol=http", "status=200")
	if l := g.reload(listenAnywhere + "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n"); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	say(t, c, strings.Replace(get, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
	rest, _ := io.ReadAll(io.LimitReader(c, 1<<20)) // the body of the first answer, then the refusal
	if !strings.Contains(string(rest), "HTTP/1.1 403 ") {
		t.Errorf("the second request on the connection got %q, want 403 by the new rules", rest)
	}
}

func TestBrokenReloadChangesNothing(t *testing.T) {
	g := start(t, listenAnywhere+allowLoopback)
	target := tcpServer(t, echo)
	l := g.reload(listenAnywhere + "[timeouts]\nidle = 5\n[[rule]]\nacton = \"allow\"\n")
	if l.str("msg") == "reloaded" {
		t.Fatal("a broken file was taken")
	}
	for _, want := range []string{"timeouts.idle", "acton", "did you mean"} {
		if !strings.Contains(l.str("err"), want) {
			t.Errorf("the log does not say %q: %s", want, l.str("err"))
		}
	}
	c := tunnel(t, g.at(), target)
	say(t, c, "still here")
	hear(t, c, "still here")
}

func TestReloadMovesToAnotherAddress(t *testing.T) {
	g := start(t, "[listen.main]\naddress = [\"127.0.0.1:0\"]\n"+allowLoopback)
	target := tcpServer(t, echo)
	old := g.at()
	before := tunnel(t, old, target)
	if l := g.reload("[listen.other]\naddress = [\"127.0.0.2:0\"]\n" + allowLoopback); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	say(t, before, "kept")
	hear(t, before, "kept")
	if c, err := net.Dial("tcp", old); err == nil {
		c.Close()
		t.Error("the old address still accepts")
	}
}

func TestShutdownDrains(t *testing.T) {
	g := start(t, listenAnywhere+allowLoopback)
	target := tcpServer(t, echo)
	c := tunnel(t, g.at(), target)
	idle := dial(t, g.at())
	say(t, idle, "GET http://"+target+"/ HTT")
	g.signal(syscall.SIGTERM)
	g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
	say(t, c, "a last word")
	hear(t, c, "a last word")
	if n, err := net.DialTimeout("tcp", g.at(), time.Second); err == nil {
		n.Close()
	}
	_ = c.CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
		t.Errorf("at its end the tunnel gave %q, %v", rest, err)
	}
	idle.Close()
	<-g.exited
	if g.status != nil {
		t.Errorf("polyport ended with %v", g.status)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	g := start(t, listenAnywhere+"[timeouts]\ndrain = \"10m\"\n"+allowLoopback)
	c := tunnel(t, g.at(), tcpServer(t, echo))
	g.signal(syscall.SIGTERM)
	g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
	g.signal(syscall.SIGTERM)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel is open after the second signal")
	}
	<-g.exited
	g.record("protocol=connect", "reason=shutting_down")
}

func TestKilledGatewayStartsAgainOnItsPort(t *testing.T) {
	g := start(t, listenAnywhere+allowLoopback)
	addr := g.at()
	c := tunnel(t, addr, tcpServer(t, echo))
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-g.exited
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel outlived the process")
	}
	again := start(t, "[listen.main]\naddress = [\""+addr+"\"]\n"+allowLoopback)
	if again.at() != addr {
		t.Errorf("listening on %s, want %s again", again.at(), addr)
	}
}

func TestTakenPort(t *testing.T) {
	g := start(t, listenAnywhere+allowLoopback)
	second := exec.Command(binary, "--listen", g.at())
	out, err := second.CombinedOutput()
	if second.ProcessState.ExitCode() != 3 {
		t.Errorf("exit code %d (%v), want 3", second.ProcessState.ExitCode(), err)
	}
	want := fmt.Sprintf("polyport (pid %d) holds it", g.cmd.Process.Pid)
	if !strings.Contains(string(out), g.at()) || !strings.Contains(string(out), want) {
		t.Errorf("the error is %q, want the address and %q", out, want)
	}
}

func TestNoDescriptorsLeft(t *testing.T) {
	g := prepare(t, "[sniff]\ntimeout = \"10m\"\n"+listenAnywhere+allowLoopback)
	limited := exec.Command("sh", append([]string{"-c", `ulimit -n 64; exec "$0" "$@"`}, g.cmd.Args...)...)
	limited.Stdout = &g.stdout
	g.cmd = limited
	g.run()
	g.waitListening(1)
	addr, target := g.at(), tcpServer(t, echo)
	held := tunnel(t, addr, target)
	var silent []*net.TCPConn
	for range 100 {
		silent = append(silent, dial(t, addr))
	}
	g.wait("that accept fails", func(l logLine) bool { return strings.HasPrefix(l.str("msg"), "cannot accept") })
	say(t, held, "still relayed")
	hear(t, held, "still relayed")
	for _, c := range silent {
		c.Close()
	}
	g.wait("that accept works again", func(l logLine) bool { return strings.HasPrefix(l.str("msg"), "connections are accepted again") })
	c := tunnel(t, addr, target)
	say(t, c, "recovered")
	hear(t, c, "recovered")
	if n := strings.Count(g.log(), "cannot accept"); n > 5 {
		t.Errorf("the fault was logged %d times", n)
	}
}

// A flood of silent clients holds every descriptor; one who has sent a whole request gets
// in all the same, and its target is dialled.
func TestRequestsAreServedWithoutDescriptors(t *testing.T) {
	g := prepare(t, "[sniff]\ntimeout = \"10m\"\n"+listenAnywhere+allowLoopback)
	limited := exec.Command("sh", append([]string{"-c", `ulimit -n 64; exec "$0" "$@"`}, g.cmd.Args...)...)
	limited.Stdout = &g.stdout
	g.cmd = limited
	g.run()
	g.waitListening(1)
	for range 100 {
		dial(t, g.at())
	}
	g.wait("that accept fails", func(l logLine) bool { return strings.HasPrefix(l.str("msg"), "cannot accept") })
	target := tcpServer(t, echo)
	for i := range 5 {
		c := tunnel(t, g.at(), target)
		word := fmt.Sprintf("request %d", i)
		say(t, c, word)
		hear(t, c, word)
		dial(t, g.at())
		dial(t, g.at())
	}
	if n := strings.Count(g.log(), "cannot accept"); n != 1 {
		t.Errorf("the fault was logged %d times, want once", n)
	}
}
