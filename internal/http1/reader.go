package http1

import (
	"errors"
	"fmt"
	"io"
)

// Reader reads messages from one connection. It holds a pooled buffer only while there
// is something to read. It belongs to one goroutine at a time.
type Reader struct {
	src  io.Reader
	late LateReader // src, if it is one
	buf  []byte     // nil, or of the pool; buf[r:w] is unread
	r, w int
	err  error // came together with bytes: the answer of the next fill
	used int64

	// The section of lines under way, head or trailers: what is behind scan is not
	// parsed, what is behind seen has not been searched for a line end. Both count
	// from r, so the bytes may move.
	scan, seen int

	body      bodyState
	interim   int
	wantLarge bool
	req       *Request // whose slices point into buf, or nil
	resp      *Response
	one       [1]byte
}

// LateReader is what a source may be so that it costs no buffer as long as it waits.
type LateReader interface {
	// ReadLate is one Read into a buffer that it gets once there is something to
	// read, and returns. A buffer in which nothing was read it has put back. The error
	// is errors.ErrUnsupported, nothing having been done, where it has to be a Read.
	ReadLate(get func() []byte, put func([]byte)) (buf []byte, n int, err error)
}

// errNeedMore says that nothing is wrong with the bytes so far, but they do not
// suffice.
var errNeedMore = errors.New("more bytes are needed")

// NewReader makes a Reader of a connection.
func NewReader(src io.Reader) *Reader {
	r := new(Reader)
	r.Reset(src)
	return r
}

// Reset makes r read from src as if it were new. What was buffered is lost. The zero
// Reader may be Reset too.
func (r *Reader) Reset(src io.Reader) {
	r.Release()
	trailers := r.body.trailers
	*r = Reader{src: src}
	r.late, _ = src.(LateReader)
	r.body.done = true
	r.body.trailers = trailers // for its memory
}

// Wait returns once at least one byte of the next message is there, and holds no buffer
// while it waits. It is for a kept-alive connection between two messages. The error is
// that of the connection: io.EOF if the peer has closed it, one that is
// os.ErrDeadlineExceeded after a deadline.
func (r *Reader) Wait() error {
	switch {
	case !r.body.done:
		return ErrBodyUnread
	case r.Buffered() > 0:
		return nil
	}
	r.Release()
	if err := r.err; err != nil {
		r.err = nil
		return err
	}
	if ok, err := r.readLate(); ok {
		return err
	}
	n, err := r.readOnce(r.one[:])
	if n > 0 {
		r.buf, r.err = getBuffer(smallBuffer), err
		r.r, r.w = 0, copy(r.buf, r.one[:n])
		return nil
	}
	return err
}

// readOnce reads from the connection until it gets a byte or an error; both may come.
func (r *Reader) readOnce(p []byte) (int, error) {
	const maxEmptyReads = 100
	for range maxEmptyReads {
		if n, err := r.src.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// Buffered returns the number of bytes that have been read from the connection and not
// been used yet. A pooled origin connection must have none: an origin has no reason to
// speak first.
func (r *Reader) Buffered() int { return r.w - r.r }

// TakeBuffered returns a copy of what is buffered, nil if nothing is, and leaves the
// Reader empty: for what follows CONNECT or 101. The caller owns the copy.
func (r *Reader) TakeBuffered() []byte {
	var b []byte
	if r.Buffered() > 0 {
		b = append(b, r.buf[r.r:r.w]...)
		r.used += int64(len(b))
	}
	r.Release()
	return b
}

// Count returns how many bytes have been used of the connection since NewReader or
// Reset: heads, bodies and their framing, without what is merely buffered.
func (r *Reader) Count() int64 { return r.used }

// Release gives the buffer back to the pool. What was buffered is lost. The Reader can
// be used again, on the same connection (in the middle of a body too, if nothing was
// buffered) or after Reset.
func (r *Reader) Release() {
	r.forgetHeads()
	if r.buf != nil {
		putBuffer(r.buf)
		r.buf = nil
	}
	r.r, r.w, r.scan, r.seen, r.wantLarge = 0, 0, 0, 0, false
}

// forgetHeads empties the heads that point into the buffer, before its bytes become
// others or another connection's.
func (r *Reader) forgetHeads() {
	if r.req != nil {
		r.req.Fields.forget()
		r.req.Target = Target{Form: r.req.Target.Form}
		r.req = nil
	}
	if r.resp != nil {
		r.resp.Fields.forget()
		r.resp.Reason = nil
		r.resp = nil
	}
	if r.body.done { // else they are still being parsed
		r.body.trailers.forget()
	}
}

// window returns the unread bytes.
func (r *Reader) window() []byte { return r.buf[r.r:r.w] }

// consume marks n bytes as used.
func (r *Reader) consume(n int) {
	r.r += n
	r.used += int64(n)
	r.scan, r.seen = 0, 0
}

// fill reads once from the connection, behind the unread bytes, of which there are
// fewer than MaxHead.
func (r *Reader) fill() error {
	if err := r.err; err != nil {
		r.err = nil
		return err
	}
	if r.buf == nil && !r.wantLarge {
		if ok, err := r.readLate(); ok {
			return err
		}
	}
	r.makeRoom()
	n, err := r.readOnce(r.buf[r.w:r.limit()])
	r.w += n
	if n > 0 {
		r.err = err
		return nil
	}
	return err
}

// readLate reads once into a buffer that is taken when there is something to read, where the
// source can. Nothing is buffered, and no buffer held.
func (r *Reader) readLate() (ok bool, err error) {
	if r.late == nil {
		return false, nil
	}
	buf, n, err := r.late.ReadLate(getSmall, putBuffer)
	if n > 0 {
		r.buf, r.r, r.w, r.err = buf, 0, n, err
		return true, nil
	}
	return err != errors.ErrUnsupported, err
}

// limit returns up to where the buffer may be filled.
func (r *Reader) limit() int { return min(len(r.buf), MaxHead) }

// makeRoom makes place for at least one byte behind the unread ones.
func (r *Reader) makeRoom() {
	if r.r == r.w {
		r.r, r.w = 0, 0
		if r.wantLarge && len(r.buf) == smallBuffer {
			putBuffer(r.buf)
			r.buf = nil
		}
	}
	switch {
	case r.buf == nil && r.wantLarge:
		r.buf = getBuffer(largeBuffer)
	case r.buf == nil:
		r.buf = getBuffer(smallBuffer)
	case r.w < r.limit():
	case r.r > 0:
		r.w = copy(r.buf, r.window())
		r.r = 0
	default:
		large := getBuffer(largeBuffer)
		copy(large, r.window())
		putBuffer(r.buf)
		r.buf = large
	}
}

// nextLine returns the next line of the section under way, without its CRLF, as offsets
// from r. The error is errNeedMore, tooLong for a line of more than limit bytes, or a
// *ParseError.
func (r *Reader) nextLine(limit int, tooLong error) (from, to int, err error) {
	win := r.window()
	lf := indexLF(win, r.seen)
	if lf < 0 {
		r.seen = len(win)
		if len(win)-r.scan > limit+1 { // the CR may be there
			return 0, 0, tooLong
		}
		return 0, 0, errNeedMore
	}
	from, to = r.scan, lf-1
	if to < from || win[to] != '\r' {
		return 0, 0, errBareLF
	}
	if to-from > limit {
		return 0, 0, tooLong
	}
	r.scan, r.seen = lf+1, lf+1
	return from, to, nil
}

// cutShort is the error of a message that the connection ended in.
func cutShort(what string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s: %w", what, err)
}
