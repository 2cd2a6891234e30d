package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseWell parses a file whose syntax and types are right.
func parseWell(t *testing.T, file string) *File {
	t.Helper()
	f, err := Parse("f.toml", []byte(file))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return f
}

// Each row is a file and every fault that Validate must find in it.
func TestValidate(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"the default", "", nil},
		{"the same port twice", "[listen.a]\naddress = [\"127.0.0.1:1\"]\n[listen.b]\naddress = [\"127.0.0.1:1\"]\n", []string{
			`f.toml:4: listen.b.address[0]: "127.0.0.1:1" and "127.0.0.1:1" of listen.a.address[0] share port 1, and only one can have it`,
		}},
		{"two tables without addresses", "[listen.a]\n[listen.b]\n", []string{
			`f.toml:2: listen.b.address[0]: "127.0.0.1:7659" and "127.0.0.1:7659" of listen.a.address[0] share port 7659, and only one can have it`,
		}},
		{"a range and all addresses", "[listen.a]\naddress = [\"0.0.0.0:10-20\", \"127.0.0.1:20-30\", \"[::]:10-20\"]\n", []string{
			`f.toml:2: listen.a.address[1]: "127.0.0.1:20-30" and "0.0.0.0:10-20" of listen.a.address[0] share port 20, and only one can have it`,
		}},
		{"port 0 is shared by nobody", "[listen.a]\naddress = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n", nil},
		{"too many sockets", "[listen.a]\naddress = [\"127.0.0.1:1-5000\"]\n", []string{
			`f.toml:2: listen.a.address[0]: the listeners have more than 4096 sockets in all: write smaller ranges`,
		}},
		{"no address, no protocol", "[listen.a]\naddress = []\nprotocols = []\n", []string{
			`f.toml:2: listen.a.address: there is no address: write one such as ["127.0.0.1:7659"]`,
			`f.toml:3: listen.a.protocols: an empty list would serve nobody: write ["*"] for every protocol`,
		}},
		{"protocols that do not exist", "[listen.a]\nprotocols = [\"htpp\", \"socks5\", \"socks5\", \"gopher\"]\n", []string{
			`f.toml:2: listen.a.protocols[0]: there is no protocol "htpp": did you mean "http"?`,
			`f.toml:2: listen.a.protocols[2]: "socks5" is named twice`,
			`f.toml:2: listen.a.protocols[3]: there is no protocol "gopher"`,
		}},
		{"all and some", "[listen.a]\nprotocols = [\"*\", \"http\"]\n", []string{
			`f.toml:2: listen.a.protocols: "*" is every protocol: leave the other names out`,
		}},
		{"names of tables", "[listen.\"my port\"]\n[backend.\"\\u001b[0m\"]\nservers = [\"a:1\"]\n[auth.groups]\n\"\" = []\n", []string{
			`f.toml:1: listen."my port": this is not a name: write 1 to 64 letters, digits, - and _`,
			`f.toml:2: backend."\x1b[0m": this is not a name: write 1 to 64 letters, digits, - and _`,
			`f.toml: auth.groups."": this is not a name: write 1 to 64 letters, digits, - and _`,
		}},
		{"public addresses", "[listen.a]\npublic_address = \"proxy.example.net\"\n", []string{
			`f.toml:2: listen.a.public_address: "proxy.example.net" has no port: write it as "proxy.example.net:7659"`,
		}},
		{"public address with markup", "[listen.a]\npublic_address = \"<b>:80\"\n", []string{
			`f.toml:2: listen.a.public_address: "<b>" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
		}},
		{"silent_to", "[sniff]\nsilent_to = \"sssh\"\nsilent_after = \"5s\"\n[backend.ssh]\nservers = [\"127.0.0.1:22\"]\n", []string{
			`f.toml:2: sniff.silent_to: there is no backend "sssh": did you mean "ssh"?`,
			`f.toml:3: sniff.silent_after: 5s must be below timeout, 5s, or no silent client is ever handed over`,
		}},
		{"the default that is at fault", "[sniff]\ntimeout = \"1s\"\nsilent_to = \"ssh\"\n[backend.ssh]\nservers = [\"127.0.0.1:22\"]\n", []string{
			`f.toml:1: sniff.silent_after: 2s must be below timeout, 1s, or no silent client is ever handed over`,
		}},
		{"silent_after means nothing without silent_to", "[sniff]\ntimeout = \"1s\"\n", nil},
		{"times of zero", "[sniff]\ntimeout = \"0s\"\n[timeouts]\nhandshake = \"0s\"\nconnect = \"0s\"\nkeep_alive = \"0s\"\nidle = \"0s\"\nlifetime = \"0s\"\ndrain = \"0s\"\n", []string{
			`f.toml:2: sniff.timeout: this must be longer than 0: without it a client could hold its connection for ever`,
			`f.toml:4: timeouts.handshake: this must be longer than 0: without it a client could hold its connection for ever`,
			`f.toml:5: timeouts.connect: this must be longer than 0: without it a client could hold its connection for ever`,
			`f.toml:6: timeouts.keep_alive: this must be longer than 0: without it a client could hold its connection for ever`,
		}},
		{"limits", "[limits]\nconnections = 0\nunfinished = -1\nunfinished_per_client = 100000000\n", []string{
			`f.toml:2: limits.connections: 0 is not a limit: write a number from 1 to 16777216`,
			`f.toml:3: limits.unfinished: -1 is not a limit: write a number from 1 to 16777216`,
			`f.toml:4: limits.unfinished_per_client: 100000000 is not a limit: write a number from 1 to 16777216`,
		}},
		{"lockout", "[auth]\nlockout = { failures = -1 }\n", []string{
			`f.toml:2: auth.lockout.failures: -1 is negative: write 0 to turn the lockout off`,
		}},
		{"lockout without times", "[auth.lockout]\nban = \"0s\"\n", []string{
			`f.toml:2: auth.lockout.ban: this must be longer than 0: write failures = 0 to turn the lockout off`,
		}},
		{"no lockout, no times", "[auth.lockout]\nfailures = 0\nban = \"0s\"\nwindow = \"0s\"\n", nil},
		{"groups", "[auth.groups]\nstaff = [\"alice\", \"\", \"b:c\"]\n", []string{
			`f.toml:2: auth.groups.staff[1]: "" is not a user: a name is not empty and has no colon (RFC 7617 section 2)`,
			`f.toml:2: auth.groups.staff[2]: "b:c" is not a user: a name is not empty and has no colon (RFC 7617 section 2)`,
		}},
		{"enumerations", "[http]\nanonymity = \"hide_client\"\n[log]\nlevel = \"loud\"\naccess = \"apache\"\naccess_to = \"\"\n", []string{
			`f.toml:2: http.anonymity: unknown value "hide_client": did you mean "hide-client"?`,
			`f.toml:4: log.level: unknown value "loud": write one of "debug", "info", "warn", "error"`,
			`f.toml:5: log.access: unknown value "apache": write one of "auto", "text", "json", "common", "squid", "off"`,
			`f.toml:6: log.access_to: this is empty: write "stderr", "stdout" or a path; access = "off" writes no access log`,
		}},
		{"backends", "[backend.a]\n[backend.b]\nservers = [\"host\", \"host:0\", \":22\", \"::1:22\", \"[::1]:22\", \"a b:22\", \"[10.0.0.1]:22\", \"-a.example:1\", \"a..b:1\"]\n", []string{
			`f.toml:1: backend.a.servers: there is no server: write one such as ["127.0.0.1:22"]`,
			`f.toml:3: backend.b.servers[0]: "host" has no port: write it as "proxy.example.net:7659"`,
			`f.toml:3: backend.b.servers[1]: "host:0" does not end in a port from 1 to 65535`,
			`f.toml:3: backend.b.servers[2]: there is no host before the port`,
			`f.toml:3: backend.b.servers[3]: "::1" is not a host: an IPv6 address stands in brackets, as in "[2001:db8::1]:22"`,
			`f.toml:3: backend.b.servers[5]: "a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:3: backend.b.servers[6]: "[10.0.0.1]" is not an IPv6 address in brackets`,
			`f.toml:3: backend.b.servers[7]: "-a.example" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:3: backend.b.servers[8]: "a..b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
		}},
		{"a backend that is the gateway", "[listen.main]\naddress = [\"0.0.0.0:7659\", \"192.0.2.1:80\"]\n[backend.a]\nservers = [\"localhost:7659\", \"127.0.0.1:7659\", \"192.0.2.1:80\", \"192.0.2.2:7659\", \"[::1]:7659\"]\n", []string{
			`f.toml:4: backend.a.servers[0]: "localhost:7659" is the gateway itself (listener "main"): connections would go round in circles`,
			`f.toml:4: backend.a.servers[1]: "127.0.0.1:7659" is the gateway itself (listener "main"): connections would go round in circles`,
			`f.toml:4: backend.a.servers[2]: "192.0.2.1:80" is the gateway itself (listener "main"): connections would go round in circles`,
		}},
		{"rules", `
[auth.groups]
staff = ["alice"]
[[rule]]
name = "x"
[[rule]]
name = "x"
action = "alow"
client = []
group = ["staf"]
listener = ["mian"]
protocol = ["sock5"]
backend = ["wbe", "*"]
[[rule]]
action = "deny"
target = ["", "list:ads", "https://example.com/", "10.1.2.3/8", "*.example.com"]
method = ["G T"]
user = [""]
[[rule]]
action = "allow"
user = ["*"]
protocol = ["*"]
`, []string{
			`f.toml: rule[0].action (the 1st [[rule]], "x"): there is no action: write "allow" or "deny"`,
			`f.toml: rule[1].action (the 2nd [[rule]], "x"): unknown action "alow": did you mean "allow"?`,
			`f.toml: rule[1].client (the 2nd [[rule]], "x"): an empty list would match everything: name something, or remove the key if everything is meant`,
			`f.toml: rule[1].group[0] (the 2nd [[rule]], "x"): there is no group "staf": did you mean "staff"?`,
			`f.toml: rule[1].protocol[0] (the 2nd [[rule]], "x"): there is no protocol "sock5": did you mean "socks5"?`,
			`f.toml: rule[1].listener[0] (the 2nd [[rule]], "x"): there is no listener "mian": did you mean "main"?`,
			`f.toml: rule[1].backend[0] (the 2nd [[rule]], "x"): there is no backend "wbe"`,
			`f.toml: rule[2].user[0] (the 3rd [[rule]]): the name is empty: remove it`,
			`f.toml: rule[2].target[0] (the 3rd [[rule]]): the target is empty: remove it`,
			`f.toml: rule[2].target[1] (the 3rd [[rule]]): "list:ads": lists are not supported by this version of polyport: write the names themselves`,
			`f.toml: rule[2].target[2] (the 3rd [[rule]]): "https://example.com/" is a URL: a rule names hosts, as in "*.example.com", and ports by its key "port"`,
			`f.toml: rule[2].target[3] (the 3rd [[rule]]): "10.1.2.3/8" has host bits set: write "10.0.0.0/8" for the network, or "10.1.2.3" for the one address`,
			`f.toml: rule[2].method[0] (the 3rd [[rule]]): "G T" is not a method (a token of RFC 9110 section 5.6.2)`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := parseWell(t, tt.file)
			if diff := cmp.Diff(tt.want, faultTexts(f.Validate(rowsOfTest))); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateWithoutRowsJudgesNoProtocol(t *testing.T) {
	f := parseWell(t, "[listen.a]\nprotocols = [\"gopher\"]\n")
	if err := f.Validate(nil); err != nil {
		t.Errorf("Validate(nil) = %v; want no fault", err)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"the default", "", nil},
		{"open", "allow_open_proxy = true\n", []string{
			`f.toml:1: allow_open_proxy: the check that keeps this gateway from becoming an open proxy is off`,
		}},
		{"passwords in the clear", "[listen.main]\naddress = [\"0.0.0.0:1\"]\n[listen.lo]\n[auth]\nhtpasswd = \"u\"\n", []string{
			`f.toml:1: listen.main: users' passwords cross the network in the clear to this listener (HTTP Basic, SOCKS5) from clients that do not use TLS: let only trusted networks reach it, or write require_tls = true`,
		}},
		{"no lockout", "[auth]\nhtpasswd = \"u\"\n[auth.lockout]\nfailures = 0\n", []string{
			`f.toml:4: auth.lockout.failures: 0 turns the lockout off: passwords may be guessed without end`,
		}},
		{"a balancer that is a client", "[listen.main]\nproxy_protocol_from = [\"192.0.2.1\", \"10.9.9.10\"]\n[[rule]]\naction = \"allow\"\nclient = [\"172.16.0.0/12\", \"10.0.0.0/8\"]\n", []string{
			`f.toml:2: listen.main.proxy_protocol_from[1]: 10.9.9.10 overlaps 10.0.0.0/8, the client of rule[0]: whoever connects from there may declare any client address`,
		}},
		{"everybody a balancer", "[listen.main]\nproxy_protocol_from = [\"::/0\"]\n", []string{
			`f.toml:2: listen.main.proxy_protocol_from[0]: ::/0 lets everybody declare any client address: name the balancers alone`,
		}},
		{"users that are not there", "[listen.main]\nrequire_user = true\n[auth.groups]\ng = [\"a\"]\n[[rule]]\naction = \"allow\"\ngroup = [\"g\"]\n", []string{
			`f.toml:2: listen.main.require_user: there are no users ([auth] htpasswd or client_ca): only rules with anonymous = true will admit anybody`,
			`f.toml:3: auth.groups: there are no users (htpasswd, client_ca), so that nobody is in these groups`,
			`f.toml: rule[0] (the 1st [[rule]]): it names users, but there are none ([auth] htpasswd or client_ca), so that it never matches`,
		}},
		{"endless tunnels, queries in the log", "[timeouts]\nidle = \"0s\"\n[log]\nredact_query = false\n", []string{
			`f.toml:2: timeouts.idle: 0 keeps tunnels that nobody uses any more for ever`,
			`f.toml:4: log.redact_query: the access log will hold query strings, in which people's passwords and tokens stand`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := parseWell(t, tt.file)
			if err := f.Validate(nil); err != nil {
				t.Fatalf("a warning is for what is legal: %v", err)
			}
			if diff := cmp.Diff(tt.want, f.Warnings()); diff != "" {
				t.Errorf("Warnings (-want +got):\n%s", diff)
			}
		})
	}
}
