package http1

import "bytes"

var (
	errBareLF      = &ParseError{400, "a line does not end with CR LF"}
	errFold        = &ParseError{400, "a field line begins with white space (obsolete line folding)"}
	errNoColon     = &ParseError{400, "a field line has no colon"}
	errNoName      = &ParseError{400, "a field line has no name"}
	errNameSpace   = &ParseError{400, "a field line has white space before its colon"}
	errName        = &ParseError{400, "a field name has a character that is not allowed in it"}
	errValue       = &ParseError{400, "a field value has a control character"}
	errManyFields  = &ParseError{431, "the message has too many field lines"}
	errLongHead    = &ParseError{431, "the head of the message is too long"}
	errVersion     = &ParseError{400, "the HTTP version is malformed or unknown"}
	errMajor       = &ParseError{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"}
	errManyOptions = &ParseError{400, "the Connection field has too many options"}
)

func indexLF(b []byte, from int) int {
	i := bytes.IndexByte(b[from:], '\n')
	if i < 0 {
		return -1
	}
	return from + i
}

// fillHead reads more of a head.
func (r *Reader) fillHead(what string) error {
	if r.Buffered() >= MaxHead {
		return errLongHead
	}
	if err := r.fill(); err != nil {
		return cutShort(what, err)
	}
	return nil
}

// readFields reads field lines up to the empty line that ends a head.
func (r *Reader) readFields(f *Fields, what string) error {
	for {
		done, err := r.parseFields(f, MaxHead, errLongHead)
		if err != errNeedMore {
			if done {
				f.buf = r.buf[r.r : r.r+r.scan]
			}
			return err
		}
		if err := r.fillHead(what); err != nil {
			return err
		}
	}
}

// parseFields parses the lines that are there; done says that the empty line has been
// met. limit bounds the section, from its first byte on.
func (r *Reader) parseFields(f *Fields, limit int, tooLong error) (done bool, err error) {
	for {
		from, to, err := r.nextLine(limit, tooLong)
		switch {
		case err != nil:
			return false, err
		case r.scan > limit:
			return false, tooLong
		case from == to:
			return true, nil
		case len(f.list) == MaxFields:
			return false, errManyFields
		}
		s, err := parseField(r.window(), from, to)
		if err != nil {
			return false, err
		}
		f.list = append(f.list, s)
	}
}

// parseField parses the field line head[from:to] (RFC 9112 section 5).
func parseField(head []byte, from, to int) (span, error) {
	line := head[from:to]
	colon := bytes.IndexByte(line, ':')
	switch {
	case isSpace(line[0]):
		return span{}, errFold
	case colon < 0:
		return span{}, errNoColon
	case colon == 0:
		return span{}, errNoName
	case isSpace(line[colon-1]):
		return span{}, errNameSpace
	case !all(line[:colon], tchar):
		return span{}, errName
	case !validValue(line[colon+1:]):
		return span{}, errValue
	}
	start, end := from+colon+1, to
	for start < end && isSpace(head[start]) {
		start++
	}
	for start < end && isSpace(head[end-1]) {
		end--
	}
	s := span{
		name: uint32(from), nameLen: uint16(colon),
		value: uint32(start), valueLen: uint16(end - start),
	}
	if s.id, s.class = lookUp(line[:colon]); s.id == idContentLength {
		s.dropZeros(head)
	}
	return s, nil
}

// dropZeros drops zeros in front of a number. They are allowed, but who reads
// "010" as octal behind us would see the body end elsewhere.
func (s *span) dropZeros(head []byte) {
	if _, ok := parseDigits(head[s.value : s.value+uint32(s.valueLen)]); !ok {
		return // it will be refused as it stands
	}
	for s.valueLen > 1 && head[s.value] == '0' {
		s.value++
		s.valueLen--
	}
}

// parseVersion returns the minor version of HTTP/1.0 and HTTP/1.1. Another major
// version is 505 (RFC 9110 section 15.6.6). HTTP/1.2 to 1.9 do not exist: who sends
// them is broken or probing, so they are malformed.
func parseVersion(b []byte) (minor int, err error) {
	if len(b) != len("HTTP/1.1") || string(b[:5]) != "HTTP/" || b[6] != '.' ||
		b[5] < '0' || b[5] > '9' || b[7] < '0' || b[7] > '9' {
		return 0, errVersion
	}
	switch {
	case b[5] != '1':
		return 0, errMajor
	case b[7] > '1':
		return 0, errVersion
	}
	return int(b[7] - '0'), nil
}

// connection is what the Connection field lines of a head say together.
type connection struct {
	close, keepAlive, upgrade bool
	named                     bool // some option names a field that is not known
}

// maxOptions bounds the options of a head, so that matching them with its fields stays
// cheap.
const maxOptions = 256

// connection reads the Connection field lines (RFC 9110 section 7.6.1).
func (f *Fields) connection() (c connection, err error) {
	n := 0
	for i := range f.list {
		s := &f.list[i]
		if s.id != idConnection {
			continue
		}
		for list := f.value(s); len(list) > 0; n++ {
			if n == maxOptions {
				return c, errManyOptions
			}
			var option []byte
			option, list = nextToken(list)
			c.add(option)
		}
	}
	return c, nil
}

func (c *connection) add(option []byte) {
	switch {
	case EqualFold(option, "close"):
		c.close = true
	case EqualFold(option, "keep-alive"):
		c.keepAlive = true
	case EqualFold(option, "upgrade"):
		c.upgrade = true
	case len(option) > 0:
		if _, class := lookUp(option); class == 0 {
			c.named = true
		}
	}
}
