package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Whom the next hops know. The password is found by lookForSecrets, and has to be written otherwise in a URL.
const (
	hopUser     = "alice"
	hopPassword = secret + ":p@ss/1"
	hopLogin    = hopUser + ":" + secret + "%3Ap%40ss%2F1@"
	tinyLogin   = hopUser + ":" + secret + "-1@" // tinyproxy takes no such characters
)

// hop is a next-hop proxy: a real program that runs until the test's end.
type hop struct {
	t    *testing.T
	addr string // of its own: no other test's program is at that IP address
	dir  string // everybody may write there, since some programs change their user
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	// knows says that it knows www.test by itself.
	knows bool
}

// hops counts them.
var hops atomic.Uint32

// newHop chooses the address of one and makes its folder.
func newHop(t *testing.T) *hop {
	t.Helper()
	dir, err := os.MkdirTemp("", "polyport-hop-") // t.TempDir lies where nobody else may enter
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := hops.Add(1)
	return &hop{t: t, dir: dir, addr: freeAddress(t, fmt.Sprintf("127.8.%d.%d", n/250, 1+n%250))}
}

// host and port are the parts of its address.
func (h *hop) host() string { host, _, _ := net.SplitHostPort(h.addr); return host }
func (h *hop) port() string { _, port, _ := net.SplitHostPort(h.addr); return port }

