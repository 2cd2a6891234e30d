package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// swapPipes has the tunnels of one test use another pool.
func swapPipes(t *testing.T, p *pipePool) {
	t.Helper()
	old := pipes
	pipes = p
	t.Cleanup(func() { pipes = old })
}

// fds reports whether both ends of a pipe are open.
func (p *pipe) fds() bool {
	_, r := unix.FcntlInt(uintptr(p.r), unix.F_GETFD, 0)
	_, w := unix.FcntlInt(uintptr(p.w), unix.F_GETFD, 0)
	return r == nil && w == nil
}

func TestPipePool(t *testing.T) {
	p := &pipePool{open: openPipe, max: 2}
	p.join()
	a, b := p.get(), p.get()
	if a == nil || b == nil || a == b {
		t.Fatalf("got %v and %v, want two pipes", a, b)
	}
	if c := p.get(); c != nil {
		t.Error("lent more pipes than the pool may have")
	}
	if _, err := unix.Write(a.w, []byte("a secret")); err != nil {
		t.Fatal(err)
	}
	p.put(a, 8)
	if a.fds() {
		t.Error("a pipe with bytes in it was kept")
	}
	p.put(b, 0)
	if c := p.get(); c != b {
		t.Error("an empty pipe was not lent again")
	}
	p.join()
	p.leave()
	p.put(b, 0)
	if !b.fds() {
		t.Error("closed while a flow may still ask for it")
	}
	p.leave()
	if b.fds() {
		t.Error("kept though nobody uses the pool")
	}
}

func TestPipePoolLetsHoldAFew(t *testing.T) {
	p := &pipePool{holds: 1}
	if !p.mayHold() || !p.hold() {
		t.Error("the first pipe may not be held")
	}
	if p.mayHold() || p.hold() {
		t.Error("more pipes may be held than the pool lets")
	}
	p.release()
	if !p.mayHold() || !p.hold() {
		t.Error("after a release no pipe may be held")
	}
}

// TestPipesCannotBeHad: an unprivileged user beyond pipe-user-pages-soft gets
// pipes of two pages, a process without descriptors none. Then bytes are copied.
func TestPipesCannotBeHad(t *testing.T) {
	var asked atomic.Int32
	for _, tt := range []struct {
		name string
		pool *pipePool
	}{
		{"refused", &pipePool{max: 8, open: func() (*pipe, error) { asked.Add(1); return nil, unix.EMFILE }}},
		{"too few for all", &pipePool{max: 1, open: openPipe}},
		{"none at all", &pipePool{open: openPipe}},
		{"small ones", &pipePool{max: 4, open: func() (*pipe, error) {
			p, err := openPipe()
			if err == nil {
				_, err = unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, minPipeSize)
			}
			return p, err
		}}},
		{"tiny ones", &pipePool{max: 4, open: func() (*pipe, error) {
			p, err := openPipe()
			if err == nil {
				_, err = unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, 4096)
			}
			return p, err
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			swapPipes(t, tt.pool)
			begun := time.Now()
			b := pattern(2 << 20)
			var wg sync.WaitGroup
			for range 4 {
				r := newRig(t, paths[0].wrap, Options{})
				wg.Go(func() { r.client.Write(b); r.client.CloseWrite() })
				wg.Go(func() { r.target.Write(b); r.target.CloseWrite() })
				for _, c := range []net.Conn{r.client, r.target} {
					wg.Go(func() {
						if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, b) {
							t.Errorf("received %d bytes, %v, want the %d that were sent", len(got), err, len(b))
						}
					})
				}
				wg.Go(func() { r.wants(EndEOF, int64(len(b)), int64(len(b))) })
			}
			wg.Wait()
			if p := tt.pool; p.out != 0 || p.users != 0 || len(p.idle) != 0 {
				t.Errorf("%d pipes are out, %d users, %d idle, want none", p.out, p.users, len(p.idle))
			}
			if n := int(asked.Swap(0)); n > 1+int(time.Since(begun)/pipeRetry) {
				t.Errorf("asked for a pipe %d times in %v, though there was none", n, time.Since(begun))
			}
		})
	}
}

