package egress

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// Reason is why a session could not reach its target: an error token of
// RFC 9209 section 2.3.
type Reason string

// The reasons that egress gives (RFC 9209 section 2.3).
const (
	DNSTimeout             Reason = "dns_timeout"
	DNSError               Reason = "dns_error"
	DestinationUnavailable Reason = "destination_unavailable"
	DestinationProhibited  Reason = "destination_ip_prohibited"
	DestinationUnroutable  Reason = "destination_ip_unroutable"
	ConnectionRefused      Reason = "connection_refused"
	ConnectionTerminated   Reason = "connection_terminated"
	ConnectionTimeout      Reason = "connection_timeout"
	LimitReached           Reason = "connection_limit_reached"
	RequestDenied          Reason = "http_request_denied"
	InternalError          Reason = "proxy_internal_error"
	LoopDetected           Reason = "proxy_loop_detected"
	ConfigurationError     Reason = "proxy_configuration_error"
)

// dnsReason returns the token for an error of the Resolver.
func dnsReason(err error) Reason {
	switch {
	case errors.Is(err, context.Canceled):
		return ConnectionTerminated
	case isTimeout(err):
		return DNSTimeout
	}
	return DNSError
}

// connectReason returns the token for an error of connecting to one address.
func connectReason(err error) Reason {
	switch {
	case isSourceError(err):
		return ConfigurationError
	case isOurs(err):
		return DestinationUnroutable
	case errors.Is(err, errNotPinned):
		return DestinationProhibited
	case errors.Is(err, context.Canceled):
		return ConnectionTerminated
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return ConnectionTimeout
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errnoReason(errno)
	}
	if isTimeout(err) {
		return ConnectionTimeout
	}
	return DestinationUnavailable
}

// errnoReason returns the token for what socket(2), bind(2) or connect(2) said.
func errnoReason(errno syscall.Errno) Reason {
	switch errno {
	case syscall.ECONNREFUSED:
		return ConnectionRefused
	case syscall.ETIMEDOUT:
		return ConnectionTimeout
	case syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE:
		return ConnectionTerminated
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
		syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EINVAL, syscall.EACCES, syscall.EPERM:
		// EADDRNOTAVAIL is a machine without an address of that family, as in
		// many containers, and also one that has no local port left for this
		// target; EINVAL is a link-local address, which means nothing without a
		// zone; EACCES and EPERM are a broadcast address or a local firewall.
		return DestinationUnroutable
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		return LimitReached
	}
	return DestinationUnavailable
}

// isSourceError reports whether the socket could not be made to leave as its exit says.
func isSourceError(err error) bool {
	var s *sourceError
	return errors.As(err, &s)
}

// isTimeout reports whether err calls itself a timeout.
func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
