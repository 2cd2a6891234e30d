package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/http1"
)

// token is an error token of a Proxy-Status field (RFC 9209 section 2.3); it is
// also what the record keeps as the reason.
type token string

// The tokens that this package gives by itself; package egress gives the others.
const (
	requestDenied        token = token(egress.RequestDenied)
	requestError         token = "http_request_error"
	protocolError        token = "http_protocol_error"
	responseIncomplete   token = "http_response_incomplete"
	responseTimeout      token = "http_response_timeout"
	responseTransfer     token = "http_response_transfer_coding"
	upgradeFailed        token = "http_upgrade_failed"
	tlsProtocolError     token = "tls_protocol_error"
	tlsCertificateError  token = "tls_certificate_error"
	tlsAlertReceived     token = "tls_alert_received"
	readTimeout          token = "connection_read_timeout"
	connectionTerminated token = token(egress.ConnectionTerminated)
	connectionTimeout    token = token(egress.ConnectionTimeout)
	internalError        token = token(egress.InternalError)
)

// refusal is an answer of our own: what the client is told, and what the record keeps.
type refusal struct {
	status int
	reason token
	params []param // what else the Proxy-Status field says
	// says is the sentence for the person at the client. It never holds bytes of the
	// request; what the error page adds of them is escaped there.
	says string
	// retryAfter is the Retry-After field in whole seconds, rounded up; 0 is none.
	retryAfter time.Duration
	allow      string // the Allow field of a 405
	closes     bool   // the connection ends with this answer
	err        error  // the cause, for the record
	// egress is set where policy or the network said no: the page shows the
	// target and, on a loopback listener, the rule that would admit it.
	egress *egress.Error
}

// Error implements error, for the record.
func (r *refusal) Error() string {
	if r.err != nil {
		return r.err.Error()
	}
	return r.says
}

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.err }

// badRequest is the 400 for a request whose syntax or meaning is wrong. The
// connection ends with it.
func badRequest(err error) *refusal {
	return &refusal{status: statusBadRequest, reason: requestError, says: sentence(err), err: err, closes: true}
}

// challenged is the 407: a user is required, or the credentials were wrong.
func challenged(err error) *refusal {
	return &refusal{
		status: statusProxyAuthRequired, reason: requestDenied, err: err,
		says: "This proxy wants a user name and password.",
	}
}

// certificateWanted is the answer where a user is required and there are no passwords to ask for: a 407
// needs a challenge, and nobody could meet one.
func certificateWanted(err error) *refusal {
	return &refusal{
		status: statusForbidden, reason: requestDenied, err: err,
		says: "This proxy wants a client certificate: connect to it by TLS and present one.",
	}
}

// forPolicy maps what Authorize said to an answer. passwords says whether there are users who have one. It is pure.
func forPolicy(err error, passwords bool) *refusal {
	if r := forEgress(err); r.status != statusProxyAuthRequired || passwords || isUnmet(err) {
		return r
	}
	return certificateWanted(err)
}

// forEgress maps what Authorize and Dial said to an answer. It is pure.
func forEgress(err error) *refusal {
	var e *egress.Error
	if !errors.As(err, &e) {
		return &refusal{
			status: statusInternalError, reason: internalError, err: err,
			says: "The proxy could not handle this request.",
		}
	}
	if e.Decision.Action == acl.Challenge && errors.Is(err, egress.ErrChallenge) {
		return challenged(err)
	}
	switch {
	case isUnmet(err):
		return unmet(err)
	case e.Upstream != "":
		return upstreamRefusal(e, err)
	}
	status, says := egressAnswer(e.Reason)
	return &refusal{status: status, reason: token(e.Reason), params: dnsParams(e), says: says, err: err, egress: e}
}

// egressAnswer is the table from a reason of package egress to a status and a sentence.
func egressAnswer(r egress.Reason) (status int, says string) {
	switch r {
	case egress.RequestDenied:
		return statusForbidden, "The rules of this proxy do not allow this request."
	case egress.DestinationProhibited:
		return statusForbidden, "The target lies in a private or special-purpose address range, " +
			"which this proxy does not reach unless a rule names that range."
	case egress.LoopDetected:
		return statusBadGateway, "The target is this proxy itself."
	case egress.DNSTimeout:
		return statusGatewayTimeout, "The name server did not answer in time."
	case egress.DNSError:
		return statusBadGateway, "The name of the target could not be resolved. Check its spelling."
	case egress.ConnectionTimeout:
		return statusGatewayTimeout, "The target did not answer in time."
	case egress.ConnectionRefused:
		return statusBadGateway, "The target refused the connection: nothing listens on that port."
	case egress.ConnectionTerminated:
		return statusBadGateway, "The target closed the connection before it answered."
	case egress.DestinationUnroutable:
		return statusBadGateway, "There is no route to the target."
	case egress.DestinationUnavailable:
		return statusUnavailable, "The target cannot be reached at the moment."
	case egress.LimitReached:
		return statusUnavailable, "This proxy cannot open more connections at the moment."
	case egress.InternalError:
		return statusInternalError, "The proxy could not handle this request."
	case egress.ConfigurationError:
		return statusInternalError, "The configuration of this proxy is at fault. Only whoever runs it can mend that."
	case destinationNotFound:
		return statusInternalError, "The target could not be found."
	}
	return statusBadGateway, "The target cannot be reached."
}

