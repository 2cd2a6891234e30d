// Package http2 is the server side of one HTTP/2 connection (RFC 9113), with extended
// CONNECT (RFC 8441) and the urgencies of extensible priorities (RFC 9218). A Conn reads
// requests and calls Options.Serve with a Stream for each; a Stream is a net.Conn whose
// two sides end on their own, so that it carries a request or a tunnel of any length.
//
// It is strict: a malformed request is reset, a connection whose frames break the
// protocol or cost more than they are worth is ended, each with the code of the RFC.
//
// What a connection holds is bounded: of content that nobody has read yet at most
// Options.ConnWindow (and Options.StreamWindow for one stream), in pooled pieces of
// 4 KiB that go back as they are read; of a head at most four times Options.HeaderList;
// of frames to be sent about 64 KiB, twice while they are being written. What waits holds
// no buffer but a chunk of content: an idle connection was measured at less than 18 KiB
// with its two goroutines and both ends of its socket, an idle stream at 2.6 KiB with the
// goroutine of its Serve.
//
// It does no policy, no dialling, no logging and no TLS. It never pushes, and it does
// not follow what a message means beyond its framing: whether a response may have
// content is the business of who writes it.
package http2

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	h2 "golang.org/x/net/http2"
)

// ErrCode is an error code (RFC 9113 section 7).
type ErrCode = h2.ErrCode

// The error codes of RFC 9113 section 7.
const (
	ErrCodeNo                 = h2.ErrCodeNo
	ErrCodeProtocol           = h2.ErrCodeProtocol
	ErrCodeInternal           = h2.ErrCodeInternal
	ErrCodeFlowControl        = h2.ErrCodeFlowControl
	ErrCodeSettingsTimeout    = h2.ErrCodeSettingsTimeout
	ErrCodeStreamClosed       = h2.ErrCodeStreamClosed
	ErrCodeFrameSize          = h2.ErrCodeFrameSize
	ErrCodeRefusedStream      = h2.ErrCodeRefusedStream
	ErrCodeCancel             = h2.ErrCodeCancel
	ErrCodeCompression        = h2.ErrCodeCompression
	ErrCodeConnect            = h2.ErrCodeConnect
	ErrCodeEnhanceYourCalm    = h2.ErrCodeEnhanceYourCalm
	ErrCodeInadequateSecurity = h2.ErrCodeInadequateSecurity
	ErrCodeHTTP11Required     = h2.ErrCodeHTTP11Required
)

// Field is a field of a head or of trailers. Names are in lower case; pseudo fields are
// not among them.
type Field struct{ Name, Value string }

// Options configures a connection. All but Serve may be left zero. A negative duration
// means that there is no such limit.
type Options struct {
	// Streams is how many streams a client may have open at once
	// (SETTINGS_MAX_CONCURRENT_STREAMS). Zero means 256.
	Streams int
	// HeaderList bounds a head, in bytes as RFC 9113 section 6.5.2 counts them: names,
	// values and 32 for each field. What is longer is answered 431. Zero means 64 KiB.
	HeaderList int
	// StreamWindow is how much a client may send on one stream that has not been read
	// yet, in bytes. Zero means 512 KiB, which is 80 Mbit/s over 50 ms. Less than
	// 65535, which a client takes for granted until it has read our settings, is raised
	// to that.
	StreamWindow int
	// ConnWindow is the same for all streams together, and so what one connection can
	// make us hold. Zero means 8 MiB: 16 streams that nobody reads do not stop the
	// others yet. Less than 65535 is raised to that.
	ConnWindow int
	// Handshake is how long the preface and the first SETTINGS may take. Zero means 10 s.
	Handshake time.Duration
	// Idle is how long a connection may be without a stream. Zero means 75 s.
	Idle time.Duration
	// SendTimeout ends the connection when a write to it makes no progress for this
	// long. (Over TLS, where a write that has timed out cannot be resumed, it is the
	// time for up to 64 KiB.) Zero means 2 min.
	SendTimeout time.Duration
	// Serve is called in a goroutine of its own for each request. When it returns the
	// stream is ended: if our side has not ended it is reset, with INTERNAL_ERROR if no
	// final head was written and CANCEL otherwise; if only the client's side has not,
	// with NO_ERROR (RFC 9113 section 8.1).
	Serve func(*Stream)
}

