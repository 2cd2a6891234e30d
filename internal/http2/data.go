package http2

import h2 "golang.org/x/net/http2"

// creditParts says what part of a window must have been read before the client is told.
const creditParts = 4

// readData reads a DATA frame (RFC 9113 section 6.1), straight into the inbox of its
// stream as it arrives. A frame that is not wanted is skipped, and credited: the window of
// the connection would shrink for ever.
func (c *Conn) readData(fh h2.FrameHeader) error {
	content, padding, err := c.readPadding(fh)
	if err != nil {
		return err
	}
	s, fault := c.admit(fh, content)
	if ce, ok := fault.(*ConnError); ok {
		return ce
	}
	if err := c.deliver(s, content); err != nil {
		return err
	}
	if err := c.in.skip(padding); err != nil {
		return err
	}
	c.padded(s, int(fh.Length)-content)
	if s != nil && fh.Flags.Has(h2.FlagDataEndStream) {
		c.mu.Lock()
		s.endRemote()
		c.mu.Unlock()
	}
	return fault
}

// readPadding reads the length of the padding and tells it from that of the content.
func (c *Conn) readPadding(fh h2.FrameHeader) (content, padding int, err error) {
	content = int(fh.Length)
	if !fh.Flags.Has(h2.FlagDataPadded) {
		return content, 0, nil
	}
	if content == 0 {
		return 0, 0, connError(ErrCodeFrameSize, "a DATA frame is too short")
	}
	b, err := c.in.next(1)
	if err != nil {
		return 0, 0, err
	}
	if padding = int(b[0]); padding > content-1 {
		return 0, 0, connError(ErrCodeProtocol, "more padding than the frame has room for")
	}
	return content - 1 - padding, padding, nil
}

// admit takes a DATA frame off the windows, and returns the stream that it is for; nil if
// its content is to be skipped.
func (c *Conn) admit(fh h2.FrameHeader, content int) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil, &ConnError{Err: errOver}
	}
	if c.recvWin -= int64(fh.Length); c.recvWin < 0 {
		return nil, connError(ErrCodeFlowControl, "more content than the window of the connection")
	}
	s := c.streams[fh.StreamID]
	if s == nil {
		return nil, c.lateData(fh.StreamID)
	}
	end := fh.Flags.Has(h2.FlagDataEndStream)
	if err := s.admit(int64(fh.Length), int64(content), end); err != nil {
		return nil, err
	}
	if content == 0 && !end {
		if err := c.allow.empty.take(); err != nil {
			return nil, err
		}
	} else {
		c.allow.pings.earn(1)
	}
	return s, nil
}

// admit is what a stream says to a DATA frame.
func (s *Stream) admit(length, content int64, end bool) error {
	switch {
	case s.remoteEnd:
		return streamError(s.id, ErrCodeStreamClosed, "DATA after END_STREAM")
	case length > s.recvWin:
		return streamError(s.id, ErrCodeFlowControl, "more content than the window of the stream")
	case s.left >= 0 && (content > s.left || end && content < s.left): // RFC 9113 section 8.1.1
		return streamError(s.id, ErrCodeProtocol, "content differs from its content-length")
	}
	s.recvWin -= length
	if s.left >= 0 {
		s.left -= content
	}
	return nil
}

// lateData is DATA on a stream that is not open (RFC 9113 section 5.1).
func (c *Conn) lateData(id uint32) error {
	if c.isIdle(id) {
		return connError(ErrCodeProtocol, "DATA on an idle stream")
	}
	switch c.closed.how(id) {
	case byUs, neverOpen: // or so long ago that it is forgotten
		return c.useless()
	case byClient:
		return streamError(id, ErrCodeStreamClosed, "DATA after RST_STREAM")
	}
	return connError(ErrCodeStreamClosed, "DATA after END_STREAM")
}

// deliver moves n bytes of content into the inbox of s.
func (c *Conn) deliver(s *Stream, n int) error {
	for n > 0 {
		b, err := c.in.next(n)
		if err != nil {
			return err
		}
		n -= len(b)
		if s == nil || !s.in.push(b) {
			c.credit(len(b))
		}
	}
	return nil
}

// padded gives back what was no content.
func (c *Conn) padded(s *Stream, n int) {
	if n == 0 {
		return
	}
	c.credit(n)
	if s != nil {
		s.credit(s.in.pad(n, s.worth()))
	}
}

// credit gives n bytes back to the connection, when there are enough of them.
func (c *Conn) credit(n int) {
	if n == 0 || c.unread.Add(int64(n)) < int64(c.o.ConnWindow/creditParts) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announce()
}

// creditLocked is credit for those who hold the lock.
func (c *Conn) creditLocked(n int) {
	if c.unread.Add(int64(n)) >= int64(c.o.ConnWindow/creditParts) {
		c.announce()
	}
}

// announce tells the client of the credit of the connection.
func (c *Conn) announce() {
	if n := c.unread.Swap(0); n > 0 && !c.over {
		c.recvWin += n
		c.fr.WriteWindowUpdate(0, uint32(n))
		c.out.wake()
	}
}

// worth is how much must have been read of a stream to tell the client.
func (s *Stream) worth() int { return s.c.o.StreamWindow / creditParts }

// credit gives n bytes back to the stream.
func (s *Stream) credit(n int) {
	if n == 0 {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.gone == nil && !s.remoteEnd {
		s.recvWin += int64(n)
		s.c.fr.WriteWindowUpdate(s.id, uint32(n))
		s.c.out.wake()
	}
}

// Read reads content. It returns io.EOF when the client has ended its side, an error that
// wraps ErrReset when the stream was reset or its connection lost, and one that wraps
// os.ErrDeadlineExceeded after the deadline.
func (s *Stream) Read(p []byte) (int, error) {
	n, credit, err := s.in.read(p, s.worth())
	s.c.credit(n)
	s.credit(credit)
	return n, err
}
