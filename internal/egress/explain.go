package egress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/upstream"
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
	// Route is the way out, and Choices are what its upstream's pool would do; none without one.
	Route   Route
	Choices []pool.Choice
	// Local is the address of ours that it would leave from; invalid where the system, or chance, decides.
	Local netip.Addr
	// Final is the decision that counts. It is the zero Decision (a Deny) when
	// the name could not be resolved.
	Final acl.Decision
	// Err is the *Error that Authorize would return, or nil.
	Err error
	// Unserved is why what is allowed is refused all the same: its way is not for the method (UDP, BIND), or no server of its upstream can
	// be used. Nil is that it is served.
	Unserved error
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
	x.Route = p.Route()
	if w := p.way; w != nil {
		w.explain(&x, p, r.Method)
	}
	if err := p.way.mayServe(r.Method); err != nil {
		x.Unserved = err.Err
	}
	for _, a := range p.pinned.addrs {
		x.Dial = append(x.Dial, netip.AddrPortFrom(a, p.pinned.port))
	}
	return x
}

// mayServe says why a way is not for a method; nil if it is.
func (w *way) mayServe(method string) *Error {
	switch {
	case strings.EqualFold(method, acl.MethodBind):
		return w.mayListen()
	case isUDP(method):
		return w.mayCarryUDP()
	}
	return nil
}

// isUDP reports whether the method is that of datagrams, as rules know it.
func isUDP(method string) bool { return strings.EqualFold(method, "UDP") }

// explain notes what the way would do for the method.
func (w *way) explain(x *Explanation, p *Permit, method string) {
	if w.upstream != nil {
		w.explainUpstream(x, w.unasked(p, method))
	}
	if s := w.source; s != nil && (w.staysPut() || len(s.Addresses) == 1 && s.Addresses[0].IsSingleIP()) {
		is6 := len(p.pinned.addrs) > 0 && p.pinned.addrs[0].Is6()
		x.Local, _ = s.Pick(is6, w.key)
	}
}

// explainUpstream notes which servers of the upstream would be chosen, but for those that are not asked.
func (w *way) explainUpstream(x *Explanation, unasked map[int]string) {
	var out pool.Tried
	for i := range unasked {
		out.Add(i)
	}
	x.Choices = w.upstream.Pool().Explain(&w.request, &out)
	served := false
	for i := range x.Choices {
		c := &x.Choices[i]
		c.Why = cmp.Or(c.Why, unasked[c.Index])
		served = served || c.Considered
	}
	if !served {
		x.Unserved = fmt.Errorf("no server of upstream %s can be used for it", w.upstream.Name())
	}
}

// unasked says why servers of the way's upstream are not asked, since Open goes on to the next one: they carry no datagrams, or cannot be asked
// for any of the permit's addresses.
func (w *way) unasked(p *Permit, method string) map[int]string {
	why := map[int]string{}
	for i := range w.upstream.Pool().Members() {
		proxy := w.upstream.Proxy(i)
		if isUDP(method) {
			if !relaysUDP(proxy) {
				why[i] = "it carries no UDP"
			}
			continue
		}
		for _, a := range p.pinned.addrs { // there are none where the upstream gets the name
			err := proxy.Takes(upstream.Destination{Addr: a, Port: p.pinned.port})
			if err == nil {
				delete(why, i)
				break
			}
			why[i] = strings.TrimPrefix(err.Error(), "upstream "+proxy.String()+" ")
		}
	}
	return why
}

// staysPut reports whether every process chooses the same address of ours. That of a session is of the moment at which it began
// (Terms), which only the process that has seen it begin knows.
func (w *way) staysPut() bool {
	return w.key.Session == "" && (w.source.Choose == exit.StickyClient || w.source.Choose == exit.StickyUser)
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
