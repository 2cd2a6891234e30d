package session

import (
	"net/netip"
	"strconv"
	"time"
)

// Record is the accounting of one session: one tunnel, or one HTTP exchange.
// It becomes the one access-log line that the session leaves.
type Record struct {
	ID         ID        // unique within the process's life and, very likely, beyond
	Start      time.Time // when the first byte of the request had arrived
	Client     netip.AddrPort
	Listener   string
	Protocol   string         // the row of the protocol table
	Method     string         // "GET", "CONNECT", ...; "" where the protocol has none
	Version    string         // "HTTP/1.1", "SOCKS5", ...; "" where unknown
	Identity   string         // the authenticated user; "" for none
	UserID     string         // what SOCKS4 clients say of themselves: logged, never believed
	URL        string         // HTTP: the request target as forwarded, never with credentials; the access log redacts its query
	Target     string         // "host:port", normalised; "" when the request never got that far
	Address    netip.AddrPort // what was dialled; invalid when nothing was
	TLS        string         // the version of TLS to the gateway itself, "TLS 1.3"; "" for none
	ServerName string         // the name that the client sent for the gateway there (SNI)
	Connection ID             // the session of the connection that this was a stream of (HTTP/2); the zero ID for none
	Stream     uint32         // the number of that stream; 0 for none
	Backend    string         // the backend that a raw connection, or a request for a web site, was handed to
	Upstream   string         // the upstream that it left through; "" for none
	Server     string         // the server of that upstream, or of the backend
	Exit       string         // the exit that it left by; "" for none
	ByName     bool           // the target's name went to the upstream unresolved: only the name was checked
	Rule       string         // the rule that decided
	Reason     string         // why it ended as it did: an acl reason, an RFC 9209 token, or a tunnel's end; "" for a plain success
	Status     int            // the HTTP status, or the SOCKS reply code, that the client got; 0 for none

	BytesFromClient int64 // HTTP: the request as received, head and body; tunnels: payload delivered to the target
	BytesFromTarget int64 // HTTP: the response as sent, head and body; tunnels: payload delivered to the client

	Datagrams *Datagrams // of a UDP association, whose bytes are those of payload delivered; nil for anything else

	Setup    time.Duration // from Start until the target answered (the tunnel stood, or the response head had come); 0 if it never did
	Duration time.Duration // from Start to the end
	Err      error         // what went wrong, for the log; nil when nothing did
}

// Datagrams is what a UDP association has carried (RFC 1928 section 7), and what it has not. Who puts it into a Record
// does not change it any more.
type Datagrams struct {
	FromClient int64 // delivered to targets
	FromTarget int64 // delivered to the client

	Denied      int64 // from the client, whose target the rules do not admit or has no address
	Fragmented  int64 // from the client, with a FRAG that is not 0
	Limited     int64 // both ways, beyond a limit of [udp]
	Dropped     int64 // both ways, for any other reason: malformed ones, answers that the filter keeps out, what a socket would not take
	Unreachable int64 // ICMP errors that targets answered with
	Targets     int   // that datagrams were sent to
}

// ID identifies a session. It is written only where somebody reads it: most sessions leave it in the access log alone.
type ID struct {
	process string // the same for all sessions of the process
	count   uint64 // from 1
}

// NewID makes an ID of the name of a process, which may be empty, and the number of a session in it.
func NewID(process string, count uint64) ID { return ID{process, count} }

// IsZero reports whether id identifies none.
func (id ID) IsZero() bool { return id.count == 0 }

// AppendTo appends the ID's text to b.
func (id ID) AppendTo(b []byte) []byte {
	return strconv.AppendUint(append(b, id.process...), id.count, 36)
}

// String returns the ID's text.
func (id ID) String() string { return string(id.AppendTo(nil)) }

// Observer sees sessions begin and end. Its methods are called from many
// goroutines and must not block.
type Observer interface {
	SessionStarted(Record)
	SessionEnded(Record)
}
