package http1

import (
	"bytes"
	"io"
)

var (
	errChunkSize     = &ParseError{400, "a chunk size is not a hexadecimal number of at most 16 digits"}
	errChunkExt      = &ParseError{400, "a chunk extension is malformed"}
	errChunkEnd      = &ParseError{400, "a chunk does not end with CR LF"}
	errLongChunkLine = &ParseError{400, "the line of a chunk size is too long"}
	errExtFlood      = &ParseError{400, "the chunk extensions outweigh the body"}
	errLongTrailer   = &ParseError{431, "the trailer section of the message is too long"}
)

// parseChunkLine parses the line in front of a chunk, without its CRLF (RFC 9112
// section 7.1): the size, and extensions that are checked and not kept.
func parseChunkLine(line []byte) (size int64, err error) {
	const maxDigits = 16
	n := 0
	var u uint64
	for n < len(line) && octets[line[n]]&hexDigit != 0 {
		if n == maxDigits {
			return 0, errChunkSize
		}
		u = u<<4 | uint64(hexValue(line[n]))
		n++
	}
	if n == 0 || u > 1<<63-1 {
		return 0, errChunkSize
	}
	if n < len(line) && line[n] != ';' && !isSpace(line[n]) {
		return 0, errChunkSize
	}
	if !validExtensions(line[n:]) {
		return 0, errChunkExt
	}
	return int64(u), nil
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return lower[c] - 'a' + 10
}

// validExtensions checks *( BWS ";" BWS name [ BWS "=" BWS value ] ), RFC 9112 section
// 7.1.1. White space is allowed only around those two signs.
func validExtensions(b []byte) bool {
	for len(b) > 0 {
		b = skipSpace(b)
		if len(b) == 0 || b[0] != ';' {
			return false
		}
		name, rest := cutToken(skipSpace(b[1:]))
		if len(name) == 0 {
			return false
		}
		b = rest
		if after := skipSpace(b); len(after) > 0 && after[0] == '=' {
			var ok bool
			if b, ok = skipValue(skipSpace(after[1:])); !ok {
				return false
			}
		}
	}
	return true
}

// skipValue returns what stands behind a token or quoted-string.
func skipValue(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		value, rest := cutToken(b)
		return rest, len(value) > 0
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[i+1:], true
		case c == '\\':
			if i++; i == len(b) {
				return nil, false
			}
			fallthrough
		default:
			if octets[b[i]]&fieldText == 0 {
				return nil, false
			}
		}
	}
	return nil, false
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	return b
}

func cutToken(b []byte) (token, rest []byte) {
	n := 0
	for n < len(b) && octets[b[n]]&tchar != 0 {
		n++
	}
	return b[:n], b[n:]
}

// chunkStage is what a chunked body continues with (RFC 9112 section 7.1).
type chunkStage uint8

const (
	chunkLine chunkStage = iota
	chunkData
	chunkEnd
	chunkTrailer
)

// stepChunked is step for a chunked body.
func (r *Reader) stepChunked(limit int) ([]byte, error) {
	for {
		var err error
		switch b := &r.body; b.stage {
		case chunkLine:
			err = r.stepChunkLine()
		case chunkData:
			data := r.take(int(min(int64(limit), b.left)))
			if len(data) == 0 {
				return nil, errNeedMore
			}
			if b.left -= int64(len(data)); b.left == 0 {
				b.stage = chunkEnd
			}
			return data, nil
		case chunkEnd:
			err = r.stepChunkEnd()
		case chunkTrailer:
			if err = r.stepTrailer(); err == nil {
				err = io.EOF
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

func (r *Reader) stepChunkLine() error {
	b := &r.body
	from, to, err := r.nextLine(MaxChunkLine, errLongChunkLine)
	if err != nil {
		return err
	}
	line := r.window()[from:to]
	size, err := parseChunkLine(line)
	if err != nil {
		return err
	}
	if ext := bytes.IndexAny(line, "; \t"); ext >= 0 {
		b.extensions += int64(len(line) - ext)
	}
	if b.extensions = max(0, b.extensions-size); b.extensions > MaxExtensions {
		return errExtFlood
	}
	r.consume(to + len("\r\n"))
	if b.left, b.stage = size, chunkData; size == 0 {
		b.stage = chunkTrailer
	}
	return nil
}

func (r *Reader) stepChunkEnd() error {
	win := r.window()
	switch {
	case len(win) > 0 && win[0] != '\r', len(win) > 1 && win[1] != '\n':
		return errChunkEnd
	case len(win) < 2:
		return errNeedMore
	}
	r.consume(len("\r\n"))
	r.body.stage = chunkLine
	return nil
}

// stepTrailer parses what there is of the trailer section (RFC 9112 section 7.1.2).
func (r *Reader) stepTrailer() error {
	b := &r.body
	done, err := r.parseFields(&b.trailers, MaxTrailer, errLongTrailer)
	if err == errNeedMore && r.Buffered() > MaxTrailer {
		return errLongTrailer
	}
	if !done {
		return err
	}
	b.trailers.buf = r.window()[:r.scan]
	b.dropTrailers()
	r.consume(r.scan)
	b.done = true
	return nil
}

// dropTrailers removes the fields that have no place in a trailer section and those
// that the Connection fields of the head have named.
func (b *bodyState) dropTrailers() {
	for list := b.options; len(list) > 0; {
		var option []byte
		option, list = nextToken(list)
		b.trailers.markOption(option)
	}
	kept := b.trailers.list[:0]
	for _, s := range b.trailers.list {
		if s.class&(hopByHop|notInTrailer) == 0 {
			kept = append(kept, s)
		}
	}
	b.trailers.list = kept
}
