package http2

import (
	"net"
	"sync"
	"time"
)

// Stream is one request and its response, or a tunnel. It is a net.Conn whose two sides
// end independently. One goroutine may read it and one may write it at a time; Close,
// Reset and the deadlines may be called by any.
type Stream struct {
	c        *Conn
	id       uint32
	head     Head
	headSize int // as it counts for the header list
	born     time.Time
	in       inbox

	// The rest is under the lock of the connection.

	onReset   func() // what OnReset was given; nil is nothing
	gone      error  // why nothing more goes out: the stream has ended, or was reset
	localEnd  bool   // END_STREAM has been queued
	remoteEnd bool   // END_STREAM has come
	headed    bool   // the final head has been queued
	abrupt    bool   // Close is to reset
	recvWin   int64  // what the client may still send
	left      int64  // of the content-length; negative if there is none

	out           []byte // what is left of the Write under way
	sendWin       int64
	progress      sync.Cond // a Write or WriteHead may go on
	writeDeadline deadline
	frameAt       int // the last frame of ours is in the batch frameIn, at this place
	frameIn       int
	next          *Stream // in its queue
	queued        bool
	urgency       uint8
}

var _ net.Conn = (*Stream)(nil)

// newStream makes a stream that the client has opened.
func newStream(c *Conn, id uint32, head Head) *Stream {
	s := &Stream{
		c: c, id: id, head: head, born: time.Now(),
		remoteEnd: head.End,
		recvWin:   int64(c.o.StreamWindow),
		left:      head.Length,
		sendWin:   c.out.startWin,
		urgency:   urgencyOf(&head),
	}
	s.in.arrived.L = &s.in.mu
	s.progress.L = &c.mu
	if head.End {
		s.in.finish()
	}
	if head.Method == "CONNECT" {
		s.left = -1
	}
	return s
}

// ID returns the number of the stream.
func (s *Stream) ID() uint32 { return s.id }

// Head returns the head of the request.
func (s *Stream) Head() *Head { return &s.head }

// LocalAddr returns the address of our end of the connection.
func (s *Stream) LocalAddr() net.Addr { return s.c.nc.LocalAddr() }

// RemoteAddr returns the address of the client.
func (s *Stream) RemoteAddr() net.Addr { return s.c.nc.RemoteAddr() }

// Trailers returns the trailers of the request once Read has returned io.EOF; nil if
// there are none.
func (s *Stream) Trailers() []Field {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.trailers
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets until when Read waits. A time that has passed wakes one that
// waits; the zero time waits for ever.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(t)
	return nil
}

// SetWriteDeadline sets until when the writing methods wait, as SetReadDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.writeDeadline.set(t, &s.progress)
	return nil
}

// SetLinger(0) makes the Close that follows a Reset, as it does for a net.TCPConn: with
// CONNECT_ERROR, which stands for a TCP reset in a tunnel (RFC 9113 section 8.5), or
// CANCEL. Any other value undoes it.
func (s *Stream) SetLinger(sec int) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.abrupt = sec == 0
	return nil
}

// OnReset has f called once the stream is reset, by the client mostly, or its connection ends: at once if that has
// happened. It is for what would otherwise be found out by the next Read or Write. f is called
// with locks held: it must not block, nor call the stream.
func (s *Stream) OnReset(f func()) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.onReset = f
	if s.gone != nil && s.gone != ErrWriteOrder {
		f()
	}
}

// Reset ends both sides at once. It does nothing to a stream that has ended.
func (s *Stream) Reset(code ErrCode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.reset(code, &ResetError{Code: code, Local: true})
}

// Close ends our side if it is open, and wants no more of the client's: what still comes
// is reset with NO_ERROR. A Write under way, and a response without a head, cannot be
// ended well; then the whole stream is reset.
func (s *Stream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.abrupt && s.head.Method == "CONNECT":
		s.reset(ErrCodeConnect, net.ErrClosed)
	case s.abrupt:
		s.reset(ErrCodeCancel, net.ErrClosed)
	case s.gone == nil && !s.localEnd && s.headed && s.out == nil:
		s.endLocal()
	}
	s.finish(ErrCodeCancel)
	s.c.creditLocked(s.in.close(net.ErrClosed))
	return nil
}

// finish ends what is still open of a stream that nobody uses any more.
func (s *Stream) finish(code ErrCode) {
	switch {
	case s.gone != nil:
	case s.localEnd:
		code = ErrCodeNo
	case !s.headed:
		code = ErrCodeInternal
	}
	s.reset(code, net.ErrClosed)
}

// reset sends RST_STREAM unless the stream has ended on the wire.
func (s *Stream) reset(code ErrCode, err error) {
	if s.gone != nil {
		return
	}
	s.c.fr.WriteRSTStream(s.id, code)
	s.closeAs(byUs, err)
	if s.c.provoked() { // a client that opens streams to have them reset, and reads nothing
		s.c.end(errNotRead)
	}
}

// endLocal queues END_STREAM.
func (s *Stream) endLocal() {
	s.c.out.putEnd(s)
	s.c.out.wake()
	s.localEnded()
}

// localEnded notes that END_STREAM has been queued.
func (s *Stream) localEnded() {
	s.localEnd = true
	if s.remoteEnd {
		s.ended()
	}
}

// endRemote notes that the client has ended its side.
func (s *Stream) endRemote() {
	if s.gone != nil {
		return
	}
	s.remoteEnd = true
	s.in.finish()
	if s.localEnd {
		s.ended()
	}
}

// ended notes that both sides have said END_STREAM. What has come can still be read.
func (s *Stream) ended() {
	s.gone = ErrWriteOrder
	s.forget(byEnd)
	s.c.allow.resets.earn(1)
}

// closeAs ends a stream that was reset.
func (s *Stream) closeAs(how closing, err error) {
	s.forget(how)
	s.abort(err)
}

// forget takes the stream off the connection, and off what waits there: a client that lets nothing be sent would have any
// number of ended streams held.
func (s *Stream) forget(how closing) {
	s.c.out.forget(s)
	delete(s.c.streams, s.id)
	s.c.closed.add(s.id, how)
}

// abort wakes all who wait for the stream.
func (s *Stream) abort(err error) {
	s.gone = err
	if s.onReset != nil {
		s.onReset()
	}
	s.progress.Broadcast()
	s.c.creditLocked(s.in.fail(err))
}

// young reports whether a reset of the stream is a rapid one.
func (s *Stream) young() bool { return time.Since(s.born) < rapid }
