package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"polyport/internal/http1"
	"polyport/internal/socks"
)

// The tokens of RFC 9209 section 2.3 that an Error has.
const (
	reasonRefused       = "connection_refused"
	reasonTerminated    = "connection_terminated"
	reasonTimeout       = "connection_timeout"
	reasonLimit         = "connection_limit_reached"
	reasonUnavailable   = "destination_unavailable"
	reasonNotFound      = "destination_not_found"
	reasonUnroutable    = "destination_ip_unroutable"
	reasonDenied        = "http_request_denied"
	reasonProtocol      = "http_protocol_error"
	reasonConfiguration = "proxy_configuration_error"
	reasonInternal      = "proxy_internal_error"
	reasonLoop          = "proxy_loop_detected"
	reasonCertificate   = "tls_certificate_error"
	reasonAlert         = "tls_alert_received"
	reasonTLS           = "tls_protocol_error"
)

// Error says why a proxy gave no tunnel.
type Error struct {
	// Reason is an RFC 9209 section 2.3 token.
	Reason string
	// Server says that the proxy itself is at fault, so that another may do better. Else it is the target, or what was
	// asked for.
	Server bool
	// Unasked says that this proxy cannot be asked for what was wanted, and was not. It says nothing of the proxy, and another one may do.
	Unasked bool
	// Heard says that the proxy is alive but gave no answer about the target, and what it did instead says nothing of the proxy: it had
	// answered before it was asked, and was silent then or closed the connection, as some do in the place of an answer; or it wants fewer requests;
	// or it does not carry UDP, which says nothing of its tunnels.
	Heard bool
	// Status is what the proxy answered: an HTTP status, a SOCKS code, or its choice of method; 0 if it gave none.
	Status int
	// Proxy is the proxy as Proxy.String has it.
	Proxy string
	// Err is the cause; nil where the proxy's answer says it all.
	Err error

	words string // the rest of the sentence that begins with the proxy
}

// Error says in words what happened, and what to do where something can be done.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("upstream ")
	b.WriteString(e.Proxy)
	b.WriteByte(' ')
	if e.words == "" {
		b.WriteString("failed (" + e.Reason + ")")
	}
	b.WriteString(e.words)
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// unusable is the error of what the proxy cannot be asked for.
func (p *Proxy) unusable(words string, cause error) *Error {
	return &Error{Reason: reasonConfiguration, Unasked: true, Proxy: p.name, Err: cause, words: words}
}

// undialled is the error of a connection that did not come about.
func (p *Proxy) undialled(ctx context.Context, err error) *Error {
	e := &Error{Reason: reasonUnavailable, Server: true, Proxy: p.name, Err: err, words: "cannot be reached"}
	var hop *Error // of a proxy in front of this one
	switch {
	case errors.Is(ctx.Err(), context.Canceled), errors.Is(err, context.Canceled):
		e.Reason, e.Server = reasonTerminated, false
	case errors.As(err, &hop):
		e.Reason = hop.Reason
	case isTimeout(err):
		e.Reason = reasonTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Reason = reasonRefused
	case errors.Is(err, syscall.ECONNRESET):
		e.Reason = reasonTerminated
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		e.Reason = reasonUnroutable
	}
	return e
}

// broken is the error of a handshake that came to no answer.
func (p *Proxy) broken(err error) *Error {
	e := &Error{Reason: reasonTerminated, Server: true, Proxy: p.name, Err: err}
	var malformed *http1.ParseError
	switch {
	case errors.Is(err, context.Canceled):
		e.Server, e.words = false, "was not waited for"
	case isTimeout(err):
		e.Reason, e.words = reasonTimeout, "was silent until the time allowed was over"
	case errors.As(err, &malformed):
		e.Reason, e.words = reasonProtocol, "does not answer like an HTTP proxy: check its scheme and port"
	case errors.Is(err, socks.ErrMalformed):
		e.words = "does not answer like a SOCKS proxy: check its scheme and port"
	case isRemoteAlert(err):
		e.Reason, e.words = reasonAlert, "ended TLS: perhaps it wants a client certificate, see tls in [upstream.NAME]"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.words = "closed the connection without an answer"
	default:
		e.words = "broke off the handshake"
	}
	return e
}

// unanswered is broken for a request for a target, from a proxy that had answered before if heard says so.
func (p *Proxy) unanswered(err error, heard bool) *Error {
	e := p.broken(err)
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
	e.Heard = heard && (e.Reason == reasonTimeout || closed)
	return e
}

