package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// sshServer is a real sshd and what a client needs to log in to it.
type sshServer struct {
	addr, user, key, knownHosts string
}

// newSSHServer starts an sshd for each connection to a port, as inetd does.
func newSSHServer(t *testing.T) *sshServer {
	t.Helper()
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // where sshd, when root runs it, wants an empty folder
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	s := &sshServer{user: who.Username, key: filepath.Join(dir, "user"), knownHosts: filepath.Join(dir, "known_hosts")}
	hostKey := filepath.Join(dir, "host")
	for _, file := range []string{hostKey, s.key} {
		if out := run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", file); out.code != 0 {
			t.Fatalf("ssh-keygen: %s", out.stderr)
		}
	}
	hostPub, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "sshd_config")
	write(t, config, fmt.Sprintf("HostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n", hostKey, s.key))
	write(t, s.knownHosts, "the-test-host "+string(hostPub))
	sshd := need(t, "/usr/sbin/sshd")
	s.addr = tcpServer(t, func(c *net.TCPConn) {
		f, err := c.File()
		if err != nil {
			return
		}
		defer f.Close()
		cmd := exec.Command(sshd, "-i", "-e", "-f", config)
		cmd.Stdin, cmd.Stdout = f, f
		_ = cmd.Run() // the client tells what went wrong
	})
	return s
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// login makes an ssh command that goes to addr, through what more says.
func (s *sshServer) login(t *testing.T, addr string, more ...string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-F", "none", "-T", "-p", port, "-i", s.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + s.knownHosts, "-o", "GlobalKnownHostsFile=none", "-o", "HostKeyAlias=the-test-host", "-o", "StrictHostKeyChecking=yes",
	}
	return command(t, "ssh", append(append(args, more...), s.user+"@"+host, "cat; echo behind the end >&2")...)
}

func TestSSH(t *testing.T) {
	t.Parallel()
	server := newSSHServer(t)
	host, port, _ := net.SplitHostPort(server.addr)
	g := newClub(t, fmt.Sprintf("[backend.ssh]\nservers = [\"127.0.0.1:%d\", %q]\n[protocols.raw.ssh]\nprefix = [\"SSH-\"]\nbackend = \"ssh\"\n", closedPort(t), server.addr)+
		"[[rule]]\nname = \"ssh\"\naction = \"allow\"\nprotocol = [\"ssh\"]\nanonymous = true\n")
	proxied := func(row, user, command string) (string, string, func(*testing.T) *exec.Cmd) {
		return row, user, func(t *testing.T) *exec.Cmd {
			return server.login(t, server.addr, "-o", "ProxyCommand="+command)
		}
	}
	directly := func(listener string) (string, string, func(*testing.T) *exec.Cmd) {
		return "ssh", "", func(t *testing.T) *exec.Cmd { return server.login(t, g.addr(listener)) }
	}
	nc, ncat := need(t, "nc.openbsd"), need(t, "ncat")
	login := " --proxy-auth " + clubUser + ":" + clubPassword + " " + host + " " + port
	tests := []struct {
		name string
		way  func() (row, user string, make func(*testing.T) *exec.Cmd)
	}{
		{"nc -X 5", func() (string, string, func(*testing.T) *exec.Cmd) {
			return proxied("socks5", "", nc+" -X 5 -x "+g.at()+" %h %p")
		}},
		{"nc -X connect", func() (string, string, func(*testing.T) *exec.Cmd) {
			return proxied("connect", "", nc+" -X connect -x "+g.at()+" %h %p")
		}},
		{"ncat by socks5 with user", func() (string, string, func(*testing.T) *exec.Cmd) {
			return proxied("socks5", clubUser, ncat+" --proxy "+g.addr("users")+" --proxy-type socks5"+login)
		}},
		{"ncat by http with user", func() (string, string, func(*testing.T) *exec.Cmd) {
			return proxied("connect", clubUser, ncat+" --proxy "+g.addr("users")+" --proxy-type http"+login)
		}},
		{"directly", func() (string, string, func(*testing.T) *exec.Cmd) { return directly("main") }},
		{"directly, where others need a user", func() (string, string, func(*testing.T) *exec.Cmd) { return directly("users") }},
	}
	const size = 8 << 20
	want := sum(io.LimitReader(bulkBytes(), size))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			row, user, login := tt.way()
			cmd := login(t)
			cmd.Stdin = io.LimitReader(bulkBytes(), size)
			got := finish(t, cmd)
			if back := sum(strings.NewReader(got.stdout)); got.code != 0 || back != want || got.stderr != "behind the end\n" {
				t.Fatalf("ssh ended with %d, said %q and gave %d bytes back with the checksum %s; want 0, %q and %s", got.code, got.stderr, len(got.stdout), back, "behind the end\n", want)
			}
			l := g.recordSince(mark, "protocol="+row, "address="+server.addr)
			check(t, l, map[string]any{"identity": user})
			if l.num("bytes_from_client") < size || l.num("bytes_from_target") < size {
				t.Errorf("the record has too few bytes: %v", l)
			}
		})
	}
}

