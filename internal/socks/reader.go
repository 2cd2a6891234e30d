package socks

import (
	"errors"
	"io"
	"sync"
)

// Reader reads the messages of one handshake. By default it takes whatever has arrived in
// one read, which costs one system call a message; what it took beyond the
// messages, Rest gives back. An exact Reader never reads beyond the message it is
// asked for, for connections that cannot be given anything back.
//
// A Reader holds a fixed buffer of 1 KiB, so a peer cannot make it grow. It is not
// safe for concurrent use, and must not be used after Release.
type Reader struct {
	src        io.Reader
	exact      bool
	start, end int // buf[start:end] has been read and not yet parsed
	buf        [1024]byte
}

// The longest message must fit, however the buffer is filled.
const _ = uint(len(Reader{}.buf) - maxMessage)

var readers = sync.Pool{New: func() any { return new(Reader) }}

// NewReader returns a Reader that takes what has arrived. Call Rest and then
// Release when the handshake is over.
func NewReader(src io.Reader) *Reader {
	r := readers.Get().(*Reader)
	r.src, r.exact = src, false
	return r
}

// NewExactReader returns a Reader that never reads beyond a message. Call Release
// when the handshake is over.
func NewExactReader(src io.Reader) *Reader {
	r := NewReader(src)
	r.exact = true
	return r
}

// Rest returns a copy of what has been read beyond the last message, or nil when there is
// nothing, as mostly; the Reader then holds it no longer.
func (r *Reader) Rest() []byte {
	if r.start == r.end {
		return nil
	}
	rest := append([]byte(nil), r.buf[r.start:r.end]...)
	r.start = r.end
	return rest
}

// Release gives the buffer back, wiped, since it may have held a password. The
// Reader and every slice of a message it has read must not be used any more.
func (r *Reader) Release() {
	clear(r.buf[:])
	r.src, r.start, r.end = nil, 0, 0
	readers.Put(r)
}

// Read reads one message with the Parse function of its kind. The error is the
// Parse function's, io.EOF if the peer closed before the message began,
// io.ErrUnexpectedEOF if it closed within it, or that of the connection.
func Read[M any](r *Reader, parse func([]byte) (M, int, error)) (M, error) {
	for {
		m, n, err := parse(r.buf[r.start:r.end])
		if err == nil {
			r.start += n
		}
		if err != ErrShort { // it comes unwrapped
			return m, err
		}
		if err := r.fill(n); err != nil {
			return m, err
		}
	}
}

// fill reads once. need is the least length of the message that begins at start.
func (r *Reader) fill(need int) error {
	if r.start > 0 && r.start+maxMessage > len(r.buf) {
		r.start, r.end = 0, copy(r.buf[:], r.buf[r.start:r.end])
	}
	limit := len(r.buf)
	if r.exact {
		limit = r.start + need
	}
	n, err := r.src.Read(r.buf[r.end:limit])
	r.end += n
	switch {
	case n > 0: // a connection says its error again
		return nil
	case err == nil:
		return io.ErrNoProgress
	case errors.Is(err, io.EOF) && r.end > r.start:
		return io.ErrUnexpectedEOF
	}
	return err
}
