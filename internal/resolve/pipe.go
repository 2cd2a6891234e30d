package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// maxWaiting is how many queries may wait on one connection: few enough for a random ID to
// be free soon.
const maxWaiting = 16 << 10

// pipe is one connection with the queries that wait on it. Answers come in any order.
type pipe struct {
	try   time.Duration
	ready chan struct{} // closed when the connection stands, or never will
	over  chan struct{} // closed when err is set

	writing sync.Mutex
	c       net.Conn // set before ready is closed

	mu      sync.Mutex
	waiting map[uint16]*call
	queries uint64 // that were sent
	answers uint64 // that have come
	again   bool   // the queries that wait are worth another connection
	single  bool   // it seems that one connection serves only one query
	err     error
}

// call is a query that waits.
type call struct {
	q      *dns.Msg
	answer chan *dns.Msg // gets one, or
	failed chan error
}

func newPipe(try time.Duration) *pipe {
	return &pipe{try: try, ready: make(chan struct{}), over: make(chan struct{}), waiting: make(map[uint16]*call)}
}

// begin lets the queries go.
func (p *pipe) begin(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c = c
	if p.err != nil { // closed meanwhile
		c.SetDeadline(time.Unix(1, 0))
		return
	}
	c.SetReadDeadline(time.Now().Add(idleTimeout))
	close(p.ready)
}

// exchange sends a query and waits for its answer.
func (p *pipe) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	select {
	case <-p.ready:
	case <-p.over:
		return nil, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w, heard, err := p.join(q)
	if err != nil {
		return nil, err
	}
	sent := time.Now()
	if err := p.send(q); err != nil {
		return nil, err
	}
	select {
	case m := <-w.answer:
		return m, nil
	case err := <-w.failed:
		return nil, err
	case <-p.over:
		select { // it may have come just before
		case m := <-w.answer:
			return m, nil
		default:
			return nil, p.err
		}
	case <-ctx.Done():
	}
	p.leave(q, errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(sent) >= p.try/2, heard)
	return nil, ctx.Err()
}

// join gives a query an ID of its own, and returns how many answers had come before it.
func (p *pipe) join(q *dns.Msg) (w *call, heard uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return nil, 0, p.err
	case len(p.waiting) >= maxWaiting:
		return nil, 0, errors.New("too many queries wait on one connection")
	case len(p.waiting) == 0:
		p.c.SetReadDeadline(time.Time{})
	}
	for q.Id = dns.Id(); p.waiting[q.Id] != nil; q.Id = dns.Id() {
	}
	w = &call{q: q, answer: make(chan *dns.Msg, 1), failed: make(chan error, 1)}
	p.waiting[q.Id] = w
	p.queries++
	return w, p.answers, nil
}

// send writes a query. A connection that does not take it is of no more use.
func (p *pipe) send(q *dns.Msg) error {
	wire, err := q.Pack()
	if err != nil {
		p.leave(q, false, 0)
		return err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	p.c.SetWriteDeadline(time.Now().Add(p.try))
	if _, err := p.c.Write(frame(wire)); err != nil {
		p.end(err)
		return err
	}
	return nil
}

// leave gives up a query. If it was given time enough and nothing at all has come since it
// was sent, the connection is taken for dead.
func (p *pipe) leave(q *dns.Msg, patient bool, heard uint64) {
	p.mu.Lock()
	delete(p.waiting, q.Id)
	p.rest()
	dead := patient && p.answers == heard
	p.mu.Unlock()
	if dead {
		p.end(os.ErrDeadlineExceeded)
	}
}

// rest starts the idle time if nobody waits. mu is held.
func (p *pipe) rest() {
	if len(p.waiting) == 0 && p.err == nil {
		p.c.SetReadDeadline(time.Now().Add(idleTimeout))
	}
}

// read hands out answers until the connection ends.
func (p *pipe) read() error {
	for {
		wire, err := readFrame(p.c)
		if err != nil {
			return err
		}
		if len(wire) >= 2 {
			p.deliver(binary.BigEndian.Uint16(wire), wire)
		}
	}
}

// deliver hands an answer to the query with its ID. One to a query that was given up, or
// to another question, is ignored.
func (p *pipe) deliver(id uint16, wire []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers++
	w := p.waiting[id]
	if w == nil || p.err != nil { // after the end a query belongs to its sender again
		return
	}
	m, err := readMessage(wire, w.q)
	if errors.Is(err, errOther) {
		return
	}
	if err != nil {
		w.failed <- err
	} else {
		w.answer <- m
	}
	delete(p.waiting, id)
	p.rest()
}

// end tells all who wait that the connection is no more, and whoever reads to stop. Only
// the first end counts.
func (p *pipe) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.err = err
	if p.c != nil {
		p.err = fmt.Errorf("the connection was closed: %w", err)
		p.c.SetDeadline(time.Unix(1, 0)) // long past: what waits returns
		// A server that closes with queries unread has the network reset the connection,
		// which may destroy even the one answer on its way.
		p.single = p.queries > 1 && p.answers <= 1 && isClosed(err)
		p.again = p.single || p.answers > 0
	}
	close(p.over)
}

// isClosed reports whether it was the other end that closed a connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// hasEnded reports whether the pipe can take no more queries.
func (p *pipe) hasEnded() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}