// TestOpenPipe: what the kernel gives is large enough to be worth it.
func TestOpenPipe(t *testing.T) {
	p, err := openPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if size, err := unix.FcntlInt(uintptr(p.r), unix.F_GETPIPE_SZ, 0); err != nil || size < minPipeSize {
		t.Errorf("the pipe holds %d bytes, %v, want %d at least", size, err, minPipeSize)
	}
}

// TestStalledReceivers: receivers that never read, however many, hold no more pipes than they may,
// and when they do read nothing is missing. Other tunnels splice as before.
func TestStalledReceivers(t *testing.T) {
	t.Run("hold none", func(t *testing.T) { testStalledReceivers(t, &pipePool{max: 2, open: openPipe}) })
	t.Run("hold some", func(t *testing.T) { testStalledReceivers(t, &pipePool{max: 5, holds: 3, open: openPipe}) })
}

func testStalledReceivers(t *testing.T, pool *pipePool) {
	const tunnels = 100
	swapPipes(t, pool)
	b := pattern(1 << 20)
	var senders sync.WaitGroup
	var rigs []*rig
	for range tunnels {
		near, client := tcpPair(t)
		far, target := tcpPair(t)
		for _, c := range []*net.TCPConn{near, client, far, target} { // or the kernel holds more memory than a test may take
			c.SetReadBuffer(128 << 10)
			c.SetWriteBuffer(128 << 10)
		}
		r := &rig{t: t, tunnel: New(near, far, Options{Loop: testLoops.Next()}), client: client, target: target, ended: make(chan Result, 2)}
		go r.tunnel.Start(func(res Result) { r.ended <- res })
		rigs = append(rigs, r)
		senders.Go(func() { target.Write(b); target.CloseWrite() })
	}
	for _, r := range rigs { // the tunnel stalls: nothing is delivered any more, though more has come
		waitFor(t, "the stall", func() bool {
			_, before := r.tunnel.Bytes()
			time.Sleep(5 * time.Millisecond)
			_, after := r.tunnel.Bytes()
			return before == after && before > 0
		})
	}
	waitFor(t, "the pipes to come back though nobody reads, but for those that may be held", func() bool {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		return pipes.out == pipes.holds && pipes.held.Load() == int64(pipes.holds)
	})
	busy := newRig(t, paths[0].wrap, Options{})
	go busy.target.Write(b)
	mustRead(t, busy.client, b)
	for _, r := range rigs {
		mustRead(t, r.client, b)
		mustEnd(t, r.client, io.EOF)
		r.client.Close()
		if got := r.result(); got.End != EndEOF || got.BytesFromTarget != int64(len(b)) {
			t.Errorf("result = %+v, want all %d bytes", got, len(b))
		}
	}
	senders.Wait()
	busy.tunnel.Close()
	busy.wants(EndClosed, 0, int64(len(b)))
	if held := pool.held.Load(); held != 0 || pool.out != 0 {
		t.Errorf("%d pipes are out and %d held, though all is delivered", pool.out, held)
	}
}

// TestStopWithAHeldPipe: the bytes of a tunnel that is stopped are lost with their pipe, and both sides hear a reset, for
// what was sent did not arrive.
func TestStopWithAHeldPipe(t *testing.T) {
	pool := &pipePool{max: 2, holds: 1, open: openPipe}
	swapPipes(t, pool)
	r := newRig(t, paths[0].wrap, Options{})
	go io.Copy(r.target, endless{})
	waitFor(t, "the pipe to be held", func() bool { return pool.held.Load() == 1 })
	r.tunnel.Close()
	if got := r.result(); got.End != EndClosed {
		t.Errorf("result = %+v, want closed", got)
	}
	mustFail(t, r.client)
	waitFor(t, "the pipe to be closed", func() bool {
		pool.mu.Lock()
		defer pool.mu.Unlock()
		return pool.held.Load() == 0 && pool.out == 0 && len(pool.idle) == 0
	})
}

