package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dnsmasq is a real one, Debian's dnsmasq, that knows one name; it returns its "host:port".
func dnsmasq(t *testing.T) string {
	t.Helper()
	const host = "127.0.0.1"
	port := fmt.Sprint(freePorts(t, 1))
	background(t, has("started,"), "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root",
		"--bind-interfaces", "--listen-address="+host, "--port="+port, "--host-record=known.example,192.0.2.7,2001:db8::7", "--txt-record=known.example,"+strings.Repeat("x", 200))
	return net.JoinHostPort(host, port)
}

// udpClub is newClub for alice and bob, whose logins cost next to nothing.
func udpClub(t *testing.T) *gateway {
	t.Helper()
	return twoUsers(t, listenAnywhere+"require_user = false\n[listen.users]\naddress = [\"127.0.0.1:0\"]\n[auth]\nhtpasswd = \"users.htpasswd\"\n"+allowLoopback)
}

// has finds lines that hold a word.
func has(word string) func(string) string {
	return func(line string) string {
		if strings.Contains(line, word) {
			return word
		}
		return ""
	}
}

// viaDante has Dante's client in front of a program, for TCP and UDP.
func viaDante(t *testing.T, proxy, login string, program ...string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(proxy)
	if err != nil {
		t.Fatal(err)
	}
	method := "none"
	user, password, named := strings.Cut(login, ":")
	if named {
		method = "username"
	}
	file := filepath.Join(t.TempDir(), "socks.conf")
	write(t, file, "route {\n from: 0.0.0.0/0 to: 0.0.0.0/0 via: "+host+" port = "+port+"\n proxyprotocol: socks_v5\n protocol: tcp udp\n command: connect udpassociate\n method: "+method+"\n}\n")
	return withEnv(command(t, "socksify", program...), "SOCKS_CONF="+file, "SOCKS_AUTOADD_LANROUTES=no", "SOCKS_USERNAME="+user, "SOCKS_PASSWORD="+password)
}

// TestDrill asks a name server over UDP through Dante's client.
func TestDrill(t *testing.T) {
	t.Parallel()
	g, server := udpClub(t), dnsmasq(t)
	host, port, _ := net.SplitHostPort(server)
	for listener, login := range map[string]string{"main": "", "users": "alice:alice's own"} {
		for kind, want := range map[string]string{"A": "192.0.2.7", "AAAA": "2001:db8::7", "TXT": strings.Repeat("x", 200)} {
			t.Run(listener+" "+kind, func(t *testing.T) {
				mark := g.mark()
				got := finish(t, viaDante(t, g.addr(listener), login, "drill", "-p", port, "known.example", "@"+host, kind))
				if got.code != 0 || !strings.Contains(got.stdout, want) {
					t.Fatalf("drill ended with %d and printed %q, %q; want 0 and %s", got.code, got.stdout, got.stderr, want)
				}
				user, _, _ := strings.Cut(login, ":")
				check(t, g.recordSince(mark, "method=UDP", "listener="+listener), map[string]any{
					"protocol": "socks5", "identity": user, "target": server, "rule": "test servers", "reason": "",
					"targets": 1.0, "datagrams_from_client": 1.0, "datagrams_from_target": 1.0, "datagrams_dropped": 0.0, "datagrams_denied": 0.0,
				})
			})
		}
	}
}

// TestDig has redsocks in front of dig, which sends in ways that Dante's client does not see (sendmmsg).
func TestDig(t *testing.T) {
	t.Parallel()
	g, server := udpClub(t), dnsmasq(t)
	serverHost, serverPort, _ := net.SplitHostPort(server)
	for listener, login := range map[string]string{"main": "", "users": " login = \"alice\"; password = \"alice's own\";"} {
		t.Run(listener, func(t *testing.T) {
			host, port := "127.0.0.1", fmt.Sprint(freePorts(t, 1))
			proxyHost, proxyPort, _ := net.SplitHostPort(g.addr(listener))
			file := filepath.Join(t.TempDir(), "redsocks.conf")
			write(t, file, fmt.Sprintf("base { log_info = on; log = stderr; daemon = off; redirector = generic; }\n"+
				"redudp { local_ip = %s; local_port = %s; ip = %s; port = %s; dest_ip = %s; dest_port = %s; udp_timeout = 30; udp_timeout_stream = 180;%s }\n",
				host, port, proxyHost, proxyPort, serverHost, serverPort, login))
			t.Run("dig", func(t *testing.T) { // at whose end redsocks ends too
				background(t, has("redsocks started"), "redsocks", "-c", file)
				for kind, want := range map[string]string{"A": "192.0.2.7", "AAAA": "2001:db8::7"} {
					got := run(t, "dig", "+tries=1", "+time=30", "+short", "@"+host, "-p", port, "known.example", kind)
					if got.code != 0 || strings.TrimSpace(got.stdout) != want {
						t.Errorf("dig ended with %d and printed %q, %q; want 0 and %s", got.code, got.stdout, got.stderr, want)
					}
				}
			})
			for range 2 { // an association for each socket of dig's
				check(t, g.record("method=UDP", "listener="+listener), map[string]any{
					"target": server, "reason": "", "datagrams_from_client": 1.0, "datagrams_from_target": 1.0, "datagrams_dropped": 0.0,
				})
			}
		})
	}
}

// pySocks is a client of PySocks that is told what to do.
type pySocks struct {
	t      *testing.T
	stdin  io.WriteCloser
	stdout *bufio.Reader
	cmd    *exec.Cmd
}

