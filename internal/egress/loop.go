package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"polyport/internal/reactor"
)

// on returns a copy of d that dials in a task of a loop.
func (d *Dialer) on(l *reactor.Loop) *Dialer {
	c := *d
	c.loop, c.dial = l, func(ctx context.Context, set *dialSet, to netip.AddrPort, deadline time.Time) (net.Conn, error) {
		if !set.covers(to) {
			return nil, errNotPinned
		}
		if to.Addr().Zone() != "" {
			return d.dialZone(ctx, l, set, to, deadline)
		}
		conn, err := l.Dial(ctx, to, deadline, set.preparing(to.Addr().Is6()))
		if err != nil {
			return nil, err // not a nil *Conn in an interface
		}
		return conn, nil
	}
	return &c
}

// dialZone dials an address with a zone, which is nothing that a loop knows, and puts the connection on it.
func (d *Dialer) dialZone(ctx context.Context, l *reactor.Loop, set *dialSet, to netip.AddrPort, deadline time.Time) (net.Conn, error) {
	var conn net.Conn
	var err error
	l.Aside(func() { conn, err = d.dialTCP(ctx, set, to, deadline) })
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errNotTCP, conn.Close())
	}
	adopted, err := l.Adopt(tcp)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return adopted[0], nil
}

// inTurn connects to the first address that can be connected to.
func (d *Dialer) inTurn(ctx context.Context, set *dialSet, deadline time.Time) (net.Conn, *Error) {
	var failed failures
	for i, a := range set.addrs {
		c, err := d.connect(ctx, set, a, share(deadline, len(set.addrs)-i))
		if err == nil {
			return c, nil
		}
		if failed.add(err); failed.final(ctx) {
			break
		}
	}
	return nil, failed.worst()
}

// raceOnLoop is race in a task: the same run of Happy Eyeballs without a goroutine for each attempt.
func (d *Dialer) raceOnLoop(ctx context.Context, set *dialSet, deadline time.Time) (net.Conn, *Error) {
	targets := make([]netip.AddrPort, len(set.addrs))
	for i, a := range set.addrs {
		if a.Zone() != "" { // several servers in one zone: rare enough to try them in turn
			return d.inTurn(ctx, set, deadline)
		}
		targets[i] = netip.AddrPortFrom(a, set.port)
	}
	var failed failures
	var prepare func(fd, i int) error
	if set.from != nil {
		prepare = func(fd, i int) error { return set.from.prepare(fd, targets[i].Addr().Is6()) }
	}
	conn := d.loop.Race(ctx, targets, attemptDelay, deadline, prepare, func(i int, err error) (goOn bool) {
		failed.add(&Error{Reason: connectReason(err), Address: targets[i], Err: err})
		return !failed.final(ctx)
	})
	if conn == nil {
		return nil, failed.worst()
	}
	return conn, nil
}
