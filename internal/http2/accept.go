package http2

import (
	"net"

	h2 "golang.org/x/net/http2"
)

// readHead reads HEADERS with its CONTINUATION: a request, or trailers.
func (c *Conn) readHead(fh h2.FrameHeader) error {
	f, err := c.fr.ReadFrameForHeader(fh)
	if se, ok := err.(h2.StreamError); ok { // without its head HPACK has lost its place
		return connError(se.Code, "a malformed HEADERS frame")
	}
	if err != nil {
		return c.frameError(err)
	}
	hf := f.(*h2.HeadersFrame)
	end, loop := hf.StreamEnded(), hf.HasPriority() && hf.Priority.StreamDep == fh.StreamID
	if err := c.readBlock(hf); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	if s := c.streams[fh.StreamID]; s != nil {
		return c.trailers(s, end)
	}
	fresh, err := c.newStream(fh.StreamID)
	switch {
	case err != nil:
		return err
	case !fresh:
		return c.useless()
	case loop:
		return streamError(fh.StreamID, ErrCodeProtocol, "a stream that depends on itself")
	}
	return c.accept(fh.StreamID, end)
}

// newStream checks the number of a stream that is to be opened (RFC 9113 section 5.1.1).
// One that is not fresh is to be ignored: it was under way when we sent RST_STREAM or the
// last GOAWAY.
func (c *Conn) newStream(id uint32) (fresh bool, err error) {
	switch {
	case id%2 == 0:
		return false, connError(ErrCodeProtocol, "a stream with an even number")
	case id > c.maxID:
		c.maxID = id
		if c.goneAway {
			c.closed.add(id, byUs)
		}
		return !c.goneAway, nil
	}
	switch c.closed.how(id) {
	case byUs:
		return false, nil
	case byClient:
		return false, streamError(id, ErrCodeStreamClosed, "HEADERS after RST_STREAM")
	case byEnd:
		return false, connError(ErrCodeStreamClosed, "HEADERS after END_STREAM")
	}
	return false, connError(ErrCodeProtocol, "the number of a stream is not higher than the last")
}

// accept opens a stream for the head in c.blk, or refuses it.
func (c *Conn) accept(id uint32, end bool) error {
	if c.blk.tooLong() {
		return c.headTooLong(id, end)
	}
	head, err := parseHead(c.blk.lines, end)
	switch {
	case err != nil:
		return h2.StreamError{StreamID: id, Code: ErrCodeProtocol, Cause: err}
	case c.running >= runningPerStream*c.o.Streams:
		return flood("rapid_reset", "%d streams are being ended", c.running)
	case len(c.streams) >= c.o.Streams || c.heads > 0 && c.heads+c.blk.size > maxHeads:
		return streamError(id, ErrCodeRefusedStream, "refused")
	}
	c.start(id, head)
	return nil
}

// statusHeadTooLong is 431 (RFC 6585 section 5).
const statusHeadTooLong = 431

// headTooLong answers a head that was not kept (RFC 9113 section 10.5.1).
func (c *Conn) headTooLong(id uint32, end bool) error {
	if err := c.allow.resets.take(); err != nil {
		return err
	}
	c.out.putHead(&Stream{id: id}, statusHeadTooLong, nil, h2.FlagHeadersEndStream)
	c.closed.add(id, byUs)
	if !end {
		c.fr.WriteRSTStream(id, ErrCodeNo)
	}
	return c.answer()
}

// start makes the stream and its goroutine.
func (c *Conn) start(id uint32, head Head) {
	s := newStream(c, id, head)
	s.headSize = c.blk.size
	c.heads += s.headSize
	c.streams[id] = s
	c.running++
	c.allow.useless.earn(uselessPerStream)
	c.handlers.Add(1)
	go c.run(s)
}

// run is the goroutine of a stream.
func (c *Conn) run(s *Stream) {
	defer c.handlers.Done()
	c.o.Serve(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	s.finish(ErrCodeCancel)
	s.writeDeadline.stop()
	c.creditLocked(s.in.fail(net.ErrClosed))
	c.heads -= s.headSize
	if c.running--; c.running == 0 {
		c.rest()
	}
}

// trailers takes HEADERS on an open stream (RFC 9113 section 8.1).
func (c *Conn) trailers(s *Stream, end bool) error {
	switch {
	case s.remoteEnd:
		return streamError(s.id, ErrCodeStreamClosed, "HEADERS after END_STREAM")
	case !end:
		return streamError(s.id, ErrCodeProtocol, "trailers without END_STREAM")
	case s.head.Method == "CONNECT":
		return streamError(s.id, ErrCodeProtocol, "HEADERS in a tunnel") // RFC 9113 section 8.5
	case c.blk.tooLong():
		return streamError(s.id, ErrCodeEnhanceYourCalm, "trailers are too long")
	case s.left > 0:
		return streamError(s.id, ErrCodeProtocol, "less content than its content-length")
	}
	fields, err := parseTrailers(c.blk.lines)
	if err != nil {
		return h2.StreamError{StreamID: s.id, Code: ErrCodeProtocol, Cause: err}
	}
	s.in.setTrailers(fields)
	s.endRemote()
	return nil
}
