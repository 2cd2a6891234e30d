package reactor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait for something that must happen; it is no measure of how long it may take.
const patience = 20 * time.Second

// open starts loops for one test.
func open(t *testing.T, n int) *Group {
	t.Helper()
	g, err := Open(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// tcpPair returns both ends of a loopback connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// onLoop runs f as a task with a connection on a loop, and waits for its end.
func onLoop(t *testing.T, l *Loop, nc *net.TCPConn, f func(c *Conn)) {
	t.Helper()
	adopted, err := l.Adopt(nc)
	if err != nil {
		t.Fatal(err)
	}
	run(t, l, func() {
		defer adopted[0].Close()
		f(adopted[0])
	})
}

// run runs f as a task and waits for its end.
func run(t *testing.T, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() {
		l.Go(func() {
			defer close(done)
			f()
		})
	})
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the task does not end")
	}
}

func TestEcho(t *testing.T) {
	g := open(t, 2)
	var all sync.WaitGroup
	for i := range 50 { // several loops, and the tasks of earlier ones again
		near, far := tcpPair(t)
		all.Go(func() {
			onLoop(t, g.Next(), near, func(c *Conn) {
				if _, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}); err != nil {
					t.Errorf("echo: %v", err)
				}
			})
		})
		all.Go(func() {
			sent := bytes.Repeat([]byte{byte(i), 'x', byte(i >> 1)}, 300_000)
			go func() {
				far.Write(sent)
				far.CloseWrite()
			}()
			if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes came back, %v, want the %d that were sent", len(got), err, len(sent))
			}
		})
	}
	all.Wait()
}

// TestDial: what is refused, what nobody answers and what stands, alone and in a race.
func TestDial(t *testing.T) {
	g := open(t, 1)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	open := ln.Addr().(*net.TCPAddr).AddrPort()
	refused := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1)
	silent := fullListener(t)
	for _, tt := range []struct {
		name  string
		to    []netip.AddrPort
		delay time.Duration
		wins  bool
		fails []error
	}{
		{"one that stands", []netip.AddrPort{open}, 0, true, nil},
		{"one that refuses", []netip.AddrPort{refused}, 0, false, []error{syscall.ECONNREFUSED}},
		{"one that is silent", []netip.AddrPort{silent}, 0, false, []error{os.ErrDeadlineExceeded}},
		{"the second", []netip.AddrPort{refused, open}, time.Hour, true, []error{syscall.ECONNREFUSED}},
		{"the third, after a delay each", []netip.AddrPort{silent, silent, open}, 10 * time.Millisecond, true, nil},
		{"none of several", []netip.AddrPort{refused, silent, refused}, 10 * time.Millisecond, false, []error{syscall.ECONNREFUSED, syscall.ECONNREFUSED, os.ErrDeadlineExceeded}},
		{"a family that leads nowhere", []netip.AddrPort{netip.MustParseAddrPort("[ff02::1]:9"), open}, time.Hour, true, []error{syscall.ENETUNREACH}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var errs []error
			var peer netip.AddrPort
			var local, said netip.AddrPort
			run(t, g.Next(), func() {
				l := g.loops[0]
				c := l.Race(t.Context(), tt.to, tt.delay, time.Now().Add(300*time.Millisecond), nil, func(_ int, err error) bool {
					errs = append(errs, err)
					return true
				})
				if c != nil {
					peer, local = c.Peer(), c.Local()
					said = c.RemoteAddr().(*net.TCPAddr).AddrPort()
					_ = c.Close()
				}
			})
			if (peer == open) != tt.wins || tt.wins && (said != open || !local.IsValid()) {
				t.Errorf("connected to %v from %v, want %v", peer, local, open)
			}
			if len(errs) != len(tt.fails) {
				t.Fatalf("failures %v, want %v", errs, tt.fails)
			}
			for i, want := range tt.fails {
				var op *net.OpError
				if !errors.Is(errs[i], want) && want != syscall.ENETUNREACH || !errors.As(errs[i], &op) || op.Op != "dial" {
					t.Errorf("failure %d = %v, want %v", i, errs[i], want)
				}
			}
		})
	}
}

