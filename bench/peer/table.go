package peer

import (
	"embed"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"polyport/bench/certificate"
)

//go:embed conf
var conf embed.FS

// Program is one that is measured.
type Program struct {
	Name    string
	Package string // Debian package, "" for what is built here
	Binary  string // a name in PATH or a path
	Args    []string
	Tool    bool     // `make bench` builds it: its module is in the binary, and so its version
	Version []string // a command that prints its version, where no package or module has one
	Needs   string   // a file that it needs besides
	Noisy   bool     // it says something of each connection: nobody keeps that
	// Conf is the name of its configuration in conf/, a template with the fields of Site.
	Conf string
	// Ports are added to the site's first port: by protocol, where it listens.
	Ports map[string]int
	// Tunnel is the protocol of workloads that use one.
	Tunnel string
	// Only are the workloads that it takes part in; none is all.
	Only []string
	// Chain is how it runs behind a next hop; nil where that is not measured.
	Chain *Chain
	// Far says that it reaches the origin through the next hop alone: clients ask for the site's FarPort.
	Far  bool
	Note string
}

// Chain is what is different for a program that reaches targets through the next hop, the SOCKS5 server at HopPort.
type Chain struct {
	Conf string   // its configuration in conf/, "" for none
	Args []string // nil for those that it has anyway
	Port int      // added to the site's first port: where it serves SOCKS5
}

// Site is where a run's programs listen and keep their files.
type Site struct {
	Dir    string // of one program: its configuration, logs, whatever it writes
	Port   int    // the first of the ports that are the benchmark's
	Origin netip.AddrPort
	Web    netip.AddrPort
	Keys   string // the folder with the certificate of the run
	Own    int    // of one program: the port of its tunnel, as At and PortAt take it
}

// Certificate is the file with it.
func (s Site) Certificate() string { return filepath.Join(s.Keys, certificate.CertFile) }

// Key is its key.
func (s Site) Key() string { return filepath.Join(s.Keys, certificate.KeyFile) }

// Chain is both in one file.
func (s Site) Chain() string { return filepath.Join(s.Keys, certificate.ChainFile) }

// At is the loopback address of the site's port n.
func (s Site) At(n int) string { return "127.0.0.1:" + strconv.Itoa(s.Port+n) }

// PortAt is the number of the site's port n.
func (s Site) PortAt(n int) int { return s.Port + n }

// Root says whether programs are started with all rights, some of which then have to be told whom to become.
func (s Site) Root() bool { return os.Geteuid() == 0 }

// Ports of the benchmark itself, as those of programs added to the first one.
const (
	OriginPort = 0
	WebPort    = 1
	HopPort    = 2 // of the next hop in chains
	FarPort    = 3 // nobody listens there: the next hop takes it for the origin, as all that it is asked for
	portCount  = 80
)

// Names of the two builds that a run can compare.
const (
	Subject = "polyport"
	Other   = "other"
)

// datagrams and chains are the workloads of programs that are there for UDP ASSOCIATE or next hops alone.
var (
	datagrams = []string{"udp", "udpidle"}
	chains    = []string{"chain", "chainbulk"}
	both      = slices.Concat(datagrams, chains)
)

// polyportAt is a build of polyport that serves all protocols on one port, and behind a next hop on the one above.
func polyportAt(name, binary string, port int) Program {
	ports := map[string]int{}
	for _, proto := range []string{"socks5", "socks4", "socks4a", "connect", "tls", "http", "raw", "raw-tls", "connect-tls", "socks5-udp"} {
		ports[proto] = port
	}
	return Program{
		Name: name, Binary: binary, Version: []string{binary, "version"}, Args: []string{"--config", "{conf}"}, Conf: "polyport.toml",
		Ports: ports, Tunnel: "socks5", Chain: &Chain{Conf: "polyport-chain.toml", Port: port + 1}, Note: "rules in force, access log into a file",
	}
}

// Table is every program that can be measured. polyport is the binary built
// for this run, other that of another build, "" for none, self the benchmark's
// own, and tools the folder where `make bench` builds others.
func Table(polyport, other, self, tools string) []Program {
	all := []Program{polyportAt(Subject, polyport, 10)}
	if other != "" {
		all = append(all, polyportAt(Other, other, 15)) // behind polyport, so that minutes do not lie between the two
	}
	return append(all, peers(self, tools)...)
}

