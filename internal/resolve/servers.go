package resolve

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// resolutionDelay is how long IPv6 addresses are waited for once there are IPv4 ones (RFC 8305
// section 3). Of the reverse the RFC has no need, since there what comes late joins the race.
// Here it does not, and without IPv4 many a machine has nothing that it can reach: IPv4 is
// waited for as long as one query may take.
const resolutionDelay = 50 * time.Millisecond

// rounds is how often each server is asked.
const rounds = 2

// servers is the source that asks name servers of the operator's choice.
type servers struct {
	list    []*peer
	mode    Mode
	want    Family
	first   atomic.Uint32 // the index of the one that answered last
	try     time.Duration // for one query to one server
	hosts   *net.Resolver
	queries sync.WaitGroup
}

// peer is one name server.
type peer struct {
	name string // for errors
	transport
	private bool // its queries are encrypted
}

// transport carries queries to one name server.
type transport interface {
	// exchange sends q, whose ID it sets, and returns an answer to it: never one to another
	// question, nor one that was truncated. It returns soon after the end of ctx.
	exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error)
	// close closes the connections that are kept. No exchange runs then, nor later.
	close()
}

func newServers(o Options, total time.Duration) *servers {
	s := &servers{mode: o.Mode, want: o.Family, try: min(tryTimeout, total/rounds), hosts: hostsFile()}
	for _, server := range o.Servers {
		s.list = append(s.list, newPeer(server, o.RootCAs, s.try))
	}
	return s
}

// newPeer prepares to ask a server. It does not connect yet.
func newPeer(s Server, roots *x509.CertPool, try time.Duration) *peer {
	addrs := &addresses{list: slices.Clone(s.Addrs)}
	p := &peer{name: s.String()}
	switch s.Network {
	case TCP:
		p.transport = newStream(dialer{addrs: addrs}.dial, try)
	case TLS:
		p.transport, p.private = newStream(dialer{addrs, tlsConfig(s.Name, roots)}.dial, try), true
	case HTTPS:
		p.transport, p.private = newWeb(s, dialer{addrs, tlsConfig(s.Name, roots, "h2", "http/1.1")}.dial), true
	case UDP, "":
		p.transport = datagram{addrs}
	default:
		p.transport = noTransport(s.Network)
	}
	return p
}

// noTransport stands for a network that there is not: no query leaves by a lesser one.
type noTransport string

// exchange implements transport.
func (n noTransport) exchange(context.Context, *dns.Msg) (*dns.Msg, error) {
	return nil, fmt.Errorf("there is no network %q", string(n))
}

// close implements transport.
func (noTransport) close() {}

// close closes what is kept of connections. No lookup runs then.
func (s *servers) close() {
	s.queries.Wait()
	for _, p := range s.list {
		p.close()
	}
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

// types are the record types to ask for.
func (s *servers) types() []uint16 {
	switch s.want {
	case OnlyIPv4:
		return []uint16{dns.TypeA}
	case OnlyIPv6:
		return []uint16{dns.TypeAAAA}
	}
	return []uint16{dns.TypeAAAA, dns.TypeA}
}

// both asks for the address families at once and joins what comes.
func (s *servers) both(ctx context.Context, host string) (answer, error) {
	types := s.types()
	if len(types) == 1 {
		return s.query(ctx, host, types[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	halves := make(chan half, len(types))
	for _, qtype := range types {
		s.queries.Go(func() {
			a, err := s.query(ctx, host, qtype)
			halves <- half{a, err}
		})
	}
	h := <-halves
	if h.err != nil || len(h.addrs) == 0 {
		return merge(h, <-halves)
	}
	patience := resolutionDelay
	if h.addrs[0].Is6() {
		patience = s.try
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

// query asks for one record type until a server gives an answer.
func (s *servers) query(ctx context.Context, host string, qtype uint16) (answer, error) {
	if s.mode == Parallel && len(s.list) > 1 {
		return s.queryAll(ctx, host, qtype)
	}
	first := int(s.first.Load())
	var last error
	for i := range rounds * len(s.list) {
		n := (first + i) % len(s.list)
		a, err := s.ask(ctx, s.list[n], host, qtype)
		if isAnswer(err) {
			if i > 0 {
				s.first.Store(uint32(n))
			}
			return a, err
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return answer{}, last
}

// queryAll asks all servers at once until the first gives an answer.
func (s *servers) queryAll(ctx context.Context, host string, qtype uint16) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan half, len(s.list))
	for _, p := range s.list {
		s.queries.Go(func() {
			a, err := s.ask(ctx, p, host, qtype)
			for i := 1; i < rounds && !isAnswer(err) && ctx.Err() == nil; i++ {
				a, err = s.ask(ctx, p, host, qtype)
			}
			outcomes <- half{a, err}
		})
	}
	var failed error
	for range s.list {
		o := <-outcomes
		if isAnswer(o.err) {
			return o.answer, o.err
		}
		if failed == nil || errors.Is(failed, ErrTimeout) {
			failed = o.err // what a server said is worth more than that one said nothing
		}
	}
	return answer{}, failed
}

// isAnswer reports whether an outcome needs no other server's opinion.
func isAnswer(err error) bool { return err == nil || errors.Is(err, ErrNotFound) }

// serverError tells the kind of a failed query.
func serverError(host, server string, err error) *Error {
	var t interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		return &Error{Host: host, Kind: ErrTimeout, Err: fmt.Errorf("%v is silent", server)}
	}
	return &Error{Host: host, Kind: ErrServer, Err: fmt.Errorf("%v: %w", server, err)}
}

// ask asks one server once.
func (s *servers) ask(ctx context.Context, p *peer, host string, qtype uint16) (answer, error) {
	q := new(dns.Msg).SetQuestion(host+".", qtype)
	q.SetEdns0(udpSize, false)
	if p.private {
		pad(q)
	}
	m, err := s.exchange(ctx, p, q)
	if err == nil && m.Rcode == dns.RcodeFormatError {
		q.Extra = nil // an old server that does not know EDNS (RFC 6891 section 7)
		m, err = s.exchange(ctx, p, q)
	}
	var a answer
	if err == nil {
		a, err = readAnswer(m, host, qtype)
	}
	if !isAnswer(err) {
		return answer{}, serverError(host, p.name, err)
	}
	return a, err
}

// exchange asks a server for no longer than one query may take.
func (s *servers) exchange(ctx context.Context, p *peer, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, s.try)
	defer cancel()
	m, err := p.exchange(ctx, q)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // it is why a read failed, and says more
	}
	return m, err
}
