package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"polyport/acl"
	"polyport/internal/exit"
)

const (
	defaultBindTimeout   = time.Minute
	defaultBindPerClient = 4
	// maxStrangers is how many connections of others one BIND turns away: more of them fail it, so that nobody can keep it
	// busy.
	maxStrangers = 16
)

// BindOptions is how BIND is served (RFC 1928 section 4): which ports the gateway listens on for clients that wait for a
// connection from outside.
type BindOptions struct {
	// First and Last are the range of ports. First zero means that BIND is not served.
	First, Last uint16
	// Advertise are the addresses that clients are told in the place of the one that is listened on, one for
	// each family of IP. Without one of its family it is told as it is.
	Advertise []netip.Addr
	// Timeout is how long the peer may take to connect. Zero and negative mean 1 min.
	Timeout time.Duration
	// PerClient is how many one client (an IPv4 address or an IPv6 /64) may have waiting at once. Zero and
	// negative mean 4.
	PerClient int
	// Binds is what is in use. Nil means that BIND is not served.
	Binds *Binds
}

var (
	// ErrNoBind is the cause of an Error when no ports are set up for BIND.
	ErrNoBind = errors.New(`BIND is not served here; the gateway's owner would write ports = "40000-40100" into [bind]`)
	// errNoPort and errManyBinds are what is short.
	errNoPort     = errors.New("no port of [bind] ports is free")
	errManyBinds  = errors.New("this client has as many BINDs waiting as [bind] per_client allows")
	errNoPeer     = errors.New("nobody connected in time ([bind] timeout)")
	errStrangers  = fmt.Errorf("%w: only others than who was asked for have connected", ErrDenied)
	errNoFamily   = errors.New("this version of SOCKS can name only an IPv4 address to connect to")
	errNotForBind = errors.New("the permit is not one to listen")
)

// bindRight is what makes a Permit one to listen.
type bindRight struct {
	request acl.Request
	// peers are those who may connect, the preferred one first; nil asks the policy about each who does.
	peers []netip.Addr
	wish  exit.Wish
}

// AuthorizeBind asks whether the client may have the gateway listen for r.Target, which target.NewPeer has made.
// If that names somebody he is resolved and checked as Authorize does, and only his
// addresses may connect, from whatever port. If it is unspecified the policy is asked about each peer that connects, and
// here only whether it could admit any. The Permit is for Listen, never for Dial. The error is an *Error.
func (d *Dialer) AuthorizeBind(ctx context.Context, r acl.Request) (*Permit, error) {
	p, err := d.authorizeBind(ctx, r)
	if err != nil {
		err.Bind = true
		return nil, err
	}
	return p, nil
}

func (d *Dialer) authorizeBind(ctx context.Context, r acl.Request) (*Permit, *Error) {
	r.ClientCountry = d.Country(r.Client)
	var p *Permit
	var err *Error
	if a, ok := r.Target.Addr(); ok && a.IsUnspecified() {
		p, err = d.authorizeAnyPeer(r)
	} else if p, err = d.authorize(ctx, r, nil); err == nil {
		p.bind = &bindRight{request: r, peers: p.pinned.addrs, wish: d.wish}
	}
	if err != nil {
		return nil, err
	}
	if err := p.way.mayListen(); err != nil {
		return nil, err.of(p)
	}
	p.pinned = dialSet{} // nothing may be dialled
	if d.bind.First == 0 || d.bind.Binds == nil {
		return nil, &Error{Reason: ConfigurationError, Target: r.Target, Decision: p.decision, Err: ErrNoBind}
	}
	return p, nil
}

// Listening is a socket on which one connection is awaited.
type Listening struct {
	d      *Dialer
	permit *Permit
	ln     *net.TCPListener
	at     netip.AddrPort // what is listened on, without a zone
	once   sync.Once      // of the closing
}

// Listen opens the socket for a permit of AuthorizeBind. local is the address that the client connected to: it is
// listened on for a peer that nobody knows; for others it is the address from which they are reached. only4 refuses
// all but IPv4. The caller closes it. The error is an *Error.
func (d *Dialer) Listen(ctx context.Context, p *Permit, local netip.Addr, only4 bool) (*Listening, error) {
	if p == nil || p.bind == nil {
		return nil, &Error{Reason: InternalError, Bind: true, Err: errNotForBind}
	}
	l, err := d.listen(ctx, p, local, only4)
	if err != nil {
		err.Bind = true
		return nil, err.of(p)
	}
	return l, nil
}

func (d *Dialer) listen(ctx context.Context, p *Permit, local netip.Addr, only4 bool) (*Listening, *Error) {
	on, err := p.bind.localAddr(local, only4)
	if err != nil {
		return nil, err
	}
	if on, err = p.way.listensOn(on); err != nil {
		return nil, err
	}
	client := p.bind.request.Client
	if !d.bind.Binds.enter(client, d.bind.PerClient) {
		return nil, &Error{Reason: LimitReached, Err: errManyBinds}
	}
	l := &Listening{d: d, permit: p}
	if err := l.open(ctx, on); err != nil {
		d.bind.Binds.leave(client)
		return nil, err
	}
	return l, nil
}

