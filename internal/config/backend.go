package config

import "strings"

// Backend is a [backend.NAME] table: servers of our own, to which raw connections and requests of sites are handed.
type Backend struct {
	// Servers are in the order in which they are written; never empty once validated.
	Servers []BackendServer `toml:"servers" reload:"live"`
	// Balance is one of the Balance constants.
	Balance string `toml:"balance" reload:"live"`
	// SlowStart is how long a server that has come back takes to get its whole share; 0 is not at all.
	SlowStart Duration `toml:"slow_start" reload:"live"`
	Health    Health   `toml:"health"`
	Eject     Eject    `toml:"eject"`
	// ProxyProtocol is the version of the PROXY header that the servers get: "v1", "v2", or "" for none.
	ProxyProtocol string `toml:"proxy_protocol" reload:"live"`
}

// BackendServer is one server of a backend: its address alone, or a table.
type BackendServer struct {
	Address  string `toml:"address" reload:"live"`  // "host:port"
	Weight   int    `toml:"weight" reload:"live"`   // 1 to 256
	Priority int    `toml:"priority" reload:"live"` // 0 to 15, lower first
	Drain    bool   `toml:"drain" reload:"live"`    // gets no new connection
}

// Health is the active checks of an upstream's or a backend's servers.
type Health struct {
	Every   Duration `toml:"every" reload:"live"`   // between two checks of one server; 0 is no checks
	Timeout Duration `toml:"timeout" reload:"live"` // of one check; positive where there are checks
	Probe   string   `toml:"probe" reload:"live"`   // one of the Probe constants
	Target  string   `toml:"target" reload:"live"`  // "host:port" that an upstream is asked for by ProbeTunnel and ProbeHTTP
	Path    string   `toml:"path" reload:"live"`    // that ProbeHTTP gets
	Host    string   `toml:"host" reload:"live"`    // the Host of that request; "" is the target's or the server's own
	Rise    int      `toml:"rise" reload:"live"`    // how many successes in a row bring a server back; at least 1
	Fall    int      `toml:"fall" reload:"live"`    // how many failures in a row take it out; at least 1
}

// Values of Health.Probe.
const (
	ProbeConnect = "connect" // TCP, and TLS where the server speaks it
	ProbeTunnel  = "tunnel"  // a CONNECT or a SOCKS handshake to Target; upstreams only
	ProbeHTTP    = "http"    // GET Path, through such a tunnel or to a backend; status 200 to 399 is healthy
)

// Eject is how a server is left alone after connections to it have failed.
type Eject struct {
	Failures int      `toml:"failures" reload:"live"`  // in a row; 0 never ejects
	Pause    Duration `toml:"pause" reload:"live"`     // the first; it doubles each time. Positive
	MaxPause Duration `toml:"max_pause" reload:"live"` // the longest; not below Pause
}

// Values of Backend.ProxyProtocol; "" is none.
const (
	ProxyProtocolV1 = "v1"
	ProxyProtocolV2 = "v2"
)

// setDefaults is what a [backend.NAME] table starts from.
func (b *Backend) setDefaults() {
	b.Balance = BalanceFirst
	b.Health, b.Eject = defaultHealth(), defaultEject()
}

// setDefaults is what an entry of servers starts from.
func (s *BackendServer) setDefaults() { s.Weight = 1 }

func (s *BackendServer) short(text string) error {
	s.Address = text
	return nil
}

func (BackendServer) wanted() string {
	return `a server in quotes, such as "10.0.0.1:80", or a table such as { address = "10.0.0.1:80" }`
}

func defaultHealth() Health {
	return Health{Timeout: seconds(3), Probe: ProbeConnect, Path: "/", Rise: 2, Fall: 3}
}

func defaultEject() Eject { return Eject{Failures: 5, Pause: seconds(1), MaxPause: seconds(60)} }

// BackendNames returns the names of the backends, sorted.
func (f *File) BackendNames() []string { return sortedKeys(f.Backend) }

func (f *File) checkBackends(errs *faults) {
	for _, name := range f.BackendNames() {
		p, b := root.key("backend").key(name), f.Backend[name]
		checkName(errs, p)
		f.checkBackendServers(errs, p.key("servers"), b.Servers)
		checkBalance(errs, p, b.Balance)
		checkBackendHealth(errs, p.key("health"), b.Health)
		checkEject(errs, p.key("eject"), b.Eject)
		if b.ProxyProtocol != "" {
			checkEnum(errs, p.key("proxy_protocol"), b.ProxyProtocol, ProxyProtocolV1, ProxyProtocolV2)
		}
	}
}

func (f *File) checkBackendServers(errs *faults, p *place, servers []BackendServer) {
	checkServerCount(errs, p, len(servers), "127.0.0.1:22")
	seen := map[string]bool{}
	for i, s := range servers {
		here := f.below(p.at(i), "address")
		checkWeight(errs, p.at(i), s.Weight, s.Priority)
		folded := strings.ToLower(s.Address)
		listener, loops := "", false
		err := checkHostPort(s.Address)
		if err == nil {
			listener, loops = f.ownSocket(s.Address)
		}
		switch {
		case s.Address == "":
			errs.addf(here, `there is no address: write one such as "10.0.0.1:80"`)
		case err != nil:
			errs.add(here, err)
		case loops:
			errs.addf(here, "%s is the gateway itself (listener %q): connections would go round in circles", quote(s.Address), listener)
		case seen[folded]:
			errs.addf(here, "%s stands here twice: remove one, and write weight = 2 if it is to get twice as much", quote(s.Address))
		}
		seen[folded] = true
	}
}

func checkBackendHealth(errs *faults, p *place, h Health) {
	if h.Probe == ProbeTunnel {
		errs.addf(p.key("probe"), "%q is for upstreams, and a backend is no proxy: write %q or %q", h.Probe, ProbeConnect, ProbeHTTP)
	} else {
		checkEnum(errs, p.key("probe"), h.Probe, ProbeConnect, ProbeHTTP)
	}
	checkHealth(errs, p, h)
	if h.Target != "" {
		errs.addf(p.key("target"), "this is for upstreams, and a backend's own servers are checked: remove it")
	}
}
