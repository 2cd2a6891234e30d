package relay

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The load comes from a process of its own, this test binary run again, so that
// what the benchmarks report as CPU is the relay's alone.
const loadEnv = "RELAY_BENCH_LOAD"

// relays are what is compared: ours, and what two calls of io.Copy do.
var relays = []struct {
	name  string
	serve func(client, target *net.TCPConn)
}{
	{"relay", relayed},
	{"iocopy", func(c, s *net.TCPConn) {
		var wg sync.WaitGroup
		for _, way := range [][2]*net.TCPConn{{c, s}, {s, c}} {
			wg.Go(func() { io.Copy(way[1], way[0]); way[1].CloseWrite() })
		}
		wg.Wait()
		c.Close()
		s.Close()
	}},
}

// relayed relays by a Tunnel and returns when it has ended.
func relayed(c, s *net.TCPConn) {
	done := make(chan Result)
	New(c, s, Options{Loop: testLoops.Next()}).Start(func(Result) { close(done) })
	<-done
}

// BenchmarkBulk downloads 256 MiB per tunnel and operation.
func BenchmarkBulk(b *testing.B) {
	for _, tunnels := range []int{1, 8} {
		for _, r := range relays {
			b.Run(fmt.Sprintf("tunnels=%d/%s", tunnels, r.name), func(b *testing.B) {
				const each = 256 << 20
				l := startLoad(b, r.serve)
				l.order("bulk %d %d", tunnels, each)
				b.SetBytes(int64(tunnels) * each)
				cpu := cpuTime()
				b.ResetTimer()
				for b.Loop() {
					l.order("bulk %d %d", tunnels, each)
				}
				b.StopTimer()
				b.ReportMetric((cpuTime()-cpu).Seconds()/(float64(b.N)*float64(tunnels)*each/1e9), "cpu-s/GB")
			})
		}
	}
}

// BenchmarkPingPong sends 64 bytes to and fro on each tunnel, 200 times per operation.
func BenchmarkPingPong(b *testing.B) {
	for _, tunnels := range []int{1, 64} {
		for _, r := range relays {
			b.Run(fmt.Sprintf("tunnels=%d/%s", tunnels, r.name), func(b *testing.B) {
				const rounds = 200
				l := startLoad(b, r.serve)
				l.order("ping %d %d", tunnels, rounds)
				cpu := cpuTime()
				b.ResetTimer()
				for b.Loop() {
					l.order("ping %d %d", tunnels, rounds)
				}
				b.StopTimer()
				messages := float64(b.N * tunnels * rounds)
				b.ReportMetric(messages/b.Elapsed().Seconds(), "pings/s")
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/messages, "cpu-us/ping")
			})
		}
	}
}

// BenchmarkConnect opens a tunnel, sends 16 bytes to and fro and closes it.
func BenchmarkConnect(b *testing.B) {
	for _, r := range relays {
		b.Run(r.name, func(b *testing.B) {
			const each = 500
			l := startLoad(b, r.serve)
			l.order("connect 32 %d", each)
			cpu := cpuTime()
			b.ResetTimer()
			for b.Loop() {
				l.order("connect 32 %d", each)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N*each), "cpu-us/tunnel")
		})
	}
}

// BenchmarkIdle reports what a tunnel holds in this process while it rests; the
// kernel's sockets are not counted.
func BenchmarkIdle(b *testing.B) {
	const tunnels = 1000
	var resting sync.WaitGroup // Start returns before they end
	for _, tt := range []struct {
		name  string
		serve func(client, target *net.TCPConn)
	}{
		{"loop", started(&resting)},
		relays[1],
	} {
		b.Run(tt.name, func(b *testing.B) {
			for b.Loop() {
				l := startLoad(b, tt.serve)
				l.order("hold 10") // what comes with the first tunnels alone
				before, files := held(b), openFiles(b)
				l.order("hold %d", tunnels)
				l.order("rest")
				b.ReportMetric(float64(held(b)-before)/tunnels, "B/tunnel")
				b.ReportMetric(float64(openFiles(b)-files)/tunnels, "files/tunnel")
				l.stop()
				resting.Wait()
			}
		})
	}
}

