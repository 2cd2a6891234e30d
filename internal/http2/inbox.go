package http2

import (
	"io"
	"os"
	"sync"
	"time"
)

// chunkSize is what content is kept in. It is small so that a tunnel with a few bytes
// waiting holds little; a client that sends single bytes fills chunks like any other.
const chunkSize = 4 << 10

type chunk struct {
	next *chunk
	r, w int // b[r:w] is not yet read
	b    [chunkSize]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// inbox is the content of a stream that has come and has not been read. It has a lock of
// its own, so that copying content holds up no other stream.
type inbox struct {
	mu         sync.Mutex
	arrived    sync.Cond
	head, tail *chunk
	size       int
	err        error // what Read returns once the inbox is empty
	taken      int   // bytes read since the last credit
	trailers   []Field
	deadline   deadline
}

// push appends p, and reports false if nobody will read it.
func (b *inbox) push(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return false
	}
	if b.size == 0 && len(p) > 0 {
		b.arrived.Signal()
	}
	b.size += len(p)
	for len(p) > 0 {
		if b.tail == nil || b.tail.w == chunkSize {
			b.grow()
		}
		n := copy(b.tail.b[b.tail.w:], p)
		b.tail.w += n
		p = p[n:]
	}
	return true
}

func (b *inbox) grow() {
	c := chunks.Get().(*chunk)
	c.next, c.r, c.w = nil, 0, 0
	if b.tail == nil {
		b.head = c
	} else {
		b.tail.next = c
	}
	b.tail = c
}

// read waits for content and copies some to p. credit is how much may be given back to
// the client for this stream; it stays zero until it is worth a frame.
func (b *inbox) read(p []byte, worth int) (n, credit int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.deadline.passed:
			return 0, 0, os.ErrDeadlineExceeded
		case b.size > 0:
			n = b.take(p)
			return n, b.credit(n, worth), nil
		case b.err != nil:
			return 0, 0, b.err
		case len(p) == 0:
			return 0, 0, nil
		}
		b.arrived.Wait()
	}
}

// take copies to p what fits and frees the chunks that are empty.
func (b *inbox) take(p []byte) (n int) {
	for n < len(p) && b.head != nil {
		c := b.head
		k := copy(p[n:], c.b[c.r:c.w])
		c.r += k
		n += k
		if c.r == c.w {
			b.pop()
		}
	}
	b.size -= n
	return n
}

func (b *inbox) pop() {
	c := b.head
	b.head = c.next
	if b.head == nil {
		b.tail = nil
	}
	chunks.Put(c)
}

// credit notes that n bytes more may be given back.
func (b *inbox) credit(n, worth int) int {
	b.taken += n
	if b.taken < worth {
		return 0
	}
	n, b.taken = b.taken, 0
	return n
}

// pad notes bytes that were never content.
func (b *inbox) pad(n, worth int) (credit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.credit(n, worth)
}

// finish says that no more content comes: what is there can still be read.
func (b *inbox) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = io.EOF
	}
	b.arrived.Broadcast()
}

// fail drops what is there, makes Read return err from now on, and returns how many
// bytes were dropped. After an end that has been read it changes nothing for the reader.
func (b *inbox) fail(err error) (dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil || b.size > 0 {
		b.err = err
	}
	for b.head != nil {
		b.pop()
	}
	dropped, b.size = b.size, 0
	b.deadline.stop()
	b.arrived.Broadcast()
	return dropped
}

// close is fail for a stream that its own user has closed: even an end is forgotten.
func (b *inbox) close(err error) (dropped int) {
	dropped = b.fail(err)
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	return dropped
}

func (b *inbox) setDeadline(t time.Time) {
	b.mu.Lock()
	b.deadline.set(t, &b.arrived)
	b.mu.Unlock()
}

func (b *inbox) setTrailers(fields []Field) {
	b.mu.Lock()
	b.trailers = fields
	b.mu.Unlock()
}
