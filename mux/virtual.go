package mux

import (
	"context"
	"errors"
	"net"
	"sync"
)

// virtualListener is the root listener that cmux sees: it accepts what has been
// classified, never fails for a moment, and closing it touches no socket.
type virtualListener struct {
	feed   chan *Conn
	once   sync.Once
	closed chan struct{}
}

var errVirtualClosed = errors.New("the server has ended")

// Accept implements net.Listener.
func (l *virtualListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.feed:
		return c, nil
	case <-l.closed:
		return nil, errVirtualClosed
	}
}

// Close implements net.Listener.
func (l *virtualListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *virtualListener) Addr() net.Addr { return &net.TCPAddr{} }

// inflight counts work that may still begin while somebody waits for its end,
// which a sync.WaitGroup does not allow.
type inflight struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed and forgotten when n falls to 0; nil when nobody waits
}

func (f *inflight) add() {
	f.mu.Lock()
	f.n++
	f.mu.Unlock()
}

func (f *inflight) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.zero != nil {
		close(f.zero)
		f.zero = nil
	}
}

// wait returns when nothing is in flight, or with ctx's error.
func (f *inflight) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.zero == nil {
		f.zero = make(chan struct{})
	}
	zero := f.zero
	f.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
