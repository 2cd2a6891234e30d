package httpproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"polyport/internal/egress"
	"polyport/internal/http1"
	"polyport/internal/tlsconn"
)

// sessionsKept bounds the TLS sessions that are kept for resumption, one for each host name.
const sessionsKept = 256

// defaultConnectTimeout bounds a TLS handshake where nobody says how long.
const defaultConnectTimeout = 10 * time.Second

// originTLS is the configuration of TLS connections to origins: certificates are verified against
// the system's roots, and no protocol is offered but the one that is spoken.
func originTLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionsKept),
	}
}

// fetchesTLS reports whether the request is for an https URI that will be fetched, which no event loop can do.
func (c *client) fetchesTLS() bool {
	return c.h.tls != nil && http1.EqualFold(c.req.Target.Scheme, "https")
}

// secure opens TLS on a connection that was dialled for c.dest (RFC 9110 section 4.2.2). It owns link. The error
// is a *handshakeError.
func (c *client) secure(link egress.Link) (egress.Link, error) {
	timeout := c.s.Timeouts().Connect
	if timeout == 0 {
		timeout = defaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(c.t.ctx, timeout)
	defer cancel()
	config := c.h.tls.Clone()
	config.ServerName = c.dest.target.Host()
	secured := tlsconn.Client(link.Conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = link.Conn.Close() // nothing of it is wanted any more
		link.Release()
		return egress.Link{}, &handshakeError{err}
	}
	link.Conn = secured
	return link, nil
}

// handshakeError is why there is no TLS connection to an origin that was reached.
type handshakeError struct{ err error }

// Error implements error.
func (e *handshakeError) Error() string {
	return fmt.Sprintf("TLS handshake with the target: %v", e.err)
}

// Unwrap returns the cause.
func (e *handshakeError) Unwrap() error { return e.err }

// dialRefusal maps why there is no connection to an origin to an answer. It is pure.
func dialRefusal(err error) *refusal {
	var h *handshakeError
	switch {
	case errors.As(err, &h):
		return tlsRefusal(err)
	case errors.Is(err, errSpokeFirst):
		return originRefusal(err)
	}
	return forEgress(err)
}

// tlsRefusal maps what went wrong with TLS between us and an origin to an answer. It is pure.
func tlsRefusal(err error) *refusal {
	r := &refusal{status: statusBadGateway, err: err}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &certificate):
		r.reason, r.says = tlsCertificateError, certificateSays(certificate.Err)
	case isAlert(err):
		r.params = alertParams(err)
		r.reason, r.says = tlsAlertReceived, "The target broke off TLS with an alert."
	case errors.Is(err, context.Canceled):
		r.status, r.reason, r.says = statusUnavailable, connectionTerminated, "This proxy is shutting down."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		r.status, r.reason, r.says = statusGatewayTimeout, connectionTimeout, "The target did not finish the TLS handshake in time."
	case isClosed(err), errors.Is(err, io.ErrUnexpectedEOF):
		r.reason, r.says = connectionTerminated, "The target closed the connection during the TLS handshake."
	case errors.As(err, &record):
		r.reason, r.says = tlsProtocolError, "The target does not speak TLS on that port."
	default:
		r.reason, r.says = tlsProtocolError, "The target and this proxy could not agree on how to speak TLS."
	}
	return r
}

// certificateSays is the sentence for a certificate that was not accepted.
func certificateSays(err error) string {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return "The target's certificate is for another name."
	case errors.As(err, &unknown):
		return "The target's certificate was issued by nobody whom this proxy trusts."
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "The target's certificate has expired, or is not valid yet."
	}
	return "The target's certificate cannot be trusted."
}

// isTLSError reports whether an established TLS connection has failed as such.
func isTLSError(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && (e.Op == "remote error" || e.Op == "local error")
}

// isAlert reports whether err is an alert of the peer's (RFC 8446 section 6.2).
func isAlert(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "remote error"
}
