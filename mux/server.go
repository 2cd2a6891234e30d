// Package mux is the front door: it accepts connections, bounds them, finds out
// what each speaks from the first bytes that have arrived, and hands it to the
// handler of that row. It knows no protocol and no policy.
package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/soheilhy/cmux"

	"polyport/internal/reactor"
)

// Table is what each listener serves. It is immutable once it is given to a server.
type Table map[string][]Row

// Options configures a Server.
type Options struct {
	// Rows are the names of the built-in rows: each gets a listener of its own in cmux.
	// Every other row (users' raw ones, which may come and go) shares one more.
	Rows []string
	// Handle takes a classified connection over and closes it in the end. It is called
	// from the dispatch of its row, so it must not block: it serves in a goroutine of its
	// own. Shutdown returns only once Handle has returned for all.
	Handle func(*Conn)
	// Loops carry connections until their row is known, without a goroutine. Nil has a goroutine do it for each.
	Loops *reactor.Group
	// OnLoop reports whether a classified connection may stay on its loop. It is asked on the loop and must not block. Nil is no.
	OnLoop func(*Conn) bool
	// Serve is Handle for those that stay: it is called in a task of the loop and returns once it is done.
	Serve func(*Conn)
	// Refused hears of what ended before it became a session. It is called from
	// many goroutines and must not block. Nil hears nothing.
	Refused func(Refusal)
	// AcceptFault hears that a listener cannot accept, once, and with a nil error
	// that it has not failed for two seconds. It must not block. Nil hears nothing.
	AcceptFault func(listener string, err error)
	// Packets is what is served over UDP, in order of priority. It needs Loops.
	Packets []PacketRow
	Limits  Limits
	Sniff   SniffOptions
}

// Server is the shared port. Make one with NewServer.
type Server struct {
	opts    Options
	caps    *caps
	table   atomic.Pointer[Table]
	inside  atomic.Pointer[Table] // what is served inside secured connections
	sniff   atomic.Pointer[SniffOptions]
	packets *packetTable

	feed     chan *Conn
	ending   chan struct{} // closed when Shutdown begins
	root     *virtualListener
	cmux     cmux.CMux
	children []net.Listener

	mu        sync.Mutex
	acceptors map[*Acceptor]struct{}
	sniffing  inflight // accepted, and not yet with a handler
	loops     sync.WaitGroup
	served    chan struct{} // closed when cmux has ended
}

// NewServer makes a server of no listeners and starts its dispatch.
func NewServer(o Options) *Server {
	if o.Refused == nil {
		o.Refused = func(Refusal) {}
	}
	if o.AcceptFault == nil {
		o.AcceptFault = func(string, error) {}
	}
	s := &Server{
		opts:      o,
		caps:      newCaps(o.Limits),
		feed:      make(chan *Conn),
		ending:    make(chan struct{}),
		acceptors: map[*Acceptor]struct{}{},
		served:    make(chan struct{}),
		packets:   newPacketTable(o.Packets),
	}
	s.SetTable(Table{})
	s.SetInside(Table{})
	s.SetSniff(o.Sniff)
	s.root = &virtualListener{feed: s.feed, closed: make(chan struct{})}
	s.cmux = cmux.New(s.root)
	for i := range len(o.Rows) + 1 {
		s.children = append(s.children, s.cmux.MatchWithWriters(forChild(i)))
	}
	for _, child := range s.children {
		s.loops.Go(func() { s.dispatch(child) })
	}
	go s.serve()
	return s
}

// forChild matches the connections that are classified as child i's. cmux passes
// our own Conn as the writer; its reader is never touched, so its buffer stays empty.
func forChild(i int) cmux.MatchWriter {
	return func(w io.Writer, _ io.Reader) bool { return w.(*Conn).child == i }
}

// childOf returns the cmux listener that serves a row.
func (s *Server) childOf(row string) int {
	for i, name := range s.opts.Rows {
		if name == row {
			return i
		}
	}
	return len(s.opts.Rows)
}

// SetTable replaces the protocol table for connections that come from now on.
func (s *Server) SetTable(t Table) { s.table.Store(&t) }

// SetInside replaces the protocol table for the inside of secured connections (Inject).
func (s *Server) SetInside(t Table) { s.inside.Store(&t) }

// SetSniff replaces the time bounds for connections that come from now on.
func (s *Server) SetSniff(o SniffOptions) {
	o = o.withDefaults()
	s.sniff.Store(&o)
}

// SetLimits replaces the caps. Connections over a new cap may stay.
func (s *Server) SetLimits(l Limits) { s.caps.setLimits(l) }

// Connections returns how many connections are held, and how many of them have not finished their handshake.
func (s *Server) Connections() (total, unfinished int) { return s.caps.counts() }

// Add begins to accept from l. It fails only once the server is shutting down.
func (s *Server) Add(l Listener) (*Acceptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isEnding() {
		return nil, errors.Join(errors.New("the server is shutting down"), l.Socket.Close())
	}
	a := newAcceptor(s, &l, l.Socket)
	s.acceptors[a] = struct{}{}
	go a.run()
	return a, nil
}

// Remove stops accepting from a, once its socket's queue has been accepted. Its connections go on.
func (s *Server) Remove(a *Acceptor) error {
	s.mu.Lock()
	delete(s.acceptors, a)
	s.mu.Unlock()
	return a.Close()
}

// accepted takes in a connection that a goroutine is to classify.
func (s *Server) accepted(nc *net.TCPConn, l *Listener) {
	c := &Conn{nc: nc, tcp: nc, bare: nc, client: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr()), listener: l.Name, packets: l.Packets}
	balancer := l.isBalancer(c.client.Addr())
	if refused := s.admit(c, nc, balancer); refused != "" {
		s.refuse(c, refused, nil)
		return
	}
	go s.welcome(c, balancer)
}

