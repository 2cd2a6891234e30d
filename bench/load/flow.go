package load

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"polyport/bench/batch"
	"polyport/bench/loopback"
	"polyport/bench/origin"
)

const (
	recredit    = 100 * time.Millisecond // of silence: what is under way is lost
	firstNap    = 50 * time.Microsecond
	longestNap  = 500 * time.Microsecond
	seenNumbers = 1024 // of datagrams that came last, more than are ever under way
	pacedBatch  = 32   // at most, when the sender is late
	pacedNap    = 100 * time.Microsecond
	flowBuffer  = 1 << 20 // of the client's socket: nothing may be lost there
)

// flow is an association with datagrams under way, which it reads and writes in batches.
type flow struct {
	*association
	conn  *batch.Conn
	batch int    // datagrams that are sent at a time, at most
	size  int    // octets of a datagram, without the head
	base  uint64 // number of the flow, in the upper bits of its datagrams' numbers
	next  uint64 // number of the datagram that is sent next, without the base
	past  uint64 // all below have come, or are lost, or come late
	seen  [seenNumbers]uint64
}

// newFlow makes flow i of an association, whose socket it takes over. Its
// datagrams have size octets, up to most of them are sent at a time.
func newFlow(a *association, i, size, most int) (*flow, error) {
	a.udp.SetReadBuffer(flowBuffer)
	conn, err := batch.New(a.udp, most, len(a.head)+size)
	if err != nil {
		return nil, err
	}
	for k := range most {
		copy(conn.Buffer(k), a.head)
	}
	return &flow{association: a, conn: conn, batch: most, size: size, base: uint64(i+1) << 40}, nil
}

// close closes the association too.
func (f *flow) close() {
	f.conn.Close()
	f.association.close()
}

func (f *flow) underWay() int { return int(f.next - f.past) }

// send sends up to n datagrams and returns how many it has sent.
func (f *flow) send(n int, command byte) (int, error) {
	n = min(n, f.batch)
	if n <= 0 {
		return 0, nil
	}
	for i := range n {
		origin.WriteDatagram(f.conn.Buffer(i)[len(f.head):], command, f.base|(f.next+uint64(i)))
	}
	n, err := f.conn.Write(n, command == origin.Segments)
	f.next += uint64(n)
	return n, err
}

// receive takes what has come and returns how many datagrams that were. It does not wait.
func (f *flow) receive(fail func(error)) int {
	n, err := f.conn.Read(false)
	if err != nil {
		fail(err)
		return 0
	}
	good := 0
	for i := range n {
		if err := f.take(f.conn.Datagram(i)); err != nil {
			fail(err)
			continue
		}
		good++
	}
	return good
}

// take checks one datagram: whose it is, each octet, and that it comes once.
func (f *flow) take(b []byte) error {
	payload, err := f.payload(b)
	if err != nil {
		return err
	}
	_, n, ok := origin.ReadDatagram(payload)
	number := n &^ f.base
	switch {
	case !ok || len(payload) != f.size:
		return fmt.Errorf("an echo of %d octets is not what was sent", len(payload))
	case n&f.base != f.base || number >= f.next:
		return fmt.Errorf("echo %#x belongs to another association than %#x", n, f.base)
	case f.seen[number%seenNumbers] == number+1:
		return fmt.Errorf("echo %d came twice", number)
	}
	f.seen[number%seenNumbers] = number + 1
	f.past = max(f.past, number+1)
	return nil
}

// stream keeps flows busy from one goroutine.
type stream struct {
	flows     []*flow
	command   byte // of its datagrams, when it floods
	fail      func(error)
	stopping  atomic.Bool
	sent, got atomic.Uint64
	done      chan struct{}
}

// newStream opens n associations whose datagrams have size octets. The error
// says why one does not work.
func (l *Load) newStream(n, size, most int) (*stream, error) {
	s := &stream{done: make(chan struct{}), fail: l.fail}
	for i := range n {
		a, err := l.end.associate(netip.AddrPortFrom(loopback.Client(i), 0))
		if err != nil {
			s.close()
			return nil, err
		}
		f, err := flowOf(a, i, size, most)
		if err != nil {
			a.close()
			s.close()
			return nil, err
		}
		s.flows = append(s.flows, f)
	}
	return s, nil
}

// flowOf makes flow i of an association that works.
func flowOf(a *association, i, size, most int) (*flow, error) {
	if err := a.exchange(size, uint64(i)); err != nil {
		return nil, err
	}
	return newFlow(a, i, size, most)
}

func (s *stream) close() {
	for _, f := range s.flows {
		f.close()
	}
}

// stop ends the goroutine and waits for it.
func (s *stream) stop() {
	s.stopping.Store(true)
	<-s.done
}

// flood keeps window datagrams under way on each flow, until the stream is
// stopped, and then takes what still comes. It naps for as long as about a
// quarter of them take to come back: client and proxy share the cores.
func (s *stream) flood(window int) {
	defer close(s.done)
	rest, heard := firstNap, time.Now()
	for !s.stopping.Load() {
		n := s.turn(window)
		switch now := time.Now(); {
		case n > 0:
			heard = now
		case now.Sub(heard) > recredit:
			for _, f := range s.flows {
				f.past = f.next
			}
			heard = now
		}
		rest = nextNap(rest, n, window*len(s.flows)/4)
		batch.Nap(rest)
	}
	for heard = time.Now(); s.underWay() > 0 && time.Since(heard) < recredit; batch.Nap(firstNap) {
		if s.turn(0) > 0 {
			heard = time.Now()
		}
	}
}

// turn receives on all flows, and sends for what has come.
func (s *stream) turn(window int) (got int) {
	for _, f := range s.flows {
		n := f.receive(s.fail)
		sent, err := f.send(window-f.underWay(), s.command)
		if err != nil {
			s.fail(err)
		}
		s.sent.Add(uint64(sent))
		s.got.Add(uint64(n))
		got += n
	}
	return got
}

func (s *stream) underWay() (n int) {
	for _, f := range s.flows {
		n += f.underWay()
	}
	return n
}

// nextNap approaches the time in which want datagrams come, where got came in d.
func nextNap(d time.Duration, got, want int) time.Duration {
	if got > want {
		return d - d/4
	}
	return min(d+d/8+time.Microsecond, longestNap)
}

// pace sends rate datagrams a second on the first flow until the stream is
// stopped. What a sender that was late has missed is not made up for by a
// burst of more than pacedBatch: no client would send it.
func (s *stream) pace(rate int) {
	defer close(s.done)
	f, start, sent := s.flows[0], time.Now(), 0
	for ; !s.stopping.Load(); batch.Nap(pacedNap) {
		due := int(time.Since(start).Seconds()*float64(rate)) - sent
		if due > pacedBatch {
			sent, due = sent+due-pacedBatch, pacedBatch
		}
		n, err := f.send(due, origin.Take)
		if err != nil {
			s.fail(err)
		}
		sent += n
		s.sent.Add(uint64(n))
	}
}
