package relay

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// isParked reports whether no goroutine carries anything.
func (t *Tunnel) isParked() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fullyParked()
}

// newParkedRig returns a tunnel that has carried a byte each way and is parked.
func newParkedRig(t *testing.T, o Options) *rig {
	t.Helper()
	o.ParkAfter = time.Millisecond
	r := newRig(t, paths[0].wrap, o)
	mustWrite(t, r.client, []byte("a"))
	mustRead(t, r.target, []byte("a"))
	mustWrite(t, r.target, []byte("b"))
	mustRead(t, r.client, []byte("b"))
	waitFor(t, "the tunnel to park", r.tunnel.isParked)
	return r
}

func TestParked(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		do   func(t *testing.T, r *rig)
		want Result
	}{
		{"data and half-closes wake it", Options{}, func(t *testing.T, r *rig) {
			big := pattern(1 << 20)
			for range 3 {
				go r.client.Write(big)
				mustRead(t, r.target, big)
				waitFor(t, "the tunnel to park again", r.tunnel.isParked)
			}
			r.client.CloseWrite()
			mustEnd(t, r.target, io.EOF)
			waitFor(t, "the half-closed tunnel to park", r.tunnel.isParked)
			mustWrite(t, r.target, []byte("late answer"))
			mustRead(t, r.client, []byte("late answer"))
			waitFor(t, "the half-closed tunnel to park again", r.tunnel.isParked)
			r.target.CloseWrite()
			mustEnd(t, r.client, io.EOF)
		}, Result{BytesFromClient: 1 + 3<<20, BytesFromTarget: 1 + 11, End: EndEOF}},
		{"reset by the client", Options{}, func(t *testing.T, r *rig) {
			reset(t, r.client)
			mustEnd(t, r.target, syscall.ECONNRESET)
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndReset}},
		{"reset by the target", Options{}, func(t *testing.T, r *rig) {
			reset(t, r.target)
			mustEnd(t, r.client, syscall.ECONNRESET)
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndReset}},
		{"reset after a half-close", Options{}, func(t *testing.T, r *rig) {
			r.client.CloseWrite()
			mustEnd(t, r.target, io.EOF)
			waitFor(t, "the half-closed tunnel to park", r.tunnel.isParked)
			reset(t, r.client)
			waitFor(t, "the reset to arrive", func() bool { return isDead(socketOf(r.target)) }) // a read says end of file for good
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndReset}},
		{"data, then a reset", Options{}, func(t *testing.T, r *rig) {
			mustWrite(t, r.target, []byte("last words"))
			waitFor(t, "delivery", func() bool { _, n := r.tunnel.Bytes(); return n == 11 })
			reset(t, r.target)
			mustRead(t, r.client, []byte("last words"))
			mustEnd(t, r.client, syscall.ECONNRESET)
		}, Result{BytesFromClient: 1, BytesFromTarget: 11, End: EndReset}},
		{"Close", Options{}, func(t *testing.T, r *rig) {
			r.tunnel.Close()
			mustEnd(t, r.client, io.EOF)
			mustEnd(t, r.target, io.EOF)
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndClosed}},
		{"idle", Options{IdleTimeout: 1500 * time.Millisecond}, func(t *testing.T, r *rig) {
			mustEnd(t, r.client, io.EOF)
			mustEnd(t, r.target, io.EOF)
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndIdle}},
		{"lifetime", Options{Lifetime: 1500 * time.Millisecond}, func(t *testing.T, r *rig) {
			mustEnd(t, r.client, io.EOF)
			mustEnd(t, r.target, io.EOF)
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndLifetime}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := openFiles(t)
			t.Run("", func(t *testing.T) {
				r := newParkedRig(t, tt.o)
				tt.do(t, r)
				r.wants(tt.want.End, tt.want.BytesFromClient, tt.want.BytesFromTarget)
			})
			nothingLeft(t, files)
		})
	}
}

