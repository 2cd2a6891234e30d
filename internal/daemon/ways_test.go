package daemon

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

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
	if b, ok := a.ways.backend("web"); !ok || len(b.Pool().Members()) != 2 || b.Pool().Members()[1].Status().State != pool.Draining {
		t.Error("the backend is not as it is written")
	}
}

// Each fault is told once, also where others lie behind it.
func TestMakeWaysTellsEachFaultOnce(t *testing.T) {
	f := parse(t, onLoopback+`
[upstream.a]
via = "z"
servers = ["socks5://192.0.2.1"]
[upstream.z]
servers = ["https://192.0.2.4"]
tls = { ca = "gone.pem" }
`)
	_, err := assemble(f, lent{})
	if err == nil {
		t.Fatal("a CA that is not there is no fault")
	}
	if n := strings.Count(err.Error(), "gone.pem"); n != 1 || !strings.Contains(err.Error(), "upstream.z") {
		t.Errorf("the fault is told %d times in %q, want once, of upstream.z", n, err)
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
