package load

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
)

// restedDatagram is how many octets an association at rest has had echoed.
const restedDatagram = 64

// udpIdle measures what an association costs that rests: before it has sent
// anything, and when one datagram was sent and answered. Then some wake up.
func (l *Load) udpIdle() []measure.Measurement {
	for i := range 64 { // pools and state that is built when it is first needed
		if err := l.associateOnce(i); err != nil {
			l.fail(err)
			return []measure.Measurement{l.result(measure.UDPIdle, measure.Silent, nil)}
		}
	}
	time.Sleep(l.warmUp())
	before := l.meter.Memory()
	all, err := l.associateMany(l.opts.Associations)
	defer l.dissociate(all)
	if err != nil {
		l.fail(err)
		return []measure.Measurement{l.result(measure.UDPIdle, measure.Silent, nil)}
	}
	silent := l.result(measure.UDPIdle, measure.Silent, l.atRest(before, len(all)))
	answered := l.exchangeAll(all)
	m := l.atRest(before, len(all))
	m[measure.Opened] = float64(answered)
	if w := l.measure(func() {}, func() {}); l.program() {
		m[measure.IdleCPU] = w.cpu / w.seconds
	}
	const woken = 100
	some := slices.Collect(every(all, max(1, len(all)/woken)))
	if n := l.exchangeAll(some); n < len(some) {
		l.fail(fmt.Errorf("%d of %d associations do not wake up", len(some)-n, len(some)))
	}
	return []measure.Measurement{silent, l.result(measure.UDPIdle, measure.Answered, m)}
}

// every gives one of each n.
func every[T any](all []T, n int) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for i := 0; i < len(all); i += n {
			if !yield(all[i]) {
				return
			}
		}
	}
}

// atRest lets n associations rest, and says what each has added.
func (l *Load) atRest(before Memory, n int) map[string]float64 {
	time.Sleep(l.opts.Rest)
	m := map[string]float64{measure.Opened: float64(n)}
	l.addMemory(m, before, l.meter.Memory(), float64(n))
	return m
}

// associateMany opens n associations of a client each. The error says that too few were opened.
func (l *Load) associateMany(n int) ([]*association, error) {
	first, err := l.end.associate(netip.AddrPortFrom(loopback.Client(0), 0))
	if err != nil {
		return nil, err
	}
	// The clients share a port number: the others are for the program, which may want a port of all addresses.
	port := netip.MustParseAddrPort(first.udp.LocalAddr().String()).Port()
	rest := openMany(l, n-1, func(i int) (*association, error) {
		return l.end.associate(netip.AddrPortFrom(loopback.Client(i), port))
	})
	all := append(rest, first)
	if len(all) < n*9/10 {
		return all, fmt.Errorf("only %d of %d associations were opened", len(all), n)
	}
	return all, nil
}

// exchangeAll has each association's datagram echoed, and says how many were.
func (l *Load) exchangeAll(all []*association) int {
	var good, next, failed atomic.Int64
	var busy sync.WaitGroup
	for range l.opts.Workers {
		busy.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(all)) && failed.Load() < 2*mostFaults; i = next.Add(1) - 1 {
				if err := all[i].exchange(restedDatagram, uint64(i)); err != nil {
					failed.Add(1)
					l.fail(err)
					continue
				}
				good.Add(1)
			}
		})
	}
	busy.Wait()
	if good.Load() == 0 {
		l.fail(errors.New("no association passes a datagram"))
	}
	return int(good.Load())
}

// dissociate closes associations, with pauses so that no queue overflows.
func (l *Load) dissociate(all []*association) {
	for some := range slices.Chunk(all, 500) {
		for _, a := range some {
			a.close()
		}
		time.Sleep(10 * time.Millisecond)
	}
}