// TestServerSpeaksFirst has clients that wait for a banner, as those of SMTP and MySQL do.
func TestServerSpeaksFirst(t *testing.T) {
	t.Parallel()
	mail := tcpServer(t, func(c *net.TCPConn) {
		fmt.Fprint(c, "220 mail.test ESMTP\r\n")
		for sc := bufio.NewScanner(c); sc.Scan(); {
			fmt.Fprintf(c, "250 you said %s\r\n", sc.Text())
		}
	})
	tests := []struct {
		name, backend, banner string
		talk                  string // what the client says then, and what it hears; "" is nothing
		answer                string
	}{
		{"mail", mail, "220 mail.test ESMTP\r\n", "HELO me\r\n", "250 you said HELO me\r\n"},
		{"sshd", newSSHServer(t).addr, "SSH-2.0-OpenSSH", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := startTidy(t, fmt.Sprintf("[sniff]\nsilent_after = \"100ms\"\nsilent_to = \"quiet\"\n[backend.quiet]\nservers = [%q]\n", tt.backend)+listenAnywhere+
				"[[rule]]\nname = \"silent ones\"\naction = \"allow\"\nprotocol = [\"silent\"]\n"+allowLoopback)
			host, port, _ := net.SplitHostPort(g.at())
			cmd := command(t, "nc.openbsd", "-N", host, port)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(tt.banner))
			if n, err := io.ReadFull(out, got); err != nil || string(got) != tt.banner {
				t.Fatalf("nc heard %q, %v; want %q", got[:n], err, tt.banner)
			}
			if _, err := io.WriteString(in, tt.talk); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, len(tt.answer))
			if n, err := io.ReadFull(out, answer); err != nil || string(answer) != tt.answer {
				t.Fatalf("nc heard %q, %v; want %q", answer[:n], err, tt.answer)
			}
			in.Close()
			_, _ = io.Copy(io.Discard, out)
			if err := cmd.Wait(); err != nil {
				t.Errorf("nc ended with %v", err)
			}
			l := g.record("protocol=silent")
			check(t, l, map[string]any{"rule": "silent ones", "backend": "quiet", "address": tt.backend, "bytes_from_client": float64(len(tt.talk))})
		})
	}
}

// TestSilentClientsWithoutABackend are closed when their time is over.
func TestSilentClientsWithoutABackend(t *testing.T) {
	t.Parallel()
	g := startTidy(t, "[sniff]\ntimeout = \"200ms\"\nsilent_after = \"50ms\"\n"+listenAnywhere+allowLoopback)
	c := dial(t, g.at())
	if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
		t.Errorf("a silent client got %q, %v; want the end", b, err)
	}
	g.wait("the refusal", func(l logLine) bool { return l.str("reason") == "sniff_timeout" })
}
