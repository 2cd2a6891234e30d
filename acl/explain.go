package acl

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Explanation is why a Policy decides as it does, for `polyport explain`.
type Explanation struct {
	// Decision is what Decide (or, with an address, DecideAddr) answers.
	Decision Decision
	// NeedAddress says that Decision means nothing until the address is known.
	NeedAddress bool
	// Special is what makes the target's address special-purpose, as the function
	// Special says it; "" for a public or unknown address.
	Special string
	// Steps are all rules in order.
	Steps []Step
}

// Step is one rule in an Explanation.
type Step struct {
	Rule   string // its name
	Action Action // what it does when it matches: Allow or Deny
	Result Result
	Key    string // the key that did not match or needs the address, such as "client"; else ""
	Why    string // a sentence for a person, without the rule's name
}

// Result is what became of one rule.
type Result uint8

const (
	// NotReached is a rule behind the one that decided. It would not match.
	NotReached Result = iota
	// WouldMatch is a rule behind the one that decided, and would match.
	WouldMatch
	// NoMatch is a rule that was asked and did not match.
	NoMatch
	// NeedsAddress is a rule that matches or not by the address, which is not known.
	NeedsAddress
	// Decides is the rule that decided; at most one. Where rules before it need
	// the address, it is the one that decides if none of those matches.
	Decides
)

// String returns the result as explain prints it.
func (r Result) String() string {
	switch r {
	case NotReached:
		return "not reached"
	case WouldMatch:
		return "not reached, would match"
	case NoMatch:
		return "no match"
	case NeedsAddress:
		return "needs the address"
	case Decides:
		return "decides"
	}
	return "invalid result"
}

// Explain says for each rule why it matched or which key did not. An invalid
// address a explains the decision by name, or that of an IP literal; a valid one
// the decision for that address. It asks the same code as Decide does.
func (p *Policy) Explain(r Request, a netip.Addr) Explanation {
	q := newQuery(&r, a)
	return p.explain(&q)
}

// ExplainName is Explain for DecideName: by name alone, for what is handed to a backend.
func (p *Policy) ExplainName(r Request) Explanation {
	q := newQuery(&r, netip.Addr{})
	q.nameOnly = true
	return p.explain(&q)
}

func (p *Policy) explain(q *query) Explanation {
	var e Explanation
	e.Decision, e.NeedAddress = p.decide(q)
	if q.addr.IsValid() {
		e.Special, _ = Special(q.addr)
	}
	if p == nil || !q.Target.IsValid() {
		return e
	}
	decided := false
	for i := range p.rules {
		s := p.step(&p.rules[i], q, decided)
		decided = decided || s.Result == Decides
		e.Steps = append(e.Steps, s)
	}
	return e
}

// step explains one rule.
func (p *Policy) step(r *rule, q *query, decided bool) Step {
	out := Step{Rule: r.name, Action: r.action}
	s, k := r.match(q)
	switch s {
	case missed:
		out.Result, out.Key, out.Why = NoMatch, k.String(), r.missedWhy(q, k)
		if decided {
			out.Result = NotReached
		}
		return out
	case needsAddress:
		out.Result, out.Key = NeedsAddress, k.String()
		out.Why = fmt.Sprintf("whether it matches depends on the address of %s, which is not known here", cmp.Or(q.host, "whoever connects"))
		return out
	}
	out.Why = r.matchedWhy()
	switch d := p.outcome(r, q); d.Reason {
	case ReasonNeedsUser:
		out.Why += "; it needs a user, and the session has none"
	case ReasonGuard:
		what, _ := Special(q.addr)
		out.Why += fmt.Sprintf("; but %v is %s, and no prefix in its target lies inside that range", q.addr, what)
	}
	out.Result = Decides
	if decided {
		out.Result = WouldMatch
	}
	return out
}

