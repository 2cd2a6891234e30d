package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// danted is Dante's server, which asks for a password and leaves from an address of its own.
type danted struct {
	t    *testing.T
	addr string
	file string
	cmd  *exec.Cmd
}

const (
	danteUser, dantePassword = "carol", "carol's own"
	danteLeaves              = "127.0.0.3"
)

// newUDPDanted starts one. Its users are those of the system, so it is for a test that is apart.
func newUDPDanted(t *testing.T) *danted {
	t.Helper()
	hash := strings.TrimSpace(run(t, "openssl", "passwd", "-5", "-salt", "salt", dantePassword).stdout)
	replace(t, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"+danteUser+":x:1000:65534::/:/bin/false\n")
	replace(t, "/etc/shadow", "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"+danteUser+":"+hash+":19000:0:99999:7:::\n")
	d := &danted{t: t, addr: fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)), file: filepath.Join(t.TempDir(), "danted.conf")}
	_, port, _ := net.SplitHostPort(d.addr)
	write(t, d.file, "logoutput: stdout\ninternal: 127.0.0.1 port = "+port+"\nexternal: "+danteLeaves+"\nclientmethod: none\nsocksmethod: username\n"+
		"user.privileged: root\nuser.unprivileged: nobody\nclient pass {\n from: 127.0.0.0/8 to: 0.0.0.0/0\n}\n"+
		"socks pass {\n from: 127.0.0.0/8 to: 127.0.0.0/8\n command: connect udpassociate udpreply\n}\n")
	t.Cleanup(d.stop)
	d.start()
	return d
}

// start starts it, also once it has been stopped.
func (d *danted) start() {
	d.t.Helper()
	d.cmd = lasting(d.t, "/usr/sbin/danted", "-f", d.file)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // nothing tells when somebody listens
		c, err := net.Dial("tcp", d.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(limit) {
			d.t.Fatalf("danted does not listen: %v", err)
		}
	}
}

// stop ends all its processes.
func (d *danted) stop() {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // fails once it has ended
	_ = d.cmd.Wait()
}

// upstream is the configuration of an upstream.
func (d *danted) upstream(more string) string {
	return "[upstream.eu]\nservers = [\"socks5://" + d.addr + "\"]\nuser = \"" + danteUser + "\"\npassword = \"" + dantePassword + "\"\n" + more
}

// fromDante is a server that answers with the address that it was asked from.
func fromDante(c *net.UDPConn, from netip.AddrPort, b []byte) {
	_, _ = c.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()+" "+string(b)), from)
}

