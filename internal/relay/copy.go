package relay

import (
	"io"
	"sync"
	"time"
)

// bufferSize is what a read takes in where many bytes come. One that fills it says that more is
// waiting than is cheap to copy.
const bufferSize = 16 << 10

// sizes are what one read may take in. A flow begins with the smallest, so that a tunnel which has carried little holds little, and goes on
// with the next as long as reads fill what they get: a layer such as TLS costs the less for each byte the more of them come at once.
var sizes = [...]int{1 << 10, bufferSize, 8 * bufferSize}

var buffers = [len(sizes)]sync.Pool{
	{New: func() any { return newBuffer(0) }}, {New: func() any { return newBuffer(1) }}, {New: func() any { return newBuffer(2) }},
}

func newBuffer(size int) *[]byte {
	b := make([]byte, sizes[size])
	return &b
}

// supply has the buffer of a flow.
type supply struct {
	size int
	b    *[]byte
}

// get returns the buffer for the next read.
func (s *supply) get() []byte {
	if s.b == nil {
		s.b = buffers[s.size].Get().(*[]byte)
	}
	return *s.b
}

// read says how many bytes the last read has brought, which are done with.
func (s *supply) read(n int) {
	next := s.size
	if n == sizes[next] && next+1 < len(sizes) {
		next++
	}
	for next > 0 && n < sizes[next-1] {
		next--
	}
	if next != s.size {
		s.put()
		s.size = next
	}
}

// put gives the buffer back.
func (s *supply) put() {
	if s.b != nil {
		buffers[s.size].Put(s.b)
		s.b = nil
	}
}

// maxEmptyReads is how many reads in a row may give neither bytes nor an error.
const maxEmptyReads = 100

// copy carries one direction by Read and Write. It serves every connection that
// is not bare TCP, and every system that cannot splice.
func (t *Tunnel) copy(d int) {
	if !t.send(d, t.flows[d].pending) {
		return
	}
	t.flows[d].pending = nil
	var b supply
	defer b.put()
	for empty := 0; ; {
		n, err := t.ends[d].Read(b.get())
		if n > 0 {
			empty = 0
			if !t.send(d, b.get()[:n]) {
				return
			}
			b.read(n)
		} else if empty++; err == nil && empty >= maxEmptyReads {
			err = io.ErrNoProgress
		}
		switch {
		case err == nil:
		case err == io.EOF:
			t.awaitWrite(1 - d)
			t.endOfFile(d)
			return
		default:
			t.over(d, readFailed, err)
			return
		}
	}
}

// send writes b to the destination. False means that the direction is over.
func (t *Tunnel) send(d int, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	f := &t.flows[d]
	f.writing.Store(true)
	defer f.writing.Store(false)
	n, err := t.ends[1-d].Write(b)
	if n > 0 {
		t.deliver(d, n)
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		f.pending = b[n:]
		t.over(d, writeFailed, err)
	}
	return err == nil
}

// awaitWrite lets a Write to the connection that has just reached its end report
// its error. A reset is told once only, by most systems: when a Write gets the error, a
// Read gets an end of file. A Write that fails has failed by now, so the
// wait is for its goroutine to say so; one that blocks is not waited for.
func (t *Tunnel) awaitWrite(d int) {
	for i := 0; i < 50 && t.flows[d].writing.Load(); i++ {
		time.Sleep(time.Millisecond)
	}
}
