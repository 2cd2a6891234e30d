package egress

import (
	"context"
	"errors"
	"net/netip"

	"polyport/acl"
)

// Explanation is what Authorize would do, and why, for a person to read.
type Explanation struct {
	// ByName is what the policy says of the request as it stands. It means
	// nothing when NeedAddress is true.
	ByName      acl.Decision
	NeedAddress bool
	// Resolved says that the name was looked up: an IP address needs no look-up,
	// and a name that is refused whatever its addresses are gets none.
	Resolved bool
	// Addresses are the resolver's answers, in its order.
	Addresses []netip.Addr
	// ResolveErr is why the name has no addresses; nil when it has some, or was not looked up.
	ResolveErr error
	// Verdicts has one entry for each address that was judged.
	Verdicts []Verdict
	// Dial are the addresses that would be dialled, in that order.
	Dial []netip.AddrPort
	// Final is the decision that counts. It is the zero Decision (a Deny) when
	// the name could not be resolved.
	Final acl.Decision
	// Err is the *Error that Authorize would return, or nil.
	Err error
}

// Explain runs Authorize and tells what it found on the way. Names are resolved
// where Authorize would do so; nothing is dialled.
func (d *Dialer) Explain(ctx context.Context, r acl.Request) Explanation {
	var x Explanation
	p, err := d.authorize(ctx, r, &x)
	if err != nil {
		x.Err, x.Final = err, err.Decision
		return x
	}
	x.Final = p.decision
	for _, a := range p.pinned.addrs {
		x.Dial = append(x.Dial, netip.AddrPortFrom(a, p.pinned.port))
	}
	return x
}

// Allowed reports whether Authorize would give a Permit.
func (x *Explanation) Allowed() bool { return x.Err == nil }

// Challenged reports whether credentials might help.
func (x *Explanation) Challenged() bool { return errors.Is(x.Err, ErrChallenge) }

// The methods below note what authorize finds. They do nothing on nil, so that
// Authorize pays nothing for them.

func (x *Explanation) byName(dec acl.Decision, needAddress bool) {
	if x != nil {
		x.ByName, x.NeedAddress = dec, needAddress
	}
}

func (x *Explanation) resolved(addrs []netip.Addr, err error) {
	if x != nil {
		x.Resolved, x.ResolveErr = true, err
		x.Addresses = append(x.Addresses, addrs...)
	}
}

func (x *Explanation) judged(v Verdict) {
	if x != nil {
		x.Verdicts = append(x.Verdicts, v)
	}
}
