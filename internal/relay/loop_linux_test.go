package relay

import (
	"io"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyport/internal/reactor"
)

// newQuietRig returns a tunnel on a loop that has carried a byte each way.
func newQuietRig(t *testing.T, o Options) *rig {
	t.Helper()
	r := newRig(t, paths[0].wrap, o)
	if !r.tunnel.isLooped() {
		t.Fatal("two bare TCP connections are not on a loop")
	}
	mustWrite(t, r.client, []byte("a"))
	mustRead(t, r.target, []byte("a"))
	mustWrite(t, r.target, []byte("b"))
	mustRead(t, r.client, []byte("b"))
	return r
}

func TestLooped(t *testing.T) {
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
			}
			r.client.CloseWrite()
			mustEnd(t, r.target, io.EOF)
			mustWrite(t, r.target, []byte("late answer"))
			mustRead(t, r.client, []byte("late answer"))
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
			reset(t, r.client)
			waitFor(t, "the reset to arrive", func() bool { return isDead(r.target) }) // a read says end of file for good
		}, Result{BytesFromClient: 1, BytesFromTarget: 1, End: EndEOF}},
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
				r := newQuietRig(t, tt.o)
				tt.do(t, r)
				r.wants(tt.want.End, tt.want.BytesFromClient, tt.want.BytesFromTarget)
			})
			nothingLeft(t, files)
		})
	}
}

// TestAtRestHoldsNothing: hundreds of quiet tunnels have no goroutine, no timer and no pipe.
func TestAtRestHoldsNothing(t *testing.T) {
	const tunnels = 200
	files := openFiles(t)
	t.Run("", func(t *testing.T) {
		goroutines := runtime.NumGoroutine()
		var rigs []*rig
		for range tunnels {
			rigs = append(rigs, newQuietRig(t, Options{IdleTimeout: time.Hour, Lifetime: 2 * time.Hour}))
		}
		waitFor(t, "the goroutines that began the tunnels to end", func() bool { return runtime.NumGoroutine() <= goroutines+len(loopsOf(rigs)) })
		for _, r := range rigs {
			r.tunnel.mu.Lock()
			if r.tunnel.ticker != nil {
				t.Error("a tunnel on a loop has a timer of its own")
			}
			r.tunnel.mu.Unlock()
		}
		// Two sockets here and two programs for each tunnel, and whatever the runtime needs.
		if got := openFiles(t) - files; got > 4*tunnels+8 {
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

// TestCloseRacesWithWaking closes tunnels while bytes wake them.
func TestCloseRacesWithWaking(t *testing.T) {
	for range 100 {
		r := newQuietRig(t, Options{})
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

// loopsOf lists the loops of some tunnels.
func loopsOf(rigs []*rig) map[*reactor.Loop]bool {
	loops := map[*reactor.Loop]bool{}
	for _, r := range rigs {
		loops[r.tunnel.loop] = true
	}
	return loops
}

// TestWithoutDescriptors: where no descriptor is left to put a tunnel on a loop with, goroutines copy.
func TestWithoutDescriptors(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	near, client := tcpPair(t)
	far, target := tcpPair(t)
	low := syscall.Rlimit{Cur: 3, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	tunnel := New(near, far, Options{Loop: testLoops.Next()})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if tunnel.isLooped() {
		t.Error("on a loop, without a descriptor for it")
	}
	ended := make(chan Result, 1)
	go tunnel.Start(func(r Result) { ended <- r })
	mustWrite(t, client, []byte("x"))
	mustRead(t, target, []byte("x"))
	client.CloseWrite()
	target.CloseWrite()
	if r := <-ended; r.End != EndEOF || r.BytesFromClient != 1 {
		t.Errorf("result = %+v, want a plain end after one byte", r)
	}
}