// fullListener returns an address where connections are neither taken nor refused: its queue is full.
func fullListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	addr := sysName(fd)
	for range 3 {
		c, err := net.DialTimeout("tcp4", addr.String(), 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return addr
}

// TestKill: a task that waits, and one that is about to, hear that all is over; Aside ends with what it called.
func TestKill(t *testing.T) {
	g := open(t, 1)
	near, far := tcpPair(t)
	_ = far
	var errs []error
	waits := make(chan struct{})
	go func() {
		<-waits
		g.Kill()
	}()
	onLoop(t, g.Next(), near, func(c *Conn) {
		c.Loop().Post(func() { close(waits) })
		errs = append(errs, readByte(c), readByte(c))
		_, err := c.Loop().Dial(context.Background(), fullListener(t), time.Time{}, nil)
		errs = append(errs, err)
	})
	for i, err := range errs {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("wait %d = %v, want %v", i, err, net.ErrClosed)
		}
	}
}

// TestAside: what blocks lets the loop go on, and what wakes the task meanwhile does not end the wait.
func TestAside(t *testing.T) {
	g := open(t, 1)
	l := g.Next()
	near, far := tcpPair(t)
	release, blocked := make(chan struct{}), make(chan struct{})
	go func() {
		<-blocked
		far.Write([]byte("x"))
		run(t, l, func() {}) // the loop serves others
		close(release)
	}()
	onLoop(t, l, near, func(c *Conn) {
		done := false
		l.Aside(func() {
			close(blocked)
			<-release
			done = true
		})
		if !done {
			t.Error("Aside returned before its function")
		}
		if err := readByte(c); err != nil {
			t.Errorf("read = %v, want what came meanwhile", err)
		}
	})
}

// TestPanicInAside: it is the task's, which can recover, and the loop goes on.
func TestPanicInAside(t *testing.T) {
	l := open(t, 1).Next()
	run(t, l, func() {
		defer func() {
			if got := fmt.Sprint(recover()); !strings.HasPrefix(got, "boom\n") || !strings.Contains(got, "TestPanicInAside") {
				t.Errorf("the task recovers %q, want boom and where it was", got)
			}
		}()
		l.Aside(func() { panic("boom") })
		t.Error("Aside returned")
	})
	run(t, l, func() {})
}

// TestTurns: who reads without ever waiting lets the others go on after his share.
func TestTurns(t *testing.T) {
	l := open(t, 1).Next()
	zeros, err := os.Open("/dev/zero") // always has more
	if err != nil {
		t.Fatal(err)
	}
	defer zeros.Close()
	c := &Conn{fd: int(zeros.Fd()), loop: l, readable: true}
	run(t, l, func() {
		others, b := 0, make([]byte, 64<<10)
		l.Defer(func() { l.Go(func() { others++ }) })
		for read := len(b); read <= fairRead; read += len(b) {
			if _, err := c.Read(b); err != nil {
				t.Error(err)
			}
			if got, want := others > 0, read >= fairRead; got != want {
				t.Errorf("after %d bytes another task has run: %v, want %v", read, got, want)
			}
		}
	})
}

// TestTimers: they expire in order, not before their time, and not at all once stopped.
func TestTimers(t *testing.T) {
	g := open(t, 1)
	l := g.Next()
	order := make(chan string, 10)
	begun := make(chan time.Time, 1)
	l.Post(func() {
		begun <- time.Now()
		timers := map[string]*Timer{}
		for name, after := range map[string]time.Duration{"c": 30, "a": 10, "never": 15, "b": 20, "moved": 1} {
			x := &Timer{Owner: expirer(func() { order <- name })}
			timers[name] = x
			l.Set(x, after*time.Millisecond)
		}
		l.Set(timers["moved"], 40*time.Millisecond)
		l.Stop(timers["never"])
		l.Stop(timers["never"])
	})
	var got []string
	for range 4 {
		got = append(got, <-order)
	}
	if want := []string{"a", "b", "c", "moved"}; !slices.Equal(got, want) {
		t.Errorf("expired %v, want %v", got, want)
	}
	if d := time.Since(<-begun); d < 40*time.Millisecond {
		t.Errorf("the last expired after %v, want 40ms at least", d)
	}
}

// expirer is a function as the owner of a Timer.
type expirer func()

func (f expirer) Expire() { f() }

