package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newFTPServer starts a vsftpd for each connection to a port, as inetd does. It serves dir to everybody, who may put files
// into the folder "in", and knows the active mode alone. Of the user that it runs as for clients it needs no more than that he may read.
func newFTPServer(t *testing.T) (addr, dir string) {
	t.Helper()
	dir, empty := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "hello.txt"), "hello by FTP\n")
	in := filepath.Join(dir, "in")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{filepath.Join(dir, "hello.txt"): 0o644, in: 0o777, dir: 0o555, empty: 0o555} { // a root folder that can be written to is refused
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) }) // so that what is in it can be removed
	asRoot := "YES"
	if os.Geteuid() == 0 {
		asRoot = "NO"
	}
	config := filepath.Join(t.TempDir(), "vsftpd.conf")
	write(t, config, fmt.Sprintf(`listen=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_umask=022
anon_root=%s
secure_chroot_dir=%s
connect_from_port_20=NO
pasv_enable=NO
xferlog_enable=NO
seccomp_sandbox=NO
run_as_launching_user=%s
`, dir, empty, asRoot))
	vsftpd := need(t, "/usr/sbin/vsftpd")
	addr = tcpServer(t, func(c *net.TCPConn) {
		f, err := c.File()
		if err != nil {
			return
		}
		defer f.Close()
		cmd := exec.Command(vsftpd, config)
		cmd.Stdin, cmd.Stdout = f, f
		_ = cmd.Run() // the client tells what went wrong
	})
	return addr, dir
}

// TestActiveFTP has a real client, which Dante's library leads through the gateway, and a real server, which connects to
// the client for each list and each file.
func TestActiveFTP(t *testing.T) {
	t.Parallel()
	server, dir := newFTPServer(t)
	host, port, _ := net.SplitHostPort(server)
	config := bindConfig(freePorts(t, 8), 8, "")
	g := startTidy(t, config)
	gatewayHost, gatewayPort, _ := net.SplitHostPort(g.at())
	for _, tt := range []struct{ version, row string }{{"socks_v5", "socks5"}, {"socks_v4", "socks4"}} {
		t.Run(tt.row, func(t *testing.T) {
			work := t.TempDir()
			socks := filepath.Join(work, "socks.conf")
			write(t, socks, fmt.Sprintf("route {\n from: 0.0.0.0/0 to: 0.0.0.0/0 via: %s port = %s\n proxyprotocol: %s\n command: connect bind\n method: none\n}\n",
				gatewayHost, gatewayPort, tt.version))
			upload := strings.Repeat("uploaded by "+tt.row+"\n", 20_000)
			write(t, filepath.Join(work, "up.txt"), upload)
			cmd := command(t, "socksify", need(t, "tnftp"), "-A", "-n", "-v", host, port) // -A is the active mode
			cmd.Dir = work
			cmd.Env = append(cmd.Env, "SOCKS_CONF="+socks, "SOCKS_AUTOADD_LANROUTES=no")
			mark := g.mark()
			got := finish(t, withInput(cmd, "user anonymous x\nls\nget hello.txt\nput up.txt in/"+tt.row+".txt\nbye\n"))
			if got.code != 0 || !strings.Contains(got.stdout, "hello.txt") || strings.Count(got.stdout, "226 ") != 3 {
				t.Fatalf("tnftp ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
			}
			for file, want := range map[string]string{filepath.Join(work, "hello.txt"): "hello by FTP\n", filepath.Join(dir, "in", tt.row+".txt"): upload} {
				if b, err := os.ReadFile(file); err != nil || string(b) != want {
					t.Errorf("%s holds %d octets, %v; want %d", file, len(b), err, len(want))
				}
			}
			check(t, g.recordSince(mark, "protocol="+tt.row, "method=CONNECT"), map[string]any{"address": server, "rule": "active FTP"})
			for _, bytes := range []string{"bytes_from_target=13", fmt.Sprintf("bytes_from_client=%d", len(upload))} { // down, and up
				l := g.recordSince(mark, "protocol="+tt.row, "method=BIND", bytes)
				check(t, l, map[string]any{"rule": "active FTP", "reason": ""})
				if a := l.str("address"); !strings.HasPrefix(a, host+":") || a == server {
					t.Errorf("the record's address is %q, want that of who connected", a)
				}
			}
		})
	}
}