// localAddr returns the address to listen on.
func (b *bindRight) localAddr(local netip.Addr, only4 bool) (netip.Addr, *Error) {
	if b.peers == nil {
		if local = local.Unmap(); only4 && !local.Is4() {
			return local, &Error{Reason: DestinationUnroutable, Err: errNoFamily}
		}
		return local, nil
	}
	var failed failures
	for _, peer := range b.peers {
		if only4 && !peer.Is4() {
			failed.add(&Error{Reason: DestinationUnroutable, Err: errNoFamily})
			continue
		}
		a, err := routeTo(peer)
		if err == nil {
			return a, nil
		}
		failed.add(&Error{Reason: connectReason(err), Err: err})
	}
	return netip.Addr{}, failed.worst()
}

// routeTo returns the address of ours from which the system reaches a; the error says why it cannot. Connecting a UDP socket sends
// nothing.
func routeTo(a netip.Addr) (netip.Addr, error) {
	const anyPort = 9 // some systems connect to no port 0
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, anyPort)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// open listens on the first free port of the range, from where the last search ended.
func (l *Listening) open(ctx context.Context, on netip.Addr) *Error {
	o := &l.d.bind
	ports := int(o.Last) - int(o.First) + 1
	start := o.Binds.start(ports)
	cause := errNoPort
	for i := range ports {
		l.at = netip.AddrPortFrom(on.WithZone(""), o.First+uint16((start+i)%ports))
		if l.d.own != nil && l.d.own(l.at) || !o.Binds.reserve(l.at) {
			continue
		}
		var err error
		if l.ln, err = l.d.listenTCP(ctx, netip.AddrPortFrom(on, l.at.Port()), l.permit.way.from()); err == nil {
			return nil
		}
		o.Binds.free(l.at)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			return &Error{Reason: connectReason(err), Err: err}
		}
		cause = fmt.Errorf("%w: %w", errNoPort, bare(err))
	}
	return &Error{Reason: LimitReached, Err: cause}
}

// listenTCP opens a listening socket whose connections are like those of Dial.
func (d *Dialer) listenTCP(ctx context.Context, on netip.AddrPort, from *origin) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: d.net.KeepAlive}
	if from != nil {
		lc.Control = from.controlListener
	}
	lc.SetMultipathTCP(false)
	network := "tcp4"
	if on.Addr().Is6() {
		network = "tcp6"
	}
	ln, err := lc.Listen(ctx, network, on.String())
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

// Address returns what the client is to be told: the address and port to which its peer has to connect.
func (l *Listening) Address() netip.AddrPort {
	for _, a := range l.d.bind.Advertise {
		if a.Is4() == l.at.Addr().Is4() {
			return netip.AddrPortFrom(a, l.at.Port())
		}
	}
	return l.at
}

// Close closes the socket, unless Accept has done so: when it returns, the port is free. It may be called more than
// once and from any goroutine.
func (l *Listening) Close() {
	l.once.Do(func() {
		_ = l.ln.Close() // nothing can be lost
		l.d.bind.Binds.free(l.at)
		l.d.bind.Binds.leave(l.permit.bind.request.Client)
	})
}

// Accept waits for the peer until ctx ends or BindOptions.Timeout has passed, and closes the socket whatever
// comes of it. Connections of others are reset; the 17th fails the wait. With the connection, a bare *net.TCPConn that the caller
// closes, comes the decision that admitted it. The error is an *Error.
func (l *Listening) Accept(ctx context.Context) (net.Conn, acl.Decision, error) {
	defer l.Close()
	defer context.AfterFunc(ctx, l.Close)()
	_ = l.ln.SetDeadline(time.Now().Add(l.d.bind.Timeout)) // fails only on a closed socket, as AcceptTCP does
	var last *Error
	for range maxStrangers + 1 {
		c, err := l.ln.AcceptTCP()
		if err != nil {
			return nil, acl.Decision{}, l.failed(ctx, err)
		}
		dec, no := l.admit(c)
		if no == nil {
			return c, dec, nil
		}
		last = no
		_ = c.SetLinger(0) // so that Close resets it, which it does on any open socket
		_ = c.Close()
	}
	last.Bind, last.Target = true, l.permit.target
	return nil, acl.Decision{}, last
}

// failed is the Error of a wait in which nobody came.
func (l *Listening) failed(ctx context.Context, err error) *Error {
	e := &Error{Reason: connectReason(err), Bind: true, Err: err}
	switch {
	case ctx.Err() != nil:
		e.Reason, e.Err = ConnectionTerminated, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Err = errNoPeer
	}
	return e.of(l.permit)
}

// admit judges who has connected.
func (l *Listening) admit(c net.Conn) (acl.Decision, *Error) {
	from, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return acl.Decision{}, &Error{Reason: InternalError, Err: errNotTCP}
	}
	peer := from.AddrPort().Addr().Unmap().WithZone("")
	right := l.permit.bind
	if right.peers == nil {
		return l.d.Wishing(right.wish).admitPeer(right.request, peer, l.permit.way)
	}
	for _, a := range right.peers {
		if a == peer {
			return l.permit.decision, nil
		}
	}
	return acl.Decision{}, &Error{Reason: RequestDenied, Address: from.AddrPort(), Err: errStrangers}
}
