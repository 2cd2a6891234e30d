package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"
)

// faultTexts returns one line for each fault of err.
func faultTexts(err error) []string {
	var list *multierror.Error
	if !errors.As(err, &list) {
		return nil
	}
	var texts []string
	for _, e := range list.Errors {
		texts = append(texts, e.Error())
	}
	return texts
}

// rowsOfTest are the rows of the protocol table that tests know.
var rowsOfTest = []string{"http", "connect", "socks4", "socks5", "tls", "reject", "ssh"}

func TestParseWholeFile(t *testing.T) {
	f, err := Parse("/etc/polyport/polyport.toml", []byte(`
allow_open_proxy = true
[listen.main]
address             = ["0.0.0.0:7659", "[::]:7000-7001"]
protocols           = ["http", "connect"]
require_user        = false
proxy_protocol_from = ["10.9.9.10"]
public_address      = "proxy.example.net:7659"
help_page           = true
[sniff]
timeout = "6s"
silent_after = "1500ms"
silent_to = "ssh"
[timeouts]
idle = "0s"
[limits]
connections = 10
[auth]
htpasswd = "users.htpasswd"
groups = { staff = ["alice", "bob"] }
lockout = { failures = 3, window = "1m" }
[http]
anonymity = "hide-proxy"
[[rule]]
name   = "office"
action = "allow"
client = ["10.0.0.0/8"]
port   = ["80", "8000-8999", 443]
group  = ["staff"]
[backend.ssh]
servers = ["127.0.0.1:22"]
[log]
access = "squid"
access_to = "access.log"
redact_query = false
[dns]
servers = ["udp://192.0.2.53"]
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(rowsOfTest); err != nil {
		t.Error(err)
	}
	l := f.Listen["main"]
	checks := []struct {
		what      string
		got, want any
	}{
		{"sockets", join(l.Sockets()), "0.0.0.0:7659 [::]:7000 [::]:7001"},
		{"protocols", l.Protocols, []string{"http", "connect"}},
		{"require_user", f.RequireUser("main"), false},
		{"help_page", f.HelpPage("main"), true},
		{"balancer", l.ProxyProtocolFrom[0].String(), "10.9.9.10"},
		{"timeout", time.Duration(f.Sniff.Timeout), 6 * time.Second},
		{"silent_after", time.Duration(f.Sniff.SilentAfter), 1500 * time.Millisecond},
		{"idle", f.Timeouts.Idle, Duration(0)},
		{"handshake, not in the file", f.Timeouts.Handshake, seconds(10)},
		{"connections", f.Limits.Connections, 10},
		{"unfinished, not in the file", f.Limits.Unfinished, 16384},
		{"htpasswd, from the file's folder", f.Auth.Htpasswd, "/etc/polyport/users.htpasswd"},
		{"access_to, from the file's folder", f.Log.AccessTo, "/etc/polyport/access.log"},
		{"groups", f.Auth.Groups["staff"], []string{"alice", "bob"}},
		{"lockout", f.Auth.Lockout, Lockout{Failures: 3, Window: seconds(60), Ban: seconds(900)}},
		{"ports", f.Rule[0].Port, []PortRange{{80, 80}, {8000, 8999}, {443, 443}}},
		{"default rules", f.DefaultRules, false},
		{"dns", f.DNS.Servers[0].String(), "udp://192.0.2.53:53"},
		{"redact_query", f.Log.RedactQuery, false},
	}
	for _, c := range checks {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

func join[T interface{ String() string }](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, " ")
}

func TestEmptyFileIsDefault(t *testing.T) {
	f, err := Parse("x.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.doc = nil
	if diff := cmp.Diff(Default(), f, compareFiles); diff != "" {
		t.Errorf("Parse of nothing (-Default +got):\n%s", diff)
	}
	if got := join(f.Listen["main"].Sockets()); got != "127.0.0.1:7659" || !f.DefaultRules || !f.HelpPage("main") || f.RequireUser("main") {
		t.Errorf("the default listens on %s, default rules %v, help page %v, require user %v", got, f.DefaultRules, f.HelpPage("main"), f.RequireUser("main"))
	}
}

// Each row is a file and every fault that it must give.
func TestParseFaults(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"syntax has a line", "[sniff]\ntimeout =\n", []string{
			"f.toml:2: expected value but found '\\n' instead, at or after the key sniff.timeout",
		}},
		{"a key twice", "[sniff]\ntimeout = \"1s\"\ntimeout = \"2s\"\n", []string{
			"f.toml:3: Key 'sniff.timeout' has already been defined, at or after the key sniff.timeout",
		}},
		{"bare number for a duration", "\n[sniff]\ntimeout = 5\n", []string{
			`f.toml:3: sniff.timeout: "5" has no unit: write "5s" if seconds are meant`,
		}},
		{"every fault at once, in the order of the file", "[limits]\nunfinished = \"many\"\n[sniff]\ntimeout = true\ntimeuot = \"5s\"\n[log]\nredact_query = \"yes\"\n", []string{
			`f.toml:2: limits.unfinished: this must be a whole number, and is a string`,
			`f.toml:4: sniff.timeout: this must be a duration with its unit in quotes, such as "5s", and is true or false`,
			`f.toml:5: sniff.timeuot: unknown key: did you mean "timeout"?`,
			`f.toml:7: log.redact_query: this must be true or false, and is a string`,
		}},
		{"keys do not fold case", "[sniff]\ntimeout = \"5s\"\nTimeout = \"6s\"\n", []string{
			`f.toml:3: sniff.Timeout: unknown key: did you mean "timeout"?`,
		}},
		{"names that differ in case alone", "[backend.ssh]\nservers = [\"a:1\"]\n[backend.SSH]\nservers = [\"b:1\"]\n", []string{
			`f.toml:1: backend.ssh: "SSH" and "ssh" differ only in case: rename one`,
		}},
		{"no line below [[rule]], but the index and the name", `
[[rule]]
name = "one"
acton = "allow"
client = ["10.1.2.3/8"]
[[rule]]
action = "allow"
client = ["10.0.0.0/8", 5]
port = ["99999"]
`, []string{
			`f.toml: rule[0].client[0] (the 1st [[rule]], "one"): "10.1.2.3/8" has host bits set: write "10.0.0.0/8" for the network, or "10.1.2.3" for the one address`,
			`f.toml: rule[0].acton (the 1st [[rule]], "one"): unknown key: did you mean "action"?`,
			`f.toml: rule[1].client[1] (the 2nd [[rule]]): this must be an address or a prefix in quotes, such as "10.0.0.0/8", and is a whole number`,
			`f.toml: rule[1].port[0] (the 2nd [[rule]]): "99999" is not a port: write a number up to 65535, or a range such as "8000-8999"`,
		}},
		{"the right index of three equal keys", "[[rule]]\naction = \"allow\"\n[[rule]]\naction = 5\n[[rule]]\naction = \"deny\"\n", []string{
			`f.toml: rule[1].action (the 2nd [[rule]]): this must be a string, and is a whole number`,
		}},
		{"an array of inline tables counts too", "rule = [{action = \"allow\"}, {action = 5}]\n", []string{
			`f.toml:1: rule[1].action (the 2nd [[rule]]): this must be a string, and is a whole number`,
		}},
		{"[rule] for [[rule]]", "[rule]\naction = \"allow\"\n", []string{
			`f.toml:1: rule: this must be an array of tables, each under its own [[rule]], and is a table`,
		}},
		{"[[listen]] for [listen.x]", "[[listen]]\naddress = []\n", []string{
			`f.toml: listen: this must be a table with a name for each entry, and is an array of tables`,
		}},
		{"a string for an array", "[listen.main]\naddress = \"127.0.0.1:1\"\n", []string{
			`f.toml:2: listen.main.address: this must be an array, and is a string: put it in brackets, ["..."]`,
		}},
		{"an element of an array, where the array begins", "[listen.main]\naddress = [\n  \"127.0.0.1:1\",\n  \":7659\",\n]\n", []string{
			`f.toml:2: listen.main.address[1]: ":7659" names no address: write "0.0.0.0:7659", and "[::]:7659" for IPv6`,
		}},
		{"what comes later says so", "[metrics]\n[admin]\n[[rule]]\naction = \"allow\"\nlimit = 5\n", []string{
			`f.toml:1: metrics: "metrics" is not supported by this version of polyport: remove it`,
			`f.toml:2: admin: "admin" is not supported by this version of polyport: remove it`,
			`f.toml: rule[0].limit (the 1st [[rule]]): "limit" is not supported by this version of polyport: remove it`,
		}},
		{"servers as strings and as tables", "[upstream.eu]\nservers = [\"http://a\", 5, { url = \"http://b\", wieght = 2, drain = 1 }, { url = 6 }]\n[backend.a]\nservers = \"a:1\"\n[backend.b]\nservers = [{ adress = \"a:1\" }, [\"a:1\"]]\n", []string{
			`f.toml:2: upstream.eu.servers[1]: this must be a server in quotes, such as "socks5://198.51.100.7:1080", or a table such as { url = "socks5://198.51.100.7:1080" }, and is a whole number`,
			`f.toml:2: upstream.eu.servers[2].drain: this must be true or false, and is a whole number`,
			`f.toml:2: upstream.eu.servers[2].wieght: unknown key: did you mean "weight"?`,
			`f.toml:2: upstream.eu.servers[3].url: this must be a URL in quotes, such as "socks5://198.51.100.7:1080", and is a whole number`,
			`f.toml:4: backend.a.servers: this must be an array, and is a string: put it in brackets, ["..."]`,
			`f.toml:6: backend.b.servers[0].adress: unknown key: did you mean "address"?`,
			`f.toml:6: backend.b.servers[1]: this must be a server in quotes, such as "10.0.0.1:80", or a table such as { address = "10.0.0.1:80" }, and is an array`,
		}},
		{"keys inside tables of upstreams", "[upstream.eu]\nserver = []\ntls = { sni = \"a\" }\nhealth = { evry = \"1s\" }\n[exit.eu]\nlocal_addres = []\n[dns]\nbootstrap = { \"a.example\" = [\"b.example\", 5] }\n", []string{
			`f.toml:2: upstream.eu.server: unknown key: did you mean "servers"?`,
			`f.toml:3: upstream.eu.tls.sni: unknown key: what may stand here is "ca", "certificate", "key", "server_name"`,
			`f.toml:4: upstream.eu.health.evry: unknown key: did you mean "every"?`,
			`f.toml:6: exit.eu.local_addres: unknown key: did you mean "local_address"?`,
			`f.toml:8: dns.bootstrap."a.example"[0]: "b.example" is not an IP address: write one such as "192.0.2.1" or "2001:db8::1"`,
			`f.toml:8: dns.bootstrap."a.example"[1]: this must be an IP address in quotes, such as "192.0.2.1", and is a whole number`,
		}},
		{"an unknown table", "[lsiten.main]\n", []string{
			`f.toml: lsiten: unknown key: did you mean "listen"?`,
		}},
		{"nothing close", "[http]\nvia = false\n", []string{
			`f.toml:2: http.via: unknown key: what may stand here is "anonymity", "forward_https"`,
		}},
		{"[protocols] is a table", "protocols = 5\n", []string{
			`f.toml:1: protocols: this must be a table for each protocol, such as [protocols.tls], and is a whole number`,
		}},
		{"a number too large", "[limits]\nconnections = 9223372036854775808\n", []string{
			"f.toml:2: 9223372036854775808 is out of range for int64, at or after the key limits.connections",
		}},
		{"UTF-16", "\xff\xfe[\x00l\x00", []string{
			"f.toml:1: files cannot contain NULL bytes; probably using UTF-16; TOML files must be UTF-8",
		}},
		{"no escape sequence reaches the terminal", "\"\x1b[2J\" = 5\n", []string{
			"f.toml:1: TOML files cannot contain control characters: '0x1b'",
		}},
		{"nor an escaped one", `"\u001b[2J\n" = 5`, []string{
			`f.toml:1: "\x1b[2J\n": unknown key: what may stand here is "allow_open_proxy", "default_upstream", "listen", "sniff", "timeouts", "limits", "udp", "auth", "http", "bind", "rule", "backend", "upstream", "exit", "site", "geoip", "tls", "log", "dns", "protocols"`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.toml", []byte(tt.file))
			if diff := cmp.Diff(tt.want, faultTexts(err)); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.file, diff)
			}
		})
	}
}

func TestParseKeepsTheFileBesideFaults(t *testing.T) {
	f, err := Parse("f.toml", []byte("[sniff]\ntimeout = 5\nsilent_to = \"shs\"\n[backend.ssh]\nservers = [\"a:22\"]\n"))
	if err == nil || f == nil {
		t.Fatalf("Parse = %v, %v; want a file and a fault", f, err)
	}
	want := []string{
		`f.toml:2: sniff.timeout: "5" has no unit: write "5s" if seconds are meant`,
		`f.toml:3: sniff.silent_to: there is no backend "shs": did you mean "ssh"?`,
	}
	if diff := cmp.Diff(want, faultTexts(Join(err, f.Validate(nil)))); diff != "" {
		t.Errorf("faults of both passes (-want +got):\n%s", diff)
	}
	if f, err := Parse("f.toml", []byte("x")); f != nil || err == nil {
		t.Errorf("Parse of bad syntax = %v, %v; want no file and a fault", f, err)
	}
}

func TestParseManyFaultsEndsSoon(t *testing.T) {
	var b strings.Builder
	for range maxKeys / 2 {
		b.WriteString("[[rule]]\nx=1\n")
	}
	_, err := Parse("f.toml", []byte(b.String()))
	texts := faultTexts(err)
	if len(texts) != maxFaults+1 || texts[maxFaults] != "9936 more faults like these" {
		t.Errorf("%d faults, the last %q; want %d and a count of the rest", len(texts), texts[len(texts)-1], maxFaults+1)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "polyport.toml")
	if err := os.WriteFile(path, []byte("[auth]\nhtpasswd = \"u\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil || f.Auth.Htpasswd != filepath.Join(dir, "u") {
		t.Errorf("Load = %+v, %v; want the path of htpasswd beside the file", f, err)
	}
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none.toml") {
		t.Errorf("Load of a missing file: %v; want fs.ErrNotExist and its name", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("Load of a folder: no error")
	}
	if err := os.WriteFile(path, make([]byte, maxFileSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("Load of a huge file: %v", err)
	}
}
