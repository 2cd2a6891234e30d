package mux

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Listener is one listening socket of the server.
type Listener struct {
	// Name is that of the [listen.NAME] table; several sockets may share it.
	Name string
	// Socket is the listening socket. The server owns and closes it.
	Socket *net.TCPListener
	// ProxyFrom names the balancers: from them a PROXY header (version 1 or 2) is
	// mandatory, from everybody else it is noise. Empty is nobody.
	ProxyFrom []netip.Prefix
	// Packets is UDP on the same address and port number; nil is none. The server reads it once it has been given to
	// AddPackets, and whoever opened it closes it.
	Packets *PacketSocket
}

// An Acceptor takes connections from one listening socket into its server.
type Acceptor struct {
	server *Server
	socket socket
	l      atomic.Pointer[Listener]
	fault  fault
	// Close has begun.
	closing chan struct{}
	close   func() error
	accept  func() error  // takes one connection in
	done    chan struct{} // closed when run has ended
}

// socket is what an Acceptor needs of a *net.TCPListener.
type socket interface {
	AcceptTCP() (*net.TCPConn, error)
	SetDeadline(time.Time) error
	Addr() net.Addr
	Close() error
}

func newAcceptor(s *Server, l *Listener, from socket) *Acceptor {
	a := &Acceptor{server: s, socket: from, closing: make(chan struct{}), done: make(chan struct{})}
	a.l.Store(l)
	a.fault.tell = func(err error) { s.opts.AcceptFault(a.l.Load().Name, err) }
	a.close = sync.OnceValue(a.end)
	if a.accept = a.toLoop(); a.accept == nil {
		a.accept = a.toGoroutine
	}
	return a
}

// toGoroutine accepts a connection for a goroutine.
func (a *Acceptor) toGoroutine() error {
	nc, err := a.socket.AcceptTCP()
	if err == nil {
		a.server.accepted(nc, a.l.Load())
	}
	return err
}

// Update gives connections that come from now on another listener's name and
// balancers; the socket stays.
func (a *Acceptor) Update(name string, proxyFrom []netip.Prefix) {
	l := *a.l.Load()
	l.Name, l.ProxyFrom = name, proxyFrom
	a.l.Store(&l)
}

// Packets returns the UDP socket that connections from now on are told of; nil is none.
func (a *Acceptor) Packets() *PacketSocket { return a.l.Load().Packets }

// SetPackets replaces it and returns the one before.
func (a *Acceptor) SetPackets(p *PacketSocket) (before *PacketSocket) {
	l := *a.l.Load()
	before, l.Packets = l.Packets, p
	a.l.Store(&l)
	return before
}

// DeferAccept has the system keep connections to itself that have sent nothing yet, for
// that long, in whole seconds and rounded up; zero and negative are not at all. The error is
// errors.ErrUnsupported on systems other than Linux (TCP_DEFER_ACCEPT, tcp(7)).
func (a *Acceptor) DeferAccept(d time.Duration) error {
	ln := a.l.Load().Socket
	if ln == nil {
		return nil
	}
	return deferAccept(ln, max(0, d))
}

// Addr returns the address that the socket is bound to, with the port that the system chose for port 0.
func (a *Acceptor) Addr() netip.AddrPort { return addrPort(a.socket.Addr()) }

// queueGrace is how long a socket that is to be closed is waited at for those whose handshake is
// under way. Whoever is in its queue by then is accepted too: a close resets them.
const queueGrace = 10 * time.Millisecond

// Close stops accepting and waits until it has stopped. Connections that were
// accepted before go on, and those in the socket's queue are accepted. It may be called more than once.
func (a *Acceptor) Close() error { return a.close() }

func (a *Acceptor) end() error {
	close(a.closing)
	_ = a.socket.SetDeadline(time.Now().Add(queueGrace)) // fails only on a closed socket, as accept then does
	<-a.done
	a.fault.forget()
	return a.socket.Close()
}

func (a *Acceptor) isClosing() bool {
	select {
	case <-a.closing:
		return true
	default:
		return false
	}
}

const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// run accepts until the socket is closed. A failing accept (no descriptors, no
// memory) is retried with a growing pause, since the queue stays readable and a
// loop without one would spin.
func (a *Acceptor) run() {
	defer close(a.done)
	var pause time.Duration
	for {
		err := a.accept()
		switch {
		case err == nil:
			pause = 0
		case a.isClosing():
			a.emptyQueue()
			return
		case errors.Is(err, net.ErrClosed):
			return
		case aborted(err):
			// The client went away while it was queued: nobody's fault, and no reason to pause.
		default:
			a.fault.seen(err)
			if exhausted(err) {
				// Without descriptors nobody gets in, and the oldest unfinished one has had its chance.
				pushOut(a.server.caps.evictOldest())
			}
			pause = min(max(2*pause, minBackoff), maxBackoff)
			a.wait(pause)
		}
	}
}

// wait pauses, or returns early when the socket is to be closed.
func (a *Acceptor) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.closing:
	}
}

// calmAfter is how long accept must not have failed until the fault is over. It is
// longer than the longest pause, so a fault that comes and goes is told once.
const calmAfter = 2 * maxBackoff

// fault tells once that accept fails, and once, with a nil error, that it has
// not failed for calmAfter.
type fault struct {
	tell func(error)

	mu   sync.Mutex
	last time.Time   // when it was seen
	calm *time.Timer // nil when there is no fault
}

// seen notes a failure.
func (f *fault) seen(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = time.Now()
	if f.calm != nil {
		return
	}
	f.calm = time.AfterFunc(calmAfter, f.check)
	f.tell(err)
}

// check looks whether the fault is over.
func (f *fault) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calm == nil {
		return
	}
	if rest := calmAfter - time.Since(f.last); rest > 0 {
		f.calm.Reset(rest)
		return
	}
	f.calm = nil
	f.tell(nil)
}

// forget ends the fault without a word.
func (f *fault) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calm != nil {
		f.calm.Stop()
		f.calm = nil
	}
}
