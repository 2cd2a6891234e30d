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

// rounds is how often each server is asked.
const rounds = 2

// servers is the source that asks name servers of the operator's choice.
type servers struct {
	list    []*peer
	mode    Mode
	first   atomic.Uint32 // the index of the one that answered last
	try     time.Duration // for one query to one server
	hosts   *net.Resolver
	both    families
	queries sync.WaitGroup // to one of several servers
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
	try := min(tryTimeout, total/rounds)
	s := &servers{mode: o.Mode, try: try, hosts: hostsFile(), both: families{want: o.Family, try: try}}
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
	s.both.queries.Wait()
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
	if addrs := inHostsFile(ctx, s.hosts, host); len(addrs) > 0 {
		return answer{addrs: addrs, ttl: systemTTL}, nil
	}
	return s.both.lookup(ctx, func(ctx context.Context, qtype uint16) (answer, error) { return s.query(ctx, host, qtype) })
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
			outcomes <- half{answer: a, err: err}
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
