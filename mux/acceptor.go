package mux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
}

// Listen opens a listening socket on a literal "address:port". It is bound to
// the address's own family alone: 0.0.0.0 and [::] on one port do not collide.
// The error keeps the cause, such as syscall.EADDRINUSE.
func Listen(ctx context.Context, address netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp4"
	if address.Addr().Is6() {
		network = "tcp6"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // an MPTCP socket cannot splice
	ln, err := lc.Listen(ctx, network, address.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return ln.(*net.TCPListener), nil
}

// An Acceptor takes connections from one listening socket into its server.
type Acceptor struct {
	server *Server
	socket *net.TCPListener
	l      atomic.Pointer[Listener]
	closed atomic.Bool
	done   chan struct{}
}

// Update gives connections that come from now on another listener's name and
// balancers; the socket stays.
func (a *Acceptor) Update(name string, proxyFrom []netip.Prefix) {
	a.l.Store(&Listener{Name: name, Socket: a.socket, ProxyFrom: proxyFrom})
}

// Addr returns the address that the socket is bound to, with the port that the system chose for port 0.
func (a *Acceptor) Addr() netip.AddrPort { return addrPort(a.socket.Addr()) }

// Close stops accepting and waits until it has stopped. Connections that were
// accepted before go on.
func (a *Acceptor) Close() error {
	a.closed.Store(true)
	err := a.socket.Close()
	<-a.done
	return err
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
		nc, err := a.socket.AcceptTCP()
		switch {
		case err == nil:
			if pause > 0 {
				pause = 0
				a.server.opts.AcceptFault(a.l.Load().Name, nil)
			}
			a.server.admit(nc, a.l.Load())
		case a.closed.Load() || errors.Is(err, net.ErrClosed):
			return
		case aborted(err):
			// The client went away while it was queued: nobody's fault, and no reason to pause.
		default:
			if pause == 0 {
				a.server.opts.AcceptFault(a.l.Load().Name, err)
			}
			pause = min(max(2*pause, minBackoff), maxBackoff)
			a.relieve()
			a.wait(pause)
		}
	}
}

// relieve closes the oldest connection that has not finished its handshake, if
// there is one: without descriptors nobody gets in, and that one has had its chance.
func (a *Acceptor) relieve() {
	pushOut(a.server.caps.evictOldest())
}

// wait pauses, or returns early when the server ends.
func (a *Acceptor) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.server.ending:
	}
}