// TestUDPThroughDante has a real SOCKS5 server as the upstream of real clients.
func TestUDPThroughDante(t *testing.T) {
	if !apart(t) {
		return
	}
	replace(t, "/etc/hosts", "127.0.0.1 localhost\n127.0.0.9 far.example\n")
	d := newUDPDanted(t)
	server := dnsmasq(t)
	g := startTidy(t, "default_upstream = \"eu\"\n"+listenAnywhere+allowLoopback+d.upstream(""))
	through := map[string]any{"upstream": "eu", "server": "socks5://" + d.addr, "reason": "", "datagrams_dropped": 0.0}
	t.Run("by hand", func(t *testing.T) {
		c := associate(t, g.at())
		for _, size := range []int{0, 1, 1472, 9000} {
			target := udpServer(t, "127.0.0.9", fromDante)
			word := strings.Repeat("x", size)
			c.say(target, word)
			if from, got := c.hear(); from != target || got != danteLeaves+" "+word {
				t.Fatalf("from %s came %.60q, want the word from %s by way of %s", from, got, target, danteLeaves)
			}
		}
		check(t, c.record(g, map[string]any{"targets": 4.0, "datagrams_from_client": 4.0, "datagrams_from_target": 4.0}), through)
	})
	t.Run("drill", func(t *testing.T) {
		host, port, _ := net.SplitHostPort(server)
		mark := g.mark()
		got := finish(t, viaDante(t, g.at(), "", "drill", "-p", port, "known.example", "@"+host, "A"))
		if got.code != 0 || !strings.Contains(got.stdout, "192.0.2.7") {
			t.Fatalf("drill ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
		}
		check(t, g.recordSince(mark, "method=UDP"), through)
	})
	t.Run("PySocks", func(t *testing.T) {
		mark := g.mark()
		_, port, _ := net.SplitHostPort(udpServer(t, "127.0.0.1", udpEcho))
		p := newPySocks(t, g.at(), "")
		p.bind(g.at())
		p.echoes("127.0.0.1", port, "by-address", "127.0.0.1")
		p.echoes("127.0.0.1", port, "again", "127.0.0.1")
		p.end()
		check(t, g.recordSince(mark, "method=UDP"), through)
	})
	t.Run("another association when Dante comes back", func(t *testing.T) {
		target := udpServer(t, "127.0.0.9", fromDante)
		c := associate(t, g.at())
		c.say(target, "one")
		c.hear()
		d.stop()
		d.start()
		heard := make(chan struct{})
		go func() { defer close(heard); c.hear() }()
		for again := true; again; { // what comes too soon is dropped
			c.say(target, "two")
			select {
			case <-heard:
				again = false
			case <-time.After(100 * time.Millisecond):
			}
		}
		check(t, c.record(g, nil), map[string]any{"upstream": "eu", "reason": ""})
	})
}

// TestUDPNamesThroughDante: Dante resolves them, nobody else does.
func TestUDPNamesThroughDante(t *testing.T) {
	if !apart(t) {
		return
	}
	replace(t, "/etc/hosts", "127.0.0.1 localhost\n127.0.0.9 far.example\n")
	d := newUDPDanted(t)
	l := newLiar(t, map[string]answerer{})
	g := startTidy(t, listenAnywhere+"[dns]\nservers = [\"udp://"+l.addr+"\"]\n[[rule]]\nname = \"far\"\naction = \"allow\"\ntarget = [\"far.example\"]\nupstream = \"eu\"\n"+
		d.upstream("resolve = \"upstream\"\n"))
	target := udpServer(t, "127.0.0.9", fromDante)
	_, port, _ := net.SplitHostPort(target)
	c := associate(t, g.at())
	for range 2 {
		c.say("far.example:"+port, "x")
		if from, got := c.hear(); from != target || got != danteLeaves+" x" {
			t.Errorf("from %s came %q, want x from %s by way of %s", from, got, target, danteLeaves)
		}
	}
	check(t, c.record(g, nil), map[string]any{"upstream": "eu", "rule": "far", "target": "far.example:" + port, "resolved_by": "upstream", "address": nil, "targets": 1.0})
}

// TestUDPThroughPolyport has two gateways in a row, the second of which asks for a user.
func TestUDPThroughPolyport(t *testing.T) {
	t.Parallel()
	second := twoUsers(t, listenAnywhere+"[auth]\nhtpasswd = \"users.htpasswd\"\n"+allowLoopback)
	first := startTidy(t, "default_upstream = \"next\"\n"+listenAnywhere+allowLoopback+
		"[upstream.next]\nservers = [\"http://127.0.0.1:9\", \"socks5://"+second.at()+"\"]\nuser = \"alice\"\npassword = \"alice's own\"\n")
	target := udpServer(t, "127.0.0.1", udpEcho)
	var callers []*caller
	for i := range 8 {
		c := associate(t, first.at())
		c.mustEcho(target, fmt.Sprint("word ", i))
		callers = append(callers, c)
	}
	for i, c := range callers {
		c.mustEcho(target, fmt.Sprint("again ", i))
		c.record(first, map[string]any{"upstream": "next", "server": "socks5://" + second.at(), "reason": "", "datagrams_from_target": 2.0})
		check(t, second.record("method=UDP", "identity=alice"), map[string]any{"target": target, "datagrams_from_client": 2.0, "datagrams_from_target": 2.0})
	}
}

// TestUDPThroughNoUpstream: through what does not carry UDP nothing leaves, and the log says why.
func TestUDPThroughNoUpstream(t *testing.T) {
	t.Parallel()
	g := startTidy(t, "default_upstream = \"web\"\n"+listenAnywhere+
		"[[rule]]\naction = \"allow\"\ntarget = [\"127.0.0.2\"]\nupstream = \"direct\"\n"+allowLoopback+"[upstream.web]\nservers = [\"http://127.0.0.1:9\"]\n")
	target := bindUDP(t, "127.0.0.1")
	c := associate(t, g.at())
	c.say(target.LocalAddr().String(), "x")
	c.mustEcho(udpServer(t, "127.0.0.2", udpEcho), "near")
	c.record(g, map[string]any{"datagrams_denied": 1.0, "datagrams_from_client": 1.0, "upstream": nil, "reason": ""})
	silent(t, "the target", target)
}

// TestUDPByExit: datagrams leave from the exit's address.
func TestUDPByExit(t *testing.T) {
	t.Parallel()
	rule := func(target, exit string) string {
		return "[[rule]]\naction = \"allow\"\ntarget = [\"" + target + "\"]\nexit = [\"" + exit + "\"]\n"
	}
	g := startTidy(t, listenAnywhere+rule("127.0.0.2", "five")+rule("127.0.0.3", "range")+rule("127.0.0.4", "nowhere")+rule("::1", "five")+allowLoopback+
		"[exit.five]\nlocal_address = [\"127.0.0.5\"]\n[exit.range]\nlocal_address = [\"127.7.0.0/16\"]\n[exit.nowhere]\nlocal_address = [\"192.0.2.1\"]\n")
	c := associate(t, g.at())
	c.say("127.0.0.4:53", "x")
	c.say("[::1]:53", "x")
	for host, from := range map[string]string{"127.0.0.2": "127.0.0.5", "127.0.0.3": "127.7.", "127.0.0.9": "127.0.0.1"} {
		target := udpServer(t, host, fromDante)
		c.say(target, "x")
		if _, got := c.hear(); !strings.HasPrefix(got, from) {
			t.Errorf("%s is asked from %q, want %s", host, got, from)
		}
	}
	c.record(g, map[string]any{"datagrams_dropped": 2.0, "datagrams_from_client": 3.0})
}
