package resolve

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// idleTimeout is how long a connection without a query is kept: "a few seconds" (RFC
	// 7766 section 6.2.3).
	idleTimeout = 10 * time.Second
	// singleConns bounds the connections to a server that answers only one query on each.
	singleConns = 32
	// singleTime is for how long a server is taken for such a one.
	singleTime = time.Minute
)

// stream is the transport over TCP, with TLS or without. All queries share one connection,
// on which they do not wait for each other (RFC 7766 section 6.2.1.1), unless the server
// closes it after each answer: then each query has its own.
type stream struct {
	dial func(context.Context) (net.Conn, error)
	try  time.Duration // for dial, and for a query to be sent

	ctx     context.Context // ends with close
	stop    context.CancelFunc
	running sync.WaitGroup // pipes

	slots chan struct{} // one for each connection of a single query

	mu     sync.Mutex
	pipe   *pipe     // nil before the first query
	single time.Time // until when each query has a connection of its own
}

func newStream(dial func(context.Context) (net.Conn, error), try time.Duration) *stream {
	s := &stream{dial: dial, try: try, slots: make(chan struct{}, singleConns)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// exchange implements transport. A connection that has answered before may have been closed
// while the query was under way, which is no failure (RFC 7766 section 6.2.4).
func (s *stream) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	p := s.open()
	if p == nil {
		return s.exchangeSingle(ctx, q)
	}
	m, err := p.exchange(ctx, q)
	if err == nil || !p.hasEnded() || !p.again {
		return m, err
	}
	s.retire(p)
	if p = s.open(); p == nil {
		return s.exchangeSingle(ctx, q)
	}
	return p.exchange(ctx, q)
}

// open returns the connection that queries are sent on, which may still be under way; nil
// if each query is to have its own.
func (s *stream) open() *pipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.single) {
		return nil
	}
	if s.pipe == nil || s.pipe.hasEnded() {
		s.pipe = newPipe(s.try)
		s.running.Add(1)
		go s.run(s.pipe)
	}
	return s.pipe
}

// retire draws the lesson from a pipe that has ended.
func (s *stream) retire(p *pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.single {
		s.single = time.Now().Add(singleTime)
	}
}

// run owns the connection of a pipe from its beginning to its end.
func (s *stream) run(p *pipe) {
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(s.ctx, s.try)
	c, err := s.dial(ctx)
	cancel()
	if err != nil {
		p.end(err)
		return
	}
	defer c.Close()
	defer context.AfterFunc(s.ctx, func() { p.end(net.ErrClosed) })()
	p.begin(c)
	p.end(p.read())
}

// exchangeSingle uses a connection for one query alone.
func (s *stream) exchangeSingle(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a connection: %w", ctx.Err())
	}
	defer func() { <-s.slots }()
	c, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return exchangeOn(ctx, c, q)
}

// close implements transport.
func (s *stream) close() {
	s.stop()
	s.running.Wait()
}
