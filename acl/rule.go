package acl

import (
	"net/netip"
	"slices"
)

// rule is a compiled Rule.
type rule struct {
	name       string
	action     Action
	anonymous  bool
	client     prefixes
	clientPort ports
	user       words
	group      words
	protocol   words
	listener   words
	target     targets
	port       ports
	method     words
	time       *schedule // nil is always
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
// ones first, the target last, since it may cost a look-up of the name.
type key uint8

const (
	keyNone key = iota
	keyProtocol
	keyListener
	keyMethod
	keyPort
	keyClient
	keyClientPort
	keyUser
	keyGroup
	keyTime
	keyTarget
)

// String returns the key as the configuration spells it.
func (k key) String() string {
	return [...]string{"", "protocol", "listener", "method", "port", "client", "client_port", "user", "group", "time", "target"}[k]
}

// match says how the rule stands to q, and by which key it missed.
func (r *rule) match(q *query) (state, key) {
	if k := r.missedKey(q); k != keyNone {
		return missed, k
	}
	s := r.target.match(q)
	if s == missed {
		return missed, keyTarget
	}
	return s, keyNone
}

// missedKey returns the first key but the target that does not match.
func (r *rule) missedKey(q *query) key {
	switch {
	case r.protocol.named() && !r.protocol.contains(q.Protocol):
		return keyProtocol
	case r.listener.named() && !r.listener.contains(q.Listener):
		return keyListener
	case !r.matchesMethod(q.Method):
		return keyMethod
	case len(r.port) > 0 && !q.anyPort && !r.port.contains(q.Target.Port()):
		return keyPort
	case !r.client.empty() && !r.client.contains(q.client):
		return keyClient
	case len(r.clientPort) > 0 && !r.clientPort.contains(q.ClientPort):
		return keyClientPort
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