// TestParkedHoldsNothing: hundreds of parked tunnels have no goroutine, no timer and no pipe.
func TestParkedHoldsNothing(t *testing.T) {
	const tunnels = 200
	files := openFiles(t)
	t.Run("", func(t *testing.T) {
		var rigs []*rig
		for range tunnels {
			rigs = append(rigs, newParkedRig(t, Options{IdleTimeout: time.Hour, Lifetime: 2 * time.Hour}))
		}
		watched := 0
		for i := range loops {
			l := &loops[i]
			l.mu.Lock()
			watched += l.used
			if l.used > 0 && (l.timer == nil || len(l.dues) != l.used/2) {
				t.Errorf("loop %d keeps the time of %d tunnels, want %d", i, len(l.dues), l.used/2)
			}
			l.mu.Unlock()
		}
		if watched != 2*tunnels {
			t.Errorf("%d sockets are watched, want %d", watched, 2*tunnels)
		}
		for _, r := range rigs {
			r.tunnel.mu.Lock()
			if r.tunnel.timer != nil {
				t.Error("a parked tunnel has a timer")
			}
			r.tunnel.mu.Unlock()
		}
		// Two sockets here and two programs for each tunnel, an epoll for each loop and whatever the runtime needs.
		if got := openFiles(t) - files; got > 4*tunnels+len(loops)+8 {
			t.Errorf("%d more descriptors for %d tunnels", got, tunnels)
		}
		var wg sync.WaitGroup
		for _, r := range rigs { // all wake at once
			wg.Go(func() {
				r.client.Write([]byte("wake up"))
				if b, err := io.ReadAll(io.LimitReader(r.target, 7)); string(b) != "wake up" {
					t.Errorf("read %q, %v", b, err)
				}
			})
		}
		wg.Wait()
		for _, r := range rigs {
			go r.tunnel.Close()
		}
		for _, r := range rigs {
			r.wants(EndClosed, 8, 1)
		}
	})
	nothingLeft(t, files)
}

// TestIdleWhileParkedIsNotEarly: the clock of the loop is as exact as that of a
// running tunnel, and traffic puts it back.
func TestIdleWhileParkedIsNotEarly(t *testing.T) {
	const idle = 60 * time.Millisecond
	r := newRig(t, paths[0].wrap, Options{IdleTimeout: idle, ParkAfter: time.Millisecond})
	var last time.Time
	var n int64
	for range 10 {
		if at, arrived := r.pings(1); arrived == 1 {
			last, n = at, n+1
		}
		waitFor(t, "the tunnel to park or end", func() bool { return r.tunnel.isParked() || len(r.ended) > 0 })
	}
	r.wants(EndIdle, n, 0)
	if d := time.Since(last); d < idle {
		t.Errorf("idle after %v, want %v at least", d, idle)
	}
}

// TestCloseRacesWithWaking closes tunnels while bytes wake them.
func TestCloseRacesWithWaking(t *testing.T) {
	for range 100 {
		r := newParkedRig(t, Options{})
		var wg sync.WaitGroup
		wg.Go(func() { r.client.Write([]byte("x")) })
		wg.Go(func() { r.target.CloseWrite() })
		wg.Go(r.tunnel.Close)
		wg.Wait()
		if got := r.result(); got.End != EndClosed && got.End != EndReset {
			t.Errorf("result = %+v", got)
		}
	}
}

// TestStaleEventsWakeNobody: an event that was fetched before its watch ended
// must not touch the tunnel that has the place now.
func TestStaleEventsWakeNobody(t *testing.T) {
	a, b := newParkedRig(t, Options{}), newParkedRig(t, Options{})
	l := a.tunnel.park.loop
	l.mu.Lock()
	at := a.tunnel.park.watch[fromClient] - 1
	ev := newEvent(at, l.watches[at].generation)
	l.mu.Unlock()
	if got, side := l.watched(ev); got != a.tunnel || side != fromClient {
		t.Fatalf("the event is for %p, %d, want %p, %d", got, side, a.tunnel, fromClient)
	}
	a.tunnel.Close()
	a.wants(EndClosed, 1, 1)
	if got, _ := l.watched(ev); got != nil {
		t.Errorf("the event of an ended watch is for %p", got)
	}
	a.tunnel.wake(fromClient) // as if it had been fetched in time
	b.tunnel.wake(fromClient) // nothing to read there: it parks again
	waitFor(t, "the tunnel to park again", b.tunnel.isParked)
	mustWrite(t, b.client, []byte("c"))
	mustRead(t, b.target, []byte("c"))
}

// TestNoParkingWithoutEpoll: with no descriptor left for it a tunnel keeps its goroutines.
func TestNoParkingWithoutEpoll(t *testing.T) {
	var limit, low syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *net.TCPConn) net.Conn { return c }, Options{ParkAfter: time.Millisecond})
	low = syscall.Rlimit{Cur: 3, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		mustWrite(t, r.client, []byte("x"))
		mustRead(t, r.target, []byte("x"))
		time.Sleep(2 * time.Millisecond) // long enough to try
	}
	parked := r.tunnel.isParked()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if parked {
		t.Error("parked, without a descriptor for the loop")
	}
	waitFor(t, "the tunnel to park once it can", r.tunnel.isParked)
	mustWrite(t, r.target, []byte("y"))
	mustRead(t, r.client, []byte("y"))
}