// peers are the programs that polyport is measured beside.
func peers(self, tools string) []Program {
	return []Program{
		{
			Name: "haproxy", Package: "haproxy", Binary: "haproxy", Args: []string{"-db", "-f", "{conf}"}, Conf: "haproxy.cfg",
			Ports: map[string]int{"tls": 20, "http": 21, "raw": 22, "raw-tls": 23}, Tunnel: "tls", Note: "HTTP as a reverse proxy; `option splice-auto`",
		},
		{
			Name: "haproxy-splice", Package: "haproxy", Binary: "haproxy", Args: []string{"-db", "-f", "{conf}"}, Conf: "haproxy-splice.cfg",
			Ports: map[string]int{"tls": 25}, Tunnel: "tls", Only: []string{"bulk", "verify"}, Note: "with `option splice-request` and `splice-response`; bulk alone",
		},
		{
			Name: "nginx", Package: "libnginx-mod-stream", Binary: "nginx", Needs: "/usr/lib/nginx/modules/ngx_stream_module.so", Args: []string{"-c", "{conf}"}, Conf: "nginx.conf",
			Ports: map[string]int{"tls": 30, "http": 31}, Tunnel: "tls", Note: "stream module; HTTP as a reverse proxy",
		},
		{
			Name: "squid", Package: "squid", Binary: "squid", Args: []string{"-N", "-f", "{conf}"}, Conf: "squid.conf",
			Ports: map[string]int{"connect": 40, "http": 40}, Tunnel: "connect", Note: "no cache, no log",
		},
		{
			Name: "microsocks", Package: "microsocks", Binary: "microsocks", Noisy: true, Args: []string{"-i", "127.0.0.1", "-p", "{port}"},
			Ports: map[string]int{"socks5": 50}, Tunnel: "socks5", Note: "a thread for each tunnel, no log",
		},
		{
			Name: "tinyproxy", Package: "tinyproxy-bin", Binary: "tinyproxy", Args: []string{"-d", "-c", "{conf}"}, Conf: "tinyproxy.conf",
			Ports: map[string]int{"connect": 60, "http": 60}, Tunnel: "connect", Note: "a thread for each connection, no log",
		},
		{
			Name: "dante", Package: "dante-server", Binary: "danted", Args: []string{"-f", "{conf}", "-p", "{dir}/danted.pid"}, Conf: "danted.conf",
			Ports: map[string]int{"socks5-udp": 55}, Tunnel: "socks5-udp", Only: datagrams, Note: "processes that it adds as associations come, no log; UDP ASSOCIATE alone",
		},
		{
			Name: "sing-box", Tool: true, Binary: filepath.Join(tools, "sing-box"), Args: []string{"run", "-c", "{conf}"}, Conf: "sing-box.json",
			Ports: map[string]int{"socks5-udp": 65}, Tunnel: "socks5-udp", Only: both, Chain: &Chain{Conf: "sing-box-chain.json", Port: 66}, Note: "goroutines, no log; UDP ASSOCIATE and next hops alone",
		},
		{
			Name: "xray", Tool: true, Binary: filepath.Join(tools, "xray", "main"), Args: []string{"run", "-c", "{conf}"}, Conf: "xray.json",
			Ports: map[string]int{"socks5-udp": 67}, Tunnel: "socks5-udp", Only: both, Chain: &Chain{Conf: "xray-chain.json", Port: 68}, Note: "goroutines, one UDP port for all, no log; UDP ASSOCIATE and next hops alone",
		},
		{
			Name: "copy", Binary: self, Args: []string{"copy", "127.0.0.1:{port}"},
			Ports: map[string]int{"socks5": 70, "socks5-udp": 70}, Tunnel: "socks5", Chain: &Chain{Args: []string{"copy", "127.0.0.1:{port}", "{hop}"}, Port: 71},
			Note: "the yardstick: goroutines and `io.Copy`, or a datagram at a time; no policy (`bench/yardstick`)",
		},
		{
			Name: "gotls", Binary: self, Args: []string{"gotls", "{raw}", "{raw-tls}", "{origin}", "{certificate}", "{key}"},
			Ports: map[string]int{"raw": 75, "raw-tls": 76}, Tunnel: "raw-tls", Only: []string{"handshakes", "tlsbulk"},
			Note: "the yardstick of TLS: Go's crypto/tls as an echo server and as a relay with `io.Copy`",
		},
	}
}

// Address is where p listens for a protocol, "" where it does not speak it.
func (p Program) Address(s Site, proto string) string {
	n, ok := p.Ports[proto]
	if !ok {
		return ""
	}
	return s.At(n)
}

// Speaks are those of the protocols that p serves.
func (p Program) Speaks(protos ...string) []string {
	return slices.DeleteFunc(protos, func(proto string) bool { return p.Ports[proto] == 0 })
}

// TakesPart says whether p is measured by a workload.
func (p Program) TakesPart(work string) bool {
	switch {
	case len(p.Only) > 0 && !slices.Contains(p.Only, work):
		return false
	case slices.Contains(datagrams, work):
		return p.Ports["socks5-udp"] != 0
	case slices.Contains(chains, work):
		return p.Chain != nil
	}
	return true
}

// Chained is p as it runs behind the next hop: a process of its own. p has a Chain.
func (p Program) Chained() Program {
	if p.Chain.Args != nil {
		p.Args = p.Chain.Args
	}
	p.Conf, p.Ports, p.Tunnel, p.Far = p.Chain.Conf, map[string]int{"socks5": p.Chain.Port}, "socks5", true
	return p
}

// port is the one that {port} stands for: that of the tunnel.
func (p Program) port(s Site) string { return fmt.Sprint(s.PortAt(p.Ports[p.Tunnel])) }
