package http1

import "io"

// directWrite is the least number of bytes, with nothing buffered, for which copying
// them into a buffer first would be a waste.
const directWrite = 2 << 10

// put appends p to what is buffered, and writes out what the buffer cannot hold.
func (w *Writer) put(p []byte) {
	switch {
	case w.sink == nil:
	case w.state == writeBody:
		w.sinkContent(p)
		return
	default:
		w.reserve(len(p)) // a head stays in one piece
	}
	for w.err == nil && len(p) > cap(w.buf)-len(w.buf) {
		switch {
		case len(w.buf) == 0 && len(p) >= directWrite:
			w.writeOut(p)
			return
		case w.buf == nil:
			w.buf = getBuffer(smallBuffer)[:0]
		default:
			n := copy(w.buf[len(w.buf):cap(w.buf)], p)
			w.buf, p = w.buf[:len(w.buf)+n], p[n:]
			w.writeBuffer()
		}
	}
	if w.err == nil {
		w.buf = append(w.buf, p...)
	}
}

func (w *Writer) putString(s string) {
	if len(s) > cap(w.buf)-len(w.buf) && !w.reserve(len(s)) {
		w.put([]byte(s))
		return
	}
	w.buf = append(w.buf, s...)
}

// reserve makes room for n more bytes in the buffer, a large one if need be. It returns
// false, having done nothing, if n is more than even that one can ever hold.
func (w *Writer) reserve(n int) bool {
	switch {
	case n > largeBuffer:
		return false
	case n <= cap(w.buf)-len(w.buf):
		return true
	case len(w.buf)+n > largeBuffer:
		if w.writeBuffer(); w.err != nil {
			w.buf = w.buf[:0]
		}
	}
	if n <= cap(w.buf)-len(w.buf) {
		return true
	}
	b := append(getBuffer(len(w.buf) + n)[:0], w.buf...)
	w.giveBack()
	w.buf = b
	return true
}

// writeBuffer writes out what is buffered and keeps the buffer.
func (w *Writer) writeBuffer() {
	w.writeOut(w.buf)
	w.buf = w.buf[:0]
}

// writeOut writes p to the connection.
func (w *Writer) writeOut(p []byte) {
	switch {
	case w.err != nil || len(p) == 0:
		return
	case w.sink != nil:
		w.err = ErrInvalidHead // one that no buffer holds
		return
	}
	n, err := w.dst.Write(p)
	w.written += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = &WriteError{err}
	}
}

// Flush writes out what is buffered and gives the buffer back to the pool. The error is
// a *WriteError, or an earlier one.
func (w *Writer) Flush() error {
	w.writeOut(w.buf)
	w.giveBack()
	return w.err
}

// Count returns how many bytes have been written to the connection since NewWriter or
// Reset.
func (w *Writer) Count() int64 { return w.written }

// Release throws away what is buffered and gives the buffer back to the pool. The
// Writer can be used again after Reset.
func (w *Writer) Release() { w.giveBack() }

func (w *Writer) giveBack() {
	if w.buf != nil {
		putBuffer(w.buf)
		w.buf = nil
	}
}