// TestPostFromMany: everything that is posted is called, once, and Close waits for it.
func TestPostFromMany(t *testing.T) {
	g := open(t, 2)
	var all sync.WaitGroup
	var mu sync.Mutex
	called := map[string]int{}
	for i := range 20 {
		all.Go(func() {
			for j := range 200 {
				name := fmt.Sprint(i, " ", j)
				g.Next().Post(func() {
					mu.Lock()
					called[name]++
					mu.Unlock()
				})
			}
		})
	}
	all.Wait()
	for _, l := range g.loops {
		run(t, l, func() {})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(called) != 4000 {
		t.Errorf("%d functions were called, want 4000", len(called))
	}
	for name, n := range called {
		if n != 1 {
			t.Errorf("%s was called %d times", name, n)
		}
	}
}

// TestPostAfterClose: nothing is called, and nothing written to a descriptor that may be somebody else's by now.
func TestPostAfterClose(t *testing.T) {
	g, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	l := g.Next()
	g.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l.event = int(w.Fd())
	l.Post(func() { t.Error("a function was called after Close") })
	w.Close()
	if got, err := io.ReadAll(r); len(got) > 0 || err != nil {
		t.Errorf("the stranger's descriptor got % x, %v, want nothing", got, err)
	}
}

// TestUrgentData: a read stops short at the urgent mark (tcp(7)), which does not mean that nothing is behind it.
func TestUrgentData(t *testing.T) {
	g := open(t, 1)
	near, far := tcpPair(t)
	rc, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		say   string
		flags int
	}{{"abc", 0}, {"X", unix.MSG_OOB}, {"def", 0}} {
		cerr := rc.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(m.say), m.flags, nil) })
		if err = errors.Join(err, cerr); err != nil {
			t.Fatal(err)
		}
	}
	onLoop(t, g.Next(), near, func(c *Conn) {
		_ = c.SetReadDeadline(time.Now().Add(patience / 2))
		b := make([]byte, 100)
		if n, err := io.ReadAtLeast(c, b, 6); string(b[:n]) != "abcdef" || err != nil {
			t.Errorf("read %q, %v, want %q", b[:n], err, "abcdef")
		}
	})
}

// watcher is an Owner that tells what it hears.
type watcher struct {
	c     *Conn
	heard chan Event
	late  chan struct{}
}

func (w *watcher) Watched(c *Conn)           { w.c = c }
func (w *watcher) Happened(_ *Conn, e Event) { w.heard <- e }
func (w *watcher) Expire()                   { close(w.late) }

// TestWatch: an owner hears what its socket had to say before, and its timer runs although the loop slept.
func TestWatch(t *testing.T) {
	g := open(t, 1)
	l := g.Next()
	near, far := tcpPair(t)
	far.Write([]byte("early"))
	fd, err := Duplicate(near)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{heard: make(chan Event, 10), late: make(chan struct{})}
	if err := l.Watch(fd, netip.AddrPort{}, w, &Timer{Owner: w}, 30*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if e := <-w.heard; e&Readable == 0 {
		t.Errorf("heard %#x, want that there is something to read", e)
	}
	<-w.late
	run(t, l, func() {
		if n, err := w.c.TryRead(make([]byte, 10)); n != 5 || err != nil {
			t.Errorf("read %d bytes, %v, want 5", n, err)
		}
		if _, err := w.c.TryRead(make([]byte, 10)); err != ErrWait {
			t.Errorf("read of an empty socket = %v, want %v", err, ErrWait)
		}
	})
	far.Close()
	if e := <-w.heard; e&Readable == 0 {
		t.Errorf("heard %#x, want the end", e)
	}
	run(t, l, func() {
		if _, err := w.c.TryRead(make([]byte, 10)); err != io.EOF {
			t.Errorf("read = %v, want %v", err, io.EOF)
		}
	})
}

// TestWatchFails: nothing is left of it, neither the timer nor a Conn of a number that another file may get.
func TestWatchFails(t *testing.T) {
	l := open(t, 1).Next()
	file, err := os.Open("/proc/self/exe") // nothing that epoll takes
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := &watcher{}
	expired := expirer(func() { t.Error("the timer has expired") })
	if err := l.Watch(int(file.Fd()), netip.AddrPort{}, w, &Timer{Owner: expired}, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("Watch = %v, want %v", err, syscall.EPERM)
	}
	later := make(chan struct{})
	l.Post(func() { l.Set(&Timer{Owner: expirer(func() { close(later) })}, 10*time.Millisecond) })
	<-later // whatever was due before has expired
	if got := l.conns(); w.c != nil || len(got) != 0 {
		t.Errorf("the owner was given %v, the loop has %v, want nothing", w.c, got)
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("the descriptor: %v, want it open", err)
	}
}
