package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// failingSocket is a listening socket whose accept fails as script says; then it
// blocks until it is closed.
type failingSocket struct {
	net.Listener
	script func(call int) error // nil blocks
	calls  int
	closed chan struct{}
	once   sync.Once
}

func newFailingSocket(script func(call int) error) *failingSocket {
	return &failingSocket{script: script, closed: make(chan struct{})}
}

func (s *failingSocket) AcceptTCP() (*net.TCPConn, error) {
	s.calls++
	if err := s.script(s.calls); err != nil {
		return nil, err
	}
	<-s.closed
	return nil, net.ErrClosed
}

func (s *failingSocket) SetDeadline(time.Time) error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
func (s *failingSocket) Close() error   { return nil }
func (s *failingSocket) Addr() net.Addr { return &net.TCPAddr{} }

// faults keeps what AcceptFault was told.
type faults struct {
	mu   sync.Mutex
	told []error
}

func (f *faults) hear(_ string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, err)
}

func (f *faults) so(t *testing.T, want ...error) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.told, want) {
		t.Errorf("AcceptFault was told %v, want %v", f.told, want)
	}
}

// acceptFrom runs an Acceptor on a socket, in a server that has nothing else.
func acceptFrom(s socket, f *faults) *Acceptor {
	server := &Server{opts: Options{AcceptFault: f.hear}, caps: newCaps(Limits{}), ending: make(chan struct{})}
	a := newAcceptor(server, &Listener{Name: "main"}, s)
	go a.run()
	return a
}

func TestFailingAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f faults
		s := newFailingSocket(func(int) error { return syscall.EMFILE })
		a := acceptFrom(s, &f)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// 5, 10, 20 .. 640 ms are 1275 ms in 8 pauses, then one a second.
		if got, want := s.calls, 9+8; got != want {
			t.Errorf("%d calls of accept in 10 s, want %d", got, want)
		}
		f.so(t, syscall.EMFILE)
		began := time.Now()
		if err := a.Close(); err != nil || time.Since(began) > 0 {
			t.Errorf("Close in the middle of a pause = %v after %v, want nil at once", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		f.so(t, syscall.EMFILE)
	})
}

func TestAcceptFaultThatComesAndGoesIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f faults
		f1 := fault{tell: func(err error) { f.hear("", err) }}
		for range 100 {
			f1.seen(syscall.EMFILE)
			time.Sleep(calmAfter - time.Millisecond)
		}
		f.so(t, syscall.EMFILE)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		f.so(t, syscall.EMFILE, nil)
		f1.seen(syscall.ENFILE)
		time.Sleep(calmAfter + time.Millisecond)
		synctest.Wait()
		f.so(t, syscall.EMFILE, nil, syscall.ENFILE, nil)
	})
}

func TestAcceptEvictsForDescriptorsAlone(t *testing.T) {
	tests := []struct {
		err    error
		evicts bool
	}{
		{syscall.EMFILE, true},
		{syscall.ENFILE, true},
		{syscall.ENOBUFS, true},
		{syscall.ENOMEM, true},
		{syscall.EPERM, false},
		{syscall.ENETDOWN, false},
		{errors.New("else"), false},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f faults
				s := newFailingSocket(func(call int) error {
					if call == 1 {
						return &net.OpError{Op: "accept", Err: tt.err}
					}
					return nil
				})
				server := &Server{opts: Options{AcceptFault: f.hear}, caps: newCaps(Limits{}), ending: make(chan struct{})}
				oldest, _ := place(t, server.caps, "192.0.2.1")
				next, _ := place(t, server.caps, "192.0.2.1")
				a := newAcceptor(server, &Listener{Name: "main"}, s)
				go a.run()
				time.Sleep(minBackoff)
				synctest.Wait()
				if isClosed(oldest) != tt.evicts || isClosed(next) {
					t.Errorf("closed: the oldest %v, the next %v; want %v, false", isClosed(oldest), isClosed(next), tt.evicts)
				}
				a.Close()
			})
		})
	}
}

func TestAbortedConnectionIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f faults
		s := newFailingSocket(func(call int) error {
			if call <= 1000 {
				return syscall.ECONNABORTED
			}
			return nil
		})
		began := time.Now()
		a := acceptFrom(s, &f)
		synctest.Wait()
		if s.calls != 1001 || time.Since(began) > 0 {
			t.Errorf("%d calls of accept in %v, want 1001 without a pause", s.calls, time.Since(began))
		}
		f.so(t)
		a.Close()
	})
}

// queued opens a socket that nobody accepts from yet, with clients in its queue
// that have sent a request each.
func queued(t *testing.T, n int) (*net.TCPListener, []net.Conn) {
	t.Helper()
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range n {
		c, err := net.Dial("tcp", sock.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "GET /"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	return sock, clients
}

func TestClosingASocketLosesNobodyInItsQueue(t *testing.T) {
	ts := startServer(t, Options{}, Listener{})
	sock, clients := queued(t, 50)
	a, err := ts.Add(Listener{Name: "main", Socket: sock})
	if err != nil {
		t.Fatal(err)
	}
	if err := ts.Remove(a); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if err := ts.Remove(a); err != nil {
		t.Errorf("Remove again: %v", err)
	}
	wantAnswers(t, clients)
}

// wantAnswers wants the row's answer for each of the clients of queued.
func wantAnswers(t *testing.T, clients []net.Conn) {
	t.Helper()
	want := "get 127.0.0.1\nGET /"
	for i, c := range clients {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("client %d of those in the queue got %q, %v; want %q", i, got, err, want)
		}
	}
}

func TestQueueIsEmptiedThoughItsTimeIsOver(t *testing.T) {
	eachWay(t, func(t *testing.T, o Options) {
		ts := startServer(t, o, Listener{})
		sock, clients := queued(t, 20)
		a := newAcceptor(ts.Server, &Listener{Name: "main", Socket: sock}, sock)
		close(a.closing)
		if err := a.socket.SetDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		a.run()
		if err := a.socket.Close(); err != nil {
			t.Fatal(err)
		}
		wantAnswers(t, clients)
	})
}

func TestAddAfterShutdownClosesTheSocket(t *testing.T) {
	s := NewServer(Options{Handle: func(c *Conn) { c.Close() }})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := s.Add(Listener{Name: "main", Socket: sock}); err == nil || a != nil {
		t.Errorf("Add = %v, %v, want an error", a, err)
	}
	if err := sock.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket was left open (%v)", err)
	}
}

func TestUpdateRenamesAListener(t *testing.T) {
	ts := startServer(t, Options{}, Listener{})
	ts.SetTable(Table{"other": {{Name: "renamed", Match: word("GET ")}, rejectRow}})
	for a := range ts.acceptors {
		a.Update("other", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
		if got := a.l.Load(); got.Socket == nil || len(got.ProxyFrom) != 1 {
			t.Errorf("after Update the listener is %+v", got)
		}
	}
	if got, want := exchange(t, ts.addr, "GET /"), "renamed 127.0.0.1\nGET /"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShutdownWaitsForHandle(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := NewServer(Options{Rows: []string{"get"}, Handle: func(c *Conn) {
		close(entered)
		<-release
		c.Close()
	}})
	s.SetTable(Table{"main": {{Name: "get", Match: word("GET ")}, rejectRow}})
	sock, clients := queued(t, 1)
	if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
		t.Fatal(err)
	}
	<-entered
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.sniffing.wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("while Handle has the connection Shutdown would wait for: %v, want %v", err, context.Canceled)
	}
	close(release)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	if _, err := clients[0].Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open after its handler")
	}
}
