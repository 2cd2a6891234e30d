package http2

import (
	"errors"
	"io"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// errOver ends the reading of a connection that somebody else has ended.
var errOver = errors.New("the connection has ended")

// readFrames reads until the connection ends. The error is a *ConnError, or that of the
// connection.
func (c *Conn) readFrames() error {
	if err := c.readPreface(); err != nil {
		return err
	}
	for {
		if err := c.readFrame(); err != nil {
			if err = c.reject(err); err != nil {
				return err
			}
		}
	}
}

// reject resets a stream for an error that is its own, and returns any other.
func (c *Conn) reject(err error) error {
	var se h2.StreamError
	if errors.As(err, &se) {
		return c.rejectStream(se)
	}
	return err
}

// readFrame reads one frame, or a head of several. The error may be of one stream.
func (c *Conn) readFrame() error {
	fh, err := c.fr.ReadFrameHeader()
	switch {
	case err != nil:
		return c.frameError(err)
	case !c.greeted && (fh.Type != h2.FrameSettings || fh.Flags.Has(h2.FlagSettingsAck)):
		return connError(ErrCodeProtocol, "the first frame is not SETTINGS")
	case fh.Type == h2.FrameData:
		return c.readData(fh)
	case fh.Type == h2.FrameHeaders:
		return c.readHead(fh)
	case fh.Type > h2.FrameContinuation && fh.Type != h2.FramePriorityUpdate:
		return c.skipUnknown(fh)
	}
	f, err := c.fr.ReadFrameForHeader(fh)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		return errOver
	case err != nil:
		return c.payloadError(fh, err)
	}
	return c.handle(f)
}

// skipUnknown skips a frame of a type that we do not know (RFC 9113 section 5.5).
func (c *Conn) skipUnknown(fh h2.FrameHeader) error {
	if err := c.in.skip(int(fh.Length)); err != nil {
		return err
	}
	return c.useless()
}

// useless charges the client for a frame that moves nothing.
func (c *Conn) useless() error { return c.allow.useless.take() }

// frameError makes what is to be done of an error of the Framer.
func (c *Conn) frameError(err error) error {
	var code h2.ConnectionError
	switch {
	case errors.Is(err, h2.ErrFrameTooLarge):
		return connError(ErrCodeFrameSize, "a frame is too large")
	case errors.As(err, &code):
		why := c.fr.ErrorDetail()
		if why == nil {
			why = errors.New("a malformed frame")
		}
		return &ConnError{Code: ErrCode(code), Err: why}
	case errors.Is(err, io.ErrUnexpectedEOF) && c.in.err == nil: // of the payload
		return connError(ErrCodeFrameSize, "a frame is too short")
	}
	return err
}

// payloadError is frameError for errors that may be of one stream.
func (c *Conn) payloadError(fh h2.FrameHeader, err error) error {
	var se h2.StreamError
	if !errors.As(err, &se) {
		return c.frameError(err)
	}
	if c.isIdle(fh.StreamID) {
		return connError(ErrCodeProtocol, "a frame on an idle stream")
	}
	return streamError(se.StreamID, se.Code, "a malformed frame")
}

// isIdle reports whether a stream was never opened (RFC 9113 section 5.1).
func (c *Conn) isIdle(id uint32) bool { return id%2 == 0 || id > c.maxID }

// rejectStream resets a stream whose frames break the protocol (RFC 9113 section 5.4.2).
func (c *Conn) rejectStream(se h2.StreamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	if err := c.allow.resets.take(); err != nil {
		return err
	}
	if s := c.streams[se.StreamID]; s != nil {
		s.reset(se.Code, &ResetError{Code: se.Code, Local: true})
		return nil
	}
	if c.closed.how(se.StreamID) == neverOpen {
		c.closed.add(se.StreamID, byUs)
	}
	c.fr.WriteRSTStream(se.StreamID, se.Code)
	return c.answer()
}

// answer counts a frame that the client has provoked and lets it go.
func (c *Conn) answer() error {
	if c.provoked() {
		return errNotRead
	}
	return nil
}

