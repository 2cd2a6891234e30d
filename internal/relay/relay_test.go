package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/internal/reactor"
)

// patience bounds every wait of a test for something that must happen; it is
// no measure of how long it may take.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if relay := os.Getenv(loadEnv); relay != "" {
		if err := runLoad(relay); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runOnLoops(m))
}

// testLoops carry what can be carried by loops; nil where this system has none.
var testLoops *reactor.Group

// runOnLoops runs the tests and looks for what they leave behind.
func runOnLoops(m *testing.M) (code int) {
	var err error
	if testLoops, err = reactor.Open(0); err != nil && !errors.Is(err, reactor.ErrUnsupported) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = m.Run()
	testLoops.Close()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// hidden is a TCP connection that the relay cannot recognise as one, so that
// it takes the path of other systems and of connections with layers.
type hidden struct{ c *net.TCPConn }

func (h hidden) Read(b []byte) (int, error)         { return h.c.Read(b) }
func (h hidden) Write(b []byte) (int, error)        { return h.c.Write(b) }
func (h hidden) Close() error                       { return h.c.Close() }
func (h hidden) CloseWrite() error                  { return h.c.CloseWrite() }
func (h hidden) SetLinger(sec int) error            { return h.c.SetLinger(sec) }
func (h hidden) LocalAddr() net.Addr                { return h.c.LocalAddr() }
func (h hidden) RemoteAddr() net.Addr               { return h.c.RemoteAddr() }
func (h hidden) SetDeadline(t time.Time) error      { return h.c.SetDeadline(t) }
func (h hidden) SetReadDeadline(t time.Time) error  { return h.c.SetReadDeadline(t) }
func (h hidden) SetWriteDeadline(t time.Time) error { return h.c.SetWriteDeadline(t) }

// paths are the two ways in which bytes are carried; every behaviour holds on both.
var paths = []struct {
	name string
	wrap func(*net.TCPConn) net.Conn
}{
	{"bare TCP", func(c *net.TCPConn) net.Conn { return c }},
	{"any other connection", func(c *net.TCPConn) net.Conn { return hidden{c} }},
}

// onBothPaths runs a test once for each path.
func onBothPaths(t *testing.T, test func(t *testing.T, wrap func(*net.TCPConn) net.Conn)) {
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) { test(t, p.wrap) })
	}
}

// tcpPair returns the two ends of a loopback connection. They are closed with the test.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// rig is a tunnel with the programs at its two ends.
type rig struct {
	t              testing.TB
	tunnel         *Tunnel
	client, target *net.TCPConn
	ended          chan Result
}

// newRig starts a tunnel between two loopback connections.
func newRig(t testing.TB, wrap func(*net.TCPConn) net.Conn, o Options) *rig {
	t.Helper()
	r := &rig{t: t, ended: make(chan Result, 2)}
	var near, far *net.TCPConn
	near, r.client = tcpPair(t)
	far, r.target = tcpPair(t)
	for _, c := range []net.Conn{r.client, r.target} {
		c.SetDeadline(time.Now().Add(patience))
	}
	o.Loop = testLoops.Next()
	r.tunnel = New(wrap(near), wrap(far), o)
	go r.tunnel.Start(func(res Result) { r.ended <- res })
	t.Cleanup(r.tunnel.Close)
	return r
}

// result waits for the end of the tunnel.
func (r *rig) result() Result {
	r.t.Helper()
	select {
	case res := <-r.ended:
		return res
	case <-time.After(patience):
		r.t.Fatal("the tunnel does not end")
		return Result{}
	}
}

// wants fails the test unless the tunnel ends like this.
func (r *rig) wants(end End, fromClient, fromTarget int64) {
	r.t.Helper()
	got := r.result()
	if got.End != end || got.BytesFromClient != fromClient || got.BytesFromTarget != fromTarget {
		r.t.Errorf("result = %+v, want end %d, %d bytes from the client, %d from the target", got, end, fromClient, fromTarget)
	}
	if (got.Err != nil) != (end == EndReset || end == EndError) {
		r.t.Errorf("result.Err = %v with end %d", got.Err, got.End)
	}
	if c, s := r.tunnel.Bytes(); c != fromClient || s != fromTarget {
		r.t.Errorf("Bytes() = %d, %d after the end, want %d, %d", c, s, fromClient, fromTarget)
	}
}

func mustWrite(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func mustRead(t testing.TB, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %.40q (%d bytes), %v, want %.40q", got[:n], n, err, want)
	}
}

// mustEnd fails unless the connection's stream ends here, as it should.
func mustEnd(t testing.TB, c net.Conn, want error) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, want) {
		t.Fatalf("read = %d bytes, %v, want %v", n, err, want)
	}
}

// reset aborts a connection.
func reset(t testing.TB, c *net.TCPConn) {
	t.Helper()
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Fatal(err)
	}
}

// pattern is n bytes that repeat late enough to show any piece that is lost,
// doubled or moved.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8*7 ^ i>>16*13)
	}
	return b
}

func TestBothDirections(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		r := newRig(t, wrap, Options{})
		mustWrite(t, r.client, []byte("hello"))
		mustRead(t, r.target, []byte("hello"))
		mustWrite(t, r.target, []byte("good day"))
		mustRead(t, r.client, []byte("good day"))
		r.client.CloseWrite()
		mustEnd(t, r.target, io.EOF)
		r.target.CloseWrite()
		mustEnd(t, r.client, io.EOF)
		r.wants(EndEOF, 5, 8)
	})
}

