package http1

import "io"

// bodyState is how far the body of the current message has been read.
type bodyState struct {
	kind       Kind
	stage      chunkStage
	done       bool
	origin     bool  // faults are 502
	left       int64 // Length: of the body, Chunked: of the chunk
	extensions int64 // by how many bytes chunk extensions outweigh the data, see MaxExtensions
	options    []byte
	trailers   Fields
}

// startBody prepares the body of a message whose head has been consumed.
func (r *Reader) startBody(f Framing, origin bool, head *Fields, c connection) {
	b := &r.body
	*b = bodyState{
		kind: f.Kind, left: f.Length, done: f.Empty(), origin: origin,
		options:  b.options[:0],
		trailers: Fields{list: b.trailers.list[:0]},
	}
	if f.Kind != Chunked || !c.named {
		return
	}
	// The head is gone when the trailers come, and they obey its Connection fields
	// too.
	for i := range head.list {
		if s := &head.list[i]; s.id == idConnection {
			b.options = append(append(b.options, head.value(s)...), ',')
		}
	}
}

// step returns the next bytes of the body, at most limit, that are there without
// reading from the connection; they are valid until the next call. The error is
// errNeedMore, io.EOF after the last byte of a whole body, or a *ParseError.
func (r *Reader) step(limit int) ([]byte, error) {
	b := &r.body
	switch {
	case b.done:
		return nil, io.EOF
	case b.kind == Chunked:
		data, err := r.stepChunked(limit)
		if b.origin {
			err = fromOrigin(err)
		}
		return data, err
	case b.kind == Length:
		limit = int(min(int64(limit), b.left))
	}
	data := r.take(limit)
	if len(data) == 0 {
		return nil, errNeedMore
	}
	if b.kind == Length {
		b.left -= int64(len(data))
		b.done = b.left == 0
	}
	return data, nil
}

// take consumes and returns what is buffered, at most limit bytes.
func (r *Reader) take(limit int) []byte {
	data := r.window()
	data = data[:min(len(data), limit)]
	r.consume(len(data))
	return data
}

// fillBody reads more of the body from the connection, whose end is the end of a body
// that is framed so, and cuts every other one short.
func (r *Reader) fillBody() error {
	r.forgetHeads()
	err := r.fill()
	switch {
	case err == nil:
		// A full buffer says that more is waiting: larger reads are cheaper
		// then.
		r.wantLarge = r.wantLarge || r.w == len(r.buf)
		return nil
	case err == io.EOF && r.body.kind == UntilClose:
		r.body.done = true
		return nil
	}
	return cutShort("body", err)
}

// Read reads from the body of the current message, without its framing: io.EOF means
// that the body is whole, an error that wraps io.ErrUnexpectedEOF that it was cut
// short, a *ParseError that its chunks or trailers are malformed.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		data, err := r.step(len(p))
		if err != errNeedMore {
			return copy(p, data), err
		}
		if err := r.fillBody(); err != nil {
			return 0, err
		}
	}
}

// BodyDone reports whether the body of the current message has been read to its end.
func (r *Reader) BodyDone() bool { return r.body.done }

// Discard reads the rest of the body and throws it away, at most limit bytes of
// content. The error is ErrBodyTooLong if there is more, else one of Read.
func (r *Reader) Discard(limit int64) error {
	for {
		data, err := r.step(MaxHead)
		switch err {
		case nil:
			if limit -= int64(len(data)); limit < 0 {
				return ErrBodyTooLong
			}
		case errNeedMore:
			if r.body.kind == Length && r.body.left > limit {
				return ErrBodyTooLong
			}
			if err := r.fillBody(); err != nil {
				return err
			}
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// Trailers returns the trailer fields of a chunked body once it has been read to its
// end. They are valid as Fields says. Those that must not be in a trailer section (RFC
// 9110 section 6.5.1) or belong to the connection have been dropped.
func (r *Reader) Trailers() *Fields {
	if !r.body.done {
		return new(Fields)
	}
	return &r.body.trailers
}
