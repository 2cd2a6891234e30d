package mux

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxRecord is the most content that one record of TLS carries (RFC 8446 section 5.1).
const maxRecord = 16 << 10

// batchSize is how much is read, or written, at once of a connection on which much moves: a few records.
const batchSize = 128 << 10

type batch [batchSize]byte

var batches = sync.Pool{New: func() any { return new(batch) }}

// Beneath returns what a layer over the connection (TLS) reads and writes: the sniffed
// bytes first. The connection is not to be read or written in any other way from then on, until Secure.
// It is for connections that are on no loop.
func (c *Conn) Beneath() net.Conn {
	c.wrote = true // whatever becomes of the handshake, an alert at least is written
	b := &beneath{Conn: c.bareConn(), unread: c.prefix, give: c.dropBuffer, ear: new(ear)}
	if len(c.prefix) == 0 {
		b.give = nil
	}
	return b
}

// earSize is enough for an alert of TLS, with the head of its record.
const earSize = 7

// ear keeps the end of what was read last.
type ear struct {
	last [earSize]byte
	n    int
}

func (e *ear) hear(p []byte) {
	if e == nil || len(p) == 0 {
		return
	}
	e.n = copy(e.last[:], p[max(0, len(p)-earSize):])
}

// LastWords returns the last bytes, up to seven, that were read of what Beneath returned while its handshake was under way.
func LastWords(under net.Conn) []byte {
	b, ok := under.(*beneath)
	if !ok || b.ear == nil {
		return nil
	}
	return b.ear.last[:b.ear.n]
}

// beneath is a connection that is read and written in batches while much moves, and holds no buffer else.
type beneath struct {
	net.Conn
	unread []byte
	give   func() // gives unread's buffer back; nil if there is none
	much   bool   // the last read filled what it was given
	ear    *ear   // nil once the handshake is done
	place  record // behind what was handed on
	hasty  bool   // a read must not wait: the record that is there may have no content

	patient atomic.Bool // write deadlines are the owner's alone

	mu   sync.Mutex
	held *batch // in which writes gather; nil writes through
	n    int    // of it
	err  error  // of a write of what was held
}

// Read implements io.Reader.
func (b *beneath) Read(p []byte) (int, error) {
	if len(b.unread) > 0 {
		return b.take(p), nil
	}
	if b.hasty {
		return 0, os.ErrDeadlineExceeded // which layers take for a pause
	}
	if !b.much || len(p) >= batchSize {
		n, err := b.Conn.Read(p)
		b.much = n == len(p) && n >= maxRecord
		b.ear.hear(p[:n])
		b.place.pass(p[:n])
		return n, err
	}
	in := batches.Get().(*batch)
	n, err := b.Conn.Read(in[:])
	b.much = n == len(in)
	b.unread, b.give = in[:n], func() { batches.Put(in) }
	if n == 0 {
		b.done()
		return 0, err
	}
	return b.take(p), nil // an error comes again
}

// SetWriteDeadline implements net.Conn, for layers too: SetDeadline always holds.
func (b *beneath) SetWriteDeadline(t time.Time) error {
	if b.patient.Load() {
		return nil
	}
	return b.Conn.SetWriteDeadline(t)
}

// take reads what is there already.
func (b *beneath) take(p []byte) int {
	n := copy(p, b.unread)
	b.place.pass(p[:n])
	if b.unread = b.unread[n:]; len(b.unread) == 0 {
		b.done()
	}
	return n
}

// done gives the buffer back.
func (b *beneath) done() {
	if b.give != nil {
		b.give()
	}
	b.unread, b.give = nil, nil
}

// Write implements io.Writer.
func (b *beneath) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return 0, b.err
	case b.held == nil:
		return b.Conn.Write(p)
	}
	if len(p) > batchSize-b.n {
		if b.flush(); b.err != nil {
			return 0, b.err
		}
	}
	if len(p) > batchSize {
		return b.Conn.Write(p)
	}
	b.n += copy(b.held[b.n:], p)
	return len(p), nil
}

// hold has writes gathered until release.
func (b *beneath) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = batches.Get().(*batch)
}

// release writes out what was gathered.
func (b *beneath) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
	batches.Put(b.held)
	b.held = nil
	return b.err
}

// flush writes what is held. b.mu is held.
func (b *beneath) flush() {
	if b.n > 0 && b.err == nil {
		_, b.err = b.Conn.Write(b.held[:b.n])
	}
	b.n = 0
}

// record is a place in a stream of TLS records (RFC 8446 section 5.1).
type record struct {
	head [recordHead]byte // of the record that the place is in, as far as it has come
	n    int              // bytes of head
	left int              // bytes of the record's content that are still to come
}

// recordHead is the length of a record's head, whose last two bytes are that of its content.
const recordHead = 5

// pass moves the place behind b.
func (r *record) pass(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left -= n
			b = b[n:]
			continue
		}
		n := copy(r.head[r.n:], b)
		r.n += n
		b = b[n:]
		if r.n == recordHead {
			r.n, r.left = 0, int(r.head[3])<<8|int(r.head[4])
		}
	}
}

// holdsRecord reports whether what was read ahead brings the record that comes next to its end, so that it can be
// had without waiting.
func (b *beneath) holdsRecord() bool {
	switch p := b.place; {
	case p.left > 0:
		return len(b.unread) >= p.left
	case p.n > 0 || len(b.unread) < recordHead:
		return false
	}
	return len(b.unread) >= recordHead+int(b.unread[3])<<8+int(b.unread[4])
}