// insecure is the error of a TLS handshake.
func (p *Proxy) insecure(err error) *Error {
	e := &Error{Reason: reasonTLS, Server: true, Proxy: p.name, Err: err}
	var (
		certificate *tls.CertificateVerificationError
		header      tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.Canceled), isTimeout(err):
		return p.broken(err)
	case errors.As(err, &certificate):
		e.Reason = reasonCertificate
		e.words = "shows a certificate that is not trusted: check ca and server_name of tls in [upstream.NAME]"
	case isRemoteAlert(err):
		e.Reason, e.words = reasonAlert, "refused the TLS handshake"
	case errors.As(err, &header):
		e.words = "does not speak TLS: check its scheme and port"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		e.Reason, e.words = reasonTerminated, "closed the connection in the TLS handshake"
	default:
		e.words = "failed in the TLS handshake"
	}
	return e
}

// isRemoteAlert reports whether the peer sent a TLS alert, which crypto/tls has no exported type for.
func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// isTimeout reports whether a deadline has passed.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// unauthorized is the error of credentials that are missing or wrong. said is the proxy's way to say so.
func (p *Proxy) unauthorized(status int, said string) *Error {
	e := &Error{Reason: reasonConfiguration, Server: true, Status: status, Proxy: p.name}
	if p.user == "" && p.password == "" {
		e.words = "requires a user (" + said + "): set user and password in [upstream.NAME]"
	} else {
		// The user is not named: with some providers it is the secret.
		e.words = "refused the user (" + said + "): check its user and password in [upstream.NAME]"
	}
	return e
}

// refusedStatus is the error of an HTTP status that is no 2xx.
func (p *Proxy) refusedStatus(answer connectAnswer, to Destination) *Error {
	status := answer.status
	if status == 407 {
		return p.unauthorized(status, "HTTP status 407")
	}
	e := &Error{Reason: reasonUnavailable, Status: status, Proxy: p.name}
	said := "(HTTP status " + strconv.Itoa(status) + ")"
	switch {
	case answer.loop: // no fault of one server, or each gateway in the circle would ask all that it has
		e.Reason, e.words = reasonLoop, "says that CONNECT to "+to.String()+" goes round in a circle "+said
	case status == 400: // a client can bring that about by what it asks for
		e.Reason, e.words = reasonConfiguration, "does not understand CONNECT to "+to.String()+" "+said
	case status == 401, status == 405, status == 501, status < 400:
		e.Reason, e.Server = reasonConfiguration, true
		e.words = "does not take CONNECT " + said + ": it is no proxy for tunnels, or its URL names the wrong port"
	case status == 404:
		e.Reason, e.words = reasonNotFound, "does not find "+to.String()+" "+said
	case status == 429:
		e.Reason, e.Server, e.Heard, e.words = reasonLimit, true, true, "wants fewer requests "+said
	case status < 500:
		e.Reason, e.words = reasonDenied, "does not allow "+to.String()+" "+said
	case status == 504:
		e.Reason, e.words = reasonTimeout, "had no answer from "+to.String()+" "+said
	default: // 500 too, by which tinyproxy says that it cannot connect
		e.words = "cannot reach " + to.String() + " " + said
	}
	return e
}

// refused5 is the error of a SOCKS5 reply that is not Succeeded.
func (p *Proxy) refused5(code socks.Code5, command socks.Command, what string) *Error {
	// UDP ASSOCIATE names no target, so another proxy may do; and clients who want UDP must not have the tunnels of others end here.
	e := &Error{Reason: reasonUnavailable, Heard: command == socks.UDPAssociate, Status: int(code), Proxy: p.name}
	said := fmt.Sprintf("(SOCKS5 code %02X, %v)", byte(code), code)
	e.words = "cannot reach " + what + " " + said
	if e.Heard {
		e.words = "gives no relay for " + what + " " + said
	}
	switch code {
	case socks.NotAllowed:
		e.Reason, e.words = reasonDenied, "does not allow "+what+" "+said
	case socks.NetworkUnreachable, socks.HostUnreachable, socks.AddressTypeNotSupported:
		e.Reason = reasonUnroutable
	case socks.ConnectionRefused:
		e.Reason = reasonRefused
	case socks.TTLExpired:
		e.Reason = reasonTimeout
	case socks.CommandNotSupported:
		// Without the target, as all that is said of a proxy itself: it is remembered, and shown to others.
		e.Reason, e.Server, e.words = reasonConfiguration, true, "does not serve "+command.String()+" "+said
	}
	return e
}

// refused4 is the error of a SOCKS4 reply that is not Granted.
func (p *Proxy) refused4(code socks.Code4, to Destination) *Error {
	said := fmt.Sprintf("SOCKS4 code %d, %v", byte(code), code)
	switch code {
	case socks.NoIdentd, socks.WrongIdentity:
		return p.unauthorized(int(code), said)
	case socks.Rejected:
		return &Error{
			Reason: reasonUnavailable, Status: int(code), Proxy: p.name,
			words: "cannot reach " + to.String() + ", or does not allow it (" + said + ")",
		}
	}
	return p.broken(fmt.Errorf("%w: code %d", socks.ErrMalformed, byte(code)))
}
