package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mortal is a server that is killed and started again at the same address.
type mortal struct {
	t    *testing.T
	addr string
	make func() *exec.Cmd
	cmd  *exec.Cmd // nil: it is dead

	mu     sync.Mutex
	deaths []time.Time
}

// newMortal makes one that is dead. make makes its command.
func newMortal(t *testing.T, addr string, make func() *exec.Cmd) *mortal {
	t.Helper()
	m := &mortal{t: t, addr: addr, make: make}
	t.Cleanup(m.kill)
	return m
}

// live starts it and waits until it listens.
func (m *mortal) live() {
	m.t.Helper()
	m.cmd = m.make()
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // nothing tells when it listens
		c, err := net.Dial("tcp4", m.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s does not listen: %v", strings.Join(m.cmd.Args, " "), err)
		}
	}
}

// kill is kill -9: what it was doing is cut off.
func (m *mortal) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
	m.mu.Lock()
	m.deaths = append(m.deaths, time.Now())
	m.mu.Unlock()
}

// diedAfter reports whether it was killed then or later.
func (m *mortal) diedAfter(then time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.deaths) > 0 && !m.deaths[len(m.deaths)-1].Before(then)
}

// newMicrosocks makes a SOCKS5 server at an IP that is its own. Its connections leave from there, so that targets see through whom they are reached.
func newMortalMicrosocks(t *testing.T, ip string) *mortal {
	t.Helper()
	addr := freeAddress(t, ip)
	_, port, _ := net.SplitHostPort(addr)
	path := need(t, "microsocks")
	return newMortal(t, addr, func() *exec.Cmd { return exec.Command(path, "-i", ip, "-p", port, "-b", ip) })
}

// nginxCommand is one process of Debian's nginx in a folder of its own, with what is in its http block.
func nginxCommand(t *testing.T, dir, http string) func() *exec.Cmd {
	t.Helper()
	config := filepath.Join(dir, "nginx.conf")
	write(t, config, fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 512; }
http {
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	client_max_body_size 0;
%[2]s
}
`, dir, http))
	path := need(t, "/usr/sbin/nginx")
	return func() *exec.Cmd { return exec.Command(path, "-p", dir, "-e", "stderr", "-c", config) }
}

// publicDir is a folder that servers which give up root can read.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runNginx runs one until the test's end and waits until it listens at addr.
func runNginx(t *testing.T, addr, http string) (dir string) {
	t.Helper()
	dir = publicDir(t)
	m := newMortal(t, addr, nginxCommand(t, dir, http))
	m.live()
	t.Cleanup(func() { _ = m.cmd.Process.Signal(syscall.SIGTERM); _ = m.cmd.Wait(); m.cmd = nil })
	return dir
}

// flock is servers of a pool of which some die and return while others stay.
type flock struct {
	t       *testing.T
	members [][]*mortal           // those of one place die together
	kill    func(do func())       // kills some
	missed  func()                // waits until the gateway has missed some
	serves  func(i int) time.Time // when those came whom members[i] has served last
}

// flap kills and starts servers until one after the other has been the only one that stayed. A server is relied on once it has served
// again: until then those before it stay.
func (f *flock) flap(rounds int) {
	f.t.Helper()
	stays := 0
	for r := range rounds {
		for n := range 2 {
			f.kill(func() {
				for i := range f.members {
					if i != stays {
						f.each(i, (*mortal).kill)
					}
				}
			})
			if n == 0 {
				f.missed()
			}
			for i := range f.members {
				if i != stays {
					f.each(i, (*mortal).live)
				}
			}
		}
		next, since := (stays+1)%len(f.members), time.Now()
		for deadline := since.Add(patience); !f.serves(next).After(since); time.Sleep(5 * time.Millisecond) { // clients tell
			if time.Now().After(deadline) {
				f.t.Errorf("round %d: server %d has returned, but serves nobody", r, next)
				return
			}
		}
		stays = next
	}
}

func (f *flock) each(i int, do func(*mortal)) {
	f.t.Helper()
	for _, m := range f.members[i] {
		do(m)
	}
}