// endless is a source of zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// mustFail reads to an end that has to be a reset.
func mustFail(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); !isReset(err) {
		t.Errorf("the stream ends with %v, want a reset", err)
	}
}

// TestSalvage: what the destination does not take out of a pipe is moved to memory, in order.
func TestSalvage(t *testing.T) {
	p, err := openPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	b := pattern(60 << 10)
	if n, err := unix.Write(p.w, b); n != len(b) || err != nil {
		t.Fatalf("filled the pipe with %d bytes, %v", n, err)
	}
	if got, err := salvage(p, len(b)); err != nil || !bytes.Equal(got, b) {
		t.Errorf("salvaged %d bytes, %v, want all %d", len(got), err, len(b))
	}
	if n, err := unix.Read(p.r, make([]byte, 1)); err != unix.EAGAIN {
		t.Errorf("the pipe gives %d bytes more, %v, want none", n, err)
	}
	if _, err := salvage(p, 1); err == nil {
		t.Error("a byte that is not there was salvaged")
	}
}

// TestSendRoom: a full socket says so, and asks the kernel to report room.
func TestSendRoom(t *testing.T) {
	near, far := tcpPair(t)
	raw, err := near.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	look := func() (room int, writable, polled bool) {
		if err := raw.Control(func(fd uintptr) {
			var known bool
			if room, writable, known = sendRoom(int(fd)); !known {
				t.Error("this kernel does not tell a socket's memory")
			}
			polled = pollWritable(int(fd))
		}); err != nil {
			t.Fatal(err)
		}
		return room, writable, polled
	}
	if room, writable, polled := look(); room < 16<<10 || !writable || !polled {
		t.Errorf("a new socket: room %d, writable %v, %v", room, writable, polled)
	}
	b := pattern(1 << 20)
	near.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for err := error(nil); err == nil; {
		_, err = near.Write(b)
	}
	if room, writable, polled := look(); room > 1<<20 || writable || polled {
		t.Errorf("a full socket: room %d, writable %v, %v", room, writable, polled)
	}
	near.SetWriteDeadline(time.Now().Add(patience))
	go io.Copy(io.Discard, far)
	woken := false
	err = raw.Write(func(fd uintptr) bool { woken = pollWritable(int(fd)); return woken })
	if err != nil || !woken {
		t.Errorf("the wait for room ends with %v, %v", woken, err)
	}
	far.Close()
}

// TestResetThatAWriteWasToldOf: the error of a reset is given to one call only. The
// read that comes later gets an end of file, which must not be passed on as one.
func TestResetThatAWriteWasToldOf(t *testing.T) {
	near, client := tcpPair(t)
	far, target := tcpPair(t)
	mustWrite(t, client, []byte("last words"))
	waitFor(t, "the words", func() bool { return unread(near) == 10 })
	reset(t, client)
	waitFor(t, "the reset", func() bool { return isDead(near) })
	if _, err := near.Write([]byte("x")); !isReset(err) {
		t.Fatalf("write = %v, want a reset", err)
	}
	ended := make(chan Result, 1)
	go New(near, far, Options{Loop: testLoops.Next()}).Start(func(r Result) { ended <- r })
	mustRead(t, target, []byte("last words"))
	mustEnd(t, target, syscall.ECONNRESET)
	if r := <-ended; r.End != EndReset || r.BytesFromClient != 10 || !errors.Is(r.Err, syscall.ECONNRESET) {
		t.Errorf("result = %+v, want a reset after 10 bytes", r)
	}
}

func TestIsDead(t *testing.T) {
	near, far := tcpPair(t)
	if isDead(near) {
		t.Error("an open connection is dead")
	}
	far.CloseWrite()
	mustEnd(t, near, io.EOF)
	if isDead(near) {
		t.Error("a half-closed connection is dead")
	}
	reset(t, far)
	waitFor(t, "the reset", func() bool { return isDead(near) })
	near.Close()
	if !isDead(near) {
		t.Error("a closed connection is not dead")
	}
	if isDead(hidden{near}) {
		t.Error("a connection that is not TCP itself is dead")
	}
}
