package http1

import "bytes"

// Sink takes responses in another form than the text of HTTP/1.1, as a stream of HTTP/2 has it. What
// its methods are given is valid until they return. They report errors of the connection alone.
type Sink interface {
	// Head takes a head, of an interim response too. end says that nothing follows it.
	Head(status int, fields *Fields, end bool) error
	// Content takes some of the body.
	Content(p []byte) error
	// End ends a body. trailers is nil or empty where there are none.
	End(trailers *Fields) error
}

// ResetSink is Reset for responses that s takes: framing is then the sink's, so EndHead adds no field, and a
// body may be of any Kind. Head and body are given on at once; Flush does nothing.
func (w *Writer) ResetSink(s Sink) {
	w.Release()
	*w = Writer{sink: s}
}

// sinkHead gives the head on.
func (w *Writer) sinkHead(f Framing) error {
	fields, err := w.sinkFields()
	if err != nil {
		w.err = err
		return err
	}
	w.written += int64(len(w.buf))
	w.sunk(w.sink.Head(w.status, fields, f.Kind == NoBody && w.status >= 200))
	w.giveBack()
	return w.err
}

// sinkFields takes the lines that are buffered apart.
func (w *Writer) sinkFields() (*Fields, error) {
	f := &w.fields
	f.buf, f.list = w.buf, f.list[:0]
	at := bytes.IndexByte(w.buf, '\n') + 1 // behind the status line
	for at < len(w.buf) {
		n := bytes.IndexByte(w.buf[at:], '\n')
		s, err := parseField(w.buf, at, at+n-1)
		if err != nil {
			return nil, err
		}
		f.list = append(f.list, s)
		at += n + 1
	}
	return f, nil
}

// sinkContent gives some of the body on.
func (w *Writer) sinkContent(p []byte) {
	w.written += int64(len(p))
	w.sunk(w.sink.Content(p))
}

// sinkEnd ends the body.
func (w *Writer) sinkEnd(trailers *Fields) error {
	if w.kind != NoBody {
		w.sunk(w.sink.End(trailers))
	}
	return w.err
}

func (w *Writer) sunk(err error) {
	if err != nil && w.err == nil {
		w.err = &WriteError{err}
	}
}
