package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// resolutionDelay is how long the second address family is waited for once the
// first has given addresses (RFC 8305 section 3).
const resolutionDelay = 50 * time.Millisecond

// rounds is how often each server is asked.
const rounds = 2

// servers is the source that asks name servers of the operator's choice.
type servers struct {
	list   []Server
	first  atomic.Uint32 // the index of the one that answered last
	try    time.Duration // for one query to one server
	hosts  *net.Resolver
	dialer net.Dialer
}

func newServers(list []Server, total time.Duration) *servers {
	return &servers{list: append([]Server(nil), list...), try: min(tryTimeout, total/rounds), hosts: hostsFile()}
}

// lookup is a source.
func (s *servers) lookup(ctx context.Context, host string) (answer, error) {
	if a, err, ok := special(ctx, s.hosts, host); ok {
		return a, err
	}
	if addrs, err := s.hosts.LookupNetIP(ctx, "ip", host+"."); err == nil && len(addrs) > 0 {
		return answer{addrs: addrs, ttl: systemTTL}, nil
	}
	return s.both(ctx, host)
}

// half is the answer for one address family.
type half struct {
	answer
	err error
}

// both asks for both address families at once and joins what comes.
func (s *servers) both(ctx context.Context, host string) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	halves := make(chan half, 2)
	for _, qtype := range [...]uint16{dns.TypeAAAA, dns.TypeA} {
		go func() {
			a, err := s.query(ctx, host, qtype)
			halves <- half{a, err}
		}()
	}
	h := <-halves
	if h.err != nil || len(h.addrs) == 0 {
		return merge(h, <-halves)
	}
	delay := time.NewTimer(resolutionDelay)
	defer delay.Stop()
	select {
	case other := <-halves:
		return merge(h, other)
	case <-delay.C:
		// Kept for a short time only: the other family may be well again soon.
		h.ttl = min(h.ttl, failureTTL)
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
		if b.err != nil && !errors.Is(b.err, ErrNotFound) {
			a.ttl = min(a.ttl, failureTTL)
		}
		return a.answer, nil
	}
	if a.err == nil || errors.Is(a.err, ErrNotFound) && b.err != nil {
		return answer{}, b.err
	}
	return answer{}, a.err
}

// query asks for one record type until a server gives an answer.
func (s *servers) query(ctx context.Context, host string, qtype uint16) (answer, error) {
	first := int(s.first.Load())
	var last error
	for i := range rounds * len(s.list) {
		n := (first + i) % len(s.list)
		a, err := s.ask(ctx, s.list[n], host, qtype)
		if err == nil || errors.Is(err, ErrNotFound) {
			if i > 0 {
				s.first.Store(uint32(n))
			}
			return a, err
		}
		last = serverError(host, s.list[n].Addr, err)
		if ctx.Err() != nil {
			break
		}
	}
	return answer{}, last
}

// serverError tells the kind of a failed query.
func serverError(host string, server netip.AddrPort, err error) *Error {
	var t interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		return &Error{Host: host, Kind: ErrTimeout, Err: fmt.Errorf("%v is silent", server)}
	}
	return &Error{Host: host, Kind: ErrServer, Err: fmt.Errorf("%v: %w", server, err)}
}

// ask asks one server once, over TCP again if its answer did not fit.
func (s *servers) ask(ctx context.Context, server Server, host string, qtype uint16) (answer, error) {
	network := "udp"
	if server.TCP {
		network = "tcp"
	}
	q := new(dns.Msg).SetQuestion(host+".", qtype)
	q.SetEdns0(udpSize, false)
	m, err := s.exchange(ctx, network, server.Addr, q)
	if err == nil && m.Rcode == dns.RcodeFormatError {
		q.Extra = nil // an old server that does not know EDNS (RFC 6891 section 7)
		m, err = s.exchange(ctx, network, server.Addr, q)
	}
	if err == nil && m.Truncated && network == "udp" {
		m, err = s.exchange(ctx, "tcp", server.Addr, q)
	}
	if err != nil {
		return answer{}, err
	}
	return readAnswer(m, host, qtype)
}
