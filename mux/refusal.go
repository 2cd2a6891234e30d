package mux

import "net/netip"

// Cause says why a connection ended before it became a session.
type Cause string

// The causes.
const (
	TooManyConnections Cause = "too_many_connections"           // Limits.Connections or Limits.Unfinished, and nobody to evict
	TooManyOfClient    Cause = "too_many_connections_of_client" // Limits.ConnectionsPerClient, all finished
	Evicted            Cause = "evicted"                        // pushed out by a newer connection
	SniffTimeout       Cause = "sniff_timeout"                  // undecided when SniffOptions.Timeout ran out
	ClosedEarly        Cause = "closed_before_request"          // the client went away first; port scans and TCP health checks do
	BadProxyHeader     Cause = "bad_proxy_header"               // a named balancer sent none, or a broken one
	MatcherPanicked    Cause = "matcher_panicked"               // a fault of ours
	ShuttingDown       Cause = "shutting_down"                  // came while the server ended
)

// Refusal is a connection that ended before it became a session.
type Refusal struct {
	Cause    Cause
	Client   netip.AddrPort
	Listener string
	// Bytes is how much of the client's first bytes had been read. Their
	// content is never reported: it may hold a password.
	Bytes int
	Err   error // the cause in detail; may be nil
}