// matchedWhy says what of a rule matched.
func (r *rule) matchedWhy() string {
	keys := r.namedKeys()
	if len(keys) == 0 {
		return "it names nothing, so it matches everything"
	}
	return "it matches by " + strings.Join(keys, ", ")
}

// namedKeys returns the keys that the rule names, as the configuration spells them.
func (r *rule) namedKeys() []string {
	var keys []string
	for k := keyProtocol; k <= keyCountry; k++ {
		if r.names(k) {
			keys = append(keys, k.String())
		}
	}
	return keys
}

// names reports whether the rule names the key.
func (r *rule) names(k key) bool {
	switch k {
	case keyProtocol:
		return r.protocol.named()
	case keyListener:
		return r.listener.named()
	case keyBackend:
		return r.backend.named()
	case keyMethod:
		return r.method.named()
	case keyPort:
		return len(r.port) > 0
	case keyClient:
		return !r.client.empty()
	case keyClientPort:
		return len(r.clientPort) > 0
	case keyClientCountry:
		return r.clientCountry.named()
	case keyUser:
		return r.user.named()
	case keyGroup:
		return r.group.named()
	case keyTime:
		return r.time != nil
	case keyTarget:
		return r.target.named
	case keyCountry:
		return r.country.named()
	}
	return false
}

// missedWhy says what the request brought to the key and what the rule wants.
func (r *rule) missedWhy(q *query, k key) string {
	switch k {
	case keyProtocol:
		return notIn("protocol", q.Protocol, r.protocol.list)
	case keyListener:
		return notIn("listener", q.Listener, r.listener.list)
	case keyBackend:
		return notIn("backend", q.Backend, r.backend.list)
	case keyMethod:
		if !r.method.named() {
			return fmt.Sprintf("method: %s is allowed only by a rule that names it, and this one names none", MethodBind)
		}
		return notIn("method", q.Method, r.method.list)
	case keyPort:
		return notIn("port", fmt.Sprint(q.Target.Port()), texts(r.port))
	case keyClient:
		return notIn("client", q.client.String(), texts(r.client.list))
	case keyClientPort:
		return notIn("client_port", fmt.Sprint(q.ClientPort), texts(r.clientPort))
	case keyClientCountry:
		return notInCountry(k, q.client, q.ClientCountry, r.clientCountry.list)
	case keyUser:
		return notIn("user", q.Identity, r.user.list)
	case keyGroup:
		return notIn("group", strings.Join(q.Groups, ", "), r.group.list)
	case keyTime:
		return fmt.Sprintf("time: %s is not in %q", q.Time.In(r.time.zone).Format("Mon 15:04 MST"), r.time.text)
	case keyCountry:
		return notInCountry(k, q.addr, q.TargetCountry, r.country.list)
	}
	return r.target.missedWhy(q)
}

// notInCountry is the sentence of a country that did not match: that of a, which is invalid where there is only a name.
func notInCountry(k key, a netip.Addr, got string, want []string) string {
	switch {
	case !a.IsValid():
		got = "that of a name without an address"
	case got == "":
		got = "that of " + a.String() + ", which is not known,"
	default:
		got = got + " of " + a.String()
	}
	return notIn(k.String(), got, want)
}

// missedWhy says what of the target did not match.
func (t *targets) missedWhy(q *query) string {
	what := q.host
	if q.addr.IsValid() {
		if what != "" {
			what += " at "
		}
		what += q.addr.String()
	}
	return notIn("target", what, t.patterns)
}

// notIn is the sentence of a key that did not match.
func notIn(key, got string, want []string) string {
	const most = 5 // a list of thousands of names would drown the answer
	more := ""
	if n := len(want) - most; n > 0 {
		want, more = want[:most], fmt.Sprintf(" or %d more", n)
	}
	if got == "" {
		got = "none"
	}
	return fmt.Sprintf("%s: %s is not %s%s", key, got, strings.Join(want, ", "), more)
}

// texts returns the texts of prefixes or port ranges.
func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}
