package http2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// batchSize is how much is sent in one write: the frames that are ready, up to it.
	batchSize = 64 << 10
	// minPiece is the least room in a batch that a DATA frame is worth.
	minPiece = 1 << 10
	// minFrame and maxFrame bound the payload of our DATA frames: what every client
	// takes, and what we make of it if the client takes more (SETTINGS_MAX_FRAME_SIZE).
	minFrame, maxFrame = 16 << 10, 48 << 10
	frameHeader        = 9 // RFC 9113 section 4.1
	// tableSize bounds the HPACK tables on both sides: the default of RFC 9113.
	tableSize = 4096
	// maxKept is the largest buffer that goes back to the pool.
	maxKept = 2 * batchSize
)

var batches = sync.Pool{New: func() any {
	b := make([]byte, 0, batchSize+minFrame)
	return &b
}}

// output is what is to be sent: frames in their order, the next batch, and streams that
// wait for room in a batch. All of it is under the lock of its Conn.
type output struct {
	batch   []byte
	box     *[]byte // what the batch goes back to the pool in
	number  int     // of the batch
	answers int     // frames in the batch that the client has provoked
	work    sync.Cond
	ready   schedule
	crowd   []*Stream // heads that wait for the next batch

	win      int64 // what we may still send on the connection
	startWin int64 // and on a new stream
	frame    int   // most payload of a frame

	enc  *hpack.Encoder
	head bytes.Buffer // what enc writes to
}

func (o *output) init(mu *sync.Mutex) {
	o.work.L = mu
	o.number = 1
	o.win, o.startWin, o.frame = startWindow, startWindow, minFrame
	o.enc = hpack.NewEncoder(&o.head)
}

// Write implements io.Writer for the Framer. It never fails.
func (o *output) Write(p []byte) (int, error) {
	o.grow()
	o.batch = append(o.batch, p...)
	return len(p), nil
}

// grow makes sure that there is a batch.
func (o *output) grow() {
	if o.box == nil {
		o.box = batches.Get().(*[]byte)
		o.batch = (*o.box)[:0]
	}
}

// take takes the batch away to be sent.
func (o *output) take() *[]byte {
	box := o.box
	if box != nil {
		*box = o.batch
	}
	o.box, o.batch, o.answers = nil, nil, 0
	o.number++
	for _, s := range o.crowd {
		s.progress.Broadcast()
	}
	clear(o.crowd)
	o.crowd = o.crowd[:0]
	return box
}

// forget takes out a stream that has ended.
func (o *output) forget(s *Stream) {
	o.ready.drop(s)
	o.crowd = slices.DeleteFunc(o.crowd, func(t *Stream) bool { return t == s })
}

func recycle(box *[]byte) {
	if box != nil && cap(*box) <= maxKept {
		batches.Put(box)
	}
}

// wake makes the writing goroutine look.
func (o *output) wake() { o.work.Signal() }

// room is how much content still fits in the batch.
func (o *output) room() int { return batchSize - len(o.batch) - frameHeader }

// fill takes content of the streams whose turn it is until the batch is full.
func (o *output) fill(allow *allowance) {
	for o.win > 0 && o.room() >= minPiece {
		s := o.ready.next()
		if s == nil {
			return
		}
		if s.sendable() {
			o.putData(s, allow)
		}
		if s.sendable() {
			o.ready.add(s)
		}
	}
}

// putData appends one frame with content of s.
func (o *output) putData(s *Stream, allow *allowance) {
	n := min(len(s.out), o.frame, o.room(), int(s.sendWin), int(o.win))
	s.sendWin -= int64(n)
	o.win -= int64(n)
	o.mark(s)
	o.batch = appendFrameHeader(o.batch, n, h2.FrameData, 0, s.id)
	o.batch = append(o.batch, s.out[:n]...)
	s.out = s.out[n:]
	allow.earn(updatesPerData)
	if len(s.out) == 0 {
		s.progress.Broadcast()
	}
}

// mark remembers where the last frame of s is, for END_STREAM to be put on it.
func (o *output) mark(s *Stream) {
	o.grow()
	s.frameAt, s.frameIn = len(o.batch), o.number
}

// putEnd ends our side of s: on its last frame if that has not been sent.
func (o *output) putEnd(s *Stream) {
	if s.frameIn == o.number {
		o.batch[s.frameAt+4] |= byte(h2.FlagDataEndStream) // the same bit in HEADERS
		return
	}
	o.grow()
	o.batch = appendFrameHeader(o.batch, 0, h2.FrameData, h2.FlagDataEndStream, s.id)
}

// putHead appends HEADERS and, if it must be, CONTINUATION. No status means trailers.
func (o *output) putHead(s *Stream, status int, fields []Field, flags h2.Flags) {
	o.head.Reset()
	if status != 0 {
		o.enc.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	}
	for _, f := range fields {
		o.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	o.mark(s)
	kind, b := h2.FrameHeaders, o.head.Bytes()
	for {
		n := min(len(b), minFrame)
		if n == len(b) {
			flags |= h2.FlagHeadersEndHeaders // the same bit in CONTINUATION
		}
		o.batch = appendFrameHeader(o.batch, n, kind, flags, s.id)
		o.batch = append(o.batch, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			break
		}
		kind, flags = h2.FrameContinuation, 0
	}
	if o.head.Cap() > minFrame {
		o.head = bytes.Buffer{}
	}
}

// appendFrameHeader follows RFC 9113 section 4.1.
func appendFrameHeader(b []byte, length int, kind h2.FrameType, flags h2.Flags, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

// writeFrames is the goroutine that writes to the connection. It returns when the
// connection has ended and all has been sent, or nothing can be.
func (c *Conn) writeFrames() {
	defer close(c.written)
	for {
		batch := c.nextBatch()
		if batch == nil {
			return
		}
		err := c.send(*batch)
		recycle(batch)
		if err != nil {
			c.mu.Lock()
			c.dead = true
			if err.Flood == "" && c.greeted && c.running == 0 {
				err = nil // the client has left, and nobody was writing to it
			}
			c.end(err)
			c.mu.Unlock()
			return
		}
	}
}

// nextBatch waits for something to send. It returns nil at the end.
func (c *Conn) nextBatch() *[]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	for {
		o.fill(&c.allow.updates)
		if len(o.batch) > 0 {
			break
		}
		if c.over {
			return nil
		}
		o.work.Wait()
	}
	c.armWrite()
	return o.take()
}

// armWrite sets the deadline of the next write. It is under mu, so that end has the last
// word.
func (c *Conn) armWrite() {
	if c.over && c.err != nil || c.o.SendTimeout <= 0 {
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.o.SendTimeout))
}

// send writes a batch. Each bit of progress buys time.
func (c *Conn) send(b []byte) *ConnError {
	for {
		n, err := c.nc.Write(b)
		c.sent.Add(int64(n))
		b = b[n:]
		switch {
		case len(b) == 0:
			return nil
		case err == nil || n > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			c.mu.Lock()
			c.armWrite()
			c.mu.Unlock()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return flood("send_timeout", "write: %w", err)
		default:
			return &ConnError{Err: err}
		}
	}
}