// newPySocks starts one, by way of the words before (ip netns exec).
func newPySocks(t *testing.T, proxy, login string, before ...string) *pySocks {
	t.Helper()
	need(t, "/usr/lib/python3/dist-packages/socks.py")
	host, port, _ := net.SplitHostPort(proxy)
	user, password, _ := strings.Cut(login, ":")
	words := append(before, "/usr/bin/python3", "testdata/udp.py", host, port, user, password)
	p := &pySocks{t: t, cmd: command(t, words[0], words[1:]...)}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

func (p *pySocks) tell(words ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, words...); err != nil {
		p.t.Fatal(err)
	}
}

// line returns the next that it prints.
func (p *pySocks) line() string {
	p.t.Helper()
	s, err := p.stdout.ReadString('\n')
	if err != nil {
		p.t.Fatalf("PySocks ends: %q, %v", s, err)
	}
	return strings.TrimSpace(s)
}

// expects fails the test unless that is the next that it prints.
func (p *pySocks) expects(want string) {
	p.t.Helper()
	if got := p.line(); got != want {
		p.t.Fatalf("PySocks says %q, want %q", got, want)
	}
}

// bind has it ask for an association, whose datagrams have to go to an address.
func (p *pySocks) bind(relay string) {
	p.t.Helper()
	p.tell("bind", 0)
	host, port, _ := net.SplitHostPort(relay)
	p.expects("bound to " + host + " " + port)
}

// echoes sends a word to a server that sends it back.
func (p *pySocks) echoes(host, port, word, from string) {
	p.t.Helper()
	p.tell("say", host, port, word)
	p.tell("hear")
	p.expects(word + " from " + from + " " + port)
}

// end closes its sockets.
func (p *pySocks) end() { p.stdin.Close() }

func TestPySocks(t *testing.T) {
	t.Parallel()
	g, port := udpClub(t), fmt.Sprint(echoPort(t))
	for listener, login := range map[string]string{"main": "", "users": "alice:alice's own"} {
		t.Run(listener, func(t *testing.T) {
			p := newPySocks(t, g.addr(listener), login)
			p.bind(g.addr(listener))
			p.echoes("127.0.0.1", port, "by-address", "127.0.0.1")
			p.echoes("::1", port, "by-another", "::1")
			p.tell("say", "localhost", port, "by-name")
			p.tell("hear")
			if got := p.line(); !strings.HasPrefix(got, "by-name from ") {
				t.Errorf("PySocks says %q", got)
			}
			p.echoes("127.0.0.1", port, "again", "127.0.0.1")
			p.end()
			user, _, _ := strings.Cut(login, ":")
			l := g.record("method=UDP", "listener="+listener)
			check(t, l, map[string]any{
				"identity": user, "target": "127.0.0.1:" + port, "reason": "", "datagrams_from_client": 4.0, "datagrams_from_target": 4.0,
				"bytes_from_client": 32.0, "bytes_from_target": 32.0, "datagrams_dropped": 0.0,
			})
		})
	}
}

// TestIperf moves datagrams for a second each way, through Dante's client. It has the machine to itself, or others would have it lose some.
func TestIperf(t *testing.T) {
	g := udpClub(t)
	host, port := "127.0.0.1", fmt.Sprint(freePorts(t, 1))
	background(t, has("Server listening"), "iperf3", "-s", "-B", host, "-p", port, "--forceflush")
	for _, way := range []string{"", "-R"} {
		t.Run("iperf3 "+way, func(t *testing.T) {
			mark := g.mark()
			args := []string{"iperf3", "-c", host, "-p", port, "-u", "-b", "20M", "-l", "1200", "-t", "1", "-J"}
			got := finish(t, viaDante(t, g.at(), "", append(args, strings.Fields(way)...)...))
			var said struct {
				Error string
				End   struct {
					Sum struct {
						Packets, Bytes int64
						LostPercent    float64 `json:"lost_percent"`
						LostPackets    int64   `json:"lost_packets"`
					}
				}
			}
			if err := json.Unmarshal([]byte(got.stdout), &said); err != nil || got.code != 0 || said.Error != "" {
				t.Fatalf("iperf3 ended with %d and printed %q, %q: %v", got.code, got.stdout, got.stderr, err)
			}
			sum := said.End.Sum
			if sum.Packets < 1000 || sum.LostPercent > 10 {
				t.Errorf("of %d datagrams %d were lost (%.1f %%), want at least 1000 and at most 10 %%", sum.Packets, sum.LostPackets, sum.LostPercent)
			}
			l := g.recordSince(mark, "method=UDP", "protocol=socks5")
			from, least := l.num("datagrams_from_client"), sum.Packets-sum.LostPackets
			if way == "-R" {
				from = l.num("datagrams_from_target")
			}
			if from < least || from > sum.Packets+10 { // more for the beginning of the test, and those that were under way at its end
				t.Errorf("the record counts %d datagrams, and iperf3 %d, %d of them lost: %v", from, sum.Packets, sum.LostPackets, l)
			}
			check(t, l, map[string]any{"target": net.JoinHostPort(host, port), "reason": "", "datagrams_denied": 0.0, "datagrams_dropped": 0.0})
			check(t, g.recordSince(mark, "method=CONNECT", "protocol=socks5"), map[string]any{"target": net.JoinHostPort(host, port), "reason": ""})
		})
	}
}
