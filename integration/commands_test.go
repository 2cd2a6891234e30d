package integration

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// polyport runs one command of the gateway's to its end, in a folder of its own and without
// the settings of whoever runs the tests. stdin may be "".
func polyport(t *testing.T, dir, stdin string, args ...string) output {
	t.Helper()
	cmd := polyportCommand(t, dir, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(t, cmd)
}

func polyportCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := command(t, "env", append([]string{binary}, args...)...)
	cmd.Dir = dir
	return cmd
}

// inFolder makes a folder with one file.
func inFolder(t *testing.T, name, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mustSay fails the test unless a command ended as it should and said all of it.
func mustSay(t *testing.T, got output, code int, says ...string) {
	t.Helper()
	if got.code != code {
		t.Errorf("it ended with %d, want %d; it printed %q and said %q", got.code, code, got.stdout, got.stderr)
	}
	for _, want := range says {
		if !strings.Contains(got.stdout+got.stderr, want) {
			t.Errorf("it does not say %q: it printed %q and said %q", want, got.stdout, got.stderr)
		}
	}
}

func TestCheckFindsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "polyport.toml", `[listen.main]
adress = ["127.0.0.1:7659"]
protocols = ["http", "sock5"]

[timeouts]
idle = 5
connect = "10 parsecs"

[[rule]]
name = "first"
action = "permit"

[[rule]]
target = ["http://example.com/"]
action = "allow"

[backend.ssh]
servers = ["127.0.0.1"]

[protocols.raw.ssh]
prefix = ["SSH-"]
backend = "shs"

[protocols.tls]
dial_snl = true
`)
	got := polyport(t, dir, "", "check", "-c", "polyport.toml")
	mustSay(t, got, 1,
		"polyport.toml:2: listen.main.adress", `did you mean "address"?`,
		"polyport.toml:3: listen.main.protocols[1]", `did you mean "socks5"?`,
		"polyport.toml:6: timeouts.idle",
		"polyport.toml:7: timeouts.connect",
		`rule[0].action (the 1st [[rule]], "first")`,
		"rule[1].target[0] (the 2nd [[rule]])",
		"polyport.toml:18: backend.ssh.servers",
		"polyport.toml:22: protocols.raw.ssh.backend",
		"polyport.toml:25: protocols.tls.dial_snl", `did you mean "dial_sni"?`,
	)
	if got.stdout != "" {
		t.Errorf("faults belong to stderr; stdout holds %q", got.stdout)
	}
	if serve := polyport(t, dir, "", "serve", "-c", "polyport.toml"); serve.stderr != got.stderr || serve.code != 1 {
		t.Errorf("serve ended with %d and said %q, want what check says", serve.code, serve.stderr)
	}
}

func TestCheckWarns(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "polyport.toml", `[listen.main]
address = ["0.0.0.0:0"]
[backend.b]
servers = ["127.0.0.1:22"]
[protocols.raw.mine]
prefix = ["GET "]
backend = "b"
[timeouts]
idle = "0s"
[log]
redact_query = false
`)
	mustSay(t, polyport(t, dir, "", "check", "-c", "polyport.toml"), 0,
		"warning: polyport.toml:1: listen.main: other machines can connect to it and none of them may pass",
		"warning: polyport.toml:5: protocols.raw.mine: it is tried before the row http",
		"warning: polyport.toml:9: timeouts.idle: 0 keeps tunnels",
		"warning: polyport.toml:11: log.redact_query",
		"polyport.toml is fine: 1 listener, 8 rows, 3 rules",
	)
	mustSay(t, polyport(t, dir, "", "check"), 0, "the default configuration is fine")
	mustSay(t, polyport(t, dir, "", "check", "-c", "no.toml"), 1, `there is no file "no.toml"`)
}

// The gateway says at its start what check says.
func TestStartWarns(t *testing.T) {
	t.Parallel()
	g := start(t, "[listen.main]\naddress = [\"0.0.0.0:0\"]\n")
	l := g.wait("the warning", func(l logLine) bool { return l.str("level") == "WARN" })
	if want := "the configuration is legal, but: " + g.file + ":1: listen.main: other machines can connect to it and none of them may pass"; !strings.HasPrefix(l.str("msg"), want) {
		t.Errorf("the log says %q, want %q", l.str("msg"), want)
	}
}