// admit is the one way in: every connection takes its place in the caps here. What it is
// admitted for ends with sniffing.done. aborts is what the caps close when it has to make room.
func (s *Server) admit(c *Conn, aborts net.Conn, balancer bool) (refused Cause) {
	var counted netip.Addr // a balancer's client is counted once it is known
	if !balancer {
		counted = c.client.Addr()
	}
	evicted, refused := s.caps.take(&c.slot, aborts, counted)
	pushOut(evicted...)
	if refused == "" {
		s.sniffing.add()
	}
	return refused
}

// welcome reads the PROXY header, finds the row and hands the connection on.
func (s *Server) welcome(c *Conn, balancer bool) {
	defer s.sniffing.done()
	sn := s.newSniffer(c)
	if balancer && !s.declare(c, sn.deadline) {
		return
	}
	row, cause, err := sn.sniff()
	if cause != "" {
		s.refuse(c, cause, err)
		return
	}
	s.classified(c, row)
	s.feedCmux(c)
}

// newSniffer begins to classify a connection.
func (s *Server) newSniffer(c *Conn) sniffer {
	table := &s.table
	if c.secured != nil {
		table = &s.inside
	}
	start := time.Now()
	sn := sniffer{c: c, rows: (*table.Load())[c.listener], opts: s.sniff.Load(), start: start}
	sn.deadline = start.Add(sn.opts.Timeout)
	if hasRow(sn.rows, sn.opts.SilentRow) {
		sn.silentRow = sn.opts.SilentRow
	}
	return sn
}

// classified notes the row of a connection.
func (s *Server) classified(c *Conn, row string) {
	c.row, c.child = row, s.childOf(row)
	c.slot.waiting.Store(false)
}

// feedCmux hands a connection to the listener of its row.
func (s *Server) feedCmux(c *Conn) {
	s.sniffing.add() // for dispatch
	select {
	case s.feed <- c:
	case <-s.served:
		s.sniffing.done()
		s.refuse(c, ShuttingDown, nil)
	}
}

// hasRow reports whether a listener serves a row.
func hasRow(rows []Row, name string) bool {
	for i := range rows {
		if name != "" && rows[i].Name == name {
			return true
		}
	}
	return false
}

// declare replaces a balancer by the client that its PROXY header names.
func (s *Server) declare(c *Conn, deadline time.Time) bool {
	if err := c.nc.SetReadDeadline(deadline); err != nil {
		s.refuse(c, ClosedEarly, err)
		return false
	}
	if cause, err := c.readProxyHeader(); cause != "" {
		s.refuse(c, cause, err)
		return false
	}
	evicted, refused := s.caps.name(&c.slot, c.client.Addr())
	pushOut(evicted)
	if refused != "" {
		s.refuse(c, refused, nil)
	}
	return refused == ""
}

// pushOut closes the connections that lost their places; a nil one is none.
func pushOut(evicted ...*slot) {
	for _, s := range evicted {
		if s == nil {
			continue
		}
		if c, ok := s.conn.(*Conn); ok {
			c.abort() // it may be on a loop
			continue
		}
		abort(s.conn)
	}
}

// refuse ends a connection that did not become a session.
func (s *Server) refuse(c *Conn, cause Cause, err error) {
	if cause != MatcherPanicked && c.Evicted() {
		cause, err = Evicted, nil // whatever failed, it did since we had closed the connection
		if s.isEnding() {
			cause = ShuttingDown
		}
	}
	s.opts.Refused(Refusal{Cause: cause, Client: c.client, Listener: c.listener, Bytes: len(c.prefix), Err: err})
	c.slot.free()
	abort(c.nc)
	c.dropBuffer()
}

// dispatch hands the connections of one cmux listener to the handler.
func (s *Server) dispatch(child net.Listener) {
	for {
		mc, err := child.Accept()
		if err != nil {
			return
		}
		// cmux has read nothing through its own buffer, so its wrapper can be dropped.
		s.opts.Handle(mc.(*cmux.MuxConn).Conn.(*Conn))
		s.sniffing.done()
	}
}

// serve runs cmux until the virtual listener is closed.
func (s *Server) serve() {
	_ = s.cmux.Serve() // its only end is errVirtualClosed
	close(s.served)
}

// closeAll closes acceptors at once, since each waits a little for its socket's queue.
func closeAll(acceptors map[*Acceptor]struct{}) error {
	ended := make(chan error)
	for a := range acceptors {
		go func() { ended <- a.Close() }()
	}
	var errs []error
	for range acceptors {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// isEnding reports whether Shutdown has begun.
func (s *Server) isEnding() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// sniffGrace is what connections that are being classified get when the server ends: those
// that have sent something are decided in microseconds, the others are silent.
const sniffGrace = 250 * time.Millisecond

// Shutdown stops accepting, lets the connections that are being classified
// reach their handlers, and ends the dispatch. Connections that are with their
// handlers are not its business. It returns ctx's error if that ended it early.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.isEnding() {
		close(s.ending)
	}
	acceptors := s.acceptors
	s.acceptors = map[*Acceptor]struct{}{}
	s.mu.Unlock()
	errs := []error{closeAll(acceptors)}
	grace, cancel := context.WithTimeout(ctx, sniffGrace)
	defer cancel()
	if s.sniffing.wait(grace) != nil {
		pushOut(s.caps.evictWaiting()...)
		errs = append(errs, s.sniffing.wait(ctx))
	}
	s.root.Close()
	<-s.served
	s.loops.Wait()
	return errors.Join(errs...)
}