func TestHalfCloseKeepsTheOtherDirection(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		for _, first := range []string{"client", "target"} {
			t.Run(first+" first", func(t *testing.T) {
				r := newRig(t, wrap, Options{})
				a, b := r.client, r.target
				if first == "target" {
					a, b = b, a
				}
				mustWrite(t, a, []byte("request"))
				a.CloseWrite()
				mustRead(t, b, []byte("request"))
				mustEnd(t, b, io.EOF)
				big := pattern(3 << 20)
				for range 3 {
					go b.Write(big)
					mustRead(t, a, big)
				}
				b.CloseWrite()
				mustEnd(t, a, io.EOF)
				up, down := int64(len("request")), int64(3*len(big))
				if first == "target" {
					up, down = down, up
				}
				r.wants(EndEOF, up, down)
			})
		}
	})
}

// TestSizes sends messages around every border: the buffer, the pages, the pipe.
func TestSizes(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		r := newRig(t, wrap, Options{})
		var total int64
		for _, n := range []int{1, 2, 4095, 4096, bufferSize - 1, bufferSize, bufferSize + 1, 2 * bufferSize, 65535, 65537, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20, 1, bufferSize} {
			b := pattern(n)
			go r.client.Write(b)
			mustRead(t, r.target, b)
			go r.target.Write(b)
			mustRead(t, r.client, b)
			total += int64(n)
		}
		r.client.CloseWrite()
		r.target.CloseWrite()
		r.wants(EndEOF, total, total)
	})
}

// canLook reports whether send queues can be looked at.
func (t *Tunnel) canLook() bool { return t.isLooped() }

// waitFor waits for a condition that nothing signals.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestIdle(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		const idle = 50 * time.Millisecond
		r := newRig(t, wrap, Options{IdleTimeout: idle})
		last, n := r.pings(20)
		r.wants(EndIdle, n, 0)
		if d := time.Since(last); d < idle {
			t.Errorf("idle after %v, want %v at least", d, idle)
		}
	})
}

// pings sends single bytes to the target until the tunnel ends or the count is
// reached, and says when the last one that arrived was sent.
func (r *rig) pings(count int) (last time.Time, n int64) {
	for range count {
		sent := time.Now()
		if _, err := r.client.Write([]byte("x")); err != nil {
			break
		}
		if _, err := io.ReadFull(r.target, make([]byte, 1)); err != nil {
			break
		}
		last, n = sent, n+1
	}
	return last, n
}

func TestLifetime(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		const lifetime = 100 * time.Millisecond
		r := newRig(t, wrap, Options{Lifetime: lifetime})
		begin := time.Now()
		_, n := r.pings(1 << 30)
		if got := r.result(); got.End != EndLifetime || got.BytesFromClient < n {
			t.Errorf("result = %+v after %d bytes, want the end by lifetime", got, n)
		}
		if d := time.Since(begin); d < lifetime/2 {
			t.Errorf("ended after %v", d)
		}
	})
}

func TestFromClientIsDeliveredFirst(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		early := pattern(40 << 10)
		r := newRig(t, wrap, Options{FromClient: early})
		mustWrite(t, r.client, []byte("and then"))
		mustRead(t, r.target, early)
		mustRead(t, r.target, []byte("and then"))
		r.client.CloseWrite()
		r.target.CloseWrite()
		r.wants(EndEOF, int64(len(early)+len("and then")), 0)
	})
}

// TestFromClientBlocksNothing: the target takes none of the early bytes until the
// client has its greeting.
func TestFromClientBlocksNothing(t *testing.T) {
	onBothPaths(t, func(t *testing.T, wrap func(*net.TCPConn) net.Conn) {
		early := pattern(32 << 20) // more than the sockets hold
		r := newRig(t, wrap, Options{FromClient: early})
		mustWrite(t, r.target, []byte("220 ready"))
		mustRead(t, r.client, []byte("220 ready"))
		mustRead(t, r.target, early)
		r.client.CloseWrite()
		r.target.CloseWrite()
		r.wants(EndEOF, int64(len(early)), 9)
	})
}

// TestSlowReceiverIsNotIdle: the client takes in so little at a time that its
// writer is not woken for longer than the idle time.
func TestSlowReceiverIsNotIdle(t *testing.T) {
	const idle = 1500 * time.Millisecond
	all := pattern(16 << 20)
	r := newRig(t, paths[0].wrap, Options{IdleTimeout: idle})
	r.client.SetReadBuffer(512 << 10) // so that what is read soon shows in the window
	go func() {
		r.target.Write(all)
		r.target.CloseWrite()
	}()
	got := 0
	for begun := time.Now(); time.Since(begun) < 4*idle; time.Sleep(5 * time.Millisecond) { // the slowness that is tested
		n, err := r.client.Read(make([]byte, 2<<10))
		if err != nil {
			t.Fatalf("after %v and %d bytes: %v", time.Since(begun), got, err)
		}
		got += n
	}
	n, err := io.Copy(io.Discard, r.client)
	if got += int(n); err != nil || got != len(all) {
		t.Errorf("received %d bytes, %v, want all %d", got, err, len(all))
	}
}

func TestStartTwice(t *testing.T) {
	r := newRig(t, paths[1].wrap, Options{})
	mustWrite(t, r.client, []byte("x"))
	mustRead(t, r.target, []byte("x"))
	defer func() {
		if recover() == nil {
			t.Error("the second Start did not panic")
		}
	}()
	r.tunnel.Start(func(Result) {})
}