const openToAll = "[[rule]]\nname = \"everybody\"\naction = \"allow\"\ntarget = [\"127.0.0.0/8\"]\n"

func TestOpenProxyDoesNotStart(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "polyport.toml", "[listen.main]\naddress = [\"0.0.0.0:0\"]\n"+openToAll)
	says := []string{
		`listen.main: rule "everybody" would let anyone who can reach this port use it without a user: that is an open proxy`,
		`client = ["192.168.0.0/16"]`, "htpasswd", "allow_open_proxy = true",
	}
	mustSay(t, polyport(t, dir, "", "serve", "-c", "polyport.toml"), 1, says...)
	mustSay(t, polyport(t, dir, "", "check", "-c", "polyport.toml"), 1, says...)
	mustSay(t, polyport(t, dir, "", "serve", "--listen", "0.0.0.0:0", "--allow-client", "0.0.0.0/0"), 1,
		`rule "--allow-client" would let anyone`, "--allow-open-proxy")
	mustSay(t, polyport(t, dir, "", "check", "-c", "polyport.toml", "--allow-open-proxy"), 0, "warning: ", "open proxy")
	mustSay(t, polyport(t, dir, "", "check", "--listen", "0.0.0.0:0", "--allow-client", "192.168.0.0/16"), 0, "is fine")

	g := start(t, "allow_open_proxy = true\n[listen.main]\naddress = [\"0.0.0.0:0\"]\n"+openToAll)
	_, port, _ := net.SplitHostPort(g.at())
	c := tunnel(t, "127.0.0.1:"+port, tcpServer(t, echo))
	say(t, c, "meant")
	hear(t, c, "meant")
}

