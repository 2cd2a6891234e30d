package clienthello

// Record layer and handshake framing (RFC 8446 sections 5.1 and 4).
const (
	recordHeaderLen  = 5
	messageHeaderLen = 4
	maxFragment      = 1 << 14

	recordHandshake = 22
	typeClientHello = 1
)

// scanner finds the end of the first handshake message in what has arrived, byte
// by byte if need be; what it has passed over it never looks at again.
type scanner struct {
	raw      []byte // everything that was read
	at       int    // raw[:at] has been looked at
	records  int    // record headers in raw[:at]
	fragment int    // bytes of the current record that are yet to come
	seen     int    // bytes of the message in raw[:at]
	length   int    // of the message's body so far as its header has come; whole once seen >= messageHeaderLen
}

// left returns how many bytes of the message must still come, as far as is known.
func (s *scanner) left() int {
	if s.seen < messageHeaderLen {
		return messageHeaderLen - s.seen
	}
	return messageHeaderLen + s.length - s.seen
}

// space returns room for the bytes that must come before the message can be complete, and no
// more. Memory grows with what has come, never with what a header announces.
func (s *scanner) space() []byte {
	need, size := s.left(), 2*cap(s.raw)
	if need > s.fragment { // a record header is due first, and perhaps many more
		need += recordHeaderLen - (len(s.raw) - s.at)
	} else {
		size = min(size, len(s.raw)+need)
	}
	if len(s.raw) == cap(s.raw) {
		grown := make([]byte, len(s.raw), size)
		copy(grown, s.raw)
		s.raw = grown
	}
	return s.raw[len(s.raw):min(cap(s.raw), len(s.raw)+need)]
}

// scan looks at the bytes that are new. It is done once the message is complete.
func (s *scanner) scan() (done bool, err error) {
	for s.at < len(s.raw) {
		if s.fragment == 0 {
			whole, err := s.header()
			if !whole || err != nil {
				return false, err
			}
			continue
		}
		if s.seen < messageHeaderLen {
			err = s.messageHeader(s.raw[s.at])
			s.skip(1)
		} else {
			s.skip(min(s.fragment, len(s.raw)-s.at, s.left()))
		}
		if err != nil {
			return false, err
		}
		if s.seen >= messageHeaderLen && s.left() == 0 {
			return true, nil
		}
	}
	if len(s.raw) >= maxRaw {
		return false, ErrFragmented
	}
	return false, nil
}

// skip passes over n bytes of the message.
func (s *scanner) skip(n int) {
	s.at += n
	s.fragment -= n
	s.seen += n
}

// header judges a record header: what has come of it at once, its length when it is whole.
func (s *scanner) header() (whole bool, err error) {
	h := s.raw[s.at:]
	switch {
	case h[0] == 0x80 && s.records == 0:
		return false, ErrSSLv2
	case h[0] != recordHandshake, len(h) > 1 && h[1] != 0x03:
		return false, ErrNotTLS
	case len(h) < recordHeaderLen:
		return false, nil
	}
	s.fragment = int(h[3])<<8 | int(h[4])
	switch {
	case s.fragment == 0:
		return false, ErrEmpty
	case s.fragment > maxFragment:
		return false, ErrOverflow
	}
	s.at += recordHeaderLen
	s.records++
	return true, nil
}

// messageHeader takes the next byte of the handshake header: msg_type, uint24 length.
func (s *scanner) messageHeader(b byte) error {
	if s.seen == 0 {
		if b != typeClientHello {
			return ErrNotHello
		}
		return nil
	}
	s.length = s.length<<8 | int(b)
	if messageHeaderLen+s.length > MaxMessage {
		return ErrTooLarge
	}
	return nil
}

// message returns the message in one piece, once scan is done. Only a message of several
// records is copied.
func (s *scanner) message() []byte {
	if s.records == 1 {
		return s.raw[recordHeaderLen : recordHeaderLen+s.seen]
	}
	m := make([]byte, 0, s.seen)
	for rest := s.raw; len(m) < s.seen; {
		n := min(int(rest[3])<<8|int(rest[4]), s.seen-len(m))
		m = append(m, rest[recordHeaderLen:recordHeaderLen+n]...)
		rest = rest[recordHeaderLen+n:]
	}
	return m
}
