package http2

import (
	"os"

	h2 "golang.org/x/net/http2"
)

// WriteHead writes a head: 1xx any number of times, with end false, then the final one;
// end says that there is no content. The fields are not kept. It waits only while the
// connection has more to send than it should.
func (s *Stream) WriteHead(status int, fields []Field, end bool) error {
	if !checkHead(status, fields, end) {
		return ErrInvalidHead
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.waitForRoom(); err != nil {
		return err
	}
	if s.headed || s.localEnd {
		return ErrWriteOrder
	}
	s.c.out.putHead(s, status, fields, endFlag(end))
	s.c.out.wake()
	s.headed = status >= 200
	if end {
		s.localEnded()
	}
	return nil
}

// WriteTrailers ends our side with trailers (RFC 9113 section 8.1).
func (s *Stream) WriteTrailers(fields []Field) error {
	if !checkFields(fields) {
		return ErrInvalidHead
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.waitForRoom(); err != nil {
		return err
	}
	if !s.headed || s.localEnd || s.out != nil {
		return ErrWriteOrder
	}
	if len(fields) == 0 {
		s.endLocal()
		return nil
	}
	s.c.out.putHead(s, 0, fields, endFlag(true))
	s.c.out.wake()
	s.localEnded()
	return nil
}

func endFlag(end bool) h2.Flags {
	if end {
		return h2.FlagHeadersEndStream
	}
	return 0
}

// waitForRoom waits until the batch takes a head.
func (s *Stream) waitForRoom() error {
	for {
		if err := s.mayWrite(); err != nil {
			return err
		}
		if s.c.out.room() > 0 {
			return nil
		}
		s.c.out.crowd = append(s.c.out.crowd, s)
		s.progress.Wait()
	}
}

// mayWrite says why nothing more may be written.
func (s *Stream) mayWrite() error {
	switch {
	case s.gone != nil:
		return s.gone
	case s.writeDeadline.passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Write writes content. It returns when all of p is on its way or nothing more of it can
// be; p is not kept.
func (s *Stream) Write(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return 0, err
	}
	if !s.headed || s.localEnd || s.out != nil {
		return 0, ErrWriteOrder
	}
	if len(p) == 0 {
		return 0, nil
	}
	s.out = p
	s.offer()
	for len(s.out) > 0 {
		if err := s.mayWrite(); err != nil {
			n := len(p) - len(s.out)
			s.out = nil
			return n, err
		}
		s.progress.Wait()
	}
	s.out = nil
	return len(p), nil
}

// offer puts content into the batch at once if no other stream waits for it, else the
// stream among those that wait for their turn.
func (s *Stream) offer() {
	o := &s.c.out
	for o.ready.waiting == 0 && s.sendable() && o.win > 0 && o.room() >= minPiece {
		o.putData(s, &s.c.allow.updates)
	}
	if s.sendable() {
		o.ready.add(s)
	}
	o.wake()
}

// sendable reports whether there is content and a window of the stream for it.
func (s *Stream) sendable() bool { return len(s.out) > 0 && s.sendWin > 0 && s.gone == nil }

// CloseWrite ends our side. The client's goes on.
func (s *Stream) CloseWrite() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.localEnd:
		return nil
	case s.gone != nil:
		return s.gone
	case !s.headed || s.out != nil:
		return ErrWriteOrder
	}
	s.endLocal()
	return nil
}