// Each flag of serve, and its twin in the environment, does the same to a running gateway.
func TestServeFlagsAndTheirTwins(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "users", "")
	mustSay(t, polyport(t, dir, "correct horse\n", "user", "add", "--htpasswd", "users", "alice"), 0)
	target := tcpServer(t, echo)
	const alice = "Proxy-Authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==\r\n"
	connect := func(t *testing.T, at, header string) string {
		c := dial(t, at)
		defer c.Close()
		say(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n"+header+"\r\n")
		_, status, _ := strings.Cut(hearHead(t, c), " ")
		return status[:3]
	}
	tests := []struct {
		name  string
		flags []string // without the leading --
		want  string   // the answers to nobody and to alice
	}{
		{"the guard", nil, "403 403"},
		{"a target", []string{"allow-target=127.0.0.0/8"}, "200 200"},
		{"two targets", []string{"allow-target=192.0.2.0/24", "allow-target=127.0.0.1"}, "200 200"},
		{"another target", []string{"allow-target=10.0.0.0/8"}, "403 403"},
		{"a client and a target", []string{"allow-client=127.0.0.0/8", "allow-target=127.0.0.0/8"}, "200 200"},
		{"another client and a target", []string{"allow-client=127.9.9.9", "allow-target=127.0.0.0/8"}, "403 403"},
		{"users", []string{"htpasswd=" + filepath.Join(dir, "users")}, "407 403"},
		{"users and a target", []string{"htpasswd=" + filepath.Join(dir, "users"), "allow-target=127.0.0.0/8"}, "407 200"},
	}
	for _, tt := range tests {
		for _, way := range []string{"flags", "environment"} {
			t.Run(tt.name+" by "+way, func(t *testing.T) {
				g := prepare(t, "")
				values := map[string][]string{"listen": {"127.0.0.1:0"}}
				for _, f := range tt.flags {
					name, value, _ := strings.Cut(f, "=")
					values[name] = append(values[name], value)
				}
				g.cmd.Env = os.Environ()
				for name, list := range values {
					if way == "environment" {
						g.cmd.Env = append(g.cmd.Env, "POLYPORT_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+strings.Join(list, ","))
						continue
					}
					for _, v := range list {
						g.cmd.Args = append(g.cmd.Args, "--"+name, v)
					}
				}
				g.run()
				g.waitListening(1)
				if got := connect(t, g.at(), "") + " " + connect(t, g.at(), alice); got != tt.want {
					t.Errorf("nobody and alice got %s, want %s", got, tt.want)
				}
			})
		}
	}
}

func TestConfigAndAllowOpenProxyByEnvironment(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.write("elsewhere.toml", "[listen.main]\naddress = [\"0.0.0.0:0\"]\n"+openToAll)
	g.cmd.Env = append(os.Environ(), "POLYPORT_CONFIG="+filepath.Join(g.dir, "elsewhere.toml"), "POLYPORT_ALLOW_OPEN_PROXY=true")
	g.run()
	g.waitListening(1)
	_, port, _ := net.SplitHostPort(g.at())
	c := tunnel(t, "127.0.0.1:"+port, tcpServer(t, echo))
	say(t, c, "by the environment")
	hear(t, c, "by the environment")
}

func TestExplainCommand(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "polyport.toml", `[listen.main]
address = ["127.0.0.1:7659"]
[auth]
htpasswd = "users"
groups = { staff = ["alice"] }
[[rule]]
name = "lab"
action = "allow"
group = ["staff"]
target = ["10.1.0.0/16"]
[[rule]]
name = "web"
action = "allow"
client = ["192.0.2.0/24"]
port = ["443"]
anonymous = true
`)
	mustSay(t, polyport(t, dir, "correct horse\n", "user", "add", "--htpasswd", "users", "alice"), 0)
	tests := []struct {
		name, args string
		code       int
		says       []string
	}{
		{"allowed", "--client 192.0.2.7 198.51.100.1:443", 1, []string{`denied by the guard, although rule "web" would allow it`}},
		{"allowed to a public address", "--client 192.0.2.7 9.9.9.9:443", 0, []string{`9.9.9.9:443: allowed by rule "web"`, "it would leave directly, to 9.9.9.9:443"}},
		{"a group and a prefix", "--user alice --protocol socks5 10.1.2.3:22", 0, []string{`allowed by rule "lab"`, "private use (RFC 1918)"}},
		{"needs a user", "10.1.2.3:22", 1, []string{"needs a user"}},
		{"another user", "--user bob 10.1.2.3:22", 1, []string{"denied, since no rule matches", "group: none is not staff"}},
		{"an odd spelling", "--client 192.0.2.7 0x7f.1:443", 1, []string{"127.0.0.1:443: denied by the guard", "loopback (RFC 1122)"}},
		{"the gateway itself", "--client 192.0.2.7 127.0.0.1:7659", 1, []string{"denied"}},
		{"a bad target", "example.com", 1, []string{"it has no port; write host:port"}},
		{"a bad protocol", "--protocol sock5 9.9.9.9:443", 1, []string{`there is no protocol "sock5"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mustSay(t, polyport(t, dir, "", append([]string{"explain", "-c", "polyport.toml"}, strings.Fields(tt.args)...)...), tt.code, tt.says...)
		})
	}
}

// What explain says and what the running gateway does are one.
func TestExplainAgreesWithTheGateway(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+`
[[rule]]
name   = "not there"
action = "deny"
target = ["127.0.0.9"]
[[rule]]
name   = "servers"
action = "allow"
target = ["127.0.0.0/8", "localhost"]
[[rule]]
name   = "all"
action = "allow"
`)
	targets := []string{
		tcpServer(t, echo), "127.0.0.9:1", "10.0.0.1:80", "0x7f.0.0.9:1", "localhost:1", "[::1]:1", "[::ffff:127.0.0.9]:1", "169.254.169.254:80", g.at(),
	}
	for _, target := range targets {
		t.Run(target, func(t *testing.T) {
			explained := polyport(t, g.dir, "", "explain", "-c", g.file, target)
			c := dial(t, g.at())
			defer c.Close()
			say(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
			head := hearHead(t, c)
			if target == g.at() { // explain cannot know the port that the system chose
				if !strings.Contains(head, " 502 ") {
					t.Errorf("a client that asks for the gateway's own socket gets %q, want 502", head)
				}
				return
			}
			denied := strings.Contains(head, " 403 ")
			if denied != (explained.code == 1) {
				t.Errorf("explain ended with %d and printed %q; the gateway refused: %v", explained.code, explained.stdout, denied)
			}
		})
	}
}

func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "users", "")
	mustSay(t, polyport(t, dir, "correct horse\n", "user", "add", "--htpasswd", "users", "alice"), 0)
	free := start(t, listenAnywhere+allowLoopback)
	closed := start(t, listenAnywhere+"[auth]\nhtpasswd = \""+filepath.Join(dir, "users")+"\"\n"+allowLoopback)
	some := start(t, listenAnywhere+"protocols = [\"http\", \"socks5\"]\n")
	withoutUDP := start(t, listenAnywhere+"udp = false\n")
	target := helloServer(t)
	nobody := tcpServer(t, echo)
	silent := tcpServer(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Read(make([]byte, 1)) })
	deserted := freeAddress(t, "127.0.0.1")
	tests := []struct {
		name string
		args []string
		env  string
		code int
		says []string
	}{
		{"a gateway", []string{free.at()}, "", 0, []string{"http       ok", "connect    ok", "socks4     ok", "socks4a    ok", "socks5     ok", "udp        ok", "tls        ok", "help page  ok", "reject     ok"}},
		{"a gateway, quietly", []string{"-q", free.at()}, "", 0, nil},
		{"a target", []string{"--target", target, free.at()}, "", 0, []string{"200"}},
		{"a target that nobody listens at", []string{"--target", deserted, free.at()}, "", 1, []string{"FAILED", "cannot be reached from the gateway"}},
		{"users", []string{closed.at()}, "", 0, []string{"a user is required"}},
		{"a target, and users", []string{"--target", target, closed.at()}, "", 1, []string{"a user is required", "Give a user and a password"}},
		{"a user", []string{"--row", "http", "--row", "connect", "--row", "socks5", "--user", "alice", "--target", target, closed.at()}, "POLYPORT_PASSWORD=correct horse", 0, []string{"200"}},
		{"a wrong password", []string{"--user", "alice", "--target", target, closed.at()}, "POLYPORT_PASSWORD=wrong horse", 1, []string{"this user and password are not taken"}},
		{"rows that are off", []string{"-q", some.at()}, "", 1, []string{"switched off on this listener"}},
		{"only the rows that are on", []string{"--row", "http", "--row", "socks5", some.at()}, "", 0, []string{"not checked: the listener does not serve tls"}},
		{"UDP that is off", []string{"--row", "socks5", withoutUDP.at()}, "", 0, []string{"udp        ok", "UDP is off on this listener (REP 07"}},
		{"a server name without a route", []string{"--row", "tls", "--tls-name", "git.example.com", free.at()}, "", 1, []string{"git.example.com is refused", "dial_sni"}},
		{"nothing there", []string{deserted}, "", 1, []string{"nothing listens there. Is polyport running"}},
		{"an echo", []string{"--timeout", "5s", nobody}, "", 1, []string{"FAILED"}},
		{"a port that is silent", []string{"--timeout", "500ms", silent}, "", 1, []string{"no answer within 500ms"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := polyportCommand(t, dir, append([]string{"doctor"}, tt.args...)...)
			if tt.env != "" {
				cmd.Env = append(cmd.Env, tt.env)
			}
			got := finish(t, cmd)
			mustSay(t, got, tt.code, tt.says...)
			if got.stderr != "" || tt.says == nil && got.stdout != "" {
				t.Errorf("it printed %q and said %q", got.stdout, got.stderr)
			}
		})
	}
}

func TestVersionCommand(t *testing.T) {
	t.Parallel()
	mustSay(t, polyport(t, t.TempDir(), "", "version"), 0, "polyport ", "(commit ", "go1.")
}
