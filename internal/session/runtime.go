package session

import (
	"crypto/tls"
	"net/netip"
	"time"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/mux"
)

// Runtime is everything that a configuration decides about sessions. It is
// immutable: a reload builds another, and sessions keep the one they began with.
type Runtime struct {
	Generation uint64
	Policy     *acl.Policy
	Auth       auth.Authenticator // nil when there are no users
	Egress     *egress.Dialer
	Handlers   map[string]Handler // by row
	OnLoop     map[string]bool    // the rows whose handlers may run in tasks of event loops
	Listeners  map[string]Listener
	Timeouts   Timeouts
	// UserParameters are what clients may add to their user name.
	UserParameters exit.Parameters
	// Certified says who the certificate of a client proves it to be, whatever was believed when it was shown; the zero
	// Identity is nobody. Nil believes no certificate.
	Certified func(tls.ConnectionState) auth.Identity
}

// serves reports whether rt knows the listener and the row of a connection.
func (rt *Runtime) serves(c *mux.Conn) bool {
	_, ok := rt.Listeners[c.Listener()]
	return ok && rt.Handlers[c.Row()] != nil
}

// unknownListener is one that no Runtime knows (any more): nothing is known of it
// that would let anybody pass without a user.
var unknownListener = Listener{RequireUser: true}

// Listener is what sessions need to know of the [listen.NAME] table that they came through.
type Listener struct {
	RequireUser   bool
	RequireTLS    bool // nobody is served outside TLS to the gateway
	Loopback      bool // bound to loopback addresses alone
	HelpPage      bool
	PublicAddress string // "" when clients reach it where it listens
	// UDPAddress is what clients are told in the place of the address that they have connected to, of one family or both; a port of 0 is that
	// which it is.
	UDPAddress []netip.AddrPort
	Rows       map[string]bool // nil is all
}

// Timeouts of a session; none of them means "default" any more.
type Timeouts struct {
	Handshake time.Duration // from the first byte to a complete request; also each further HTTP head
	Connect   time.Duration // of a TLS handshake with a target, apart from Dial, which has its own; zero is 10 s
	Idle      time.Duration // a tunnel, or an HTTP body, on which nothing moves; negative is never
	KeepAlive time.Duration // an HTTP connection between requests
	Lifetime  time.Duration // a tunnel in all; zero and negative are no limit
}
