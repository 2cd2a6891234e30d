package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// plan is what happens to one tunnel of the property test, drawn from a seed.
type plan struct {
	number  uint64
	end     string // how it ends: eof, reset, close, idle, lifetime
	options Options
	after   time.Duration // for close: when
	side    [2]script
	buffers int // size of the socket buffers, a few segments of the loopback at least; 0: as the system has them
	hide    bool
}

// script is what the program at one side does. Writing and reading go on at the same time.
type script struct {
	writes []step
	reads  []step // and then on, without any pause, until the stream ends
	fin    bool   // half-close after the last write
	reset  bool   // abort after the last write
}

// step is a pause and then so many bytes.
type step struct {
	pause time.Duration
	size  int
}

// draw makes a plan.
func draw(seed, number uint64) plan {
	r := rand.New(rand.NewPCG(seed, number))
	p := plan{number: number, hide: r.IntN(4) == 0}
	p.end = []string{"eof", "eof", "eof", "reset", "reset", "close", "idle", "lifetime"}[r.IntN(8)]
	if r.IntN(4) > 0 {
		p.options.Loop = testLoops.Next()
	}
	p.options.IdleTimeout = -1
	p.buffers = []int{0, 0, 160 << 10, 400 << 10}[r.IntN(4)]
	for i := range p.side {
		p.side[i] = script{writes: drawSteps(r, 1+r.IntN(12)), reads: drawSteps(r, 1+r.IntN(6)), fin: p.end == "eof"}
	}
	switch p.end {
	case "reset":
		first := r.IntN(2)
		s, other := &p.side[first], &p.side[1-first]
		s.reset, s.fin = true, r.IntN(3) == 0
		other.fin = s.fin || r.IntN(2) == 0 // a reset after a half-close is seen by writing, or when parked
	case "close":
		p.after = time.Duration(r.IntN(60)) * time.Millisecond
	case "idle":
		p.options.IdleTimeout = longestRound + time.Duration(50+r.IntN(100))*time.Millisecond
	case "lifetime":
		p.options.Lifetime = time.Duration(1+r.IntN(100)) * time.Millisecond
	}
	return p
}

// drawSteps draws sizes around the borders of buffers and pipes, and pauses
// long enough to park in.
func drawSteps(r *rand.Rand, n int) []step {
	steps := make([]step, n)
	for i := range steps {
		switch r.IntN(5) {
		case 0:
			steps[i].size = 1 + r.IntN(100)
		case 1, 2:
			steps[i].size = 1 + r.IntN(3*bufferSize)
		case 3:
			steps[i].size = bufferSize - 1 + r.IntN(3)
		case 4:
			steps[i].size = 1 + r.IntN(2<<20)
		}
		if r.IntN(3) == 0 {
			steps[i].pause = time.Duration(r.IntN(25)) * time.Millisecond
		}
	}
	return steps
}

// noise is what all streams are cut from, each beginning at a place of its own. Its
// length is prime: no piece of the sizes that are used can be lost, doubled or moved unseen.
var noise = func() []byte {
	b := make([]byte, 1048573)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}()

// stream calls f with the n bytes of a stream from an offset on, in pieces.
// Both programs know the stream of a key, so that a foreign piece shows too.
func stream(key uint64, at, n int, f func(piece []byte)) {
	for from := (int(key)*7919 + at) % len(noise); n > 0; from = 0 {
		piece := noise[from:min(len(noise), from+n)]
		f(piece)
		n -= len(piece)
	}
}

// outcomeOf is what the program at one side has seen.
type outcomeOf struct {
	sent, received int
	starts         []time.Time // when each write began
	offsets        []int       // and what had been sent by then
	wrote, read    error       // how both ended
	wrongIn        string      // where it differs first
}

