package socks5

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

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

// refusal is why a session failed, together with the last message that the
// client gets for it.
type refusal struct {
	message []byte
	code    int    // for the record
	reason  string // for the record; "" where the session has noted one
	err     error
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.err }

// refuseWith refuses in a reply (RFC 1928 section 6).
func refuseWith(code socks.Code5, reason string, err error) *refusal {
	return &refusal{message: reply(code, socks.Address{}), code: int(code), reason: reason, err: err}
}

// noMethod refuses a greeting (RFC 1928 section 3).
func noMethod(g socks.Greeting) *refusal {
	r := &refusal{message: socks.AppendSelection(nil, socks.NoAcceptable), code: int(socks.NoAcceptable), reason: requestError}
	switch {
	case !g.Offers(socks.NoAuthentication) && !g.Offers(socks.UsernamePassword):
		r.err = fmt.Errorf("the client offers only the SOCKS5 methods %x; 00 (none) and 02 (username/password) are served", g.Methods)
	case g.Offers(socks.NoAuthentication):
		r.reason = acl.ReasonNeedsUser
		r.err = errors.New("a user is required and the client offers none; give the SOCKS5 client a user name and a password")
	default:
		r.err = errors.New("the client insists on a password (SOCKS5 method 02) and there are no users; leave the user name out, or write [auth]")
	}
	return r
}

// badCredentials refuses a username/password request (RFC 1929 section 2). The session has noted the reason.
func badCredentials(err error) *refusal {
	return &refusal{message: socks.AppendStatus(nil, socks.StatusFailure), code: int(socks.StatusFailure), err: err}
}

// refuse gives the client the answer to err, if there is one, and notes it. A
// client that has gone away, or whose message is malformed, gets none.
func refuse(s conversation, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		s.SetReason(reasonFor(err))
		return err
	}
	s.SetStatus(r.code)
	if r.reason != "" {
		s.SetReason(r.reason)
	}
	if werr := answer(s, r.message); werr != nil {
		return errors.Join(err, werr)
	}
	return err
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

// codeFor is REP for an error of Authorize or Dial (RFC 1928 section 6). A target that does not answer
// in time is "TTL expired", as with other servers: the RFC has no better word.
func codeFor(err error) socks.Code5 {
	var e *egress.Error
	if !errors.As(err, &e) {
		return socks.GeneralFailure
	}
	switch e.Reason {
	case egress.RequestDenied, egress.DestinationProhibited, egress.LoopDetected:
		return socks.NotAllowed
	case egress.ConfigurationError:
		return socks.CommandNotSupported
	case egress.DNSError, egress.DNSTimeout, egress.DestinationUnavailable:
		return socks.HostUnreachable
	case egress.DestinationUnroutable:
		if errors.Is(err, syscall.EHOSTUNREACH) {
			return socks.HostUnreachable
		}
		return socks.NetworkUnreachable
	case egress.ConnectionRefused:
		return socks.ConnectionRefused
	case egress.ConnectionTimeout:
		return socks.TTLExpired
	}
	return socks.GeneralFailure
}

// connectCodeFor is codeFor for CONNECT, which is a command that is served, also where an upstream refuses our credentials.
func connectCodeFor(err error) socks.Code5 {
	if code := codeFor(err); code != socks.CommandNotSupported {
		return code
	}
	return socks.GeneralFailure
}
