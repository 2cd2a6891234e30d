package config

import "net/netip"

// Listener is a [listen.NAME] table: a set of addresses that are served alike.
type Listener struct {
	// Address holds the sockets to listen on; never empty once validated.
	Address []AddrRange `toml:"address" reload:"relisten"`
	// Protocols names the rows of the protocol table that are served; "*" is all of them.
	Protocols []string `toml:"protocols" reload:"relisten"`
	// RequireUser is nil where the file does not say; see File.RequireUser.
	RequireUser *bool `toml:"require_user" reload:"live"`
	// RequireTLS serves nobody outside TLS to the gateway itself.
	RequireTLS bool `toml:"require_tls" reload:"live"`
	// ProxyProtocolFrom lists the balancers that must send, and alone may send, a PROXY protocol header.
	ProxyProtocolFrom []Prefix `toml:"proxy_protocol_from" reload:"relisten"`
	// PublicAddress is the "host:port" under which clients know this listener; "" is where they connected to.
	PublicAddress string `toml:"public_address" reload:"live"`
	// HelpPage is nil where the file does not say; see File.HelpPage.
	HelpPage *bool `toml:"help_page" reload:"live"`
	// DeferAccept is how long the system keeps a connection to itself that has sent nothing yet; 0 is not at all.
	DeferAccept Duration `toml:"defer_accept" reload:"live"`
	// UDP serves UDP ASSOCIATE on the same port numbers, where the row socks5 is served; see File.ServesUDP.
	UDP bool `toml:"udp" reload:"relisten"`
}

// Loopback reports whether every address of the listener is a loopback address.
func (l Listener) Loopback() bool {
	for _, a := range l.Address {
		if !a.Addr.IsLoopback() {
			return false
		}
	}
	return len(l.Address) > 0
}

// Sockets returns every address to listen on, ranges written out.
func (l Listener) Sockets() []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range l.Address {
		all = append(all, a.sockets()...)
	}
	return all
}

// RequireUser reports whether sessions on the listener need a user: what the
// file says, else true as soon as there are users.
func (f *File) RequireUser(listener string) bool {
	if r := f.Listen[listener].RequireUser; r != nil {
		return *r
	}
	return f.HasUsers()
}

// HelpPage reports whether the listener shows a help page to browsers: what
// the file says, else only on loopback listeners.
func (f *File) HelpPage(listener string) bool {
	l := f.Listen[listener]
	if l.HelpPage != nil {
		return *l.HelpPage
	}
	return l.Loopback()
}

// Sniff is the [sniff] table: how long a client may take to show what it speaks.
type Sniff struct {
	// Timeout bounds the whole of it, PROXY header included. Positive.
	Timeout Duration `toml:"timeout" reload:"live"`
	// SilentAfter is how long a client may send nothing before it is handed to SilentTo. Positive, below Timeout.
	SilentAfter Duration `toml:"silent_after" reload:"live"`
	// SilentTo names the backend of silent clients; "" is none.
	SilentTo string `toml:"silent_to" reload:"live"`
}

// Timeouts is the [timeouts] table.
type Timeouts struct {
	Handshake Duration `toml:"handshake" reload:"live"`  // from the first byte to a complete request; positive
	Connect   Duration `toml:"connect" reload:"live"`    // to open a connection to the target; positive
	Idle      Duration `toml:"idle" reload:"live"`       // a tunnel or an HTTP body on which nothing moves; 0 is no limit
	KeepAlive Duration `toml:"keep_alive" reload:"live"` // an HTTP connection between requests; positive
	Lifetime  Duration `toml:"lifetime" reload:"live"`   // a tunnel in all; 0 is no limit
	Drain     Duration `toml:"drain" reload:"live"`      // for open sessions at shutdown; 0 ends them at once
}

// Limits is the [limits] table, per process. Each is at least 1.
type Limits struct {
	Connections          int `toml:"connections" reload:"live"`
	ConnectionsPerClient int `toml:"connections_per_client" reload:"live"`
	Unfinished           int `toml:"unfinished" reload:"live"` // not yet past sniff and handshake
	UnfinishedPerClient  int `toml:"unfinished_per_client" reload:"live"`
	StreamsPerConnection int `toml:"streams_per_connection" reload:"live"` // of HTTP/2, at once
}

