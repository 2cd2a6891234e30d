package socks4

import (
	"errors"
	"fmt"
	"io"
	"os"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/socks"
	"polyport/mux"
)

// Reasons for the record that are not package egress's.
const (
	requestError     = "http_request_error" // RFC 9209 section 2.3: the request itself is at fault
	handshakeTimeout = "handshake_timeout"
	closedEarly      = string(mux.ClosedEarly)
)

// refusal is why a session failed, together with the reply that the client gets for it.
type refusal struct {
	code   socks.Code4
	reason string // for the record; "" where the session has noted one
	err    error
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.err }

// refusalFor refuses for an error of package egress, whose reason the session has noted.
func refusalFor(err error) *refusal {
	code := codeFor(err)
	if code == socks.WrongIdentity {
		err = fmt.Errorf("SOCKS4 carries no password; use SOCKS5, or a rule with anonymous = true: %w", err)
	}
	return &refusal{code, "", err}
}

// reasonFor names what went wrong before there was anything to answer.
func reasonFor(err error) string {
	switch {
	case errors.Is(err, socks.ErrMalformed):
		return requestError
	case errors.Is(err, os.ErrDeadlineExceeded):
		return handshakeTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return closedEarly
	}
	return string(egress.ConnectionTerminated)
}

// codeFor is CD for an error of Authorize or Dial: 93 where a user would have
// helped, which is the closest that the protocol has, else 91.
func codeFor(err error) socks.Code4 {
	var e *egress.Error
	if errors.As(err, &e) && (e.Decision.Action == acl.Challenge || e.Decision.Reason == acl.ReasonNeedsUser) {
		return socks.WrongIdentity
	}
	return socks.Rejected
}
