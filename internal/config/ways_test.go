package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Each row is a file and every fault that Validate must find in it.
func TestValidateWays(t *testing.T) {
	const allow, geoip = "[[rule]]\naction = \"allow\"\n", "[geoip]\ndatabase = \"c.mmdb\"\n"
	const countries = "[upstream.eu]\nservers = [{ url = \"http://a\", country = \"DE\", tags = [\"x\"] }, { url = \"http://b\", country = \"fr\", tags = [\"y\"] }]\n"
	tests := []struct {
		name, file string
		want       []string
	}{
		{"an exit that is nothing but itself", "[exit.plain]\n" + allow + "exit = [\"plain\"]\n", nil},
		{"ways of a rule", countries + "[exit.a]\n" + allow + "upstream = \"eu\"\nexit = [\"a\"]\n[[rule]]\naction = \"deny\"\nupstream = \"eu\"\n[[rule]]\naction = \"deny\"\nexit = [\"a\"]\n" + allow + "exit = []\n", []string{
			`f.toml: rule[3].exit (the 4th [[rule]]): an empty list names no exit: name one, or remove the key`,
		}},
		{"countries of a rule", geoip + allow + "country = [\"DE\", \"deu\", \"\"]\nclient_country = []\n", []string{
			`f.toml: rule[0].country[1] (the 1st [[rule]]): "deu" is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`,
			`f.toml: rule[0].country[2] (the 1st [[rule]]): "" is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`,
			`f.toml: rule[0].client_country (the 1st [[rule]]): an empty list would match everything: name something, or remove the key if everything is meant`,
		}},
		{"countries without a database", allow + "country = [\"de\"]\nclient_country = [\"x\"]\n", []string{
			`f.toml: rule[0].country (the 1st [[rule]]): there is no database that knows countries: write database = "GeoLite2-Country.mmdb", or another, into [geoip]`,
			`f.toml: rule[0].client_country (the 1st [[rule]]): there is no database that knows countries: write database = "GeoLite2-Country.mmdb", or another, into [geoip]`,
			`f.toml: rule[0].client_country[0] (the 1st [[rule]]): "x" is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`,
		}},
		{"servers of an exit", countries + "[exit.a]\nupstream = \"eu\"\ncountry = [\"de\", \"at\"]\ntag = [\"z\"]\n[exit.b]\nupstream = \"eu\"\ncountry = [\"de\"]\ntag = [\"y\"]\n[exit.c]\nupstream = \"eu\"\ncountry = [\"de\"]\ntag = [\"x\", \"y\"]\n", []string{
			`f.toml:5: exit.a.country[1]: no server of upstream "eu" has country = "at": write it into one, as in { url = "...", country = "de" }`,
			`f.toml:6: exit.a.tag[0]: no server of upstream "eu" has the tag "z": write it into one, as in { url = "...", tags = ["home"] }`,
			`f.toml:7: exit.b: no server of upstream "eu" has both one of these countries and one of these tags: nobody could take this exit`,
		}},
		{"servers of no upstream", "[exit.a]\ncountry = [\"de\"]\n[exit.b]\ntag = [\"x\"]\n", []string{
			`f.toml:2: exit.a.country: it chooses among the servers of an upstream, and there is none: write upstream = "NAME" as well`,
			`f.toml:4: exit.b.tag: it chooses among the servers of an upstream, and there is none: write upstream = "NAME" as well`,
		}},
		{"servers of the default upstream", "default_upstream = \"eu\"\n" + countries + "[exit.a]\ncountry = [\"de\"]\n[exit.b]\ntag = [\"z\"]\n", []string{
			`f.toml:7: exit.b.tag[0]: no server of upstream "eu" has the tag "z": write it into one, as in { url = "...", tags = ["home"] }`,
		}},
		{"values of an exit", "[exit.\"a b\"]\ncountry = [\"d\"]\ntag = []\nlocal_address = []\nchoose = \"randm\"\ninterface = \"wg0/1\"\nmark = -1\n[exit.b]\ninterface = \"0123456789abcdef\"\nmark = 4294967296\n", []string{
			`f.toml:1: exit."a b": this is not a name: write 1 to 64 letters, digits, - and _`,
			`f.toml:2: exit."a b".country[0]: "d" is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`,
			`f.toml:2: exit."a b".country: it chooses among the servers of an upstream, and there is none: write upstream = "NAME" as well`,
			`f.toml:3: exit."a b".tag: an empty list leaves nothing to choose from: name something, or remove the key`,
			`f.toml:4: exit."a b".local_address: an empty list leaves nothing to choose from: name something, or remove the key`,
			`f.toml:5: exit."a b".choose: unknown value "randm": did you mean "random"?`,
			`f.toml:6: exit."a b".interface: "wg0/1" is not the name of a network device: write 1 to 15 characters, such as "wg0"`,
			`f.toml:7: exit."a b".mark: -1 is not a mark: write a number from 1 to 4294967295, or 0 for none`,
			`f.toml:9: exit.b.interface: "0123456789abcdef" is not the name of a network device: write 1 to 15 characters, such as "wg0"`,
			`f.toml:10: exit.b.mark: 4294967296 is not a mark: write a number from 1 to 4294967295, or 0 for none`,
		}},
		{"addresses of an exit", "[exit.a]\nlocal_address = [\"127.0.0.1\", \"0.0.0.0\", \"::/0\", \"224.0.0.0/4\", \"fe80::/64\"]\ninterface = \"0123456789abcde\"\nmark = 4294967295\n", []string{
			`f.toml:2: exit.a.local_address[1]: "0.0.0.0" is no address that a connection can leave from: write one of this machine's own, or remove the key for the system's choice`,
			`f.toml:2: exit.a.local_address[2]: "::/0" is no address that a connection can leave from: write one of this machine's own, or remove the key for the system's choice`,
			`f.toml:2: exit.a.local_address[3]: "224.0.0.0/4" is no address that a connection can leave from: write one of this machine's own, or remove the key for the system's choice`,
		}},
		{"addresses of a link", "[exit.a]\nlocal_address = [\"fe80::5\", \"169.254.0.5\", \"fe80::/64\"]\n[exit.b]\nlocal_address = [\"fe80::5\"]\ninterface = \"eth0\"\n", []string{
			`f.toml:2: exit.a.local_address[0]: "fe80::5" is on every link (RFC 4291 section 2.5.6), and nothing says which: write interface = "eth0", or whichever it is, as well, or another address`,
			`f.toml:2: exit.a.local_address[2]: "fe80::/64" is on every link (RFC 4291 section 2.5.6), and nothing says which: write interface = "eth0", or whichever it is, as well, or another address`,
		}},
		{"parameters without users", "[auth]\nuser_parameters = [\"exit\"]\n", []string{
			`f.toml:2: auth.user_parameters: there are no users whose names could have them: write htpasswd as well`,
		}},
		{"parameters", "[auth]\nhtpasswd = \"u\"\nuser_parameters = [\"exit\", \"ttl\", \"exits\", \"exit\", \"city\"]\n", []string{
			`f.toml:3: auth.user_parameters[2]: unknown value "exits": did you mean "exit"?`,
			`f.toml:3: auth.user_parameters[3]: "exit" is named twice`,
			`f.toml:3: auth.user_parameters[4]: unknown value "city": write one of "exit", "country", "session", "ttl"`,
			`f.toml:3: auth.user_parameters[1]: "ttl" is how long a session lasts, and clients may name none: write "session" as well`,
		}},
		{"sites", "[backend.web]\nservers = [\"a:1\"]\n[site.a]\nhosts = [\"www.example.com\", \"*.example.net\", \"WWW.example.com.\"]\nbackend = \"webb\"\n[site.b]\nhosts = [\"*.Example.net\", \"example.net\"]\nbackend = \"web\"\n[site.c]\n", []string{
			`f.toml:4: site.a.hosts[2]: "WWW.example.com." is the host of site.a.hosts[0] already: write it into one of them`,
			`f.toml:5: site.a.backend: there is no backend "webb": did you mean "web"?`,
			`f.toml:7: site.b.hosts[0]: "*.Example.net" is the host of site.a.hosts[1] already: write it into one of them`,
			`f.toml:9: site.c.hosts: there is no host: write one such as ["www.example.com"]`,
			`f.toml:9: site.c.backend: there is no backend: write the name of a [backend.NAME] table`,
		}},
		{"hosts of a site", "[backend.web]\nservers = [\"a:1\"]\n[site.a]\nbackend = \"web\"\nhosts = [\"\", \"*\", \"*.\", \"a.*.example\", \"*a.example\", \"192.0.2.1\", \"[::1]\", \"a.example:80\", \"https://a.example/\", \"a b\", \"*.*.example\"]\n", []string{
			`f.toml:5: site.a.hosts[0]: the host is empty: remove it`,
			`f.toml:5: site.a.hosts[1]: "*": "*" stands alone in front of a name, as in "*.example.com"`,
			`f.toml:5: site.a.hosts[2]: "*.": "*" stands alone in front of a name, as in "*.example.com"`,
			`f.toml:5: site.a.hosts[3]: "a.*.example": "*" stands alone in front of a name, as in "*.example.com"`,
			`f.toml:5: site.a.hosts[4]: "*a.example": "*" stands alone in front of a name, as in "*.example.com"`,
			`f.toml:5: site.a.hosts[5]: "192.0.2.1" is an address, and sites are told apart by their names`,
			`f.toml:5: site.a.hosts[6]: "[::1]" is an address, and sites are told apart by their names`,
			`f.toml:5: site.a.hosts[7]: "a.example:80" has a port: leave it out, a site is served on every port of the gateway`,
			`f.toml:5: site.a.hosts[8]: "https://a.example/" is a URL: write its host alone, such as "www.example.com"`,
			`f.toml:5: site.a.hosts[9]: "a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:5: site.a.hosts[10]: "*.*.example": "*" stands alone in front of a name, as in "*.example.com"`,
		}},
		{"servers of a backend", "[backend.web]\nservers = [\"a:1\", { address = \"A:1\", weight = 257 }, { weight = -1 }, { address = \"127.0.0.1:7659\", priority = 99 }, { address = \"a\", drain = true }]\n", []string{
			`f.toml:2: backend.web.servers[1].weight: 257 is not a weight: write a number from 1 to 256, or drain = true for a server that is to get nothing`,
			`f.toml:2: backend.web.servers[1].address: "A:1" stands here twice: remove one, and write weight = 2 if it is to get twice as much`,
			`f.toml:2: backend.web.servers[2].weight: -1 is not a weight: write a number from 1 to 256, or drain = true for a server that is to get nothing`,
			`f.toml:2: backend.web.servers[2].address: there is no address: write one such as "10.0.0.1:80"`,
			`f.toml:2: backend.web.servers[3].priority: 99 is not a priority: write a number from 0, which comes first, to 15`,
			`f.toml:2: backend.web.servers[3].address: "127.0.0.1:7659" is the gateway itself (listener "main"): connections would go round in circles`,
			`f.toml:2: backend.web.servers[4].address: "a" has no port: write it as "proxy.example.net:7659"`,
		}},
		{"a backend", "[backend.web]\nservers = [\"a:1\"]\nbalance = \"random\"\nproxy_protocol = \"2\"\n[backend.web.health]\nprobe = \"tunnel\"\ntarget = \"a:1\"\n[backend.web.eject]\npause = \"0s\"\n[backend.b]\nservers = [\"a:1\"]\nhealth = { probe = \"htpp\", fall = 0 }\n", []string{
			`f.toml:3: backend.web.balance: unknown value "random": write one of "first", "round-robin", "random-two", "least-connections", "sticky-client", "sticky-user", "sticky-session"`,
			`f.toml:4: backend.web.proxy_protocol: unknown value "2": did you mean "v2"?`,
			`f.toml:6: backend.web.health.probe: "tunnel" is for upstreams, and a backend is no proxy: write "connect" or "http"`,
			`f.toml:7: backend.web.health.target: this is for upstreams, and a backend's own servers are checked: remove it`,
			`f.toml:9: backend.web.eject.pause: this must be longer than 0: write failures = 0 to leave no server alone`,
			`f.toml:12: backend.b.health.probe: unknown value "htpp": did you mean "http"?`,
			`f.toml:12: backend.b.health.fall: 0 is not a number of checks: write one from 1 to 16777216`,
		}},
		{"a backend with everything", "[backend.web]\nservers = [\"a:1\"]\nbalance = \"sticky-session\"\nproxy_protocol = \"v1\"\nslow_start = \"1m\"\nhealth = { every = \"1s\", probe = \"http\", host = \"a\" }\neject = { failures = 0, pause = \"0s\" }\n", nil},
		{"name servers without addresses", "[dns]\nservers = [\"tls://dns.example\", \"https://DNS.example\", \"udp://other.example\", \"udp://192.0.2.53\", \"udp://192.0.2.53:53\"]\nbootstrap = { \"Dns.Example\" = [\"192.0.2.53\"], \"other.example\" = [] }\n", []string{
			`f.toml:2: dns.servers[2]: nobody can be asked for the address of "other.example", since it is what is asked: write bootstrap = { "other.example" = ["192.0.2.53"] } with its own`,
			`f.toml:2: dns.servers[4]: "udp://192.0.2.53:53" stands here twice: remove one`,
			`f.toml:3: dns.bootstrap."other.example": there is no address: write one such as ["192.0.2.1"]`,
		}},
		{"names that stand twice", "[dns]\nhosts = { \"A.example\" = [\"10.0.0.5\"], \"a.example.\" = [\"10.0.0.6\"] }\n", []string{
			`f.toml:2: dns.hosts."a.example.": this is the same name as "A.example": remove one`,
		}},
		{"addresses with addresses", "[dns]\nhosts = { \"192.0.2.1\" = [\"10.0.0.5\"], \"::1\" = [\"10.0.0.6\"] }\n", []string{
			`f.toml:2: dns.hosts."192.0.2.1": this is an address and not a name`,
			`f.toml:2: dns.hosts."::1": this is an address and not a name`,
		}},
		{"names with addresses", "[dns]\nhosts = { \"a b\" = [\"10.0.0.5\"], \"[::1]\" = [\"::1\"], \"*.example\" = [\"10.0.0.5\"], \"a.example\" = [] }\n", []string{
			`f.toml:2: dns.hosts."*.example": "*.example" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:2: dns.hosts."[::1]": this is an address and not a name`,
			`f.toml:2: dns.hosts."a b": "a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`,
			`f.toml:2: dns.hosts."a.example": there is no address: write one such as ["192.0.2.1"]`,
		}},
		{"values of names", "[dns]\nmode = \"paralel\"\nfamily = \"ipv4\"\ncache = -1\nmin_ttl = \"2h\"\n", []string{
			`f.toml:1: dns.max_ttl: 1h0m0s must not be below min_ttl, 2h0m0s`,
			`f.toml:2: dns.mode: unknown value "paralel": did you mean "parallel"?`,
			`f.toml:3: dns.family: unknown value "ipv4": write one of "any", "prefer-ipv4", "prefer-ipv6", "only-ipv4", "only-ipv6"`,
			`f.toml:4: dns.cache: -1 is not a number of names: write one up to 16777216, or 0 to remember nothing`,
		}},
		{"too many name servers", "[dns]\nservers = [" + manyNameServers(65) + "]\n", []string{
			`f.toml:2: dns.servers: there are 65 servers, and 64 is the most`,
		}},
		{"nothing is kept", "[dns]\ncache = 0\nmin_ttl = \"0s\"\nmax_ttl = \"0s\"\nnegative_ttl = \"0s\"\nserve_stale = \"0s\"\nprefetch = false\n", nil},
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

// manyNameServers writes n servers.
func manyNameServers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\"udp://192.0.2.%d\",", i)
	}
	return b.String()
}

