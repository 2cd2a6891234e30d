package http1

import (
	"io"
	"strconv"
)

// Writer writes messages to one connection: Begin..., Field and Fields in any number,
// EndHead, then the body by Write or CopyBody, then EndBody. It buffers until Flush,
// EndBody or CopyBody, so that a head and the first bytes of its body go out in one
// write. The first error stays: all later calls return it. It holds a pooled buffer
// only while something is buffered. It belongs to one goroutine at a time.
type Writer struct {
	dst     io.Writer
	sink    Sink   // takes all in place of dst; nil mostly
	fields  Fields // that sink was given, for its memory
	buf     []byte // nil, or of the pool; what it holds is buffered
	err     error
	written int64

	state  writeState
	status int   // of the response under way; 0 for a request
	length int64 // the Content-Length written in the head under way; noLength if none
	kind   Kind
	left   int64 // Length: bytes of the body that are still to be written
}

// writeState is what a Writer expects next.
type writeState uint8

const (
	writeBegin writeState = iota
	writeFields
	writeBody
)

const noLength = -1

// NewWriter makes a Writer to a connection.
func NewWriter(dst io.Writer) *Writer { return &Writer{dst: dst} }

// Reset makes w write to dst as if it were new. What was buffered is lost. The zero
// Writer may be Reset too.
func (w *Writer) Reset(dst io.Writer) {
	w.Release()
	*w = Writer{dst: dst}
}

// BeginRequest begins a request with the line "method target HTTP/1.1".
func (w *Writer) BeginRequest(method, target string) {
	if w.begin(0, isToken(method) && len(target) > 0 && all(target, uriText)) {
		w.putString(method)
		w.putString(" ")
		w.putString(target)
		w.putString(" HTTP/1.1\r\n")
	}
}

// BeginForward begins a request with the method and target of another: in AbsoluteForm
// as it was sent, for an upstream proxy; in OriginForm as an origin expects it (see
// AppendOriginForm). Any other form is ErrInvalidHead.
func (w *Writer) BeginForward(req *Request, form Form) {
	t := &req.Target
	ok := form == OriginForm && t.Form != AuthorityForm || form == AbsoluteForm && t.Form == AbsoluteForm
	if !w.begin(0, ok && isToken(req.Method) && len(t.Raw) > 0) {
		return
	}
	w.putString(req.Method)
	w.putString(" ")
	if form == AbsoluteForm {
		w.put(t.Raw)
	} else {
		w.reserve(len(t.PathQuery) + 1)
		w.buf = t.AppendOriginForm(w.buf, req.Method)
	}
	w.putString(" HTTP/1.1\r\n")
}

// BeginResponse begins a response with the line "HTTP/1.1 status reason". An empty
// reason is replaced by StatusText.
func (w *Writer) BeginResponse(status int, reason string) {
	if reason == "" {
		reason = StatusText(status)
	}
	if w.beginStatus(status, all(reason, fieldText)) {
		w.putString(reason)
		w.putString("\r\n")
	}
}

// BeginForwardResponse begins a response with the status and reason phrase of another.
func (w *Writer) BeginForwardResponse(resp *Response) {
	if w.beginStatus(resp.Status, true) {
		w.put(resp.Reason)
		w.putString("\r\n")
	}
}

func (w *Writer) beginStatus(status int, ok bool) bool {
	if !w.begin(status, ok && status >= 100 && status <= 599) {
		return false
	}
	w.putString("HTTP/1.1 ")
	w.reserve(len("200 "))
	w.buf = append(strconv.AppendInt(w.buf, int64(status), 10), ' ')
	return true
}

// begin begins a head whose start line is ok or not.
func (w *Writer) begin(status int, ok bool) bool {
	switch {
	case w.err != nil:
	case w.state != writeBegin:
		w.err = ErrWriteOrder
	case !ok:
		w.err = ErrInvalidHead
	}
	w.state, w.status, w.length = writeFields, status, noLength
	return w.err == nil
}

// Field writes one field line. A name that is no token or a value with a control byte
// is ErrInvalidHead, and so is Transfer-Encoding, which is EndHead's.
func (w *Writer) Field(name, value string) {
	if w.beginField(name, all(value, fieldText)) {
		if sameFold(name, "Content-Length") {
			w.noteLength([]byte(value))
		}
		w.putString(value)
		w.putString("\r\n")
	}
}

// FieldBytes is Field for a value in bytes.
func (w *Writer) FieldBytes(name string, value []byte) {
	if w.beginField(name, all(value, fieldText)) {
		if sameFold(name, "Content-Length") {
			w.noteLength(value)
		}
		w.put(value)
		w.putString("\r\n")
	}
}

// beginField writes the name and the colon of a field line, unless something of the
// line is malformed.
func (w *Writer) beginField(name string, valueOK bool) bool {
	switch {
	case w.err != nil:
	case w.state != writeFields:
		w.err = ErrWriteOrder
	case !valueOK || !isToken(name) || sameFold(name, "Transfer-Encoding"):
		w.err = ErrInvalidHead
	default:
		w.putString(name)
		w.putString(": ")
		return true
	}
	return false
}