// program plays a script on a connection until its stream ends.
func (s script) program(c *net.TCPConn, key uint64, early int) (o outcomeOf) {
	o.sent = early
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, st := range s.writes {
			time.Sleep(st.pause)
			b := make([]byte, 0, st.size)
			stream(key, o.sent, st.size, func(piece []byte) { b = append(b, piece...) })
			o.starts, o.offsets = append(o.starts, time.Now()), append(o.offsets, o.sent)
			n, err := c.Write(b)
			if o.sent += n; err != nil {
				o.wrote = err
				return
			}
		}
		if s.fin {
			c.CloseWrite()
		}
		if s.reset {
			c.SetLinger(0)
			c.Close()
		}
	})
	wg.Go(func() {
		for i := 0; ; i++ {
			st := step{size: 64 << 10}
			if i < len(s.reads) {
				st = s.reads[i]
			}
			time.Sleep(st.pause)
			b := make([]byte, min(st.size, 256<<10))
			n, err := c.Read(b)
			at := 0
			stream(key^1, o.received, n, func(piece []byte) {
				if !bytes.Equal(b[at:at+len(piece)], piece) && o.wrongIn == "" {
					o.wrongIn = fmt.Sprintf("bytes %d to %d", o.received+at, o.received+at+len(piece))
				}
				at += len(piece)
			})
			if o.received += n; err != nil {
				o.read = err
				return
			}
		}
	})
	wg.Wait()
	return o
}

// TestProperties drives many tunnels at once, each through a plan of its own, and
// holds what both programs have seen against what the tunnel says and what a
// tunnel must be.
func TestProperties(t *testing.T) {
	patience := drainPatience
	drainPatience = time.Minute // a program here may be slow to read, but it always does
	defer func() { drainPatience = patience }()
	tunnels, seeds := 80, []uint64{1, 2, 3}
	if testing.Short() {
		tunnels, seeds = 40, seeds[:1]
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			files := openFiles(t)
			var wg sync.WaitGroup
			for n := range tunnels {
				wg.Go(func() { draw(seed, uint64(n)).play(t, seed) })
			}
			wg.Wait()
			nothingLeft(t, files)
		})
	}
}

// play runs one tunnel through its plan.
func (p plan) play(t *testing.T, seed uint64) {
	key := (seed<<16 | p.number) << 1
	ends := [2]*net.TCPConn{}
	programs := [2]*net.TCPConn{}
	for i := range ends {
		ends[i], programs[i] = loopback(t)
		programs[i].SetDeadline(time.Now().Add(2 * patience))
		for _, c := range []*net.TCPConn{ends[i], programs[i]} {
			if p.buffers > 0 {
				c.SetReadBuffer(p.buffers)
				c.SetWriteBuffer(p.buffers)
			}
		}
		defer programs[i].Close()
	}
	early := int(p.number % 3 * 9000)
	stream(key, 0, early, func(piece []byte) { p.options.FromClient = append(p.options.FromClient, piece...) })
	var c, s net.Conn = ends[0], ends[1]
	if p.hide {
		c, s = hidden{ends[0]}, hidden{ends[1]}
	}
	tunnel := New(c, s, p.options)
	var seen [2]outcomeOf
	var result Result
	var wg sync.WaitGroup
	begun, ended := time.Now(), make(chan time.Time, 2)
	wg.Go(func() {
		tunnel.Start(func(r Result) { result = r; ended <- time.Now() })
	})
	wg.Go(func() { seen[0] = p.side[0].program(programs[0], key, early) })
	wg.Go(func() { seen[1] = p.side[1].program(programs[1], key^1, 0) })
	if p.end == "close" {
		time.AfterFunc(p.after, tunnel.Close)
	}
	at := <-ended
	wg.Wait()
	if err := p.judge(result, seen, begun, at); err != nil {
		t.Errorf("seed %d, tunnel %d (%s, hidden %v, %+v): %v\nresult %+v\nclient sent %d received %d: %v / %v\ntarget sent %d received %d: %v / %v",
			seed, p.number, p.end, p.hide, p.side[0].reset, err, result, seen[0].sent, seen[0].received, seen[0].wrote, seen[0].read,
			seen[1].sent, seen[1].received, seen[1].wrote, seen[1].read)
	}
	if len(ended) > 0 {
		t.Errorf("seed %d, tunnel %d: done was called twice", seed, p.number)
	}
}

