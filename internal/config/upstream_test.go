package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const someUpstream = "[upstream.eu]\nservers = [\"socks5://198.51.100.7\"]\n"

func TestUpstream(t *testing.T) {
	f := parseWell(t, `
default_upstream = "eu"
[upstream.eu]
servers = ["socks5://u:p@198.51.100.7:1080", { url = "https://proxy.example.net", weight = 2, priority = 1, country = "DE", tags = ["home"], drain = true }]
user = "u"
password = "env:NAME"
via = "near"
resolve = "upstream"
balance = "random-two"
slow_start = "10s"
tls = { ca = "ca.pem", certificate = "/c.pem", key = "c.key", server_name = "x.example" }
health = { every = "10s", timeout = "2s", probe = "http", target = "a.example:80", path = "/h", host = "b.example", rise = 1, fall = 2 }
eject = { failures = 3, pause = "2s", max_pause = "2m" }
[upstream.near]
servers = ["http://192.0.2.80"]
[exit.de]
country = ["DE"]
tag = ["home"]
local_address = ["192.0.2.0/28", "2001:db8::1"]
interface = "wg0"
mark = 7
[geoip]
database = "c.mmdb"
[[rule]]
action = "allow"
exit = ["de"]
country = ["DE", "fr"]
client_country = ["At"]
`)
	if err := f.Validate(rowsOfTest); err != nil {
		t.Fatal(err)
	}
	near := Upstream{
		Servers: []UpstreamServer{{URL: ServerURL{Scheme: "http", Host: "192.0.2.80", Port: 80}, Weight: 1}},
		Resolve: ResolveLocal, Balance: BalanceFirst,
		Health: Health{Timeout: seconds(3), Probe: ProbeConnect, Path: "/", Rise: 2, Fall: 3},
		Eject:  Eject{Failures: 5, Pause: seconds(1), MaxPause: Duration(time.Minute)},
	}
	eu := f.Upstream["eu"]
	checks := []struct {
		what      string
		got, want any
	}{
		{"the defaults", f.Upstream["near"], near},
		{"the first server", eu.Servers[0], UpstreamServer{URL: ServerURL{"socks5", "198.51.100.7", 1080, "u", Secret{"p"}}, Weight: 1}},
		{"the second", eu.Servers[1], UpstreamServer{ServerURL{Scheme: "https", Host: "proxy.example.net", Port: 443}, 2, 1, "de", []string{"home"}, true}},
		{"files", eu.TLS, UpstreamTLS{"ca.pem", "/c.pem", "c.key", "x.example"}},
		{"health", eu.Health, Health{seconds(10), seconds(2), ProbeHTTP, "a.example:80", "/h", "b.example", 1, 2}},
		{"eject", eu.Eject, Eject{3, seconds(2), seconds(120)}},
		{"the exit", f.Exit["de"].Country, []string{"de"}},
		{"the exit's addresses", join(f.Exit["de"].LocalAddress), "192.0.2.0/28 2001:db8::1"},
		{"the exit's upstream", f.ExitUpstream("de"), "eu"},
		{"the rule's countries", f.Rule[0].Country, []string{"de", "fr"}},
		{"the client's", f.Rule[0].ClientCountry, []string{"at"}},
		{"names", fmt.Sprint(f.UpstreamNames(), f.ExitNames(), f.SiteNames()), "[eu near] [de] []"},
	}
	for _, c := range checks {
		if diff := cmp.Diff(c.want, c.got, compareFiles); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
	if restart, relisten := Diff(parseWell(t, ""), f); restart != nil || relisten != nil {
		t.Errorf("restart %q, relisten %q; every key is live", restart, relisten)
	}
}

func TestUpstreamPathsAreBesideTheFile(t *testing.T) {
	f, err := Parse("/etc/polyport/p.toml", []byte(someUpstream+"user = \"u\"\npassword = \"file:p\"\ntls = { ca = \"ca.pem\", key = \"k\", certificate = \"/c\" }\n[geoip]\ndatabase = \"c.mmdb\"\n[dns]\nca = \"dns.pem\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{f.Upstream["eu"].TLS.CA, f.Upstream["eu"].TLS.Key, f.Upstream["eu"].TLS.Certificate, f.GeoIP.Database, f.DNS.CA, f.Upstream["eu"].Password.ref}
	if diff := cmp.Diff([]string{"/etc/polyport/ca.pem", "/etc/polyport/k", "/c", "/etc/polyport/c.mmdb", "/etc/polyport/dns.pem", "file:/etc/polyport/p"}, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

// Each row is a file and every fault that Validate must find in it.
func TestValidateUpstreams(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"names that are not there", "default_upstream = \"eo\"\n" + someUpstream + "via = \"ue\"\n[exit.eu]\nupstream = \"eus\"\n[[rule]]\naction = \"allow\"\nupstream = \"*\"\n[[rule]]\naction = \"allow\"\nexit = [\"eu\", \"us\", \"\", \"eu\"]\n", []string{
			`f.toml:1: default_upstream: there is no upstream "eo": did you mean "eu"?`,
			`f.toml:4: upstream.eu.via: there is no upstream "ue": did you mean "eu"?`,
			`f.toml:6: exit.eu.upstream: there is no upstream "eus": did you mean "eu"?`,
			`f.toml: rule[0].upstream (the 1st [[rule]]): there is no upstream "*"`,
			`f.toml: rule[1].exit[1] (the 2nd [[rule]]): there is no exit "us"`,
			`f.toml: rule[1].exit[2] (the 2nd [[rule]]): there is no exit ""`,
			`f.toml: rule[1].exit[3] (the 2nd [[rule]]): "eu" is named twice`,
		}},
		{"direct", "default_upstream = \"direct\"\n" + someUpstream + "via = \"direct\"\n[exit.eu]\nupstream = \"direct\"\n[upstream.Direct]\nservers = [\"http://a\"]\n[[rule]]\naction = \"allow\"\nupstream = \"direct\"\n", []string{
			`f.toml:1: default_upstream: "direct" is what holds without this key: remove it`,
			`f.toml:4: upstream.eu.via: "direct" is what holds without this key: remove it`,
			`f.toml:6: exit.eu.upstream: "direct" is what holds without this key: remove it`,
			`f.toml:7: upstream.Direct: "direct" is what rules call no upstream at all: give it another name`,
		}},
		{"no servers", "[upstream.a]\n[upstream.b]\nservers = []\n[upstream.c]\nservers = [{ weight = 2 }]\n", []string{
			`f.toml:1: upstream.a.servers: there is no server: write one such as ["socks5://198.51.100.7:1080"]`,
			`f.toml:3: upstream.b.servers: there is no server: write one such as ["socks5://198.51.100.7:1080"]`,
			`f.toml:5: upstream.c.servers[0].url: there is no URL: write one such as url = "socks5://198.51.100.7:1080"`,
		}},
		{"too many servers", "[upstream.a]\nservers = [" + manyServers(257) + "]\n", []string{
			`f.toml:2: upstream.a.servers: there are 257 servers, and 256 is the most`,
		}},
		{"a server twice", "[upstream.a]\nservers = [\"http://a:80\", \"http://u-de:p@a\", \"http://u-fr:p@a\", { url = \"http://A/\" }, \"http://u-de:q@a\"]\n", []string{
			`f.toml:2: upstream.a.servers[3].url: "http://a:80" stands here twice, and not for two users: remove one, and write weight = 2 if it is to get twice as much`,
			`f.toml:2: upstream.a.servers[4]: "http://a:80" stands here twice, and not for two users: remove one, and write weight = 2 if it is to get twice as much`,
		}},
		{"numbers", "[upstream.a]\nservers = [{ url = \"http://a\", weight = 0, priority = 16 }, { url = \"http://b\", weight = 257, priority = -1 }]\n", []string{
			`f.toml:2: upstream.a.servers[0].weight: 0 is not a weight: write a number from 1 to 256, or drain = true for a server that is to get nothing`,
			`f.toml:2: upstream.a.servers[0].priority: 16 is not a priority: write a number from 0, which comes first, to 15`,
			`f.toml:2: upstream.a.servers[1].weight: 257 is not a weight: write a number from 1 to 256, or drain = true for a server that is to get nothing`,
			`f.toml:2: upstream.a.servers[1].priority: -1 is not a priority: write a number from 0, which comes first, to 15`,
		}},
		{"countries and tags", "[upstream.a]\nservers = [{ url = \"http://a\", country = \"DEU\", tags = [\"\", \"a b\", \"a-b_1\"] }, { url = \"http://b\", country = \"d1\" }]\n", []string{
			`f.toml:2: upstream.a.servers[0].country: "deu" is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`,
			`f.toml:2: upstream.a.servers[0].tags[0]: "" is not a tag: write 1 to 64 letters, digits, - and _`,
			`f.toml:2: upstream.a.servers[0].tags[1]: "a b" is not a tag: write 1 to 64 letters, digits, - and _`,
			`f.toml:2: upstream.a.servers[1].country: "d1" is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`,
		}},
		{"the gateway itself", "[upstream.a]\nservers = [\"http://localhost:7659\", { url = \"http://127.0.0.1:7659\" }]\n[upstream.b]\nvia = \"a\"\nservers = [\"http://127.0.0.1:7659\"]\n", []string{
			`f.toml:2: upstream.a.servers[0]: "http://localhost:7659" is the gateway itself (listener "main"): connections would go round in circles`,
			`f.toml:2: upstream.a.servers[1].url: "http://127.0.0.1:7659" is the gateway itself (listener "main"): connections would go round in circles`,
		}},
		{"socks4 and names", "[upstream.a]\nresolve = \"upstream\"\nservers = [\"socks4://a\", \"socks4a://a\"]\n", []string{
			`f.toml:3: upstream.a.servers[0]: socks4 cannot carry names, which resolve = "upstream" sends: write socks4a if the server speaks that, or resolve = "local"`,
		}},
		{"values", someUpstream + "resolve = \"remote\"\nbalance = \"round_robin\"\n[upstream.eu.health]\nprobe = \"ping\"\n", []string{
			`f.toml:3: upstream.eu.resolve: unknown value "remote": write one of "local", "upstream"`,
			`f.toml:4: upstream.eu.balance: unknown value "round_robin": did you mean "round-robin"?`,
			`f.toml:6: upstream.eu.health.probe: unknown value "ping": write one of "connect", "tunnel", "http"`,
		}},
		{"a password without a user", someUpstream + "password = \"x\"\n", []string{
			`f.toml:3: upstream.eu.password: it belongs to no user: write user = "...", or a user without a password into a server's URL, as in "socks5://user@198.51.100.7:1080"`,
		}},
		{"a password for a user in a URL", "[upstream.eu]\nservers = [\"socks5://u@a\"]\npassword = \"x\"\n", nil},
		{"a password where every user has one", "[upstream.eu]\nservers = [\"socks5://u:p@a\"]\npassword = \"x\"\n", []string{
			`f.toml:3: upstream.eu.password: it belongs to no user: write user = "...", or a user without a password into a server's URL, as in "socks5://user@198.51.100.7:1080"`,
		}},
		{"a user that HTTP cannot carry", "[upstream.eu]\nservers = [\"socks5://a\", \"http://a\"]\nuser = \"a:b\"\n", []string{
			`f.toml:2: upstream.eu.servers[1]: the user's name has a colon, which HTTP cannot carry (RFC 7617 section 2)`,
		}},
		{"TLS", someUpstream + "tls = { certificate = \"a\", server_name = \"a b\" }\n[upstream.b]\nservers = [\"h2://a\"]\ntls = { key = \"a\", server_name = \"2001:db8::1\" }\n", []string{
			`f.toml:3: upstream.eu.tls.key: there is no key for the certificate: write the file of one, such as "client.key"`,
			`f.toml:3: upstream.eu.tls.server_name: "a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:6: upstream.b.tls.certificate: there is no certificate for the key: write the file of one, such as "client.pem"`,
		}},
		{"health", someUpstream + "[upstream.eu.health]\nevery = \"1s\"\ntimeout = \"0s\"\nprobe = \"tunnel\"\npath = \"h\"\nhost = \"a b\"\nrise = 0\nfall = -1\n[upstream.b]\nservers = [\"http://b\"]\nhealth = { target = \"b\", probe = \"http\", host = \"a:0\", path = \"/a b\" }\n", []string{
			`f.toml:3: upstream.eu.health.target: probe = "tunnel" needs somewhere to go through the server: write one such as "www.example.com:80"`,
			`f.toml:5: upstream.eu.health.timeout: this must be longer than 0: a check needs an end (every = "0s" makes no checks)`,
			`f.toml:7: upstream.eu.health.path: "h" is not the path of a request: write one such as "/health", other characters as %XX`,
			`f.toml:8: upstream.eu.health.host: "a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:9: upstream.eu.health.rise: 0 is not a number of checks: write one from 1 to 16777216`,
			`f.toml:10: upstream.eu.health.fall: -1 is not a number of checks: write one from 1 to 16777216`,
			`f.toml:13: upstream.b.health.path: "/a b" is not the path of a request: write one such as "/health", other characters as %XX`,
			`f.toml:13: upstream.b.health.host: "a:0" does not end in a port from 1 to 65535`,
			`f.toml:13: upstream.b.health.target: "b" has no port: write it as "proxy.example.net:7659"`,
		}},
		{"hosts of checks", someUpstream + "health = { host = \"a.example:8080\", target = \"[2001:db8::1]:80\" }\n[upstream.b]\nservers = [\"http://b\"]\nhealth = { host = \"[2001:db8::1]\" }\n", nil},
		{"eject", someUpstream + "eject = { failures = -1 }\n[upstream.b]\nservers = [\"http://b\"]\neject = { pause = \"0s\" }\n[upstream.c]\nservers = [\"http://b\"]\neject = { pause = \"2m\" }\n[upstream.d]\nservers = [\"http://b\"]\neject = { failures = 0, pause = \"0s\" }\n", []string{
			`f.toml:3: upstream.eu.eject.failures: -1 is not a number of failures: write one up to 16777216; 0 never ejects a server`,
			`f.toml:6: upstream.b.eject.pause: this must be longer than 0: write failures = 0 to leave no server alone`,
			`f.toml:9: upstream.c.eject.max_pause: 1m0s must not be below pause, 2m0s`,
		}},
		{"circles", chain("a -> b -> c -> b", "x -> x", "z -> y -> z"), []string{
			`f.toml:6: upstream.b.via: b -> c -> b goes round in a circle: remove one via of these`,
			`f.toml:12: upstream.x.via: x -> x goes round in a circle: remove one via of these`,
			`f.toml:18: upstream.y.via: y -> z -> y goes round in a circle: remove one via of these`,
		}},
		{"eight in a row", chain("a1 -> a2 -> a3 -> a4 -> a5 -> a6 -> a7 -> a8"), nil},
		{"eleven in a row", chain("k -> j -> i -> h -> g -> f -> e -> d -> c -> b -> a"), []string{
			`f.toml:9: upstream.i.via: the chain i -> h -> g -> f -> e -> d -> c -> b -> a has more than 8 upstreams: make it shorter`,
		}},
		{"two ways into a long chain", chain("a1 -> a2 -> a3 -> a4 -> a5 -> a6 -> a7 -> a8", "b -> a1", "c -> a1"), []string{
			`f.toml:26: upstream.b.via: the chain b -> a1 -> a2 -> a3 -> a4 -> a5 -> a6 -> a7 -> a8 has more than 8 upstreams: make it shorter`,
			`f.toml:29: upstream.c.via: the chain c -> a1 -> a2 -> a3 -> a4 -> a5 -> a6 -> a7 -> a8 has more than 8 upstreams: make it shorter`,
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

// What Parse has found is not found again by Validate, however the server is written.
func TestServerFaultsAreNamedOnce(t *testing.T) {
	f, err := Parse("f.toml", []byte("[upstream.a]\nservers = [\"h:1\", { url = \"h:1\" }]\n[[upstream.b.servers]]\nurl = \"http://h\"\nweight = 0\n[[upstream.b.servers]]\nurl = \"h:1\"\n"))
	if f == nil {
		t.Fatal(err)
	}
	const noScheme = `this has no scheme: write a URL such as "socks5://198.51.100.7:1080"`
	want := []string{
		`f.toml:2: upstream.a.servers[0]: ` + noScheme,
		`f.toml:2: upstream.a.servers[1].url: ` + noScheme,
		`f.toml: upstream.b.servers[1].url: ` + noScheme,
		`f.toml: upstream.b.servers[0].weight: 0 is not a weight: write a number from 1 to 256, or drain = true for a server that is to get nothing`,
	}
	if diff := cmp.Diff(want, faultTexts(Join(err, f.Validate(rowsOfTest)))); diff != "" {
		t.Errorf("faults of both passes (-want +got):\n%s", diff)
	}
}

// chain writes the upstreams of chains such as "a -> b -> a", each once.
func chain(chains ...string) string {
	var b strings.Builder
	written := map[string]bool{}
	for _, c := range chains {
		names := strings.Split(c, " -> ")
		for i, n := range names {
			if written[n] {
				continue
			}
			written[n] = true
			fmt.Fprintf(&b, "[upstream.%s]\nservers = [\"http://%s\"]\n", n, n)
			if i+1 < len(names) {
				fmt.Fprintf(&b, "via = %q\n", names[i+1])
			}
		}
	}
	return b.String()
}

// manyServers writes n servers.
func manyServers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\"http://s%d\",", i)
	}
	return b.String()
}
