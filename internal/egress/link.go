package egress

import (
	"context"
	"net"
	"net/netip"
	"time"

	"polyport/internal/pool"
	"polyport/internal/reactor"
	"polyport/internal/upstream"
)

// Link is a connection that Open has opened, and the way that it takes.
type Link struct {
	Conn net.Conn
	// Address is the target's, or the backend server's, that was dialled or that a proxy was asked for. It is invalid where
	// a proxy was asked by name, and of a connection that Forward is of.
	Address netip.AddrPort
	// Exit, Upstream and Server name the way; "" is none. Server is that of an upstream or a backend.
	Exit, Upstream, Server string
	// Forward is the proxy that Conn leads to and no further, for requests in absolute-form; nil for a connection to the target.
	Forward *upstream.Proxy

	members []*pool.Member
}

// Release says that the connection is closed, for the balance of the pools. It must be called once, also for a Link that is not
// used, and does not close the connection.
func (l *Link) Release() { l.releaseTo(0) }

// releaseTo releases all members but the first n.
func (l *Link) releaseTo(n int) {
	for _, m := range l.members[n:] {
		m.Release()
	}
	l.members = l.members[:n]
}

// Avoid is servers of one upstream or backend that Open asks only where no other can be. The zero Avoid is none.
type Avoid struct{ servers pool.Tried }

// Add adds the server that l leads to, if it is one of a pool.
func (a *Avoid) Add(l *Link) {
	if len(l.members) > 0 {
		a.servers.Add(l.members[0].Index()) // the others lie before it
	}
}

// OpenOptions says what kind of connection Open is to open.
type OpenOptions struct {
	// Loop has a task of that loop open it, and the connection is one of that loop unless the permit Blocks. Nil is a goroutine.
	Loop *reactor.Loop
	// Forward prefers a connection to a proxy that forwards requests itself (http, https) to a tunnel through it.
	Forward bool
	// Avoid is servers that an earlier Open of the same permit has led to in vain.
	Avoid Avoid
	// Header is what a backend that wants a PROXY header is told of the client. The zero Header says that it is the gateway itself.
	Header Header
	// Via is the Via field of CONNECT to proxies on the way (RFC 9110 section 7.6.3): what the client's request has in its own, and the
	// gateway's member behind it. "" is that of the Dialer's Options.
	Via string
}

// Open opens the connection that the permit is for, to one of its addresses, or through its upstream: the target is never
// resolved again. On its own way it is a bare *net.TCPConn, or one of the loop, with TCP_NODELAY, and so it is through proxies without TLS. The
// caller closes it and releases the Link. The error is an *Error.
func (d *Dialer) Open(ctx context.Context, p *Permit, o OpenOptions) (Link, error) {
	if p == nil {
		return Link{}, &Error{Reason: InternalError, Err: errNoPermit}
	}
	if o.Loop == nil {
		return d.open(ctx, p, o)
	}
	if !p.Blocks() {
		return d.on(o.Loop).open(ctx, p, o)
	}
	var link Link
	var err error
	o.Loop.Aside(func() { link, err = d.open(ctx, p, o) })
	return link, err
}

func (d *Dialer) open(ctx context.Context, p *Permit, o OpenOptions) (Link, error) {
	var deadline time.Time
	if d.timeout > 0 {
		deadline = time.Now().Add(d.timeout)
	}
	var link Link
	var err *Error
	switch {
	case p.backend != nil:
		link, err = d.openBackend(ctx, p, deadline, o)
	case p.way != nil && p.way.upstream != nil:
		link, err = d.openThrough(ctx, p, deadline, o)
	default:
		link, err = d.openDirect(ctx, p, deadline)
	}
	if err != nil {
		return Link{}, err.of(p)
	}
	if p.way != nil {
		link.Exit = p.way.exit
	}
	return link, nil
}

// openDirect connects to the target itself.
func (d *Dialer) openDirect(ctx context.Context, p *Permit, deadline time.Time) (Link, *Error) {
	c, err := d.dialSet(ctx, &p.pinned, deadline)
	if err != nil {
		return Link{}, err
	}
	to := peerOf(c)
	d.remember(p.target.Host(), &p.pinned, to.Addr().Is6())
	return Link{Conn: c, Address: to}, nil
}

// Dial is Open for a caller who does not mind the way: the connection counts in no balance.
func (d *Dialer) Dial(ctx context.Context, p *Permit) (net.Conn, error) {
	link, err := d.Open(ctx, p, OpenOptions{})
	if err != nil {
		return nil, err
	}
	link.Release()
	return link.Conn, nil
}

// peerOf returns the other side's address.
func peerOf(c net.Conn) netip.AddrPort {
	switch c := c.(type) {
	case interface{ Peer() netip.AddrPort }:
		return c.Peer()
	case *net.TCPConn:
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			return a.AddrPort()
		}
	}
	return netip.AddrPort{}
}

// maxShares bounds into how many parts the time for a connection is cut, so that each of many servers still gets a useful one.
const maxShares = 4

// leastShare is what an attempt gets at the least: who was silent for less is not said to have failed.
const leastShare = 250 * time.Millisecond

// attemptUntil is the moment until which the next of left servers may take.
func attemptUntil(deadline time.Time, left int) time.Time {
	until := share(deadline, min(left, maxShares))
	if least := time.Now().Add(leastShare); !until.IsZero() && until.Before(least) {
		until = least
		if deadline.Before(least) {
			until = deadline
		}
	}
	return until
}

// isOver reports whether no time is left for another attempt.
func isOver(deadline time.Time) bool { return !deadline.IsZero() && time.Until(deadline) <= 0 }

// hurried reports whether an attempt that has failed was silence for too short a time to say anything of a server.
func (d *Dialer) hurried(e *Error, begun, until time.Time) bool {
	least := time.Duration(leastShare)
	if d.timeout > 0 {
		least = min(least, d.timeout/maxShares)
	}
	return (e.Reason == ConnectionTimeout || e.Reason == DNSTimeout) && !until.IsZero() && until.Sub(begun) < least
}
