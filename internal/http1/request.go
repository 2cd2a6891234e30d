package http1

import (
	"bytes"
	"io"
	"math"
)

// Request is the head of a request. It may be reused: ReadRequest overwrites all of it.
// Method, Minor, Framing and Close stay valid until it is overwritten, Target and
// Fields as long as Fields says.
type Request struct {
	// Method is the method, case-sensitive, any token of at most MaxMethod bytes.
	Method string
	// Target is the request-target.
	Target Target
	// Minor is the minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
	Minor int
	// Fields are the field lines.
	Fields Fields
	// Framing is how the body is delimited: NoBody, Length or Chunked.
	Framing Framing
	// Close says that the connection ends after the response: the client asked for
	// it, or speaks HTTP/1.0, with which a proxy never persists (RFC 9112 section
	// 9.3).
	Close bool

	connection connection
}

var (
	errRequestLine = &ParseError{400, "the request line is not: method, target and version with one space between them"}
	errLongLine    = &ParseError{414, "the request line is too long"}
	errMethod      = &ParseError{400, "the method is malformed"}
	errLongMethod  = &ParseError{501, "the method is longer than any that is known"}
	errNoHost      = &ParseError{400, "an HTTP/1.1 request has no Host"}
	errManyHosts   = &ParseError{400, "the request has more than one Host"}
	errBadHost     = &ParseError{400, "the Host is malformed"}
	errConnectBody = &ParseError{400, "CONNECT has a body, which it cannot have"}
	errMaxForwards = &ParseError{400, "Max-Forwards is not one decimal number"}
)

// ReadRequest reads the head of the next request and prepares its body, if it has one,
// for Read, CopyBody and Discard. Grammar, framing and Host are checked: more than one
// Host or a malformed one is refused, and none at all unless the version is HTTP/1.0.
// One empty line before the request is ignored (RFC 9112 section 2.2).
//
// The error is io.EOF if the client ended the connection before the first byte of a
// request, a *ParseError for a request that is refused, and wraps the cause otherwise:
// io.ErrUnexpectedEOF if the connection ended inside the head.
func (r *Reader) ReadRequest(req *Request) error {
	if !r.body.done {
		return ErrBodyUnread
	}
	r.forgetHeads()
	r.scan, r.seen = 0, 0 // of an earlier try that ended with a deadline
	*req = Request{Fields: Fields{list: req.Fields.list[:0]}}
	if err := r.readRequest(req); err != nil {
		req.Fields.forget()
		req.Target = Target{}
		return err
	}
	r.consume(len(req.Fields.buf))
	r.req = req
	r.startBody(req.Framing, false, &req.Fields, req.connection)
	return nil
}

func (r *Reader) readRequest(req *Request) error {
	from, to, err := r.readRequestLine(req)
	if err != nil {
		return err
	}
	if err := r.readFields(&req.Fields, "request head"); err != nil {
		return err
	}
	if req.Target, err = ParseTarget(req.Method, req.Fields.buf[from:to:to]); err != nil {
		return err
	}
	return req.check()
}

// readRequestLine reads the request line and returns where in the head the target
// stands.
func (r *Reader) readRequestLine(req *Request) (from, to int, err error) {
	for empty := false; ; {
		from, to, err = r.nextLine(MaxStartLine, errLongLine)
		switch {
		case err == nil && to > from:
			return req.parseLine(r.window()[from:to], from)
		case err == nil && empty:
			return 0, 0, errRequestLine
		case err == nil:
			empty = true
			r.consume(to + len("\r\n"))
		case err != errNeedMore:
			return 0, 0, err
		default:
			atStart := r.Buffered() == 0
			if err := r.fill(); err == io.EOF && atStart {
				return 0, 0, io.EOF
			} else if err != nil {
				return 0, 0, cutShort("request head", err)
			}
		}
	}
}

