package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
)

// direction of a bulk transfer, seen from the client.
type direction bool

const (
	down direction = false
	up   direction = true
)

// String returns the direction as results name it.
func (d direction) String() string {
	if d == up {
		return "up"
	}
	return "down"
}

// endless is more than any transfer moves.
const endless = 1 << 50

func command(c byte, n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{c}, n) }

// bulk measures transfers by n tunnels at once. Octets are counted where they arrive.
func (l *Load) bulk(d direction, n int) measure.Measurement {
	return l.result(measure.Bulk, fmt.Sprintf("%s%d", d, n), l.transfer(d, n))
}

// transfer moves zeros for one window.
func (l *Load) transfer(d direction, n int) map[string]float64 {
	deadline := time.Now().Add(l.opts.Window + 2*opTimeout)
	var got atomic.Uint64
	arrived, end, err := l.counter(d, &got, deadline)
	if err != nil {
		l.fail(err)
		return nil
	}
	defer end()
	stop := l.startTransfers(d, n, &got, deadline)
	time.Sleep(l.warmUp())
	var before, after uint64
	w := l.measure(
		func() { before = arrived() },
		func() { await(func() bool { after = arrived(); return after > before }) },
	)
	gb := float64(after-before) / 1e9
	stop()
	time.Sleep(l.settle())
	m := map[string]float64{measure.GBps: gb / w.seconds, measure.Other: w.other}
	if l.program() && gb > 0 {
		m[measure.CPUPerGB] = w.cpu / gb
	}
	if gb == 0 {
		l.fail(errors.New("not one octet arrived"))
	}
	return m
}

// counter reads how many octets have arrived: here, or at the origin, which is
// asked on a connection of its own.
func (l *Load) counter(d direction, got *atomic.Uint64, deadline time.Time) (read func() uint64, end func(), err error) {
	if d == down {
		return got.Load, func() {}, nil
	}
	c, err := loopback.Dial(l.end.origin, 1)
	if err != nil {
		return nil, nil, err
	}
	c.SetDeadline(deadline)
	ask := func() uint64 {
		var b [8]byte
		if _, err := c.Write([]byte{'C'}); err != nil {
			l.fail(err)
		} else if _, err := io.ReadFull(c, b[:]); err != nil {
			l.fail(err)
		}
		return binary.BigEndian.Uint64(b[:])
	}
	return ask, func() { c.Close() }, nil
}

// startTransfers opens n tunnels and keeps them busy. stop ends and closes them.
func (l *Load) startTransfers(d direction, n int, got *atomic.Uint64, deadline time.Time) (stop func()) {
	var conns []net.Conn
	var busy sync.WaitGroup
	var stopping atomic.Bool
	first := command('D', endless)
	if d == up {
		first = command('U', endless)
	}
	for range n {
		c, err := l.end.tunnel(first)
		if err != nil {
			l.fail(err)
			continue
		}
		c.SetDeadline(deadline)
		conns = append(conns, c)
		busy.Go(func() {
			if err := pump(c, d, got); !stopping.Load() {
				l.fail(fmt.Errorf("%s transfer: %w", d, err))
			}
		})
	}
	return func() {
		stopping.Store(true)
		closeAll(conns)
		busy.Wait()
	}
}

// pump reads or writes until the connection ends, and says what ended it.
func pump(c net.Conn, d direction, got *atomic.Uint64) error {
	b := make([]byte, origin.Block)
	for {
		if d == up {
			if _, err := c.Write(b); err != nil {
				return err
			}
			continue
		}
		n, err := c.Read(b)
		got.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}

// verify moves a pattern through 8 tunnels at once and counts octets that are
// lost or not what they were.
func (l *Load) verify(d direction) measure.Measurement {
	const tunnels = 8
	var sum atomic.Uint64
	var busy sync.WaitGroup
	for range tunnels {
		busy.Go(func() {
			wrong, err := l.verifyOne(d)
			if wrong > 0 {
				l.lose(int(wrong), fmt.Errorf("%d octets were changed on their way %s", wrong, d))
			}
			if err != nil {
				l.fail(fmt.Errorf("verify %s: %w", d, err))
				return
			}
			sum.Add(l.opts.Verify - wrong)
		})
	}
	busy.Wait()
	return l.result(measure.Verify, d.String(), map[string]float64{measure.Bytes: float64(sum.Load())})
}

func (l *Load) verifyOne(d direction) (wrong uint64, err error) {
	n := l.opts.Verify
	first := command('P', n)
	if d == up {
		first = command('V', n)
	}
	c, err := l.end.tunnel(first)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if d == up {
		if err := origin.WritePattern(c, n); err != nil {
			return 0, err
		}
		var b [8]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return 0, err
		}
		return binary.BigEndian.Uint64(b[:]), nil
	}
	if wrong, err = origin.CheckPattern(c, n); err != nil {
		return wrong, err
	}
	if k, err := c.Read(make([]byte, 1)); k != 0 || err != io.EOF {
		return wrong, fmt.Errorf("%d more octets, %w, where the stream had to end", k, err)
	}
	return wrong, nil
}
