package http1

import "io"

// Response is the head of a response. It may be reused: ReadResponse overwrites all of
// it. Reason and Fields stay valid as long as Fields says, the rest until it is
// overwritten.
type Response struct {
	// Status is the status code, 100 to 599.
	Status int
	// Reason is the reason phrase as it was sent; it may be empty.
	Reason []byte
	// Minor is the minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
	Minor int
	// Fields are the field lines.
	Fields Fields
	// Framing is how the body is delimited.
	Framing Framing
	// Close says that the connection cannot carry another request afterwards: the
	// origin said so, the body ends with it, or the message gives reason to
	// distrust what follows.
	Close bool

	connection connection
	noLength   bool // Content-Length has no place in it (RFC 9110 section 8.6)
}

var (
	errStatusLine   = &ParseError{502, "the status line of the response is malformed"}
	errLongStatus   = &ParseError{502, "the status line of the response is too long"}
	errInterimBody  = &ParseError{502, "an interim response announces a body"}
	errManyInterims = &ParseError{502, "the response follows too many interim responses"}
)

// ReadResponse reads the head of the next response and prepares its body, if it has
// one, for Read, CopyBody and Discard. method is that of the request which it answers:
// it decides the framing. Interim responses are returned like any other; call it again
// after one. After 101, and after a 2xx to CONNECT, what follows is not HTTP: take it
// with TakeBuffered.
//
// The error is io.EOF if the origin ended the connection before the first byte, a
// *ParseError with status 502 for a response that is refused, and wraps the cause
// otherwise: io.ErrUnexpectedEOF if the connection ended inside the head.
func (r *Reader) ReadResponse(resp *Response, method string) error {
	if !r.body.done {
		return ErrBodyUnread
	}
	r.forgetHeads()
	r.scan, r.seen = 0, 0 // of an earlier try that ended with a deadline
	*resp = Response{Fields: Fields{list: resp.Fields.list[:0]}}
	if err := r.readResponse(resp, method); err != nil {
		resp.Fields.forget()
		resp.Reason = nil
		return fromOrigin(err)
	}
	r.consume(len(resp.Fields.buf))
	r.resp = resp
	r.startBody(resp.Framing, true, &resp.Fields, resp.connection)
	return nil
}

func (r *Reader) readResponse(resp *Response, method string) error {
	if err := r.readStatusLine(resp); err != nil {
		return err
	}
	line := r.scan - len("\r\n")
	if err := r.readFields(&resp.Fields, "response head"); err != nil {
		return err
	}
	if line > reasonAt {
		resp.Reason = resp.Fields.buf[reasonAt:line:line]
	}
	if err := resp.check(method); err != nil {
		return err
	}
	if r.interim++; !resp.Interim() {
		r.interim = 0
	} else if r.interim > MaxInterim {
		return errManyInterims
	}
	return nil
}

func (r *Reader) readStatusLine(resp *Response) error {
	for {
		from, to, err := r.nextLine(MaxStartLine, errLongStatus)
		if err == nil {
			return resp.parseLine(r.window()[from:to])
		}
		if err != errNeedMore {
			return err
		}
		atStart := r.Buffered() == 0
		if err := r.fill(); err == io.EOF && atStart {
			return io.EOF
		} else if err != nil {
			return cutShort("response head", err)
		}
	}
}

// reasonAt is where in the status line the reason phrase begins.
const reasonAt = len("HTTP/1.1 200 ")

// parseLine parses the status line (RFC 9112 section 4). The space before an empty
// reason phrase may be missing: many servers leave it out, and nothing depends on it.
func (resp *Response) parseLine(line []byte) (err error) {
	if len(line) < reasonAt-1 || line[8] != ' ' || len(line) >= reasonAt && line[reasonAt-1] != ' ' {
		return errStatusLine
	}
	if resp.Minor, err = parseVersion(line[:8]); err != nil {
		return err
	}
	status, ok := parseDigits(line[9:12])
	if !ok || status < 100 || status > 599 || !all(line[12:], fieldText) {
		return errStatusLine
	}
	resp.Status = int(status)
	return nil
}

// check finds out about the head what a look at all its fields tells.
func (resp *Response) check(method string) (err error) {
	resp.Framing, err = ResponseFraming(method, resp.Status, resp.Minor, &resp.Fields)
	if err != nil {
		return err
	}
	if resp.connection, err = resp.Fields.connection(); err != nil {
		return err
	}
	_, codings := resp.Fields.only(idTransferEncoding)
	announced := codings > 0
	if length, ok := parseDigits(resp.Fields.first(idContentLength)); ok {
		announced = announced || length > 0
	}
	if announced && resp.Status < 200 {
		return errInterimBody
	}
	resp.noLength = resp.Status < 200 || resp.Status == 204 ||
		method == "CONNECT" && resp.Status < 300
	persists := resp.Minor > 0 || resp.connection.keepAlive
	// A 204 that announces a body may be followed by one: it would be read as the
	// next response.
	resp.Close = !persists || resp.connection.close || resp.Framing.Kind == UntilClose ||
		announced && resp.noLength
	return nil
}

// Interim reports whether another response to the same request follows: 1xx but 101.
func (resp *Response) Interim() bool {
	return resp.Status >= 100 && resp.Status < 200 && resp.Status != 101
}

// Upgrade returns the value of the Upgrade field of a 101 response, else nil. Ask
// before Strip.
func (resp *Response) Upgrade() []byte {
	if resp.Status != 101 {
		return nil
	}
	return resp.Fields.first(idUpgrade)
}