// startWindow is the window of a stream and of the connection until settings and updates
// say otherwise (RFC 9113 section 6.9.2).
const startWindow = 1<<16 - 1

// withDefaults returns o with its zero values filled in.
func (o Options) withDefaults() Options {
	orElse(&o.Streams, 256)
	orElse(&o.HeaderList, 64<<10)
	orElse(&o.StreamWindow, 512<<10)
	orElse(&o.ConnWindow, 8<<20)
	orElse(&o.Handshake, 10*time.Second)
	orElse(&o.Idle, 75*time.Second)
	orElse(&o.SendTimeout, 2*time.Minute)
	o.StreamWindow = min(max(o.StreamWindow, startWindow), maxWindow)
	o.ConnWindow = min(max(o.ConnWindow, startWindow), maxWindow)
	return o
}

func orElse[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// ConnError says why a connection was ended out of order.
type ConnError struct {
	// Code is what our GOAWAY said; NO_ERROR if the connection was lost.
	Code ErrCode
	// Flood names the limit that the client hit, if it was one: "rapid_reset",
	// "settings", "ping", "continuation", "headers", "empty_frames", "window_updates",
	// "useless_frames", "control_queue" or "send_timeout".
	Flood string
	// Err is the cause.
	Err error
}

// Error implements error.
func (e *ConnError) Error() string {
	if e.Flood != "" {
		return fmt.Sprintf("http2: %v: flood of %s: %v", e.Code, e.Flood, e.Err)
	}
	return fmt.Sprintf("http2: %v: %v", e.Code, e.Err)
}

// Unwrap returns the cause.
func (e *ConnError) Unwrap() error { return e.Err }

// connError makes the error of a connection that breaks the protocol.
func connError(code ErrCode, reason string) *ConnError {
	return &ConnError{Code: code, Err: errors.New(reason)}
}

// streamError makes the error of one stream that breaks the protocol.
func streamError(id uint32, code ErrCode, reason string) error {
	return h2.StreamError{StreamID: id, Code: code, Cause: errors.New(reason)}
}

var (
	// ErrReset is wrapped by the errors of a stream that was reset, by whom ever, or
	// whose connection was lost.
	ErrReset = errors.New("stream reset")
	// ErrWriteOrder is the error of writing content before the final head or after the
	// end, of a second final head, and of two writes at once.
	ErrWriteOrder = errors.New("http2: written out of order")
	// ErrInvalidHead is the error of a status or a field that may not be sent. Nothing
	// of it has been written.
	ErrInvalidHead = errors.New("http2: a status or a field to be written is malformed")
)

// ResetError is the error of a stream that was reset. It wraps ErrReset, and
// syscall.ECONNRESET if it was not us.
type ResetError struct {
	Code  ErrCode
	Local bool // we did
}

// Error implements error.
func (e *ResetError) Error() string {
	if e.Local {
		return "stream reset: " + e.Code.String()
	}
	return "stream reset by the client: " + e.Code.String()
}

// Cancelled reports whether the client has merely no more use for the stream, as when a browser's page is left.
func (e *ResetError) Cancelled() bool {
	return !e.Local && (e.Code == ErrCodeCancel || e.Code == ErrCodeNo)
}

// Unwrap returns what the error is to those who know nothing of streams.
func (e *ResetError) Unwrap() []error {
	if e.Local {
		return []error{ErrReset, net.ErrClosed}
	}
	return []error{ErrReset, syscall.ECONNRESET}
}

// lostError is the error of a stream whose connection has ended under it.
type lostError struct{ cause error }

// Error implements error.
func (e *lostError) Error() string { return fmt.Sprintf("connection of the stream ended: %v", e.cause) }

// Unwrap returns what the error is to those who know nothing of streams, and the cause.
func (e *lostError) Unwrap() []error { return []error{ErrReset, syscall.ECONNRESET, e.cause} }
