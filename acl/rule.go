package acl

import (
	"net/netip"
	"slices"
)

// rule is a compiled Rule.
type rule struct {
	name          string
	action        Action
	anonymous     bool
	client        prefixes
	clientPort    ports
	clientCountry words // countries, in lower case
	user          words
	group         words
	protocol      words
	listener      words
	backend       words
	target        targets
	port          ports
	method        words
	time          *schedule // nil is always
	country       words     // of the target's address, in lower case
	way           *Way      // nil where the rule names neither an upstream nor an exit
}

// query is a Request as the rules look at it.
type query struct {
	*Request
	client   netip.Addr // Request.Client in normal form
	host     string     // the name that was asked for; "" for an address
	addr     netip.Addr // the target's address; invalid while it is not known
	nameOnly bool       // there will be no address: addresses match nothing
	anyPort  bool       // the port is not known either: every list of ports matches
}

// state is how a rule, or its target key, stands to a query.
type state uint8

const (
	missed       state = iota
	matched            // in everything but, perhaps, the identity of a session without a user
	needsAddress       // matched in everything else; the target's address tells
)

// key is a key of a rule, in the order in which they are looked at: the cheap
// ones first, the target and its country last, since they may cost a look-up of the name.
type key uint8

const (
	keyNone key = iota
	keyProtocol
	keyListener
	keyBackend
	keyMethod
	keyPort
	keyClient
	keyClientPort
	keyClientCountry
	keyUser
	keyGroup
	keyTime
	keyTarget
	keyCountry
)

// String returns the key as the configuration spells it.
func (k key) String() string {
	return [...]string{
		"", "protocol", "listener", "backend", "method", "port", "client", "client_port", "client_country", "user", "group", "time", "target", "country",
	}[k]
}

// match says how the rule stands to q, and which key it missed by or needs the address for.
func (r *rule) match(q *query) (state, key) {
	if k := r.missedKey(q); k != keyNone {
		return missed, k
	}
	if s := r.target.match(q); s != matched {
		return s, keyTarget
	}
	if s := r.matchCountry(q); s != matched {
		return s, keyCountry
	}
	return matched, keyNone
}

// matchCountry judges the country of q's address as targets.match does the address itself.
func (r *rule) matchCountry(q *query) state {
	switch {
	case !r.country.named(), q.addr.IsValid() && r.country.contains(q.TargetCountry):
		return matched
	case q.addr.IsValid(), q.nameOnly:
		return missed
	}
	return needsAddress
}

// namesAnyTarget reports whether the rule matches every target at its ports, whatever it is.
func (r *rule) namesAnyTarget() bool { return (!r.target.named || r.target.any) && !r.country.named() }

// missedKey returns the first key but the target and its country that does not match.
func (r *rule) missedKey(q *query) key {
	switch {
	case r.protocol.named() && !r.protocol.contains(q.Protocol):
		return keyProtocol
	case r.listener.named() && !r.listener.contains(q.Listener):
		return keyListener
	case r.backend.named() && (q.Backend == "" || !r.backend.contains(q.Backend)):
		return keyBackend
	case !r.matchesMethod(q.Method):
		return keyMethod
	case len(r.port) > 0 && !q.anyPort && !r.port.contains(q.Target.Port()):
		return keyPort
	case !r.client.empty() && !r.client.contains(q.client):
		return keyClient
	case len(r.clientPort) > 0 && !r.clientPort.contains(q.ClientPort):
		return keyClientPort
	case r.clientCountry.named() && !r.clientCountry.contains(q.ClientCountry):
		return keyClientCountry
	}
	if q.Identity != "" {
		if r.user.named() && !r.user.contains(q.Identity) {
			return keyUser
		}
		if r.group.named() && !slices.ContainsFunc(q.Groups, r.group.contains) {
			return keyGroup
		}
	}
	if r.time != nil && !r.time.contains(q.Time) {
		return keyTime
	}
	return keyNone
}

// needsUser reports whether the rule, having matched, cannot decide on a
// session without a user.
func (r *rule) needsUser(requireUser bool) bool {
	return r.user.named() || r.group.named() || r.action == Allow && requireUser && !r.anonymous
}

// ports is a list of ranges. The empty list restricts nothing.
type ports []PortRange

// contains reports whether p lies in one of the ranges.
func (ps ports) contains(p uint16) bool {
	for _, r := range ps {
		if r.First <= p && p <= r.Last {
			return true
		}
	}
	return false
}
