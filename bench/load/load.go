// Package load drives a proxy, or the origin itself, with the workloads of the
// benchmark and measures what comes of it. Each loop is bounded in time and in
// count, each wait has a deadline, and each failed operation is counted.
package load

import (
	"sync"
	"time"

	"polyport/bench/measure"
)

// Memory is what a program holds, all its processes together.
type Memory struct {
	RSS, PSS, Kernel    float64 // bytes; Kernel is the whole machine's
	FDs, Threads, Procs float64
}

// Meter reads the counters of the program under test.
type Meter interface {
	// CPU is the user and system time that it has used, in seconds.
	CPU() float64
	// Others is the CPU time, in seconds, that neither it nor the benchmark has used.
	Others() float64
	Memory() Memory
}

// Options configures a load. Zero values are replaced by those in brackets.
type Options struct {
	Window  time.Duration // of one measurement [1.5 s], at most a minute
	Idle    int           // tunnels at rest [3,000]
	Beside  int           // tunnels at rest beside bulk transfers [2,000]
	Held    int           // connections that never finish a request [2,000]
	Verify  uint64        // octets that are verified on each tunnel [16 MiB]
	Workers int           // clients that open tunnels [32]
	Conns   int           // connections that ping, or that ask over HTTP [64]
	Rest    time.Duration // that tunnels rest before memory is read [2 s]

	Associations int // for UDP, at rest [10,000]
}

// withDefaults fills in zeros, and bounds the rest.
func (o Options) withDefaults() Options {
	const most = 20000
	def := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
		*n = min(*n, most)
	}
	def(&o.Idle, 3000)
	def(&o.Beside, 2000)
	def(&o.Held, 2000)
	def(&o.Workers, 32)
	def(&o.Conns, 64)
	def(&o.Associations, 10000)
	if o.Window <= 0 {
		o.Window = 1500 * time.Millisecond
	}
	if o.Verify == 0 {
		o.Verify = 16 << 20
	}
	if o.Rest <= 0 {
		o.Rest = 2 * time.Second
	}
	o.Window = min(o.Window, time.Minute)
	return o
}

// Load is one program under load by one protocol.
type Load struct {
	name  string
	round int
	end   Endpoint
	meter Meter
	opts  Options

	mu    sync.Mutex
	errs  int
	first string
}

// New prepares a load on end. The meter of direct, which is no program, gives
// zeros for it.
func New(name string, round int, end Endpoint, meter Meter, opts Options) *Load {
	return &Load{name: name, round: round, end: end, meter: meter, opts: opts.withDefaults()}
}

// warmUp passes before a window is measured.
func (l *Load) warmUp() time.Duration { return min(300*time.Millisecond, l.opts.Window) }

// settle is the time that a program gets to close what a workload leaves behind.
func (l *Load) settle() time.Duration { return min(200*time.Millisecond, l.opts.Window) }

// fail counts a failed operation.
func (l *Load) fail(err error) { l.lose(1, err) }

// lose counts n faults and keeps the first cause.
func (l *Load) lose(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs += n
	if l.first == "" && err != nil {
		l.first = err.Error()
	}
}

// result makes a measurement and takes the errors counted so far with it.
func (l *Load) result(work, variant string, metrics map[string]float64) measure.Measurement {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := measure.Measurement{
		Time: time.Now().UTC().Format(time.RFC3339), Name: l.name, Proto: l.end.Proto, Work: work, Variant: variant,
		Round: l.round, Metrics: metrics, Errors: l.errs, FirstErr: l.first,
	}
	l.errs, l.first = 0, ""
	return m
}

// program says whether there is a program whose counters mean something.
func (l *Load) program() bool { return l.name != measure.Direct }

// Run runs one workload.
func (l *Load) Run(work string) []measure.Measurement {
	switch work {
	case measure.Bulk:
		return []measure.Measurement{l.bulk(down, 1), l.bulk(up, 1), l.bulk(down, 8), l.bulk(up, 8)}
	case measure.Verify:
		return []measure.Measurement{l.verify(down), l.verify(up)}
	case measure.ConnRate:
		return []measure.Measurement{l.connRate()}
	case measure.PingPong:
		return []measure.Measurement{l.pingPong(measure.PingPong, "", l.opts.Conns)}
	case measure.Alone:
		return l.alone()
	case measure.HTTP:
		return []measure.Measurement{l.http()}
	case measure.Idle:
		return []measure.Measurement{l.idle()}
	case measure.Handshakes:
		return l.handshakes()
	case measure.TLSBulk:
		return l.tlsBulk()
	case measure.Held:
		return []measure.Measurement{l.held()}
	case measure.BusyIdle:
		return l.busyIdle()
	case measure.UDP:
		return l.udp()
	case measure.UDPIdle:
		return l.udpIdle()
	case measure.Chain:
		return []measure.Measurement{l.chain()}
	case measure.ChainBulk:
		return l.chainBulk()
	}
	return nil
}

// window is what a program and the others on the machine used in a stretch of time.
type window struct {
	seconds, cpu, other float64
}

// measure waits for the window of the options. begin and end are called at its
// ends, inside the readings of /proc: those take time that is not the window's.
func (l *Load) measure(begin, end func()) window {
	readAt, others, cpu := time.Now(), l.meter.Others(), l.meter.CPU()
	begin()
	start := time.Now()
	time.Sleep(l.opts.Window)
	end()
	w := window{seconds: time.Since(start).Seconds()}
	w.cpu = l.meter.CPU() - cpu
	w.other = max(0, (l.meter.Others()-others)/time.Since(readAt).Seconds())
	return w
}

// await waits until something has happened, for as long as one operation may
// take: a window in which nothing was finished says nothing.
func await(happened func() bool) {
	for end := time.Now().Add(opTimeout); !happened() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}
