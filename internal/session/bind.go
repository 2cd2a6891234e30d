package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"polyport/internal/egress"
	"polyport/internal/target"
	"polyport/mux"
)

// maxEarly is how much of what a client sends while its peer is awaited is kept for him. What is beyond stays in the
// system's buffers, and the client's end is no longer seen then, but at the latest in [bind] timeout.
const maxEarly = 64 << 10

// reasonClientClosed is for the record: the client took back what it had asked for.
const reasonClientClosed = "client_closed"

var (
	errBindOnLoop = errors.New("BIND cannot wait on an event loop")
	errClientGone = errors.New("the client went away while its peer was awaited")
)

// Bind has the gateway listen for t, which target.NewPeer has made, and returns the one connection that comes (BIND,
// RFC 1928 section 4). It asks the rules and the guard, opens a socket, calls tell with the address to which the peer has to
// connect, and waits, for no longer than [bind] timeout and only as long as the client stays. only4 refuses all but IPv4
// addresses. What the client sends meanwhile is given back to Conn. The session must have left its loop. The caller
// closes the connection, or gives it to Relay. The error is an *egress.Error, that of tell, or the end of the client.
func (s *Session) Bind(ctx context.Context, t target.Target, only4 bool, tell func(bound netip.AddrPort) error) (net.Conn, error) {
	if s.OnLoop() {
		return nil, &egress.Error{Reason: egress.InternalError, Target: t, Bind: true, Err: errBindOnLoop}
	}
	l, err := s.listen(ctx, t, only4)
	if err != nil {
		s.failed(err)
		return nil, err
	}
	defer l.Close()
	if err := tell(l.Address()); err != nil {
		return nil, err
	}
	return s.await(ctx, l)
}

// listen opens the socket, if the client may have it.
func (s *Session) listen(ctx context.Context, t target.Target, only4 bool) (*egress.Listening, error) {
	p, err := s.dialer().AuthorizeBind(ctx, s.request(t))
	if err != nil {
		return nil, err
	}
	s.Established() // who may wait for somebody is past the handshake, and its deadline
	s.record.Rule = p.Decision().Rule
	// Not Local: what a balancer says that the client connected to need be no address of this machine.
	local, _ := s.conn.LocalAddr().(*net.TCPAddr)
	return s.dialer().Listen(ctx, p, local.AddrPort().Addr(), only4)
}

// await waits for the peer and looks after the client.
func (s *Session) await(ctx context.Context, l *egress.Listening) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &clientWatch{conn: s.conn, ended: make(chan struct{})}
	go w.watch(cancel)
	c, dec, err := l.Accept(ctx)
	if gone := w.stop(); gone != nil {
		if err == nil {
			_ = c.Close() // nobody is left to whom it would matter
		}
		s.SetReason(reasonClientClosed)
		return nil, gone
	}
	if err != nil {
		s.failed(err)
		return nil, err
	}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		s.record.Address = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	if dec.Rule != "" {
		s.record.Rule = dec.Rule
	}
	return c, nil
}

// clientWatch reads a client that has nothing to say yet, to see its end.
type clientWatch struct {
	conn  *mux.Conn
	ended chan struct{} // closed when watch has returned; only then may the rest be looked at
	early []byte
	gone  error
}

// watch reads until the client ends, has sent maxEarly, or stop is called, and calls gone if it ends.
func (w *clientWatch) watch(gone context.CancelCauseFunc) {
	defer close(w.ended)
	var buf [512]byte
	for len(w.early) < maxEarly {
		n, err := w.conn.Read(buf[:min(len(buf), maxEarly-len(w.early))])
		w.early = append(w.early, buf[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			w.gone = fmt.Errorf("%w: %w", errClientGone, err)
			gone(w.gone)
			return
		}
	}
}

// stop ends the watch and gives back what was read. The error says that the client has gone.
func (w *clientWatch) stop() error {
	_ = w.conn.SetReadDeadline(time.Unix(1, 0)) // long past: the read returns. It fails only on a closed connection, which has ended the read
	<-w.ended
	_ = w.conn.SetReadDeadline(time.Time{})
	w.conn.Unread(w.early)
	return w.gone
}