// write writes one of its files and returns the path.
func (h *hop) write(name, content string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// run runs the program, until the test's end or kill, and waits until it listens.
func (h *hop) run(program string, args ...string) *hop {
	h.t.Helper()
	said, err := os.Create(filepath.Join(h.dir, "said.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer said.Close()
	h.cmd = exec.Command(need(h.t, program), args...)
	h.cmd.Dir, h.cmd.Stdout, h.cmd.Stderr = h.dir, said, said
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children end with it
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.gone = make(chan struct{})
	go func() { defer close(h.gone); _ = h.cmd.Wait() }()
	h.t.Cleanup(func() {
		h.kill()
		if h.t.Failed() {
			h.t.Logf("%s at %s says:\n%s", program, h.addr, h.log())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // nothing tells when a program listens
		if c, err := net.Dial("tcp", h.addr); err == nil {
			c.Close()
			return h
		}
		select {
		case <-h.gone:
			h.t.Fatalf("%s ended: %s", program, h.log())
		default:
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s does not listen at %s: %s", program, h.addr, h.log())
		}
	}
}

// kill ends the program by SIGKILL.
func (h *hop) kill() {
	_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	<-h.gone
}

// log is what the program has said and logged so far.
func (h *hop) log() string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "*.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			h.t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// logs waits until the log holds a text.
func (h *hop) logs(text string) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(h.log(), text); time.Sleep(10 * time.Millisecond) { // nothing tells when a file grows
		if time.Now().After(deadline) {
			h.t.Errorf("the log of %s lacks %q:\n%s", h.addr, text, h.log())
			return
		}
	}
}

// newSquid runs squid. It knows the names of these tests, and asks for a user unless open. more stands before
// what allows.
func newSquid(t *testing.T, open bool, more string) *hop {
	t.Helper()
	h := newHop(t)
	users := "all"
	if !open {
		users = "users"
		file := filepath.Join(h.dir, "passwd")
		mustSay(t, run(t, "htpasswd", "-bcm", file, hopUser, hopPassword), 0)
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		more = "auth_param basic program " + need(t, "/usr/lib/squid/basic_ncsa_auth") + " " + file + "\n" +
			"auth_param basic children 1 startup=1\nacl users proxy_auth REQUIRED\n" + more
	}
	h.knows = true
	hosts := h.write("hosts", "127.0.0.1 www.test only-there.test\n")
	// Its shared memory goes by its name, and stays where it is killed: no other one of that name could start.
	name := "hop" + strings.NewReplacer(".", "x", ":", "x").Replace(h.addr)
	t.Cleanup(func() {
		left, _ := filepath.Glob("/dev/shm/" + name + "-*") // the pattern is good
		for _, file := range left {
			_ = os.Remove(file) // it is gone, then
		}
	})
	return h.run("/usr/sbin/squid", "-N", "-n", name, "-f", h.write("squid.conf", "http_port "+h.addr+"\n"+more+"http_access allow "+users+"\nhttp_access deny all\n"+
		"hosts_file "+hosts+"\ndns_nameservers 127.0.0.1\ndns_timeout 1 second\n"+
		"access_log stdio:"+h.dir+"/access.log\nbuffered_logs off\ncache_log "+h.dir+"/cache.log\ncoredump_dir "+h.dir+"\n"+
		"cache deny all\ncache_mem 8 MB\ncache_store_log none\npid_filename none\nnetdb_filename none\npinger_enable off\n"+
		"max_filedescriptors 1024\nshutdown_lifetime 0 seconds\nvisible_hostname hop\nworkers 1\n"))
}

// newTinyproxy runs tinyproxy, which asks for a user.
func newTinyproxy(t *testing.T) *hop {
	t.Helper()
	h := newHop(t)
	return h.run("tinyproxy", "-d", "-c", h.write("tinyproxy.conf", "Listen "+h.host()+"\nPort "+h.port()+"\nTimeout 60\nLogLevel Connect\nLogFile \""+h.dir+"/tinyproxy.log\"\n"+
		"Allow 127.0.0.0/8\nBasicAuth "+hopUser+" "+secret+"-1\n"))
}

// newMicrosocks runs microsocks, which asks for a user unless open.
func newMicrosocks(t *testing.T, open bool) *hop {
	t.Helper()
	h := newHop(t)
	args := []string{"-i", h.host(), "-p", h.port()}
	if !open {
		args = append(args, "-u", hopUser, "-P", hopPassword)
	}
	return h.run("microsocks", args...)
}

// newDante runs Dante's server for SOCKS4 and SOCKS5.
func newDante(t *testing.T) *hop {
	t.Helper()
	h := newHop(t)
	privileges := ""
	if os.Geteuid() == 0 {
		privileges = "user.privileged: root\nuser.unprivileged: nobody\n"
	}
	return h.run("/usr/sbin/danted", "-p", filepath.Join(h.dir, "pid"), "-f", h.write("danted.conf", "logoutput: "+h.dir+"/danted.log\n"+
		"internal: "+h.host()+" port = "+h.port()+"\nexternal: 127.0.0.1\nclientmethod: none\nsocksmethod: none\n"+privileges+
		"client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\nsocks pass { from: 127.0.0.0/8 to: 127.0.0.0/8\n command: connect\n log: connect error }\n"))
}

// newSSHHop runs ssh -D, which serves SOCKS4, SOCKS4a and SOCKS5 through a login.
func newSSHHop(t *testing.T) *hop {
	t.Helper()
	s, h := newSSHServer(t), newHop(t)
	cmd := s.login(t, s.addr, "-N", "-D", h.addr, "-o", "ExitOnForwardFailure=yes", "-vv")
	return h.run("ssh", cmd.Args[1:]...)
}

// newStunnel runs stunnel before another hop, with the certificate of p.
func newStunnel(t *testing.T, p *papers, before *hop) *hop {
	t.Helper()
	h := newHop(t)
	return h.run("stunnel4", h.write("stunnel.conf", "foreground = yes\npid =\nsyslog = no\n[hop]\naccept = "+h.addr+"\nconnect = "+before.addr+"\ncert = "+h.write("both.pem", p.both())+"\n"))
}

// newTLSProxy runs haproxy, which ends TLS, before another hop. more is for its bind line.
func newTLSProxy(t *testing.T, p *papers, before *hop, more string) *hop {
	t.Helper()
	h := newHop(t)
	return h.run("haproxy", "-db", "-f", h.write("haproxy.cfg", "defaults\n  mode tcp\n  timeout connect 50s\n  timeout client 50s\n  timeout server 50s\n"+
		"frontend front\n  bind "+h.addr+" ssl crt "+h.write("both.pem", p.both())+more+"\n  default_backend back\nbackend back\n  server hop "+before.addr+"\n"))
}

// newNghttpx runs nghttpx, a proxy by HTTP/2, before another hop.
func newNghttpx(t *testing.T, p *papers, before *hop) *hop {
	t.Helper()
	h := newHop(t)
	return h.run("/usr/sbin/nghttpx", "--conf=/dev/null", "--frontend="+h.host()+","+h.port(), "--backend="+before.host()+","+before.port(), "--http2-proxy",
		"--single-process", "--workers=1", "--no-ocsp", "--backend-connections-per-host=100", "--errorlog-file="+h.dir+"/error.log", "--accesslog-file="+h.dir+"/access.log",
		p.path("server.key"), p.path("server.pem"))
}

// both is the certificate and its key in one text.
func (p *papers) both() string {
	p.t.Helper()
	var all []byte
	for _, name := range []string{"server.pem", "server.key"} {
		b, err := os.ReadFile(p.path(name))
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, b...)
	}
	return string(all)
}

// startDiscreet is startTidy for a gateway that must have written no secret when it has ended.
func startDiscreet(t *testing.T, config string) (g *gateway) {
	t.Helper()
	t.Cleanup(func() {
		if g != nil {
			lookForSecrets(t, "what the gateway has written", g.log()+g.stdout.String())
		}
	})
	return startTidy(t, config)
}
