package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"

	"polyport/internal/config"
	"polyport/internal/exit"
	"polyport/internal/pool"
)

const manyWays = `default_upstream = "far"
` + onLoopback + `
[upstream.far]
via = "middle"
servers = ["socks5://far.example", { url = "https://192.0.2.2", weight = 3, priority = 1, country = "de", tags = ["home"], drain = true }]
user = "u"
password = "p"
resolve = "upstream"
balance = "sticky-user"
[upstream.middle]
via = "near"
servers = ["http://192.0.2.3:8080"]
[upstream.near]
servers = ["socks5s://192.0.2.4"]
[backend.web]
servers = ["10.0.0.1:80", { address = "10.0.0.2:80", drain = true }]
proxy_protocol = "v2"
[exit.home]
tag = ["home"]
[exit.out]
local_address = ["192.0.2.0/28", "2001:db8::1"]
choose = "sticky-user"
mark = 7
[exit.near]
upstream = "near"
`

// What is written is what is made, in whatever order.
func TestMakeWays(t *testing.T) {
	f, a := built(t, manyWays)
	defer a.close()
	w := a.ways.egress(f)
	far, near := w.Upstreams["far"], w.Upstreams["near"]
	if w.Default != far || far.Via() != w.Upstreams["middle"] || far.Via().Via() != near || near.Via() != nil {
		t.Error("the upstreams do not lie behind each other as they are written")
	}
	if !far.ResolvesNames() || near.ResolvesNames() || !far.Blocks() || !near.Blocks() || !w.Upstreams["middle"].Blocks() {
		t.Error("resolve is not as it is written, or TLS in front of a proxy is forgotten")
	}
	for i, want := range []string{"socks5://far.example:1080", "https://192.0.2.2:443"} {
		if got := far.Pool().Members()[i].Name(); got != want || far.Proxy(i).String() != want {
			t.Errorf("server %d is %s, want %s", i, got, want)
		}
	}
	if got := far.Proxy(1).Authorization(); got != "Basic dTpw" {
		t.Errorf("the credentials are %q, want those of u and p", got)
	}
	if got := far.Pool().Members()[1].Status().State; got != pool.Draining {
		t.Errorf("the second server is %v, want it draining", got)
	}
	if !far.Pool().Sticky() || !far.Pool().Fits(&pool.Request{Countries: []string{"de"}, Tags: []string{"home"}}) {
		t.Error("balance, country or tags are not as they are written")
	}
	home, out := w.Exits["home"], w.Exits["out"]
	if home.Upstream != far || home.Source != nil || w.Exits["near"].Upstream != near {
		t.Error("an exit has another upstream than it is written, or than the default one")
	}
	if out.Upstream != nil || out.Source.Choose != exit.StickyUser || out.Source.Mark != 7 || len(out.Source.Addresses) != 2 {
		t.Errorf("exit out is %+v", out)
	}
	if b, ok := a.ways.finder(f)("web"); !ok || len(b.Pool().Members()) != 2 || b.Pool().Members()[1].Status().State != pool.Draining {
		t.Error("the backend is not as it is written")
	}
}

