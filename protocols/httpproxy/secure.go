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

	"polyport/internal/http1"
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

// secure opens TLS on a connection that was dialled for c.dest (RFC 9110 section 4.2.2). It owns conn. The error
// is a *handshakeError.
func (c *client) secure(conn net.Conn) (*origin, error) {
	timeout := c.s.Timeouts().Connect
	if timeout == 0 {
		timeout = defaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(c.t.ctx, timeout)
	defer cancel()
	config := c.h.tls.Clone()
	config.ServerName = c.dest.target.Host()
	w := newWire(conn)
	secured := tls.Client(w, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // nothing of it is wanted any more
		return nil, &handshakeError{err}
	}
	return newSecureOrigin(secured, w, c.t.key), nil
}

// wire is the connection below a TLS connection. It can be read without waiting, which
// is how an idle TLS connection is looked at: what has come may be a session ticket (RFC 8446 section 4.6.1) and
// no sign of anything, and only TLS itself can tell.
type wire struct {
	net.Conn
	tcp       *net.TCPConn // Conn where it is a bare one; else nil
	impatient bool         // Read takes what is there
	ended     bool         // Read has met the end
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn}
	w.tcp, _ = conn.(*net.TCPConn)
	return w
}

// Read implements io.Reader.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.impatient {
		n, err = receive(w.tcp, p)
	} else {
		n, err = w.Conn.Read(p)
	}
	w.ended = w.ended || err == io.EOF
	return n, err
}

// SetLinger is TCP's, so that whoever aborts the TLS connection can send a reset.
func (w *wire) SetLinger(sec int) error {
	if w.tcp == nil {
		return errors.ErrUnsupported
	}
	return w.tcp.SetLinger(sec)
}

// quiet reports whether the peer of above, the idle TLS connection over w, has neither said nor closed anything. It
// takes in what belongs to TLS alone. It is false where nobody can look without waiting.
func (w *wire) quiet(above net.Conn) bool {
	if w.tcp == nil {
		return false
	}
	w.impatient = true
	defer func() { w.impatient = false }()
	var b [1]byte
	n, err := above.Read(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// strict is a TLS connection whose end is an error where the peer has not said that it is the end: a body that ends
// with the connection may have been cut short then (RFC 9112 section 9.8). Package tls lets that pass.
type strict struct {
	*tls.Conn
	wire *wire
}

// Read implements io.Reader.
func (c strict) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.wire.ended {
		err = io.ErrUnexpectedEOF
	}
	return n, err
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
	if errors.As(err, &h) {
		return tlsRefusal(err)
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
