// Package clienthello reads the first message of a TLS connection, the
// ClientHello (RFC 8446 section 4.1.2), for those who only want to know where
// the client is going: server name, application protocols, versions, and whether Encrypted
// ClientHello is in use. It answers nothing but a fatal alert, checks no
// certificate and decrypts nothing; what it has read is returned for replay.
package clienthello

import (
	"errors"
	"fmt"
	"io"
)

// Hello is what a ClientHello says in the clear. All of it is the client's
// word: nothing here is authenticated.
type Hello struct {
	// ServerName is the host_name of the server_name extension (RFC 6066
	// section 3) as sent, in any case; "" when there is none. Under ECH it is the
	// public name of the client-facing server, a decoy.
	ServerName string
	// ALPN lists the application protocols (RFC 7301) in the client's order of preference.
	ALPN []string
	// Versions lists the offered protocol versions in the client's order, without
	// GREASE (RFC 8701). For a hello without supported_versions they follow
	// from its legacy_version; empty means nothing newer than SSL 3.0.
	Versions []uint16
	// ECH reports whether the encrypted_client_hello extension is there (RFC
	// 9849). Browsers also send it as GREASE, so it proves nothing by itself.
	ECH bool
}

// Version returns the highest version that is offered, in the way that logs
// write it ("TLSv1.3"); an unknown one counts for nothing.
func (h Hello) Version() string {
	best := uint16(0x0300)
	for _, v := range h.Versions {
		if v > best && v <= 0x0304 {
			best = v
		}
	}
	switch best {
	case 0x0304:
		return "TLSv1.3"
	case 0x0303:
		return "TLSv1.2"
	case 0x0302:
		return "TLSv1.1"
	case 0x0301:
		return "TLSv1.0"
	}
	return "SSLv3"
}

// Error is a message that is no usable ClientHello. Its values are the Err
// variables of this package; test with errors.Is, or with errors.As for the alert.
type Error struct {
	Alert  Alert // what to answer
	reason string
}

// Error implements error.
func (e *Error) Error() string { return e.reason }

// What can be wrong with a ClientHello. A connection that ends too early is not
// among them: that error wraps io.EOF, io.ErrUnexpectedEOF or the reader's own.
var (
	ErrNotTLS     = &Error{AlertUnexpectedMessage, "something other than a TLS handshake record came before the ClientHello was complete"}
	ErrSSLv2      = &Error{AlertProtocolVersion, "the client speaks SSL 2.0, which RFC 6176 prohibits"}
	ErrNotHello   = &Error{AlertUnexpectedMessage, "the first handshake message is not a ClientHello"}
	ErrEmpty      = &Error{AlertDecodeError, "an empty handshake record came before the ClientHello was complete"}
	ErrOverflow   = &Error{AlertRecordOverflow, "a record is longer than the 16384 bytes of RFC 8446 section 5.1"}
	ErrTooLarge   = &Error{AlertDecodeError, "the ClientHello is larger than 64 KiB"}
	ErrFragmented = &Error{AlertDecodeError, "the ClientHello is cut into too many records"}
	ErrMalformed  = &Error{AlertDecodeError, "the ClientHello cannot be decoded"}
)

// Limits on what a client may make us hold.
const (
	// MaxMessage bounds the handshake message with its header, in bytes.
	MaxMessage = 64 << 10
	// maxRaw bounds the message together with its record headers: room for a
	// 16 KiB hello in records of one byte.
	maxRaw = 128 << 10
	// firstRead holds all of a common hello, with post-quantum key shares too.
	firstRead = 2 << 10
	// maxEmptyReads is how often a reader may return nothing, and no error.
	maxEmptyReads = 16
)

// Read reads one ClientHello from r: as bytes come, however the message is cut
// into segments and records, and not one byte beyond its end. raw is everything
// that was read of r, also beside an error; the caller owns it. The error
// wraps an *Error for bytes that are no ClientHello, else the reader's, where io.EOF
// in mid-message has become io.ErrUnexpectedEOF.
func Read(r io.Reader) (h Hello, raw []byte, err error) {
	s := scanner{raw: make([]byte, 0, firstRead)}
	for empty := 0; ; {
		n, readErr := r.Read(s.space())
		s.raw = s.raw[:len(s.raw)+n]
		done, err := s.scan()
		switch {
		case err != nil:
			return Hello{}, s.raw, fmt.Errorf("read ClientHello: %w", err)
		case done:
			h, err := parse(s.message())
			return h, s.raw, err
		case readErr != nil:
			return Hello{}, s.raw, fmt.Errorf("read ClientHello: %w", cutShort(readErr, len(s.raw)))
		case n > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return Hello{}, s.raw, fmt.Errorf("read ClientHello: %w", io.ErrNoProgress)
			}
		}
	}
}

// Peek looks for a ClientHello in bytes that have arrived, and consumes and
// keeps none of them. whole is false while more are needed. The error wraps an *Error.
func Peek(b []byte) (h Hello, whole bool, err error) {
	s := scanner{raw: b}
	if whole, err = s.scan(); err != nil {
		return Hello{}, false, fmt.Errorf("read ClientHello: %w", err)
	}
	if whole {
		h, err = parse(s.message())
	}
	return h, whole, err
}

// cutShort tells a client that hung up in mid-message from one that sent nothing.
func cutShort(err error, n int) error {
	if n > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