// originRefusal maps what went wrong between us and an origin that was reached to an
// answer. It is pure.
func originRefusal(err error) *refusal {
	r := &refusal{status: statusBadGateway, err: err}
	var malformed *http1.ParseError
	switch {
	case errors.Is(err, errNotSwitched):
		r.reason, r.says = upgradeFailed, "The target did not switch to the protocol that it was asked for."
	case errors.Is(err, errSwitched):
		r.params = []param{receivedStatus(statusSwitchingProtocols)}
		r.reason, r.says = upgradeFailed, "The target switched to a protocol that it was not asked for."
	case errors.Is(err, errAccept):
		r.reason, r.says = upgradeFailed, "The target did not understand that it was asked for a WebSocket."
		r.params = []param{receivedStatus(statusSwitchingProtocols)}
	case errors.As(err, &malformed):
		r.reason, r.says = protocolError, "The target answered with what is not valid HTTP."
	case errors.Is(err, errUpstreamChallenge):
		r.params = []param{receivedStatus(statusProxyAuthRequired)}
		r.reason, r.says = configurationError, "The upstream proxy does not take the user name and password of this proxy. "+
			"Yours are not meant: only whoever runs this proxy can set the right ones."
	case errors.Is(err, errSpokeFirst):
		r.reason, r.says = protocolError, "The target spoke before it was asked for anything, which no web server does."
	case errors.Is(err, errProxyChallenge):
		r.params = []param{receivedStatus(statusProxyAuthRequired)}
		r.reason, r.says = protocolError, "The target asked for a proxy password, which no web server may."
	case errors.Is(err, http1.ErrInvalidHead), errors.Is(err, http1.ErrWriteOrder):
		r.status, r.reason, r.says = statusInternalError, internalError, "The proxy could not handle this request."
	case errors.Is(err, context.Canceled):
		r.status, r.reason, r.says = statusUnavailable, connectionTerminated, "This proxy is shutting down."
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.status, r.reason, r.says = statusGatewayTimeout, responseTimeout, "The target did not answer in time."
	case isTLSError(err):
		return tlsRefusal(err)
	case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		r.reason, r.says = responseIncomplete, "The target closed the connection in the middle of its answer."
	default:
		r.reason, r.says = connectionTerminated, "The target closed the connection before it answered."
	}
	return r
}

// isClosed reports whether err says that the peer has ended the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// forAuth maps what Authenticate said to an answer. now turns the end of a ban
// into seconds. A lockout is 429 (RFC 6585 section 4) and not 407, so that
// clients stop asking for a password that would not be looked at; a full hasher is 503.
func forAuth(err error, now time.Time) *refusal {
	var locked *auth.LockedOutError
	switch {
	case errors.As(err, &locked):
		return &refusal{
			status: statusTooManyRequests, reason: requestDenied, err: err, retryAfter: max(locked.Until.Sub(now), time.Second),
			says: "Too many wrong passwords came from this address. Wait before you try again.",
		}
	case errors.Is(err, auth.ErrLockedOut):
		return &refusal{
			status: statusTooManyRequests, reason: requestDenied, err: err, retryAfter: time.Minute,
			says: "Too many wrong passwords came from this address. Wait before you try again.",
		}
	case isUnmet(err):
		return unmet(err)
	case errors.Is(err, auth.ErrBusy), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &refusal{
			status: statusUnavailable, reason: internalError, err: err, retryAfter: time.Second,
			says: "The proxy is checking too many passwords at once. Try again in a moment.",
		}
	}
	return challenged(err)
}

// sentence makes an error of ours a sentence for a page.
func sentence(err error) string {
	s := err.Error()
	if s == "" {
		return "The request is malformed."
	}
	if c := s[0]; c >= 'a' && c <= 'z' {
		s = string(c-'a'+'A') + s[1:]
	}
	return s + "."
}

// ruleFor is the [[rule]] table that would admit what e refused; "" where none would.
func ruleFor(e *egress.Error) string {
	switch e.Reason {
	case egress.RequestDenied, egress.DestinationProhibited:
	default:
		return ""
	}
	if e.Upstream != "" {
		return "" // it was not we who refused
	}
	name := e.Target.Host()
	addr, literal := e.Target.Addr()
	if e.Reason == egress.DestinationProhibited && !literal {
		if addr = e.Address.Addr(); !addr.IsValid() {
			return ""
		}
		literal = true
	}
	if literal {
		name = netip.PrefixFrom(addr, addr.BitLen()).String() // the guard yields to prefixes alone
	}
	return fmt.Sprintf("[[rule]]\naction = \"allow\"\ntarget = [%q]\nport   = [\"%d\"]\n", name, e.Target.Port())
}