// started relays by a Tunnel and leaves it to itself.
func started(running *sync.WaitGroup) func(client, target *net.TCPConn) {
	return func(c, s *net.TCPConn) {
		running.Add(1)
		New(c, s, Options{Loop: testLoops.Next()}).Start(func(Result) { running.Done() })
	}
}

// held is what the heap and the stacks take after a collection.
func held(b *testing.B) int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// load is the process at both ends of the tunnels, and the relay's listener.
type load struct {
	b     *testing.B
	in    io.WriteCloser
	out   *bufio.Reader
	stop  func()
	relay net.Listener
}

// startLoad starts the load and a relay for it.
func startLoad(b *testing.B, serve func(client, target *net.TCPConn)) *load {
	b.Helper()
	relay, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"="+relay.Addr().String())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	l := &load{b: b, in: in, out: bufio.NewReader(out), relay: relay}
	backend := l.answer()
	var tunnels sync.WaitGroup
	tunnels.Go(func() {
		for {
			c, err := relay.Accept()
			if err != nil {
				return
			}
			tunnels.Go(func() {
				s, err := net.Dial("tcp4", backend)
				if err != nil {
					c.Close()
					return
				}
				serve(c.(*net.TCPConn), s.(*net.TCPConn))
			})
		}
	})
	l.stop = sync.OnceFunc(func() {
		in.Close()
		cmd.Wait()
		relay.Close()
		tunnels.Wait()
	})
	b.Cleanup(l.stop)
	return l
}

// order has the load do something and waits until it is done.
func (l *load) order(format string, args ...any) {
	fmt.Fprintf(l.in, format+"\n", args...)
	if got := l.answer(); got != "done" {
		l.b.Fatalf("the load says %q", got)
	}
}

func (l *load) answer() string {
	line, err := l.out.ReadString('\n')
	if err != nil {
		l.b.Fatalf("the load has ended: %v", err)
	}
	return strings.TrimSpace(line)
}

// runLoad is the load's main function. Each tunnel begins with 8 bytes that tell
// the backend how much to send; 0 means to echo.
func runLoad(relay string) error {
	backend, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			go serveLoad(c.(*net.TCPConn))
		}
	}()
	fmt.Println(backend.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var what string
		var n, each int
		fmt.Sscan(in.Text(), &what, &n, &each)
		err := error(nil)
		switch what {
		case "bulk":
			err = atOnce(n, func() error { return download(relay, each) })
		case "ping":
			err = atOnce(n, func() error { return ping(relay, 64, each) })
		case "connect":
			err = atOnce(n, func() error {
				for range each / n {
					if err := ping(relay, 16, 1); err != nil {
						return err
					}
				}
				return nil
			})
		case "hold":
			err = atOnce(n, func() error { _, err := open(relay, 0); return err })
		case "rest":
			time.Sleep(time.Second)
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

// atOnce runs n copies of f and returns the error of one that failed.
func atOnce(n int, f func() error) error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- f() }()
	}
	var err error
	for range n {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// open opens a tunnel and says how much is wanted of the backend.
func open(relay string, want int) (*net.TCPConn, error) {
	c, err := net.Dial("tcp4", relay)
	if err != nil {
		return nil, err
	}
	_, err = c.Write(binary.BigEndian.AppendUint64(nil, uint64(want)))
	return c.(*net.TCPConn), err
}

func download(relay string, size int) error {
	c, err := open(relay, size)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	for got := 0; got < size; {
		n, err := c.Read(buf)
		if got += n; err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", got, size, err)
		}
	}
	return nil
}

func ping(relay string, size, rounds int) error {
	c, err := open(relay, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, size)
	for range rounds {
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	return nil
}

// serveLoad is the backend's end of one tunnel.
func serveLoad(c *net.TCPConn) {
	defer c.Close()
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	want := int(binary.BigEndian.Uint64(head[:]))
	if want == 0 {
		b := make([]byte, 4<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
	for b := make([]byte, 256<<10); want > 0; {
		n, err := c.Write(b[:min(want, len(b))])
		if want -= n; err != nil {
			return
		}
	}
	io.Copy(io.Discard, c)
}
