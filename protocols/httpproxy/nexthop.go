package httpproxy

import (
	"errors"
	"fmt"
	"strings"

	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/internal/upstream"
)

// configurationError is the token for what only the owner of this proxy can mend (RFC 9209 section 2.3).
const configurationError = token(egress.ConfigurationError)

// destinationNotFound is what an upstream proxy says that answers CONNECT with 404 (RFC 9209 section 2.3).
const destinationNotFound egress.Reason = "destination_not_found"

// Faults of the next hop that are found here and not on the wire.
var (
	errUpstreamChallenge = errors.New("requires a user, or another than it was sent (HTTP status 407): check user and password in [upstream.NAME]")
	errSpokeFirst        = errors.New("the target spoke before it was asked for anything")
)

// upstreamRefusal is forEgress for what went wrong on the way through an upstream. It tells the client which server took part, never
// with what credentials.
func upstreamRefusal(e *egress.Error, err error) *refusal {
	var said *upstream.Error
	hop := e.Upstream
	r := &refusal{reason: token(e.Reason), err: err, egress: e}
	switch {
	case errors.As(e.Err, &said):
		hop = said.Proxy
	case e.Address.IsValid():
		hop = e.Address.String() // of the server that was not reached
	}
	r.params = append(nextHop(hop), answerParams(said)...)
	r.status, r.says = egressAnswer(e.Reason)
	ours := said == nil && (e.Reason == egress.LimitReached || e.Reason == egress.ConfigurationError)
	switch {
	case ours:
	case e.Reason == egress.LoopDetected && said != nil:
		r.says = "The upstream proxy says that this request goes round in a circle. Only whoever runs this proxy can end that."
	case said == nil || said.Server:
		r.says = "The upstream proxy " + upstreamFault(e.Reason) + " Only whoever runs this proxy can tell more."
	case e.Reason == egress.RequestDenied:
		r.says = "The upstream proxy does not allow this request."
	}
	return r
}

// upstreamFault is the rest of the sentence that begins with the upstream proxy, which is at fault itself.
func upstreamFault(r egress.Reason) string {
	switch r {
	case egress.ConfigurationError:
		return "cannot be used as this proxy is configured."
	case egress.DNSError, egress.DNSTimeout:
		return "has a name that could not be resolved."
	case egress.ConnectionTimeout:
		return "did not answer in time."
	case egress.ConnectionRefused:
		return "refused the connection."
	case egress.ConnectionTerminated:
		return "closed the connection before it answered."
	case egress.LimitReached:
		return "takes no more connections at the moment."
	case egress.Reason(protocolError):
		return "does not answer as one."
	case egress.Reason(tlsCertificateError):
		return "has a certificate that is not trusted."
	case egress.Reason(tlsAlertReceived), egress.Reason(tlsProtocolError):
		return "and this proxy could not agree on TLS."
	case egress.InternalError:
		return "has a fault of its own."
	case egress.LoopDetected:
		return "is this proxy itself."
	}
	return "cannot be reached at the moment."
}

// answerParams says what a proxy had answered: an HTTP status in the parameter that is for it (RFC 9209 section 2.1.4), a code of
// SOCKS in words.
func answerParams(said *upstream.Error) []param {
	switch {
	case said == nil || said.Status == 0:
		return nil
	case !strings.HasPrefix(said.Proxy, "socks"):
		return []param{receivedStatus(said.Status)}
	}
	details, _ := sfString(fmt.Sprintf("SOCKS code %d", said.Status))
	return []param{{"details", details}}
}

// nextHop names the server that a request went to, or was to go to (RFC 9209 section 2.1.2).
func nextHop(name string) []param {
	if s, ok := sfString(name); ok && name != "" {
		return []param{{"next-hop", s}}
	}
	return nil
}

// through completes the refusal of a request that had got as far as a connection through an upstream.
func (c *client) through(r *refusal) *refusal {
	if c.t.hop == "" {
		return r
	}
	r.params = append(nextHop(c.t.hop), r.params...)
	if rest, ok := strings.CutPrefix(r.says, "The target "); ok && c.t.forwarded {
		r.says = "The upstream proxy " + rest
	}
	return r
}

// note notes the way of a connection for the record and for refusals.
func (c *client) note(l *egress.Link) {
	c.t.hop, c.t.forwarded = "", l.Forward != nil
	if l.Upstream != "" {
		c.t.hop = l.Server
	}
}

// unmet is the answer where what a client has added to its user name cannot be had. Another user name would help.
func unmet(err error) *refusal {
	why := err.Error()
	var e *egress.Error
	if errors.As(err, &e) {
		why = e.Err.Error()
	}
	for _, known := range [...]error{session.ErrWish, egress.ErrWish} {
		why = strings.TrimPrefix(why, known.Error()+": ")
	}
	return &refusal{
		status: statusProxyAuthRequired, reason: requestDenied, err: err,
		says: "What your user name asks for cannot be had: " + why + ".",
	}
}

// isUnmet reports whether err is of what a client has added to its user name.
func isUnmet(err error) bool {
	return errors.Is(err, session.ErrWish) || errors.Is(err, egress.ErrWish)
}
