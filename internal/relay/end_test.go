package relay

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestResetIsPassedOn(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		t.Run("by the client", func(t *testing.T) {
			r := newRig(t, wrap, Options{})
			mustWrite(t, r.client, []byte("x"))
			mustRead(t, r.target, []byte("x"))
			reset(t, r.client)
			mustEnd(t, r.target, syscall.ECONNRESET)
			r.wants(EndReset, 1, 0)
		})
		t.Run("by the target", func(t *testing.T) {
			r := newRig(t, wrap, Options{})
			mustWrite(t, r.target, []byte("xy"))
			mustRead(t, r.client, []byte("xy"))
			reset(t, r.target)
			mustEnd(t, r.client, syscall.ECONNRESET)
			r.wants(EndReset, 0, 2)
		})
		t.Run("after a half-close of the same side", func(t *testing.T) {
			r := newRig(t, wrap, Options{})
			r.client.CloseWrite()
			mustEnd(t, r.target, io.EOF)
			reset(t, r.client)
			_, err := r.target.Write(pattern(1 << 20)) // it is this write that finds the client gone
			for err == nil {
				_, err = r.target.Write([]byte("more"))
			}
			if !isReset(err) {
				t.Errorf("the target's write = %v, want a reset", err)
			}
			if got := r.result(); got.End != EndEOF || got.Err != nil {
				t.Errorf("result = %+v, want the plain end of a side that had said all", got)
			}
		})
	})
}

// TestResetLosesNothingDelivered: a server that answers and resets, since it has
// not read all of the request, must not take its answer with it, even if the client is slow.
func TestResetLosesNothingDelivered(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		r := newRig(t, wrap, Options{})
		answer := pattern(30 << 10) // fits the client's window
		if r.tunnel.canLook() {
			answer = pattern(200 << 10) // does not
		}
		mustWrite(t, r.target, answer)
		waitFor(t, "the answer to be delivered", func() bool { _, n := r.tunnel.Bytes(); return n == int64(len(answer)) })
		reset(t, r.target)
		mustRead(t, r.client, answer)
		mustEnd(t, r.client, syscall.ECONNRESET)
		r.wants(EndReset, 0, int64(len(answer)))
	})
}

// TestStalledBothWays: neither end reads, both send; no direction reads
// any more, and yet the limits hold.
func TestStalledBothWays(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		for _, tt := range []struct {
			name string
			o    Options
			want End
		}{
			{"idle", Options{IdleTimeout: 200 * time.Millisecond}, EndIdle},
			{"lifetime", Options{Lifetime: 500 * time.Millisecond}, EndLifetime},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := newRig(t, wrap, tt.o)
				var wg sync.WaitGroup
				for _, c := range []net.Conn{r.client, r.target} {
					wg.Go(func() {
						var err error
						for b := pattern(1 << 20); err == nil; {
							_, err = c.Write(b)
						}
						if !isReset(err) { // a stream that is cut in the middle must not look whole
							t.Errorf("write = %v, want a reset", err)
						}
					})
				}
				if got := r.result(); got.End != tt.want {
					t.Errorf("result = %+v, want end %d", got, tt.want)
				}
				wg.Wait()
			})
		}
	})
}

func TestClose(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		r := newRig(t, wrap, Options{})
		mustWrite(t, r.client, []byte("x"))
		mustRead(t, r.target, []byte("x"))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(r.tunnel.Close)
		}
		wg.Wait()
		mustEnd(t, r.client, io.EOF)
		mustEnd(t, r.target, io.EOF)
		r.wants(EndClosed, 1, 0)
		r.tunnel.Close()
		if len(r.ended) > 0 {
			t.Error("done was called twice")
		}
	})
}

// TestAhead: what has been read already is delivered first, both ways, and counted.
func TestAhead(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		near, client := tcpPair(t)
		far, target := tcpPair(t)
		ended := make(chan Result, 1)
		tunnel := New(wrap(near), wrap(far), Options{FromClient: []byte("ask"), FromTarget: []byte("greet")})
		go tunnel.Start(func(r Result) { ended <- r })
		mustWrite(t, client, []byte("more"))
		mustWrite(t, target, []byte("answer"))
		mustRead(t, client, []byte("greetanswer"))
		mustRead(t, target, []byte("askmore"))
		client.CloseWrite()
		target.CloseWrite()
		mustEnd(t, client, io.EOF)
		mustEnd(t, target, io.EOF)
		if got := <-ended; got != (Result{BytesFromClient: 7, BytesFromTarget: 11, End: EndEOF}) {
			t.Errorf("result = %+v, want 7 and 11 bytes", got)
		}
	})
}

func TestCloseBeforeStart(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		near, client := tcpPair(t)
		far, target := tcpPair(t)
		tunnel := New(wrap(near), wrap(far), Options{FromClient: []byte("never seen")})
		tunnel.Close()
		var got []Result
		tunnel.Start(func(r Result) { got = append(got, r) })
		if len(got) != 1 || got[0] != (Result{End: EndClosed}) {
			t.Errorf("results = %+v, want one, closed", got)
		}
		mustEnd(t, client, io.EOF)
		mustEnd(t, target, syscall.ECONNRESET) // what it should have got was cut off
	})
}

// TestWithoutCloseWrite: the ends of a net.Pipe cannot be half-closed.
func TestWithoutCloseWrite(t *testing.T) {
	client, near := net.Pipe()
	target, far := net.Pipe()
	ended := make(chan Result, 1)
	go New(near, far, Options{}).Start(func(r Result) { ended <- r })
	mustWrite(t, client, []byte("x"))
	mustRead(t, target, []byte("x"))
	client.Close()
	mustEnd(t, target, io.EOF)
	if got := <-ended; got.End != EndEOF || got.BytesFromClient != 1 {
		t.Errorf("result = %+v, want the end of file", got)
	}
}

// TestResetOfAStalledTunnel: a client that resets while both directions are full is found out, though the target
// takes nothing before it has been read.
func TestResetOfAStalledTunnel(t *testing.T) {
	patience := drainPatience
	drainPatience = 200 * time.Millisecond
	defer func() { drainPatience = patience }()
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		r := newRig(t, wrap, Options{})
		full := func(c *net.TCPConn, n func() int64) {
			c.SetWriteDeadline(time.Now().Add(patience))
			go c.Write(make([]byte, 64<<20)) // ends with the connection
			last, at := int64(-1), time.Now()
			waitFor(t, "the direction to fill up", func() bool {
				if now := n(); now != last {
					last, at = now, time.Now()
				}
				return time.Since(at) > 300*time.Millisecond
			})
		}
		full(r.client, func() int64 { n, _ := r.tunnel.Bytes(); return n })
		full(r.target, func() int64 { _, n := r.tunnel.Bytes(); return n })
		reset(t, r.client)
		if got := r.result(); got.End != EndReset {
			t.Errorf("result = %+v, want a reset", got)
		}
	})
}

// TestCloseOfABrokenTunnel: Close does not wait for what a side has yet to take in.
func TestCloseOfABrokenTunnel(t *testing.T) {
	patience := drainPatience
	drainPatience = time.Hour
	defer func() { drainPatience = patience }()
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		r := newRig(t, wrap, Options{})
		go r.target.Write(make([]byte, 64<<20))
		waitFor(t, "bytes to be on their way", func() bool { _, n := r.tunnel.Bytes(); return n > 0 })
		reset(t, r.target)
		r.tunnel.Close()
		r.result()
	})
}