// provoked is answer for those who cannot return an error: true is errNotRead.
func (c *Conn) provoked() bool {
	c.out.wake()
	c.out.answers++
	return c.out.answers > maxAnswers
}

var errNotRead = flood("control_queue", "the client does not read what it asks for")

// handle takes any frame but DATA, HEADERS and CONTINUATION.
func (c *Conn) handle(f h2.Frame) error {
	switch f := f.(type) {
	case *h2.SettingsFrame:
		return c.settings(f)
	case *h2.WindowUpdateFrame:
		return c.windowUpdate(f.StreamID, int64(f.Increment))
	case *h2.PingFrame:
		return c.ping(f)
	case *h2.RSTStreamFrame:
		return c.resetByClient(f.StreamID, f.ErrCode)
	case *h2.PriorityFrame:
		return c.priority(f.StreamID, f.StreamDep)
	case *h2.PriorityUpdateFrame:
		return c.priorityUpdate(f.PrioritizedStreamID, f.Priority)
	case *h2.GoAwayFrame:
		c.leave()
		return nil
	}
	return connError(ErrCodeProtocol, "a frame that clients do not send") // PUSH_PROMISE
}

// settings applies the settings of the client in their order (RFC 9113 section 6.5.3).
func (c *Conn) settings(f *h2.SettingsFrame) error {
	if f.IsAck() {
		return c.useless()
	}
	if err := c.allow.settings.take(); err != nil {
		return err
	}
	if err := f.ForeachSetting(c.setting); err != nil {
		return err
	}
	if !c.greeted {
		c.greeted = true
		if c.handshake != nil {
			c.handshake.Stop()
		}
		c.rest()
	}
	c.fr.WriteSettingsAck()
	return c.answer()
}

