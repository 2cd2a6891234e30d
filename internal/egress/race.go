package egress

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// attemptDelay is the Connection Attempt Delay (RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// interleave orders addresses in place as RFC 8305 section 4 says, with a First
// Address Family Count of 1: the families take turns, IPv6 first or else IPv4, and within a
// family the resolver's order stays.
func interleave(addrs []netip.Addr, first6 bool) {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is6() == first6 {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	for i := range addrs {
		if len(first) > 0 && (i%2 == 0 || len(second) == 0) {
			addrs[i], first = first[0], first[1:]
		} else {
			addrs[i], second = second[0], second[1:]
		}
	}
}

// race is one run of Happy Eyeballs (RFC 8305 section 5): one attempt after the
// other, the next when the one before has failed or after the Connection Attempt
// Delay; the first connection wins and the others are closed.
type race struct {
	d        *Dialer
	set      *dialSet
	deadline time.Time
	outcomes chan outcome  // unbuffered: what is taken is used, the rest sees over
	over     chan struct{} // closed when nobody takes outcomes any more
}

// outcome is how one attempt ended.
type outcome struct {
	conn net.Conn
	err  *Error
}

// race connects to one of several addresses.
func (d *Dialer) race(ctx context.Context, set *dialSet, deadline time.Time) (net.Conn, *Error) {
	r := &race{d: d, set: set, deadline: deadline, outcomes: make(chan outcome), over: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(r.over)
	delay := time.NewTimer(attemptDelay)
	defer delay.Stop()

	var failed failures
	next, running := 0, 0
	start := func() {
		if next < len(set.addrs) {
			go r.attempt(ctx, set.addrs[next])
			next, running = next+1, running+1
			delay.Reset(attemptDelay)
		}
	}
	for start(); running > 0; {
		select {
		case o := <-r.outcomes:
			if o.err == nil {
				return o.conn, nil
			}
			running--
			if failed.add(o.err); !failed.final(ctx) {
				start()
			}
		case <-delay.C:
			start()
		}
	}
	return nil, failed.worst()
}

// attempt is one goroutine of a race. It ends when its dial does, which the
// race's context bounds; a connection that nobody takes any more is closed.
func (r *race) attempt(ctx context.Context, a netip.Addr) {
	c, err := r.d.connect(ctx, r.set, a, r.deadline)
	select {
	case r.outcomes <- outcome{conn: c, err: err}:
	case <-r.over:
		if err == nil {
			c.Close()
		}
	}
}
