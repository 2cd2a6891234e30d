package load

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"polyport/bench/measure"
)

// idle measures what a tunnel at rest costs, and how fast it wakes up.
func (l *Load) idle() measure.Measurement {
	for range 64 { // pools and state that is built when it is first needed
		if err := l.echoOnce(0); err != nil {
			l.fail(err)
			return l.result(measure.Idle, "", nil)
		}
	}
	time.Sleep(l.warmUp())
	before := l.meter.Memory()
	conns := openMany(l, l.opts.Idle, l.openRested)
	defer func() { closeAll(conns) }()
	m := map[string]float64{measure.Opened: float64(len(conns))}
	if len(conns) < l.opts.Idle*9/10 {
		l.fail(fmt.Errorf("only %d of %d tunnels were opened", len(conns), l.opts.Idle))
		return l.result(measure.Idle, "", m)
	}
	time.Sleep(l.opts.Rest)
	l.addMemory(m, before, l.meter.Memory(), float64(len(conns)))
	if w := l.measure(func() {}, func() {}); l.program() {
		m[measure.IdleCPU] = w.cpu / w.seconds
	}
	l.wake(m, conns)
	return l.result(measure.Idle, "", m)
}

// addMemory says what each of n tunnels has added.
func (l *Load) addMemory(m map[string]float64, before, after Memory, n float64) {
	m[measure.Kernel] = (after.Kernel - before.Kernel) / n
	if !l.program() {
		return
	}
	m[measure.PSS] = (after.PSS - before.PSS) / n
	m[measure.RSS] = (after.RSS - before.RSS) / n
	m[measure.FDs] = (after.FDs - before.FDs) / n
	m[measure.Threads], m[measure.Procs] = after.Threads, after.Procs
}

// wake sends 1 KiB through up to 1,000 tunnels, 100 at a time.
func (l *Load) wake(m map[string]float64, conns []*net.TCPConn) {
	const batch, batches = 100, 10
	var times []float64
	var mu sync.Mutex
	for some := range slices.Chunk(conns[:min(len(conns), batch*batches)], batch) {
		var busy sync.WaitGroup
		for _, c := range some {
			busy.Go(func() {
				c.SetDeadline(time.Now().Add(opTimeout))
				start := time.Now()
				if err := echo(c, make([]byte, 1024)); err != nil {
					l.fail(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
			})
		}
		busy.Wait()
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(times)
	m[measure.WakeP50], m[measure.WakeP99] = measure.Percentile(times, .5), measure.Percentile(times, .99)
}

// busyIdle measures downloads while tunnels that have moved data rest beside
// them, and the same process without those: what a pipe or a buffer that each
// tunnel keeps does to the busy ones.
func (l *Load) busyIdle() []measure.Measurement {
	counts := []int{1, 8}
	var own []float64
	for _, n := range counts {
		own = append(own, l.transfer(down, n)[measure.CPUPerGB])
	}
	conns := openMany(l, l.opts.Beside, l.openRested)
	defer func() { closeAll(conns) }()
	time.Sleep(l.opts.Rest / 4)
	var all []measure.Measurement
	for i, n := range counts {
		m := l.transfer(down, n)
		if m == nil {
			m = map[string]float64{}
		}
		m[measure.Opened] = float64(len(conns))
		if own[i] > 0 {
			m[measure.OwnPerGB] = own[i]
		}
		all = append(all, l.result(measure.BusyIdle, fmt.Sprintf("%s%d", down, n), m))
	}
	return all
}

// heldClients is how many addresses the held connections come from: a limit
// for each client would close them if it were one.
const heldClients = 8

// held measures good clients beside connections that have sent nothing, or one octet.
func (l *Load) held() measure.Measurement {
	without := l.operate(l.opts.Workers, l.echoOnce)
	before := l.meter.Memory()
	conns := openMany(l, l.opts.Held, l.openHeld)
	time.Sleep(l.warmUp())
	after := l.meter.Memory()
	m := l.operate(l.opts.Workers, l.echoOnce)
	m[measure.Other] = max(m[measure.Other], without[measure.Other])
	if rate := without[measure.PerSec]; rate > 0 {
		m[measure.Kept] = m[measure.PerSec] / rate
	}
	m[measure.Opened], m[measure.StillIn] = float64(len(conns)), float64(stillOpen(conns))
	if l.program() && len(conns) > 0 {
		m[measure.PSS] = (after.PSS - before.PSS) / float64(len(conns))
	}
	closeAll(conns)
	time.Sleep(l.settle())
	return l.result(measure.Held, "", m)
}

// openHeld connects; every other connection sends the first octet of its protocol.
func (l *Load) openHeld(i int) (*net.TCPConn, error) {
	c, err := l.end.dial(byte(1 + i%heldClients))
	if err != nil {
		return nil, err
	}
	if i/heldClients%2 == 0 {
		if _, err := c.Write(l.firstOctet()); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, c.SetDeadline(time.Time{})
}

func (l *Load) firstOctet() []byte {
	switch l.end.Proto {
	case "socks5":
		return []byte{5}
	case measure.Direct:
		return []byte{'E'}
	}
	return l.end.request[:1]
}

// stillOpen counts the connections that the other side has not closed.
func stillOpen(conns []*net.TCPConn) int {
	var open atomic.Int64
	var busy sync.WaitGroup
	for some := range slices.Chunk(conns, 64) {
		busy.Go(func() {
			for _, c := range some {
				// A deadline that has passed would hide an end that has come.
				c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					open.Add(1)
				}
			}
		})
	}
	busy.Wait()
	return int(open.Load())
}
