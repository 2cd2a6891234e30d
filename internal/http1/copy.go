package http1

import "io"

// SpliceMin is the least rest of a body, in bytes, for which CopyOptions.Splice is
// called.
const SpliceMin = 64 << 10

// CopyOptions says what to do while a body is copied. The zero value is usable.
type CopyOptions struct {
	// Moved, when not nil, is called each time content has been read and written
	// on, before the next read, with the number of bytes of content: to move
	// deadlines and counts.
	Moved func(n int64)
	// Splice, when not nil, is called once when at least SpliceMin bytes of a body
	// with a length are left, both sides are framed by it and nothing is buffered
	// on either. It copies up to n bytes from the connection of r to that of w in a
	// better way and returns how many it has written on; it must not have read more
	// than that. An error of w's side it wraps in a *WriteError. What is left when
	// it returns without an error is copied as usual, so (0, nil) declines.
	Splice func(n int64) (int64, error)
	// DropTrailer, when not nil, is asked for each trailer field whether it is left
	// out.
	DropTrailer func(name []byte) bool
}

// CopyBody streams the rest of the body of r's current message to w, whose EndHead has
// said how it goes on: with the same framing or with another. Whatever a read returns
// is written on before the next read, so an event stream is not delayed; head and first
// bytes go out in one write. It ends the body of w (EndBody) if and only if the body of
// r was whole, and returns the number of content bytes that were written on.
//
// A *WriteError is of w's side, every other error of r's: one that wraps
// io.ErrUnexpectedEOF for a body that was cut short, a *ParseError for malformed
// chunks. ErrWriteOrder says that r's body does not fit what w's head has announced.
// After an error w's connection must be closed; if its framing is UntilClose it must be
// reset (SO_LINGER 0), since a plain close would make a body that was cut short look
// whole.
func CopyBody(w *Writer, r *Reader, o CopyOptions) (int64, error) {
	c := bodyCopy{w: w, r: r, o: o}
	for {
		data, err := r.step(MaxHead)
		switch err {
		case nil:
			_, err = w.Write(data)
			c.moved += int64(len(data))
		case errNeedMore:
			err = c.more()
		}
		if err != nil {
			err = c.end(err)
			return c.total, err
		}
	}
}

// bodyCopy is a CopyBody under way.
type bodyCopy struct {
	w *Writer
	r *Reader
	o CopyOptions

	total, moved int64 // moved: since the last flush
	asked        bool  // whether Splice has been called
}

// more writes on what there is and then reads more.
func (c *bodyCopy) more() error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.canSplice() {
		if err := c.splice(); err != nil || c.r.body.done {
			return err
		}
	}
	return c.r.fillBody()
}

// flush writes out what is buffered and says so.
func (c *bodyCopy) flush() error {
	if err := c.w.Flush(); err != nil {
		return err
	}
	c.report()
	return nil
}

func (c *bodyCopy) report() {
	n := c.moved
	c.total, c.moved = c.total+n, 0
	if n > 0 && c.o.Moved != nil {
		c.o.Moved(n)
	}
}

// end ends the copy: with io.EOF the body was whole, any other error leaves the body of
// w unfinished, after what has arrived was passed on.
func (c *bodyCopy) end(err error) error {
	if err != io.EOF {
		_ = c.flush() // err came first and says more
		return err
	}
	trailers := c.r.Trailers()
	if c.o.DropTrailer != nil {
		trailers.RemoveFunc(c.o.DropTrailer)
	}
	if err := c.w.EndBody(trailers); err != nil {
		return err
	}
	c.report()
	return nil
}

func (c *bodyCopy) canSplice() bool {
	r, w := c.r, c.w
	return c.o.Splice != nil && !c.asked && r.err == nil &&
		r.body.kind == Length && w.kind == Length && r.body.left == w.left && w.left >= SpliceMin
}

// splice lets the caller move the rest of the body.
func (c *bodyCopy) splice() error {
	c.asked = true
	c.r.Release() // nothing is buffered; hold nothing meanwhile
	n, err := c.o.Splice(c.r.body.left)
	n = min(max(n, 0), c.r.body.left)
	c.r.body.left -= n
	c.r.used += n
	c.w.left -= n
	c.w.written += n
	c.r.body.done = c.r.body.left == 0
	c.moved += n
	c.report()
	if err == io.EOF {
		return cutShort("body", err)
	}
	return err
}
