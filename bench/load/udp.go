package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
)

// Octets of a datagram, and how many are under way at once on all associations
// together: the default buffer of a socket holds that many, so that what is
// lost is the program's loss.
const (
	smallDatagram, smallWindow = 64, 128
	largeDatagram, largeWindow = 1200, 64
)

// udp measures datagrams there and back with a bounded number under way, and
// datagrams one way at fixed rates.
func (l *Load) udp() []measure.Measurement {
	var all []measure.Measurement
	for _, n := range []int{1, 8} {
		all = append(all, l.echoes(origin.Echo, smallDatagram, n, smallWindow/n), l.echoes(origin.Echo, largeDatagram, n, largeWindow/n),
			l.echoes(origin.Segments, smallDatagram, n, smallWindow/n), l.echoes(origin.Segments, largeDatagram, n, largeWindow/n))
	}
	return append(all, l.paced(largeDatagram, 20000), l.paced(largeDatagram, 50000))
}

// echoes measures how many datagrams of size octets go to the origin and back
// on n associations with window of them under way on each. command is origin.Echo,
// or origin.Segments for a client and an origin that have the kernel cut theirs.
func (l *Load) echoes(command byte, size, n, window int) measure.Measurement {
	variant := fmt.Sprintf("echo%dx%d", size, n)
	if command == origin.Segments {
		variant = fmt.Sprintf("segments%dx%d", size, n)
	}
	s, err := l.newStream(n, size, window)
	if err != nil {
		l.fail(err)
		return l.result(measure.UDP, variant, nil)
	}
	defer s.close()
	s.command = command
	go s.flood(window)
	time.Sleep(l.warmUp())
	var before, after uint64
	w := l.measure(
		func() { before = s.got.Load() },
		func() { await(func() bool { after = s.got.Load(); return after > before }) },
	)
	s.stop()
	m := l.datagrams(w, after-before, 2) // the program passes each of them twice
	m[measure.Lost] = lost(s.sent.Load(), s.got.Load())
	return l.result(measure.UDP, variant, m)
}

// paced measures how many of rate datagrams a second are lost on one
// association, and what the others cost.
func (l *Load) paced(size, rate int) measure.Measurement {
	variant := fmt.Sprintf("paced%d", rate)
	s, err := l.newStream(1, size, pacedBatch)
	if err != nil {
		l.fail(err)
		return l.result(measure.UDP, variant, nil)
	}
	defer s.close()
	c, err := l.takenCounter()
	if err != nil {
		l.fail(err)
		return l.result(measure.UDP, variant, nil)
	}
	defer c.close()
	go s.pace(rate)
	time.Sleep(l.warmUp())
	var before, after, sentBefore, sentAfter uint64
	w := l.measure(
		func() { sentBefore, before = s.sent.Load(), c.taken() },
		func() {
			await(func() bool { after = c.taken(); return after > before })
			sentAfter = s.sent.Load()
		},
	)
	s.stop()
	time.Sleep(l.settle()) // what is under way arrives
	m := l.datagrams(w, after-before, 1)
	m[measure.Offered] = float64(sentAfter-sentBefore) / w.seconds
	m[measure.Lost] = lost(s.sent.Load(), c.taken())
	if c.wrong > 0 {
		l.lose(int(c.wrong), errors.New("datagrams were changed on their way up"))
	}
	return l.result(measure.UDP, variant, m)
}

// datagrams are the metrics of n datagrams in a window, which the program has passed times each.
func (l *Load) datagrams(w window, n uint64, times float64) map[string]float64 {
	if n == 0 {
		l.fail(errors.New("not one datagram arrived"))
	}
	m := map[string]float64{measure.PerSec: float64(n) / w.seconds, measure.Other: w.other}
	if l.program() && n > 0 {
		m[measure.CPU] = w.cpu * 1e6 / (float64(n) * times)
	}
	return m
}

// lost is the share of sent datagrams that did not come.
func lost(sent, come uint64) float64 {
	if sent == 0 || come >= sent {
		return 0
	}
	return float64(sent-come) / float64(sent)
}

// takenCounter asks the origin how many datagrams it has taken, on a connection of its own.
type takenCounter struct {
	conn          *net.TCPConn
	fail          func(error)
	before, wrong uint64 // wrong ones are those of the last answer
	wrongBefore   uint64
}

// takenCounter counts from now on.
func (l *Load) takenCounter() (*takenCounter, error) {
	conn, err := loopback.Dial(l.end.origin, 1)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(l.opts.Window + 4*opTimeout))
	if _, err := conn.Write([]byte{'N'}); err != nil {
		conn.Close()
		return nil, err
	}
	c := &takenCounter{conn: conn, fail: l.fail}
	if c.before, c.wrongBefore, err = c.read(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *takenCounter) close() { c.conn.Close() }

func (c *takenCounter) read() (taken, wrong uint64, err error) {
	var b [16]byte
	_, err = io.ReadFull(c.conn, b[:])
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), err
}

// taken is how many the origin has taken since the counter was made.
func (c *takenCounter) taken() uint64 {
	_, err := c.conn.Write([]byte{'N'})
	var taken, wrong uint64
	if err == nil {
		taken, wrong, err = c.read()
	}
	if err != nil {
		c.fail(fmt.Errorf("ask the origin for its count: %w", err))
		return 0
	}
	c.wrong = wrong - c.wrongBefore
	return taken - c.before
}