// noteLength keeps the Content-Length of the head for EndHead.
func (w *Writer) noteLength(value []byte) {
	n, ok := parseDigits(value)
	if !ok || w.length != noLength {
		w.err = ErrInvalidHead
	}
	w.length = n
}

// Fields writes all field lines of f, in their order and with their names in the case
// in which they came. It is ErrInvalidHead if Strip has not been called and
// Transfer-Encoding is among them.
func (w *Writer) Fields(f *Fields) {
	if w.err == nil && w.state != writeFields {
		w.err = ErrWriteOrder
	}
	for i := range f.list {
		if w.err != nil {
			return
		}
		w.field(f, &f.list[i])
	}
}

func (w *Writer) field(f *Fields, s *span) {
	switch s.id {
	case idContentLength:
		w.noteLength(f.value(s))
	case idTransferEncoding:
		w.err = ErrInvalidHead
		return
	}
	w.reserve(int(s.nameLen) + int(s.valueLen) + len(": \r\n"))
	b := append(w.buf, f.name(s)...)
	b = append(b, ": "...)
	b = append(b, f.value(s)...)
	w.buf = append(b, "\r\n"...)
}

// EndHead ends the head and says how the body will be delimited. It adds
// Transfer-Encoding for Chunked, and Content-Length for Length if no field written so
// far was one. A Content-Length that contradicts f is ErrWriteOrder, and so is a body
// where there must be none. For UntilClose the caller has written "Connection: close".
// Nothing is flushed.
func (w *Writer) EndHead(f Framing) error {
	switch {
	case w.err != nil:
		return w.err
	case w.state != writeFields || !w.fits(f):
		w.err = ErrWriteOrder
		return w.err
	case w.sink != nil:
		w.state, w.kind, w.left = writeBody, f.Kind, f.Length
		return w.sinkHead(f)
	case f.Kind == Chunked:
		w.putString("Transfer-Encoding: chunked\r\n")
	case f.Kind == Length && w.length == noLength:
		w.putString("Content-Length: ")
		w.reserve(len("9223372036854775807"))
		w.buf = strconv.AppendInt(w.buf, f.Length, 10)
		w.putString("\r\n")
	}
	w.putString("\r\n")
	w.state, w.kind, w.left = writeBody, f.Kind, f.Length
	return w.err
}

// fits reports whether a receiver of the head under way will find the body delimited as
// f says.
func (w *Writer) fits(f Framing) bool {
	bodiless := w.status != 0 && w.status < 200 || w.status == 204 || w.status == 304
	switch f.Kind {
	case NoBody: // only a response may say how long its body would have been
		return w.length == noLength || w.length == 0 || w.status >= 200 && w.status != 204
	case Length:
		return f.Length >= 0 && !bodiless && (w.length == noLength || w.length == f.Length)
	case Chunked:
		return !bodiless && w.length == noLength
	}
	return !bodiless && w.length == noLength && w.status != 0
}

// Write writes p as content of the body, framed as EndHead was told. More than the
// announced length is ErrWriteOrder.
func (w *Writer) Write(p []byte) (int, error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case w.state != writeBody, w.kind == NoBody && len(p) > 0, w.kind == Length && int64(len(p)) > w.left:
		w.err = ErrWriteOrder
		return 0, w.err
	case len(p) == 0:
		return 0, nil
	case w.kind == Chunked && w.sink == nil:
		w.putChunk(p)
	case w.kind == Length:
		w.left -= int64(len(p))
		w.put(p)
	default:
		w.put(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// putChunk writes one chunk, in one piece as far as a buffer can hold it.
func (w *Writer) putChunk(p []byte) {
	const maxFraming = len("7fffffffffffffff\r\n\r\n")
	w.reserve(len(p) + maxFraming)
	w.reserve(maxFraming)
	w.buf = append(strconv.AppendInt(w.buf, int64(len(p)), 16), "\r\n"...)
	w.put(p)
	w.putString("\r\n")
}

// EndBody ends the body and flushes: it writes the last chunk of a chunked body; a body
// shorter than its announced length is ErrWriteOrder. trailers may be nil; they are
// left out where the framing has no place for them. It is needed after NoBody too.
func (w *Writer) EndBody(trailers *Fields) error {
	switch {
	case w.err != nil:
		return w.err
	case w.state != writeBody, w.kind == Length && w.left > 0:
		w.err = ErrWriteOrder
		return w.err
	}
	if w.sink != nil {
		w.state = writeBegin
		return w.sinkEnd(trailers)
	}
	if w.kind == Chunked {
		w.putString("0\r\n")
		if trailers != nil {
			w.state = writeFields
			w.Fields(trailers)
		}
		w.putString("\r\n")
	}
	w.state = writeBegin
	return w.Flush()
}
