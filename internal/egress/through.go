package egress

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// maxAsked is how many addresses of one name proxies are asked for in turn.
const maxAsked = 4

// openThrough opens a connection through the permit's upstream. What was checked is asked for: an address, or the name where
// the upstream resolves names.
func (d *Dialer) openThrough(ctx context.Context, p *Permit, deadline time.Time, o OpenOptions) (Link, *Error) {
	w := p.way
	t := tunneling{d: d, way: w, forward: o.Forward, avoid: o.Avoid.servers, via: cmp.Or(o.Via, d.via)}
	link := Link{Upstream: w.upstream.Name()}
	var err *Error
	if w.byName {
		to := upstream.Destination{Host: p.target.Host(), Port: p.target.Port()}
		link.Conn, err = t.pass(ctx, w.upstream, &w.request, &link, to, deadline)
	} else {
		var a netip.Addr
		link.Conn, a, err = t.passAny(ctx, w.upstream, &w.request, &link, p.pinned.addrs, p.pinned.port, deadline)
		if err == nil && link.Forward == nil {
			link.Address = netip.AddrPortFrom(a, p.pinned.port)
		}
	}
	if err != nil {
		return Link{}, err
	}
	return link, nil
}

// tunneling is the opening of one connection through an upstream.
type tunneling struct {
	d       *Dialer
	way     *way
	forward bool
	avoid   pool.Tried // of the way's upstream, where there are others
	via     string     // the Via field of each CONNECT; "" is none
	// relay has proxies asked for a UDP association in the place of a tunnel, and takes its relay; nil is none.
	relay *netip.AddrPort
}

// passAny opens a tunnel to the first of several addresses that proxies have a way to, and says which it is.
func (t *tunneling) passAny(ctx context.Context, u *upstream.Upstream, r *pool.Request, link *Link,
	addrs []netip.Addr, port uint16, deadline time.Time,
) (net.Conn, netip.Addr, *Error) {
	var failed failures
	addrs = addrs[:min(len(addrs), maxAsked)]
	for i, a := range addrs {
		conn, err := t.pass(ctx, u, r, link, upstream.Destination{Addr: a, Port: port}, share(deadline, len(addrs)-i))
		if err == nil {
			return conn, a, nil
		}
		failed.add(err)
		if err.noProxy || failed.final(ctx) || err.Reason == RequestDenied || err.Reason == LoopDetected {
			break // another address would fare no better
		}
	}
	return nil, netip.Addr{}, failed.worst()
}

// pass opens a tunnel through one of the proxies of an upstream: the next one is tried as long as proxies fail, since nothing of
// the client's has been sent yet.
func (t *tunneling) pass(ctx context.Context, u *upstream.Upstream, r *pool.Request, link *Link,
	to upstream.Destination, deadline time.Time,
) (net.Conn, *Error) {
	tried := t.leftOut(u, r)
	var failed failures
	var unasked *Error // tells less than what a proxy that was asked has said
	spared := false    // by some of them another address may be reached
	for {
		m, err := u.Pool().Choose(r, &tried)
		if err != nil {
			if len(failed) == 0 {
				failed.add(cmp.Or(unasked, noServer(err)))
			}
			return nil, exhausted(u, failed, spared)
		}
		tried.Add(m.Index())
		left := 1 + u.Pool().Usable(r, &tried)
		conn, fail := t.try(ctx, u, m, link, to, attemptUntil(deadline, left))
		if fail == nil {
			return conn, nil
		}
		spared = spared || fail.spared
		if fail.unasked {
			unasked = fail.Error
			continue
		}
		if fail.blame == onTarget && u == t.way.upstream {
			fail.Server = m.Name()
		}
		failed.add(fail.Error)
		switch {
		case fail.noProxy, failed.final(ctx), fail.blame == onTarget:
			return nil, through(u, failed.last())
		case isOver(deadline):
			return nil, exhausted(u, failed, spared)
		}
	}
}

