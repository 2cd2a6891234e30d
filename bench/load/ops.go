package load

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"polyport/bench/measure"
)

const (
	mostOps    = 5_000_000 // of one measurement
	mostFaults = 50        // of one worker, which then gives up
	afterFault = 5 * time.Millisecond
)

// crew is a number of workers that repeat an operation until it is stopped.
type crew struct {
	measuring, stopping atomic.Bool
	started, done       atomic.Int64 // done while measuring
	times               [][]float64  // microseconds, for each worker
	busy                sync.WaitGroup
}

// startCrew starts n workers. fail is called for each operation that fails
// before the crew is stopped.
func startCrew(n int, op func(worker int) error, fail func(error)) *crew {
	c := &crew{times: make([][]float64, n)}
	for w := range n {
		c.times[w] = make([]float64, 0, 4096)
		c.busy.Go(func() { c.work(w, op, fail) })
	}
	return c
}

func (c *crew) work(w int, op func(int) error, fail func(error)) {
	for faults := 0; faults < mostFaults && !c.stopping.Load() && c.started.Add(1) < mostOps; {
		start := time.Now()
		if err := op(w); err != nil {
			if !c.stopping.Load() {
				fail(err)
			}
			faults++
			time.Sleep(afterFault)
			continue
		}
		if c.measuring.Load() {
			c.done.Add(1)
			c.times[w] = append(c.times[w], float64(time.Since(start).Nanoseconds())/1e3)
		}
	}
}

// stop ends the crew and returns the times of what it did while measuring, sorted.
func (c *crew) stop() []float64 {
	c.stopping.Store(true)
	c.busy.Wait()
	all := slices.Concat(c.times...)
	slices.Sort(all)
	return all
}

// operate has n workers repeat op and measures one window.
func (l *Load) operate(n int, op func(worker int) error) map[string]float64 {
	c := startCrew(n, op, l.fail)
	time.Sleep(l.warmUp())
	w := l.measure(
		func() { c.measuring.Store(true) },
		func() { await(func() bool { return c.done.Load() > 0 }); c.measuring.Store(false) },
	)
	all := c.stop()
	time.Sleep(l.settle())
	m := map[string]float64{
		measure.PerSec: float64(len(all)) / w.seconds, measure.Other: w.other,
		measure.P50: measure.Percentile(all, .5), measure.P99: measure.Percentile(all, .99),
	}
	if l.program() && len(all) > 0 {
		m[measure.CPU] = w.cpu * 1e6 / float64(len(all))
	}
	return m
}

// connRate measures how many tunnels are opened, used once and closed in a second.
func (l *Load) connRate() measure.Measurement {
	return l.result(measure.ConnRate, "", l.operate(l.opts.Workers, l.echoOnce))
}

const hail = "ping-pong-16byte"

// echoOnce opens a tunnel, has the origin echo 16 octets, and closes it.
func (l *Load) echoOnce(int) error { return l.echoOf(hail) }

func (l *Load) echoOf(message string) error {
	c, err := l.end.tunnel([]byte("E" + message))
	if err != nil {
		return err
	}
	defer c.Close()
	return expect(c, []byte(message))
}

// Check makes one tunnel, or one exchange, and says what is wrong with it.
func (l *Load) Check() error {
	switch l.end.Proto {
	case "http":
	case measure.Socks5UDP:
		return l.associateOnce(0)
	default:
		return l.echoOnce(0)
	}
	w := &webClient{end: l.end, request: l.end.webRequest(), buf: make([]byte, 8192), opened: new(atomic.Int64), life: opTimeout}
	defer w.close()
	return w.get()
}

// pingPong measures echoes of 64 octets on n tunnels at once.
func (l *Load) pingPong(work, variant string, n int) measure.Measurement {
	conns := make([]*net.TCPConn, 0, n)
	defer func() { closeAll(conns) }()
	for range n {
		c, err := l.end.open([]byte{'E'})
		if err != nil {
			l.fail(err)
			return l.result(work, variant, nil)
		}
		c.SetDeadline(time.Now().Add(l.opts.Window + 2*opTimeout))
		conns = append(conns, c)
	}
	message := make([]byte, 64)
	for i := range message {
		message[i] = byte(i)
	}
	return l.result(work, variant, l.operate(n, func(w int) error { return echo(conns[w], message) }))
}

func echo(c *net.TCPConn, message []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	if err := expect(c, message); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return nil
}

// alone measures one client with the machine to itself: what a proxy adds when nothing queues.
func (l *Load) alone() []measure.Measurement {
	open := l.result(measure.Alone, "open", l.operate(1, l.echoOnce))
	return []measure.Measurement{open, l.pingPong(measure.Alone, "ping", 1)}
}

// openMany opens up to n connections, or what holds some, with all workers.
// Failed ones are counted and left out; after many of them it stops.
func openMany[T any](l *Load, n int, open func(i int) (T, error)) []T {
	var mu sync.Mutex
	var all []T
	var next, failed atomic.Int64
	var busy sync.WaitGroup
	for range l.opts.Workers {
		busy.Go(func() {
			for i := next.Add(1); i <= int64(n) && failed.Load() < 2*mostFaults; i = next.Add(1) {
				c, err := open(int(i))
				if err != nil {
					failed.Add(1)
					l.fail(err)
					continue
				}
				mu.Lock()
				all = append(all, c)
				mu.Unlock()
			}
		})
	}
	busy.Wait()
	return all
}

// openRested opens a tunnel that has moved 4 KiB each way.
func (l *Load) openRested(int) (*net.TCPConn, error) {
	const moved = 4096
	first := make([]byte, 1+moved)
	first[0] = 'E'
	c, err := l.end.open(first)
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, first[1:]); err != nil {
		c.Close()
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// closeAll closes with a reset, so that no port stays behind in TIME_WAIT, and
// with pauses, so that no queue overflows.
func closeAll[C net.Conn](conns []C) {
	for i, c := range conns {
		reset(c)
		if i%500 == 499 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// reset closes the connection under a session of TLS too: an alert would wait for room.
func reset(c net.Conn) {
	if s, ok := c.(*tls.Conn); ok {
		c = s.NetConn()
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}
