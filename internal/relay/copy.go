package relay

import (
	"io"
	"sync"
	"time"
)

// bufferSize is what one read takes in. A read that fills it says that more is
// waiting than is cheap to copy.
const bufferSize = 16 << 10

type buffer [bufferSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// maxEmptyReads is how many reads in a row may give neither bytes nor an error.
const maxEmptyReads = 100

// copy carries one direction by Read and Write. It serves every connection that
// is not bare TCP, and every system that cannot splice.
func (t *Tunnel) copy(d int) {
	if !t.send(d, t.flows[d].pending) {
		return
	}
	t.flows[d].pending = nil
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	for empty := 0; ; {
		n, err := t.ends[d].Read(b[:])
		if n > 0 {
			empty = 0
			if !t.send(d, b[:n]) {
				return
			}
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