// loopback is tcpPair for goroutines.
func loopback(t *testing.T) (near, far *net.TCPConn) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	s, err := l.Accept()
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// longestRound is what a round of an event loop may take on a machine that has far too much to do. A tunnel counts its idle time from the
// beginning of the round in which a byte has moved, and so from before the write of one that came while the round went on.
const longestRound = 400 * time.Millisecond

// judge is the model: what must hold of a tunnel, whatever the plan.
func (p plan) judge(r Result, seen [2]outcomeOf, begun, ended time.Time) error {
	counts := [2]int64{r.BytesFromClient, r.BytesFromTarget}
	for from := range seen {
		o, count := seen[1-from], int(counts[from])
		switch {
		case o.wrongIn != "":
			return fmt.Errorf("from side %d: %s are not what was sent", from, o.wrongIn)
		case o.received > count || count > seen[from].sent:
			return fmt.Errorf("from side %d: %d received, %d counted, %d sent", from, o.received, count, seen[from].sent)
		case errors.Is(o.read, io.EOF) && !isReset(o.wrote) && o.received != count:
			return fmt.Errorf("from side %d: end of file after %d bytes, %d counted", from, o.received, count)
		}
	}
	for from := range seen {
		if err := p.judgeEnd(r, seen[from], seen[1-from], int(counts[from]), from); err != nil {
			return fmt.Errorf("from side %d: %w", from, err)
		}
	}
	switch {
	case p.end == "idle" && ended.Sub(lastDelivered(seen, counts)) < p.options.IdleTimeout-longestRound:
		return fmt.Errorf("idle %v after the last byte, want %v", ended.Sub(lastDelivered(seen, counts)), p.options.IdleTimeout)
	case p.end == "lifetime" && ended.Sub(begun) < p.options.Lifetime:
		return fmt.Errorf("ended after %v, want %v", ended.Sub(begun), p.options.Lifetime)
	}
	return nil
}

// judgeEnd says whether one direction ended as the plan has it.
func (p plan) judgeEnd(r Result, from, to outcomeOf, count, side int) error {
	switch p.end {
	case "eof":
		if r.End != EndEOF || to.received != from.sent || to.read != io.EOF {
			return fmt.Errorf("end %d, %d of %d bytes, %v, want all and the end of file", r.End, to.received, from.sent, to.read)
		}
	case "reset":
		resetter := p.side[side].reset
		if r.End != EndReset && !p.side[side].fin {
			return fmt.Errorf("end %d, want a reset", r.End)
		}
		if p.hide {
			return nil // nobody can look at the socket's send queue, or ask it which call was told of the reset
		}
		if resetter && to.received != count {
			return fmt.Errorf("%d bytes were delivered, %d have arrived: the reset overtook them", count, to.received)
		}
		if resetter && !p.side[side].fin && !isReset(to.read) && !isReset(to.wrote) {
			return fmt.Errorf("read %v, write %v, want a reset", to.read, to.wrote)
		}
	default:
		want := map[string]End{"close": EndClosed, "idle": EndIdle, "lifetime": EndLifetime}[p.end]
		if r.End != want {
			return fmt.Errorf("end %d, want %d", r.End, want)
		}
	}
	return nil
}

// lastDelivered is when the write began that brought the last byte which was delivered.
func lastDelivered(seen [2]outcomeOf, counts [2]int64) (last time.Time) {
	for from, o := range seen {
		for i, at := range o.offsets {
			if int64(at) < counts[from] && o.starts[i].After(last) {
				last = o.starts[i]
			}
		}
	}
	return last
}