// Each row is a file without faults and every warning of it.
func TestWarningsOfWays(t *testing.T) {
	const users, allow = "[auth]\nhtpasswd = \"u\"\n", "[[rule]]\naction = \"allow\"\n"
	const upstreams = "[upstream.http]\nservers = [\"http://a\", \"socks5s://a\"]\n[upstream.socks]\nservers = [\"http://a\", \"socks5://b\"]\n[upstream.far]\nservers = [\"socks5://b\"]\nvia = \"http\"\n"
	tests := []struct {
		name, file string
		want       []string
	}{
		{"socks4", "[upstream.a]\nservers = [\"socks5://a\", \"socks4://a\"]\n[upstream.b]\nservers = [\"socks4a://a\"]\n[upstream.c]\nservers = [\"socks4a://a\"]\nresolve = \"upstream\"\n", []string{
			`f.toml:2: upstream.a.servers[1]: socks4 carries IPv4 addresses alone, so that targets with IPv6 addresses only are not reached through it`,
			`f.toml:4: upstream.b.servers[0]: socks4a carries IPv4 addresses alone, so that targets with IPv6 addresses only are not reached through it: resolve = "upstream" sends names on`,
		}},
		{"TLS for nobody", "[upstream.a]\nservers = [\"socks5://a\"]\ntls = { server_name = \"a\" }\n[upstream.b]\nservers = [\"http://a\", \"h2://a\"]\ntls = { server_name = \"a\" }\n", []string{
			`f.toml:3: upstream.a.tls: no server is https, h2 or socks5s, and nothing else needs it`,
		}},
		{"datagrams by default", "default_upstream = \"http\"\n" + upstreams + allow + "method = [\"UDP\"]\n", []string{
			`f.toml:1: default_upstream: UDP is refused here: no server of upstream "http" is socks5, which alone carries datagrams`,
		}},
		{"datagrams of no rule", "default_upstream = \"http\"\n" + upstreams + allow + "upstream = \"socks\"\n[[rule]]\naction = \"deny\"\n", nil},
		{"datagrams of rules", upstreams + allow + "upstream = \"http\"\n" + allow + "upstream = \"far\"\nmethod = [\"udp\"]\n" + allow + "upstream = \"socks\"\n" + allow + "upstream = \"direct\"\n" + allow, []string{
			`f.toml: rule[1].upstream (the 2nd [[rule]]): UDP is refused here: upstream "far" is reached via "http", and no datagrams go through a chain`,
		}},
		{"datagrams of exits", upstreams + "[exit.a]\nupstream = \"http\"\n[exit.b]\nupstream = \"socks\"\n[exit.c]\nupstream = \"far\"\n[exit.d]\n" + allow + "exit = [\"b\", \"a\", \"c\", \"d\"]\nmethod = [\"UDP\"]\n", []string{
			`f.toml: rule[0].exit[1] (the 1st [[rule]]): UDP is refused here: no server of upstream "http" is socks5, which alone carries datagrams`,
			`f.toml: rule[0].exit[2] (the 1st [[rule]]): UDP is refused here: upstream "far" is reached via "http", and no datagrams go through a chain`,
		}},
		{"no datagrams", upstreams + allow + "upstream = \"http\"\nmethod = [\"CONNECT\"]\n" + allow + "upstream = \"http\"\nprotocol = [\"http\"]\n", nil},
		{"no listener for datagrams", "[listen.main]\nudp = false\n" + upstreams + allow + "upstream = \"http\"\n", nil},
		{"no choice of exits", users + "user_parameters = [\"session\", \"exit\"]\n[exit.a]\n" + allow + "exit = [\"a\"]\n", []string{
			`f.toml:3: auth.user_parameters[1]: no rule offers a choice: write exit = ["...", "..."] with two or more into one`,
		}},
		{"a choice of exits", users + "user_parameters = [\"exit\"]\n[exit.a]\n[exit.b]\n" + allow + "exit = [\"a\", \"b\"]\n", nil},
		{"no countries", users + "user_parameters = [\"country\"]\n[upstream.a]\nservers = [\"socks5://a\"]\n", []string{
			`f.toml:3: auth.user_parameters[0]: no upstream server has a country, so that whoever names one is refused: write country = "de", or another, into the servers`,
		}},
		{"countries", users + "user_parameters = [\"country\"]\n[upstream.a]\nservers = [{ url = \"socks5://a\", country = \"de\" }]\n", nil},
		{"users with a plus", users + "user_parameters = [\"session\"]\ngroups = { staff = [\"a\", \"b+c\"] }\n", []string{
			`f.toml:4: auth.groups.staff[1]: "b+c" is never seen as a user: what follows a "+" is a parameter now`,
		}},
		{"users with a plus that means nothing", users + "groups = { staff = [\"b+c\"] }\n", nil},
		{"names of no server", "[dns]\nservers = [\"udp://192.0.2.53\"]\nbootstrap = { \"dns.example\" = [\"192.0.2.53\"] }\nca = \"a.pem\"\n", []string{
			`f.toml:3: dns.bootstrap."dns.example": no server has this name, and nobody else is told its address: remove it, or write it into hosts`,
			`f.toml:4: dns.ca: no server is tls:// or https://, and nothing else needs it`,
		}},
		{"socks4 and names of IPv6 alone", "[dns]\nfamily = \"only-ipv6\"\n[upstream.a]\nservers = [\"socks4://a\"]\n", []string{
			`f.toml:4: upstream.a.servers[0]: socks4 carries IPv4 addresses alone, and [dns] family = "only-ipv6" finds none, so that no name is reached through it`,
		}},
		{"IPv6 addresses by socks4", "[upstream.a]\nservers = [\"socks4a://a\"]\nresolve = \"upstream\"\n[upstream.b]\nservers = [\"socks4a://a\", \"socks5://a\"]\nresolve = \"upstream\"\n" +
			allow + "target = [\"2001:db8::/32\", \"2001:db9::1\"]\nupstream = \"a\"\n" + allow + "target = [\"2001:db8::/32\", \"a.example\"]\nupstream = \"a\"\n" +
			allow + "target = [\"2001:db8::/32\"]\nupstream = \"b\"\n" + allow + "target = [\"192.0.2.0/24\"]\nupstream = \"a\"\n", []string{
			`f.toml: rule[0].upstream (the 1st [[rule]]): IPv6 is refused here: no server of upstream "a" carries IPv6 addresses`,
		}},
		{"BIND", "default_upstream = \"socks\"\n" + upstreams + "[bind]\nports = \"40000\"\n" + allow + "method = [\"BIND\"]\n" + allow + "method = [\"bind\"]\nupstream = \"http\"\n" + allow + "method = [\"BIND\"]\nupstream = \"direct\"\n", []string{
			`f.toml: rule[1].upstream (the 2nd [[rule]]): BIND is refused here: upstream "http" does not carry it: write upstream = "direct" into a rule of its own for it`,
			`f.toml:1: default_upstream: BIND is refused here: upstream "socks" does not carry it: write upstream = "direct" into a rule of its own for it`,
		}},
		{"nobody left", "[upstream.a]\nservers = [{ url = \"socks5://a\", drain = true }]\n[backend.b]\nservers = [{ address = \"a:1\", drain = true }, { address = \"b:1\", drain = true }]\n[backend.c]\nservers = [\"a:1\", { address = \"b:1\", drain = true }]\n", []string{
			`f.toml:2: upstream.a.servers: all of them have drain = true, so that no connection gets through`,
			`f.toml:4: backend.b.servers: all of them have drain = true, so that no connection gets through`,
		}},
		{"unused", upstreams + "[upstream.last]\nservers = [{ url = \"http://a\", tags = [\"x\"] }]\n[exit.a]\nupstream = \"far\"\n[exit.b]\nlocal_address = [\"192.0.2.1\"]\n[exit.c]\nupstream = \"last\"\n" + allow + "exit = [\"a\"]\n", []string{
			`f.toml:12: exit.b: no rule offers it, so that nothing leaves this way: write exit = ["b"] into one`,
			`f.toml:14: exit.c: no rule offers it, so that nothing leaves this way: write exit = ["c"] into one`,
			`f.toml:3: upstream.socks: no rule, exit, via or default_upstream names it, so that nothing leaves this way: write upstream = "socks" into a rule, or default_upstream = "socks" at the top`,
		}},
		{"unused by none", "default_upstream = \"last\"\n" + upstreams + "[upstream.last]\nservers = [{ url = \"http://a\", tags = [\"x\"] }]\n[exit.a]\ntag = [\"x\"]\n" + allow + "exit = [\"a\"]\n" + allow + "upstream = \"far\"\n" + allow + "upstream = \"socks\"\n", nil},
		{"names of a server", "[dns]\nservers = [\"tls://dns.example\"]\nbootstrap = { \"DNS.example\" = [\"192.0.2.53\"] }\nca = \"a.pem\"\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := parseWell(t, tt.file)
			if err := f.Validate(rowsOfTest); err != nil {
				t.Fatalf("a warning is for what is legal: %v", err)
			}
			got := f.Warnings()
			if !strings.HasPrefix(tt.name, "unused") { // the other files are short of what would use their ways
				got = slices.DeleteFunc(got, func(w string) bool { return strings.Contains(w, "so that nothing leaves this way") })
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDNSAddrs(t *testing.T) {
	f := parseWell(t, "[dns]\nservers = [\"https://dns.example\", \"tls://[2001:db8::53]:8853\"]\nbootstrap = { \"DNS.example\" = [\"192.0.2.53\", \"2001:db8::54\"] }\n")
	for i, want := range []string{"192.0.2.53:443 [2001:db8::54]:443", "[2001:db8::53]:8853"} {
		if got := join(f.DNS.Addrs(f.DNS.Servers[i])); got != want {
			t.Errorf("the addresses of %s are %s, want %s", f.DNS.Servers[i], got, want)
		}
	}
}