// leftOut returns the proxies of an upstream that are not asked at all.
func (t *tunneling) leftOut(u *upstream.Upstream, r *pool.Request) (out pool.Tried) {
	switch {
	case t.relay != nil:
		return withoutUDP(u)
	case u == t.way.upstream:
		return avoiding(u.Pool(), r, t.avoid)
	}
	return out
}

// avoiding returns the servers of a pool to avoid, which are none where there is no other.
func avoiding(p *pool.Pool, r *pool.Request, avoid pool.Tried) pool.Tried {
	if avoid != (pool.Tried{}) && p.Usable(r, &avoid) == 0 {
		return pool.Tried{}
	}
	return avoid
}

// exhausted is the Error where there is no other proxy to ask, or no time. Where none was spared another address would fare no better.
func exhausted(u *upstream.Upstream, failed failures, spared bool) *Error {
	e := failed.worst()
	e.noProxy = !spared
	return through(u, e)
}

// try opens a tunnel through one proxy that has been chosen, and tells its pool how that went.
func (t *tunneling) try(ctx context.Context, u *upstream.Upstream, m *pool.Member, link *Link,
	to upstream.Destination, until time.Time,
) (conn net.Conn, fail *failedAttempt) {
	kept, begun, answers := len(link.members), time.Now(), m.Answers()
	link.members = append(link.members, m)
	defer func() {
		if conn == nil { // also after a panic
			link.releaseTo(kept)
		}
	}()
	conn, fail = t.attempt(ctx, u, m.Index(), link, to, until)
	switch {
	case fail == nil:
		m.Succeeded()
		if u == t.way.upstream {
			link.Server = m.Name()
		}
	case fail.blame == onNobody, ctx.Err() != nil, fail.OutOfRoom(), t.d.hurried(fail.Error, begun, until):
		m.Abandoned()
	case fail.Reason == ConnectionTimeout && m.Answers() != answers:
		m.Abandoned() // it was not silent for others, so that may be the target's
	case fail.blame == onServer:
		m.Failed(fail.forOthers())
	default:
		m.Succeeded() // it has answered
	}
	return conn, fail
}

// blame is whom a failed attempt tells something of.
type blame uint8

const (
	onServer blame = iota // the next one may do better
	onTarget              // the proxy has said so
	onNobody              // it is our own fault, or that of a proxy before it, or nobody knows whose
)

// failedAttempt is why one proxy gave no tunnel.
type failedAttempt struct {
	*Error
	blame   blame
	unasked bool // the proxy cannot be asked for that
	spared  bool // it says nothing of the proxy, which may reach another address
}

// attempt opens a tunnel through one proxy.
func (t *tunneling) attempt(ctx context.Context, u *upstream.Upstream, i int, link *Link,
	to upstream.Destination, deadline time.Time,
) (net.Conn, *failedAttempt) {
	proxy := u.Proxy(i)
	h := hop{tunneling: t, upstream: u, proxy: proxy, link: link, deadline: deadline}
	dial := h.dial
	if proxy.Scheme() == upstream.H2 {
		dial = h.dialShared
	}
	var conn net.Conn
	var err error
	if t.relay != nil {
		conn, err = t.associate(ctx, proxy, deadline, dial)
	} else if s := proxy.Scheme(); t.forward && u == t.way.upstream && (s == upstream.HTTP || s == upstream.HTTPS) {
		if conn, err = proxy.OpenForward(ctx, deadline, dial); err == nil {
			link.Forward = proxy
		}
	} else {
		to.Via = t.via
		conn, err = proxy.Open(ctx, deadline, t.way.apart(u), dial, to)
	}
	if h.stop != nil && !h.stop() && (err == nil || errors.Is(ctx.Err(), context.Canceled)) {
		if err == nil {
			_ = conn.Close() // nobody waits for it any more
		}
		err = ctx.Err()
	}
	if err != nil {
		link.Forward = nil
		return nil, blamed(err)
	}
	return conn, nil
}

