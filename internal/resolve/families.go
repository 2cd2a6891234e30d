package resolve

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolutionDelay is how long IPv6 addresses are waited for once there are IPv4 ones (RFC 8305
// section 3). Of the reverse the RFC has no need, since there what comes late joins the race.
// Here it does not, and without IPv4 many a machine has nothing that it can reach: IPv4 is
// waited for as long as one query may take.
var resolutionDelay = 50 * time.Millisecond // tests wait longer: what they ask may be slower on a busy machine

// families asks for the address families that are wanted.
type families struct {
	want    Family
	try     time.Duration // for one query
	queries sync.WaitGroup
}

// half is the answer for one address family.
type half struct {
	answer
	err   error
	qtype uint16
}

// types are the record types to ask for.
func (f *families) types() []uint16 {
	switch f.want {
	case OnlyIPv4:
		return []uint16{dns.TypeA}
	case OnlyIPv6:
		return []uint16{dns.TypeAAAA}
	}
	return []uint16{dns.TypeAAAA, dns.TypeA}
}

// lookup has query ask for all at once and joins what comes. What it does not wait for ends
// with its context.
func (f *families) lookup(ctx context.Context, query func(ctx context.Context, qtype uint16) (answer, error)) (answer, error) {
	types := f.types()
	if len(types) == 1 {
		return query(ctx, types[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	halves := make(chan half, len(types))
	for _, qtype := range types {
		f.queries.Go(func() {
			a, err := query(ctx, qtype)
			halves <- half{a, err, qtype}
		})
	}
	h := <-halves
	if h.err != nil || len(h.addrs) == 0 {
		return merge(h, <-halves)
	}
	patience := resolutionDelay
	if h.qtype == dns.TypeAAAA {
		patience = f.try
	}
	delay := time.NewTimer(patience)
	defer delay.Stop()
	select {
	case other := <-halves:
		return merge(h, other)
	case <-delay.C:
		h.half = true
		return h.answer, nil
	}
}

// merge joins the answers for the two families. Addresses of one count more than
// an error of the other, and that more than the news that there is none.
func merge(a, b half) (answer, error) {
	switch {
	case len(a.addrs) > 0 && len(b.addrs) > 0:
		return answer{addrs: append(a.addrs, b.addrs...), ttl: min(a.ttl, b.ttl)}, nil
	case len(b.addrs) > 0:
		a, b = b, a
	}
	if len(a.addrs) > 0 {
		a.half = b.err != nil && !errors.Is(b.err, ErrNotFound)
		return a.answer, nil
	}
	if a.err == nil || errors.Is(a.err, ErrNotFound) && b.err != nil {
		a, b = b, a
	}
	var none, other *Error
	if errors.As(a.err, &none) && none.lives && errors.As(b.err, &other) && other.lives {
		none.life = min(none.life, other.life)
	}
	return answer{}, a.err
}
