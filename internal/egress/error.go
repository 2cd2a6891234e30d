package egress

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"

	"polyport/acl"
	"polyport/internal/target"
)

var (
	// ErrDenied is the cause of an Error when the policy, the guard or the
	// check for loops said no.
	ErrDenied = errors.New("denied")
	// ErrChallenge is the cause of an Error when credentials might help. It is
	// not an ErrDenied.
	ErrChallenge = errors.New("a user is required")
	// errNotPinned is what the last check before connect(2) says of an address
	// that the permit does not hold. It means a fault in this package.
	errNotPinned = errors.New("the address is not one of those that were checked")
	// errNoAddress is a Resolver that answers with neither an address nor an error.
	errNoAddress  = errors.New("the name has no address")
	errNoResolver = errors.New("no resolver is set up")
	errNoServer   = errors.New("the backend has no server")
	errNoTarget   = errors.New("the request names no target")
	errNoPermit   = errors.New("there is no permit")
	errNotTCP     = errors.New("what was dialled is no TCP connection")
)

// Error is the error of Authorize, Dial and what belongs to BIND. Err keeps the cause.
type Error struct {
	Reason Reason
	Target target.Target
	// Address is what was dialled, or the address that was denied; invalid
	// where there was none or several.
	Address netip.AddrPort
	// Backend is the backend whose servers were dialled; "" for a target of the client's.
	Backend string
	// Upstream is the upstream through which the target was to be reached; "" for none.
	Upstream string
	// Server is the server of Upstream that has answered that it cannot reach the target; "" where none has, or the fault is its own.
	Server string
	// Exit is the exit by which it was to be reached; "" for none.
	Exit     string
	Bind     bool         // the target was to connect to us
	Decision acl.Decision // of a denied request; says Challenge where credentials might help
	Err      error
	noProxy  bool // it is the fault of proxies on the way, so another target would fare no better
}

// Error implements error. It names the target as it was asked for, so it holds
// nothing that the client did not send in the clear.
func (e *Error) Error() string {
	if !e.named() { // it is about a server by itself, as of a health check
		return e.cause()
	}
	var b strings.Builder
	switch {
	case errors.Is(e.Err, ErrChallenge):
		b.WriteString("a user is required to reach ")
	case e.Bind && errors.Is(e.Err, ErrDenied):
		b.WriteString("not allowed to wait for ")
	case errors.Is(e.Err, ErrDenied):
		b.WriteString("not allowed to reach ")
	case e.Reason == DNSTimeout, e.Reason == DNSError:
		b.WriteString("cannot resolve ")
	case e.Bind:
		b.WriteString("cannot wait for ")
	default:
		b.WriteString("cannot connect to ")
	}
	e.writeTarget(&b)
	b.WriteString(": ")
	b.WriteString(e.cause())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RCode returns what a name server answered in the place of an address: the name of its RCODE (RFC 1035 section 4.1.1), and its
// INFO-CODE (RFC 8914), negative for none. It is false where nobody knows.
func (e *Error) RCode() (rcode string, info int, ok bool) {
	var answer interface {
		RCode() (rcode string, info int)
	}
	if e.Reason != DNSError || !errors.As(e.Err, &answer) {
		return "", 0, false
	}
	rcode, info = answer.RCode()
	return rcode, info, true
}

// OutOfRoom reports whether this machine itself has nothing left to connect with, such as descriptors. A LimitReached that
// a proxy has answered is none.
func (e *Error) OutOfRoom() bool { return e.Reason == LimitReached && outOfRoom(e.Err) }

func outOfRoom(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errnoReason(errno) == LimitReached
}

// serverError is what a pool remembers of a failure, for all to read: why, but not what target the session had.
type serverError struct{ failure Error }

// forOthers returns what a pool may remember of e, and show to sessions of others: what of completes, it does not have.
func (e *Error) forOthers() error { return &serverError{*e} }

// Error implements error.
func (e *serverError) Error() string { return e.failure.cause() }

// Unwrap returns the cause.
func (e *serverError) Unwrap() error { return e.failure.Err }

// named reports whether writeTarget has something to name.
func (e *Error) named() bool {
	return e.Target.IsValid() || e.Address.IsValid() || e.Backend != "" || e.Upstream != "" || errors.Is(e.Err, ErrDenied) || errors.Is(e.Err, ErrChallenge)
}

// writeTarget names what was to be reached, which is named.
func (e *Error) writeTarget(b *strings.Builder) {
	if e.Backend != "" {
		b.WriteString("backend ")
		b.WriteString(e.Backend)
		b.WriteString(" for ")
	}
	switch a, ok := e.Target.Addr(); {
	case e.Bind && ok && a.IsUnspecified():
		b.WriteString("anybody")
	case e.Target.IsValid():
		b.WriteString(e.Target.String())
	case errors.Is(e.Err, ErrDenied), errors.Is(e.Err, ErrChallenge):
		b.WriteString("anything") // it was asked before there was a target
	case e.Address.IsValid():
		b.WriteString(e.Address.String()) // of a server, which nobody asked for by name
		return
	default:
		b.WriteString("a server") // of an upstream or backend, which nobody asked for by name
	}
	if e.Upstream != "" {
		b.WriteString(" through upstream ")
		b.WriteString(e.Upstream)
	}
	if e.Address.IsValid() {
		if a, ok := e.Target.Addr(); !ok || a != e.Address.Addr() {
			b.WriteString(" at ")
			b.WriteString(e.Address.String())
		}
	}
}

// cause says why, without the parts that Error has already said.
func (e *Error) cause() string {
	switch {
	case errors.Is(e.Err, ErrWish):
		return e.Err.Error()
	case e.Reason == LoopDetected && errors.Is(e.Err, ErrDenied):
		return "it is one of this gateway's own sockets"
	case errors.Is(e.Err, ErrChallenge):
		return byRule("it is not open to sessions without a user", e.Decision.Rule)
	case e.Decision.Reason == acl.ReasonGuard && errors.Is(e.Err, ErrDenied):
		what, _ := acl.Special(e.Address.Addr())
		return "its address is for " + what + "; only an allow rule whose target is a prefix inside that range opens it"
	case e.Decision.Reason == acl.ReasonNeedsUser && errors.Is(e.Err, ErrDenied):
		return byRule("it is not open to sessions without a user, and there are no users", e.Decision.Rule)
	case errors.Is(e.Err, ErrDenied) && e.Decision.Rule != "":
		return byRule("the rules forbid it", e.Decision.Rule)
	case errors.Is(e.Err, errStrangers):
		return "only others have connected"
	case errors.Is(e.Err, ErrDenied) && e.Bind:
		return "no rule that names the method BIND allows it"
	case errors.Is(e.Err, ErrDenied):
		return "no rule allows it"
	case e.Err == nil:
		return string(e.Reason)
	}
	return bare(e.Err).Error()
}

// byRule adds the name of the rule that decided, if one did.
func byRule(s, rule string) string {
	if rule == "" {
		return s
	}
	return s + " (rule " + rule + ")"
}

// of completes an error with what the permit knows.
func (e *Error) of(p *Permit) *Error {
	e.Target, e.Backend, e.Decision = p.target, p.Backend(), p.decision
	e.Exit = p.Route().Exit
	return e
}