// Each fault is told once, at its own place, whoever finds it, and hides no other.
func TestAssembleTellsEachFaultOnce(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // places
	}{
		{"others lie behind it", `
[upstream.a]
via = "z"
servers = ["socks5://192.0.2.1"]
[upstream.z]
servers = ["https://192.0.2.4"]
tls = { ca = "gone.pem" }
`, []string{"upstream.z.tls.ca"}},
		{"servers of upstreams", `
[upstream.a]
servers = ["socks9://192.0.2.1", "http://", "socks5://192.0.2.1:0", { url = "http://192.0.2.1", weight = 0 }, { weight = 2 }, 5, { url = 5 }]
[upstream.b]
servers = []
[upstream.c]
servers = ["socks5://192.0.2.1", "socks5://192.0.2.1:1080"]
eject = { pause = "2m" }
[upstream.d]
servers = ["socks4://a@192.0.2.1"]
password = "x"
`, []string{
			"upstream.a.servers[0]", "upstream.a.servers[1]", "upstream.a.servers[2]", "upstream.a.servers[3].weight", "upstream.a.servers[4].url",
			"upstream.a.servers[5]", "upstream.a.servers[6].url", "upstream.b.servers", "upstream.c.eject.max_pause", "upstream.c.servers[1]", "upstream.d.servers[0]",
		}},
		{"what servers are shown", `
[upstream.a]
servers = ["https://192.0.2.1", "https://192.0.2.2", "http://"]
user = "u"
password = "file:gone"
tls = { ca = "gone.pem", certificate = "gone.pem", key = "gone.key" }
[geoip]
database = "gone.mmdb"
`, []string{"geoip.database", "upstream.a.password", "upstream.a.servers[2]", "upstream.a.tls.ca", "upstream.a.tls.certificate"}},
		{"servers of backends", `
[backend.a]
servers = ["192.0.2.1", "192.0.2.1:0", "http://192.0.2.1:80", { address = "192.0.2.1:80", priority = 99 }, { weight = 2 }, 5]
[backend.b]
servers = []
[sniff]
silent_to = "gone"
`, []string{
			"backend.a.servers[0]", "backend.a.servers[1]", "backend.a.servers[2]", "backend.a.servers[3].priority", "backend.a.servers[4].address",
			"backend.a.servers[5]", "backend.b.servers", "sniff.silent_to",
		}},
		{"sites", `
[site.a]
hosts = ["192.0.2.1", "*", "a..b", "b:80"]
backend = "gone"
[site.b]
hosts = []
`, []string{"site.a.backend", "site.a.hosts[0]", "site.a.hosts[1]", "site.a.hosts[2]", "site.a.hosts[3]", "site.b.backend", "site.b.hosts"}},
		{"backends go with the faults of others", `
[geoip]
database = "gone.mmdb"
[backend.a]
servers = ["192.0.2.1:80"]
[site.a]
hosts = ["www.example.com"]
backend = "a"
[sniff]
silent_to = "a"
[protocols.raw.a]
prefix = ["A"]
backend = "a"
[protocols.tls.route.a]
sni = ["a.example"]
backend = "a"
[protocols.tls.route.b]
sni = ["b.example"]
backend = "gone"
`, []string{"geoip.database", "protocols.tls.route.b.backend"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := config.Parse("polyport.toml", []byte(onLoopback+tt.file))
			err = withFurtherFaults(f, Options{}, err)
			var list *multierror.Error
			if !errors.As(err, &list) {
				t.Fatalf("assemble: %v, want a list of faults", err)
			}
			var got []string
			for _, e := range list.Errors {
				fault := (*config.Fault)(nil)
				if !errors.As(e, &fault) {
					t.Fatalf("a fault without a place: %v", e)
				}
				got = append(got, fault.Place)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("places of faults (-want +got):\n%s\n%v", diff, err)
			}
		})
	}
}

// A reload keeps what is known of servers, and what is gone is forgotten.
func TestReloadKeepsWhatIsKnownOfServers(t *testing.T) {
	text := func(servers, more string) string {
		return "default_upstream = \"eu\"\n" + onLoopback + fmt.Sprintf("[upstream.eu]\nservers = [%s]\n", servers) + more
	}
	const one, two = `"socks5://192.0.2.1"`, `"socks5://192.0.2.2"`
	s := serve(t, text(one+", "+two, ""))
	states := func() (all []pool.State) {
		for _, m := range s.d.assembly.ways.upstreams["eu"].Pool().Members() {
			all = append(all, m.Status().State)
		}
		return all
	}
	for range 5 {
		s.d.assembly.ways.upstreams["eu"].Pool().Members()[1].Failed(io.ErrUnexpectedEOF)
	}
	for _, step := range []struct {
		file string
		want string
	}{
		{text(two+", "+one, "eject = { pause = \"1h\", max_pause = \"1h\" }\n"), "[ejected up]"},
		{text(one, ""), "[up]"},
		{text(one+", "+two, ""), "[up up]"},
	} {
		if err := s.reload(step.file); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(states()); got != step.want {
			t.Errorf("the servers are %s, want %s", got, step.want)
		}
	}
}

// A configuration with checks is left without waiting for a server that says nothing.
func TestReloadEndsChecks(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := serve(t, onLoopback+fmt.Sprintf("[upstream.eu]\nservers = [\"socks5://%s\"]\n", ln.Addr())+
		"health = { every = \"2s\", timeout = \"1s\", probe = \"tunnel\", target = \"192.0.2.1:80\" }\n")
	c, err := ln.Accept() // the check has begun
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.reload(onLoopback); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil { // it has been closed
		t.Error(err)
	}
}