// blamed says whose fault an error of a proxy is.
func blamed(err error) *failedAttempt {
	var said *upstream.Error
	if e := (*Error)(nil); errors.As(err, &e) { // of the way to the proxy
		unreached := *e // HTTP/2 tells it to all who wait for one connection
		f := &failedAttempt{Error: &unreached, blame: onServer}
		if e.noProxy || isOurs(e.Err) {
			f.blame = onNobody
		}
		return f
	}
	if errors.As(err, &said) {
		f := &failedAttempt{Error: &Error{Reason: Reason(said.Reason), Err: said}, blame: onTarget}
		switch {
		case said.Unasked, said.Heard:
			f.blame, f.unasked, f.spared = onNobody, said.Unasked, true
		case said.Server:
			f.blame = onServer
		}
		return f
	}
	return &failedAttempt{Error: &Error{Reason: connectReason(err), Err: err}, blame: onServer}
}

// hop is the connection to one proxy.
type hop struct {
	*tunneling
	upstream *upstream.Upstream
	proxy    *upstream.Proxy
	link     *Link
	deadline time.Time
	stop     func() bool // of the watch for the context; nil: there is none
}

// longPast, as a deadline, ends whatever waits.
var longPast = time.Unix(1, 0)

// dial is the upstream.DialFunc for a connection that is for one tunnel alone.
func (h *hop) dial(ctx context.Context) (net.Conn, error) {
	conn, err := h.reach(ctx, h.link)
	if err != nil {
		return nil, err
	}
	// A proxy that Blocks looks after the context by itself; on a loop nothing but deadlines can end a wait.
	if h.d.loop == nil && !h.proxy.Blocks() && ctx.Done() != nil {
		h.stop = context.AfterFunc(ctx, func() {
			_ = conn.SetDeadline(longPast) // it fails for a closed connection alone, where nothing waits
		})
	}
	return conn, nil
}

// dialShared is dial for a connection that carries tunnels of others too: it may be called when nobody waits for its result any more,
// and what it has chosen on the way counts until the connection is closed.
func (h *hop) dialShared(ctx context.Context) (net.Conn, error) {
	var link Link
	conn, err := h.reach(ctx, &link)
	if err != nil {
		return nil, err
	}
	if len(link.members) == 0 {
		return conn, nil
	}
	return &countedConn{Conn: conn, link: link}, nil
}

// countedConn is a connection that releases a Link when it is closed.
type countedConn struct {
	net.Conn
	link Link
	once sync.Once
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.once.Do(c.link.Release)
	return c.Conn.Close()
}

// reach connects to the proxy: directly, or through the upstream that it lies behind.
func (h *hop) reach(ctx context.Context, link *Link) (net.Conn, error) {
	conn, err := h.connect(ctx, link)
	if err != nil {
		return nil, err // not a nil *Error in an interface
	}
	return conn, nil
}

func (h *hop) connect(ctx context.Context, link *Link) (net.Conn, *Error) {
	s, via := h.proxy.Server(), h.upstream.Via()
	if via == nil {
		return h.d.dialServer(ctx, s, h.way.from(), h.deadline)
	}
	r := h.way.hopRequest()
	if s.Addr.IsValid() || via.ResolvesNames() {
		return h.pass(ctx, via, r, link, upstream.Destination{Host: s.Name, Addr: s.Addr, Port: s.Port}, h.deadline)
	}
	addrs, err := h.d.lookupServer(ctx, s.Name, h.deadline)
	if err != nil {
		return nil, err
	}
	conn, _, err := h.passAny(ctx, via, r, link, addrs, s.Port, h.deadline)
	return conn, err
}

// noServer is the Error where a pool has no server to offer: the answer comes at once (RFC 9209 section 2.3.3).
func noServer(err error) *Error {
	if errors.Is(err, pool.ErrNone) {
		return &Error{Reason: ConfigurationError, Err: err}
	}
	return &Error{Reason: DestinationUnavailable, Err: err}
}

// through names the upstream in an error.
func through(u *upstream.Upstream, e *Error) *Error {
	if e.Upstream == "" {
		e.Upstream = u.Name()
	}
	return e
}