// Auth is the [auth] table.
type Auth struct {
	// Htpasswd is the path of the file of users; "" is no users.
	Htpasswd string `toml:"htpasswd" reload:"live"`
	// ClientCA is the path of the CAs whose clients are known by their certificates; "" is none.
	ClientCA string `toml:"client_ca" reload:"live"`
	// ClientCRL is the path of their revocation lists; "" is none.
	ClientCRL string `toml:"client_crl" reload:"live"`
	// ClientCertificate is one of the Certificate constants, ClientIdentity one of the Identity ones.
	ClientCertificate string `toml:"client_certificate" reload:"live"`
	ClientIdentity    string `toml:"client_identity" reload:"live"`
	// Groups maps a group's name to its users.
	Groups map[string][]string `toml:"groups" reload:"live"`
	// UserParameters is what clients may add to their user names, some of the Parameter constants; none is nothing.
	UserParameters []string `toml:"user_parameters" reload:"live"`
	Lockout        Lockout  `toml:"lockout"`
}

// Lockout keeps those who guess passwords out.
type Lockout struct {
	Failures int      `toml:"failures" reload:"live"` // distinct wrong credentials of one client; 0 turns the lockout off
	Window   Duration `toml:"window" reload:"live"`   // within which they count; positive
	Ban      Duration `toml:"ban" reload:"live"`      // how long the client stays out; positive
}

// Values of HTTP.Anonymity.
const (
	AnonymityOff        = "off"
	AnonymityHideClient = "hide-client"
	AnonymityHideProxy  = "hide-proxy"
)

// HTTP is the [http] table.
type HTTP struct {
	// Anonymity is one of the Anonymity constants.
	Anonymity string `toml:"anonymity" reload:"live"`
	// ForwardHTTPS has the gateway itself fetch https URIs that clients ask for without a tunnel.
	ForwardHTTPS bool `toml:"forward_https" reload:"live"`
}

// Values of Rule.Action.
const (
	ActionAllow = "allow"
	ActionDeny  = "deny"
)

// Rule is a [[rule]] table. A field that is nil or "" matches everything.
type Rule struct {
	Name       string      `toml:"name" reload:"live"`
	Action     string      `toml:"action" reload:"live"` // one of the Action constants
	Client     []Prefix    `toml:"client" reload:"live"`
	ClientPort []PortRange `toml:"client_port" reload:"live"`
	User       []string    `toml:"user" reload:"live"`
	Group      []string    `toml:"group" reload:"live"`
	Protocol   []string    `toml:"protocol" reload:"live"`
	Listener   []string    `toml:"listener" reload:"live"`
	Backend    []string    `toml:"backend" reload:"live"` // [backend.NAME]s: only what is handed to one of them matches
	// Target holds names, patterns, addresses and prefixes. Package acl judges
	// names, patterns and Time; here only what needs a hint of its own is refused.
	Target    []string    `toml:"target" reload:"live"`
	Port      []PortRange `toml:"port" reload:"live"`
	Method    []string    `toml:"method" reload:"live"`
	Time      string      `toml:"time" reload:"live"`
	Anonymous bool        `toml:"anonymous" reload:"live"`
	// Country is of the target's address, ClientCountry of the client's: ISO 3166-1 alpha-2, in lower case.
	Country       []string `toml:"country" reload:"live"`
	ClientCountry []string `toml:"client_country" reload:"live"`
	// Upstream is an [upstream.NAME] or DirectUpstream, Exit the [exit.NAME]s of which the first holds unless the user
	// names another. Not both; "" and none mean File.DefaultUpstream.
	Upstream string   `toml:"upstream" reload:"live"`
	Exit     []string `toml:"exit" reload:"live"`
}

// Values of Log.Access. AccessAuto is text on a terminal and JSON elsewhere.
const (
	AccessAuto   = "auto"
	AccessText   = "text"
	AccessJSON   = "json"
	AccessCommon = "common"
	AccessSquid  = "squid"
	AccessOff    = "off"
)

// Values of Log.AccessTo that are not paths.
const (
	ToStderr = "stderr"
	ToStdout = "stdout"
)

// Log is the [log] table.
type Log struct {
	Level       string `toml:"level" reload:"live"`        // "debug", "info", "warn" or "error"
	Access      string `toml:"access" reload:"live"`       // one of the Access constants
	AccessTo    string `toml:"access_to" reload:"live"`    // ToStderr, ToStdout or a path
	RedactQuery bool   `toml:"redact_query" reload:"live"` // leave query strings out of the access log
}

func (l Log) accessToStream() bool { return l.AccessTo == ToStderr || l.AccessTo == ToStdout }
