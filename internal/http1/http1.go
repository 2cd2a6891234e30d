// Package http1 is HTTP/1.1 on the wire (RFC 9112, with the field rules of RFC 9110):
// message heads, framing and bodies, for both sides of a connection. A Reader reads
// requests of a client or responses of an origin, a Writer writes the other way,
// CopyBody streams a body from one to the other.
//
// It is strict. Whatever two implementations could read in two ways is refused, never
// repaired: both Content-Length and Transfer-Encoding, folded lines, odd white space,
// bare CR or LF, control bytes. It is lean: a head is parsed once, in place, into
// offsets over a pooled buffer.
//
// It does no policy, no dialling, no deadlines, no TLS and no HTTP/2; it never decodes
// content codings and never follows what a message means beyond its framing.
package http1

import "errors"

// The limits of what is read. What exceeds one of them is refused, never buffered.
const (
	// MaxStartLine bounds a request line (414) or status line, in bytes, its CRLF
	// not counted.
	MaxStartLine = 16 << 10
	// MaxHead bounds a head from its start line to its empty line, both included,
	// in bytes (431).
	MaxHead = 64 << 10
	// MaxFields bounds the field lines of one head or trailer section (431).
	MaxFields = 200
	// MaxMethod bounds a method, in bytes (501, RFC 9112 section 3).
	MaxMethod = 64
	// MaxTrailer bounds a trailer section, in bytes.
	MaxTrailer = 16 << 10
	// MaxChunkLine bounds the line of a chunk size and its extensions, in bytes,
	// its CRLF not counted.
	MaxChunkLine = 4 << 10
	// MaxExtensions bounds by how many bytes the chunk extensions of one body may
	// outweigh its data.
	MaxExtensions = 16 << 10
	// MaxInterim bounds the 1xx responses before one final response.
	MaxInterim = 32
)

// ParseError is the error of a message that is refused. After it, the connection that
// the message came from must be closed: where the next message would begin is unknown.
type ParseError struct {
	// Status is what answers the client: 400, 414, 431, 501 or 505 for what a
	// client sent, 502 for what an origin sent.
	Status int
	// Reason is a sentence fit for an error page and a log. It never holds a byte
	// of the message.
	Reason string
}

// Error implements error.
func (e *ParseError) Error() string { return e.Reason }

// WriteError is an error of the connection that a Writer writes to. It tells the two
// sides of CopyBody apart: any other error is of the side that was read.
type WriteError struct{ Err error }

// Error implements error.
func (e *WriteError) Error() string { return "write: " + e.Err.Error() }

// Unwrap returns the error of the connection.
func (e *WriteError) Unwrap() error { return e.Err }

var (
	// ErrBodyUnread is the error of ReadRequest and ReadResponse while the body of
	// the message before has not been read to its end.
	ErrBodyUnread = errors.New("the body of the message before has not been read to its end")
	// ErrBodyTooLong is the error of Discard when the body is longer than allowed.
	ErrBodyTooLong = errors.New("the rest of the body is too long to be discarded")
	// ErrWriteOrder is the error of a Writer whose methods are called out of order,
	// or whose body differs from the framing that its head has announced.
	ErrWriteOrder = errors.New("the message written differs from its framing")
	// ErrInvalidHead is the error of a Writer that was given a start line or a
	// field which would not be one on the wire. Nothing of it has been written.
	ErrInvalidHead = errors.New("a start line or a field to be written is malformed")
)

// fromOrigin returns the same refusal as an answer to what an origin sent: a bad
// gateway, whatever the fault. Other errors stay as they are.
func fromOrigin(err error) error {
	if pe, ok := err.(*ParseError); ok && pe.Status != 502 {
		return &ParseError{502, pe.Reason}
	}
	return err
}
