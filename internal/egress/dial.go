package egress

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// dialFunc opens one TCP connection to a member of set.
type dialFunc func(ctx context.Context, set *dialSet, to netip.AddrPort, deadline time.Time) (net.Conn, error)

// dialSet connects to one address of set. The error lacks the target.
func (d *Dialer) dialSet(ctx context.Context, set *dialSet, deadline time.Time) (net.Conn, *Error) {
	switch {
	case len(set.addrs) == 1:
		return d.connect(ctx, set, set.addrs[0], deadline)
	case d.loop != nil:
		return d.raceOnLoop(ctx, set, deadline)
	}
	return d.race(ctx, set, deadline)
}

// connect makes one attempt.
func (d *Dialer) connect(ctx context.Context, set *dialSet, a netip.Addr, deadline time.Time) (net.Conn, *Error) {
	to := netip.AddrPortFrom(a, set.port)
	c, err := d.dial(ctx, set, to, deadline)
	if err != nil {
		return nil, &Error{Reason: connectReason(err), Address: to, Err: err}
	}
	return c, nil
}

// newNetDialer makes the net.Dialer that all connections share. It never
// resolves, never races, and never uses MPTCP, which splice does not know.
func newNetDialer(keepAlive time.Duration) *net.Dialer {
	if keepAlive == 0 {
		keepAlive = defaultKeepAlive
	}
	nd := &net.Dialer{KeepAlive: keepAlive, FallbackDelay: -1, ControlContext: checkPinned}
	nd.SetMultipathTCP(false)
	return nd
}

// dialTCP is the dialFunc of every Dialer outside tests. A context that cannot
// be cancelled gets a timer, since package net heeds a deadline only beside a
// Done channel; any other is only told the deadline, which costs one allocation.
func (d *Dialer) dialTCP(ctx context.Context, set *dialSet, to netip.AddrPort, deadline time.Time) (net.Conn, error) {
	if ctx.Done() == nil && !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	network := "tcp4"
	if to.Addr().Is6() {
		network = "tcp6"
	}
	// Not DialTCP: given no local address it binds the socket to port 0 all the
	// same, which uses up a local port for all targets instead of for this one.
	return d.net.DialContext(&attempt{Context: ctx, set: set, deadline: deadline}, network, to.String())
}

// attempt is the context of one connection attempt. It lends its parent a
// nearer deadline without a timer (package net makes it the socket's write
// deadline) and carries the dial set to checkPinned.
type attempt struct {
	context.Context
	set      *dialSet
	deadline time.Time // zero: the parent's
}

// attemptKey finds the attempt in a context that package net may have wrapped.
type attemptKey struct{}

// Deadline implements context.Context.
func (a *attempt) Deadline() (time.Time, bool) {
	parent, ok := a.Context.Deadline()
	if a.deadline.IsZero() || ok && parent.Before(a.deadline) {
		return parent, ok
	}
	return a.deadline, true
}

// Value implements context.Context.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// checkPinned is the last look before connect(2): the socket address must be
// one that was checked, whatever has happened above.
func checkPinned(ctx context.Context, _, address string, c syscall.RawConn) error {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return errNotPinned
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !a.set.covers(ap) {
		return errNotPinned
	}
	return prepareAttempt(ctx, address, c)
}
