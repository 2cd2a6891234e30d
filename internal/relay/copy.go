package relay

import (
	"io"
	"sync"
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
	n, err := t.ends[1-d].Write(b)
	if n > 0 {
		t.deliver(d, n)
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		t.flows[d].pending = b[n:]
		t.over(d, writeFailed, err)
	}
	return err == nil
}
