package config

// DirectUpstream is the value of Rule.Upstream that asks for no upstream at all.
const DirectUpstream = "direct"

// Upstream is an [upstream.NAME] table: next-hop proxies, one of which opens the connection to the target.
type Upstream struct {
	// Servers are the proxies, in the order in which they are written; never empty once validated.
	Servers []UpstreamServer `toml:"servers" reload:"live"`
	// User and Password are for servers whose URL has no user, Password also for one whose URL has a user alone; see
	// Credentials. "" is none.
	User     string `toml:"user" reload:"live"`
	Password Secret `toml:"password" reload:"live"`
	// Via names the upstream through which the servers are reached; "" is the gateway itself. Chains have no cycle and
	// at most 8 upstreams once validated.
	Via string `toml:"via" reload:"live"`
	// Resolve is one of the Resolve constants, Balance one of the Balance ones.
	Resolve string `toml:"resolve" reload:"live"`
	Balance string `toml:"balance" reload:"live"`
	// SlowStart is how long a server that has come back takes to get its whole share; 0 is not at all.
	SlowStart Duration    `toml:"slow_start" reload:"live"`
	TLS       UpstreamTLS `toml:"tls"`
	Health    Health      `toml:"health"`
	Eject     Eject       `toml:"eject"`
}

// UpstreamServer is one proxy: its URL alone, or a table. Countries are in lower case.
type UpstreamServer struct {
	URL      ServerURL `toml:"url" reload:"live"`
	Weight   int       `toml:"weight" reload:"live"`   // 1 to 256
	Priority int       `toml:"priority" reload:"live"` // 0 to 15, lower first
	Country  string    `toml:"country" reload:"live"`  // ISO 3166-1 alpha-2; "" is not known
	Tags     []string  `toml:"tags" reload:"live"`
	Drain    bool      `toml:"drain" reload:"live"` // gets no new connection
}

// UpstreamTLS is the TLS to the servers with the schemes https, h2 and socks5s. The files are PEM.
type UpstreamTLS struct {
	CA          string `toml:"ca" reload:"live"`          // who is believed; "" is the system's
	Certificate string `toml:"certificate" reload:"live"` // that the gateway shows, with Key; "" is none
	Key         string `toml:"key" reload:"live"`
	ServerName  string `toml:"server_name" reload:"live"` // that is asked for and verified; "" is the URL's host
}

// Values of Upstream.Resolve: who looks the target's name up.
const (
	ResolveLocal    = "local"    // the gateway
	ResolveUpstream = "upstream" // the upstream: rules then see the name alone
)

// Values of Balance, of upstreams and of backends.
const (
	BalanceFirst            = "first" // as written
	BalanceRoundRobin       = "round-robin"
	BalanceRandomTwo        = "random-two" // of two at random the one with fewer connections
	BalanceLeastConnections = "least-connections"
	StickyClient            = "sticky-client"
	StickyUser              = "sticky-user"
	StickySession           = "sticky-session"
)

// setDefaults is what an [upstream.NAME] table starts from.
func (u *Upstream) setDefaults() {
	u.Resolve, u.Balance = ResolveLocal, BalanceFirst
	u.Health, u.Eject = defaultHealth(), defaultEject()
}

// setDefaults is what an entry of servers starts from.
func (s *UpstreamServer) setDefaults() { s.Weight = 1 }

func (s *UpstreamServer) short(text string) error { return s.URL.UnmarshalText([]byte(text)) }

func (UpstreamServer) wanted() string {
	return `a server in quotes, such as "socks5://198.51.100.7:1080", or a table such as { url = "socks5://198.51.100.7:1080" }`
}

// UpstreamNames returns the names of the upstreams, sorted.
func (f *File) UpstreamNames() []string { return sortedKeys(f.Upstream) }

// Credentials returns what the gateway shows to the server with index i: those in its URL, the rest from User and
// Password. An empty user is none. The error is that of Secret.Reveal.
func (u Upstream) Credentials(i int) (user, password string, err error) {
	url, secret := u.Servers[i].URL, u.Password
	if user = url.user; user == "" {
		user = u.User
	} else if url.password.IsSet() {
		return user, url.password.ref, nil
	}
	if user == "" || !secret.IsSet() {
		return user, "", nil
	}
	password, err = secret.Reveal()
	return user, password, err
}