// parseLine parses the request line (RFC 9112 section 3), which begins at offset at of
// the head, and returns where in the head the target stands.
func (req *Request) parseLine(line []byte, at int) (from, to int, err error) {
	sp := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	switch {
	case sp < 0 && !isToken(line):
		return 0, 0, errMethod
	case sp < 0 || last == sp:
		return 0, 0, errRequestLine
	case !isToken(line[:sp]):
		return 0, 0, errMethod
	case sp > MaxMethod:
		return 0, 0, errLongMethod
	case last == sp+1 || bytes.IndexByte(line[sp+1:last], ' ') >= 0:
		return 0, 0, errRequestLine
	}
	if req.Minor, err = parseVersion(line[last+1:]); err != nil {
		return 0, 0, err
	}
	req.Method = internMethod(line[:sp])
	return at + sp + 1, at + last, nil
}

// internMethod returns a method as a string, the usual ones without allocating.
func internMethod(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "CONNECT":
		return "CONNECT"
	case "OPTIONS":
		return "OPTIONS"
	case "TRACE":
		return "TRACE"
	case "PROPFIND":
		return "PROPFIND"
	case "REPORT":
		return "REPORT"
	}
	return string(b)
}

// check finds out about the head what a look at all its fields tells.
func (req *Request) check() (err error) {
	host, hosts := req.Fields.only(idHost)
	switch {
	case hosts == 0 && req.Minor > 0:
		return errNoHost
	case hosts > 1:
		return errManyHosts
	}
	if _, _, ok := SplitHostPort(host); !ok {
		return errBadHost
	}
	if req.Framing, err = RequestFraming(req.Minor, &req.Fields); err != nil {
		return err
	}
	if req.Method == "CONNECT" && !req.Framing.Empty() {
		return errConnectBody
	}
	if req.connection, err = req.Fields.connection(); err != nil {
		return err
	}
	// Proxy-Connection is in no RFC, but whoever sends "close" in it means it.
	req.Close = req.Minor == 0 || req.connection.close ||
		hasElement(req.Fields.first(idProxyConnection), "close")
	return nil
}

// Host returns the value of the Host field, nil if there is none. It is a valid
// authority without userinfo, or empty.
func (req *Request) Host() []byte { return req.Fields.first(idHost) }

// Upgrade returns the value of the Upgrade field if the request really asks for one:
// HTTP/1.1, and "upgrade" in Connection (RFC 9110 section 7.8). Else it is nil. Ask
// before Strip; the value stays valid as Fields says.
func (req *Request) Upgrade() []byte {
	if req.Minor == 0 || !req.connection.upgrade {
		return nil
	}
	return req.Fields.first(idUpgrade)
}

// ExpectContinue reports whether the client waits for 100 (Continue) before it sends
// the body (RFC 9110 section 10.1.1). other reports an expectation that is not known,
// to be answered with 417. HTTP/1.0 has no expectations.
func (req *Request) ExpectContinue() (wait, other bool) {
	if req.Minor == 0 {
		return false, false
	}
	for i := range req.Fields.list {
		s := &req.Fields.list[i]
		if s.id != idExpect {
			continue
		}
		for list := req.Fields.value(s); len(list) > 0; {
			var e []byte
			e, list = nextElement(list)
			known := EqualFold(e, "100-continue")
			wait = wait || known
			other = other || !known && len(e) > 0
		}
	}
	return wait, other
}

// AcceptsTrailers reports whether the client sent "TE: trailers" (RFC 9110 section
// 10.1.4). Ask before Strip.
func (req *Request) AcceptsTrailers() bool { return req.Fields.HasToken("TE", "trailers") }

// MaxForwards returns the value of the Max-Forwards field (RFC 9110 section 7.6.2);
// present is false if there is none. A value too large for an int is the largest int.
// The error is a *ParseError.
func (req *Request) MaxForwards() (n int, present bool, err error) {
	value, count := req.Fields.only(idMaxForwards)
	switch {
	case count == 0:
		return 0, false, nil
	case count > 1 || len(value) == 0:
		return 0, true, errMaxForwards
	}
	for _, c := range value {
		switch d := int(c) - '0'; {
		case d < 0 || d > 9:
			return 0, true, errMaxForwards
		case n > (math.MaxInt-d)/10:
			n = math.MaxInt
		default:
			n = n*10 + d
		}
	}
	return n, true, nil
}