// setting applies one setting (RFC 9113 section 6.5.2).
func (c *Conn) setting(s h2.Setting) error {
	switch {
	case s.ID == h2.SettingInitialWindowSize && s.Val <= maxWindow:
		return c.setStartWindow(int64(s.Val))
	case s.ID == h2.SettingInitialWindowSize:
		return connError(ErrCodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
	case s.ID == h2.SettingMaxFrameSize && (s.Val < minFrame || s.Val > 1<<24-1):
		return connError(ErrCodeProtocol, "SETTINGS_MAX_FRAME_SIZE is out of its range")
	case s.ID == h2.SettingMaxFrameSize:
		c.out.frame = min(int(s.Val), maxFrame)
	case s.ID == h2.SettingHeaderTableSize:
		c.out.enc.SetMaxDynamicTableSize(min(s.Val, tableSize))
	case s.Val > 1 && (s.ID == h2.SettingEnablePush || s.ID == h2.SettingNoRFC7540Priorities):
		return connError(ErrCodeProtocol, "a setting is neither 0 nor 1")
	}
	return nil
}

// setStartWindow changes the windows of all streams, which may become negative (RFC 9113
// section 6.9.2).
func (c *Conn) setStartWindow(n int64) error {
	delta := n - c.out.startWin
	c.out.startWin = n
	for _, s := range c.streams {
		if s.sendWin+delta > maxWindow {
			return connError(ErrCodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large")
		}
		c.widen(s, delta)
	}
	return nil
}

// widen changes the window that we may send into.
func (c *Conn) widen(s *Stream, n int64) {
	s.sendWin += n
	if s.sendable() {
		c.out.ready.add(s)
		c.out.wake()
	}
}

// windowUpdate follows RFC 9113 section 6.9.1.
func (c *Conn) windowUpdate(id uint32, n int64) error {
	if err := c.allow.updates.take(); err != nil {
		return err
	}
	s := c.streams[id]
	switch {
	case id == 0 && c.out.win+n > maxWindow:
		return connError(ErrCodeFlowControl, "the window of the connection is too large")
	case id == 0:
		c.out.win += n
		c.out.wake()
	case s == nil && c.isIdle(id):
		return connError(ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	case s == nil: // it has ended; the frame was under way
	case s.sendWin+n > maxWindow:
		return streamError(id, ErrCodeFlowControl, "the window of the stream is too large")
	default:
		c.widen(s, n)
	}
	return nil
}

// ping answers a PING (RFC 9113 section 6.7).
func (c *Conn) ping(f *h2.PingFrame) error {
	if f.IsAck() {
		if c.goingAway && f.Data == shutdownPing {
			c.goAway()
		}
		return c.useless()
	}
	if err := c.allow.pings.take(); err != nil {
		return err
	}
	c.fr.WritePing(true, f.Data)
	return c.answer()
}

// resetByClient follows RFC 9113 section 6.4. The stream has ended, but its Serve is
// under way and counts until it returns.
func (c *Conn) resetByClient(id uint32, code ErrCode) error {
	s := c.streams[id]
	switch {
	case s == nil && c.isIdle(id):
		return connError(ErrCodeProtocol, "RST_STREAM on an idle stream")
	case s == nil:
		c.closed.resetToo(id)
		return c.useless()
	}
	s.closeAs(byClient, &ResetError{Code: code})
	if !s.young() {
		return nil
	}
	return c.allow.resets.take()
}

// priority checks a PRIORITY and ignores it (RFC 9113 section 5.3.2): the dependencies of
// RFC 7540 are what our settings say we do not follow.
func (c *Conn) priority(id, on uint32) error {
	switch {
	case id == on && c.isIdle(id):
		return connError(ErrCodeProtocol, "a stream that depends on itself")
	case id == on:
		return streamError(id, ErrCodeProtocol, "a stream that depends on itself")
	}
	return c.useless()
}

// priorityUpdate follows RFC 9218 section 7.1. One that comes before its stream is
// dropped: to keep it would be to hold what may never be of use.
func (c *Conn) priorityUpdate(id uint32, value string) error {
	if id%2 == 0 {
		return connError(ErrCodeProtocol, "PRIORITY_UPDATE of a stream that clients do not open")
	}
	if s := c.streams[id]; s != nil {
		c.out.ready.move(s, parseUrgency(value, defaultUrgency))
	}
	return c.useless()
}

// readBlock reads and decodes one head into c.blk, up to the frame that ends it.
func (c *Conn) readBlock(f *h2.HeadersFrame) error {
	c.blk.reset()
	part, ended, encoded := f.HeaderBlockFragment(), f.HeadersEnded(), 0
	for frames := 0; ; frames++ {
		encoded += len(part)
		if err := c.checkBlock(frames, encoded, len(part)); err != nil {
			return err
		}
		if err := c.decode(part); err != nil {
			return err
		}
		if ended {
			break
		}
		next, err := c.fr.ReadFrame()
		if err != nil {
			return c.frameError(err)
		}
		cont := next.(*h2.ContinuationFrame) // the Framer lets nothing else through
		part, ended = cont.HeaderBlockFragment(), cont.HeadersEnded()
	}
	if err := c.blk.dec.Close(); err != nil {
		return connError(ErrCodeCompression, "a head ends in the middle of a field")
	}
	return nil
}

// checkBlock bounds what comes as one head.
func (c *Conn) checkBlock(frames, encoded, part int) error {
	switch {
	case frames > maxContinuations:
		return flood("continuation", "a head of more than %d frames", maxContinuations)
	case encoded > headerListTimes*c.o.HeaderList:
		return flood("headers", "a head of more than %d bytes", headerListTimes*c.o.HeaderList)
	case part == 0 && frames > 0:
		return c.allow.empty.take()
	}
	return nil
}

// decode decodes a part of a head.
func (c *Conn) decode(part []byte) error {
	_, err := c.blk.dec.Write(part)
	switch {
	case errors.Is(err, hpack.ErrStringLength) || c.blk.size > headerListTimes*c.o.HeaderList:
		return flood("headers", "a header list of more than %d bytes", headerListTimes*c.o.HeaderList)
	case err != nil:
		return connError(ErrCodeCompression, "a head cannot be decoded")
	}
	return nil
}
