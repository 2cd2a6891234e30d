package egress

import (
	"net/netip"

	"polyport/acl"
	"polyport/internal/target"
)

// Verdict is what was decided about one address.
type Verdict struct {
	Address netip.AddrPort
	// Decision is the policy's. For one of the gateway's own sockets that the
	// policy allows it is a Deny for ReasonGuard that keeps the rule's name.
	Decision acl.Decision
	// Own says that the policy allows the address, but it is one of the
	// gateway's own sockets.
	Own bool
}

// judge adds the check for loops to the policy's decision about an address.
func (d *Dialer) judge(ap netip.AddrPort, dec acl.Decision) Verdict {
	v := Verdict{Address: ap, Decision: dec}
	if dec.Action == acl.Allow && d.own != nil && d.own(ap) {
		v.Own = true
		v.Decision.Action, v.Decision.Reason = acl.Deny, acl.ReasonGuard
	}
	return v
}

func (v Verdict) refused() bool { return v.Decision.Action != acl.Allow }

// err is the Error of a target whose only, or most telling, address got v.
func (v Verdict) err(t target.Target) *Error {
	e := refusal(t, v.Decision)
	e.Address = v.Address
	if v.Own {
		e.Reason = LoopDetected
	}
	return e
}

// refusal is the Error of a decision that does not admit.
func refusal(t target.Target, dec acl.Decision) *Error {
	e := &Error{Reason: RequestDenied, Target: t, Decision: dec, Err: ErrDenied}
	switch {
	case dec.Action == acl.Challenge:
		e.Err = ErrChallenge
	case dec.Reason == acl.ReasonGuard:
		e.Reason = DestinationProhibited
	}
	return e
}

// refusals finds the one that tells most when every address of a name was
// refused: a challenge, since credentials may help; else a rule's. The guard's
// counts only when no rule refused any address, a loop only when all were loops.
type refusals struct {
	worst Verdict
	rank  int
}

func (s *refusals) add(v Verdict) {
	rank := 1
	switch {
	case v.Decision.Action == acl.Challenge:
		rank = 4
	case v.Decision.Reason != acl.ReasonGuard:
		rank = 3
	case !v.Own:
		rank = 2
	}
	if rank > s.rank {
		s.worst, s.rank = v, rank
	}
}
