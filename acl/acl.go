// Package acl decides who may reach what. It is pure: no I/O, no goroutine, no
// clock; the same request always gets the same decision. (New reads the time
// zones that rules name; nothing is read after it.)
//
// Rules stand in order and the first that matches decides; behind the last
// stands a deny. What a rule does not name matches all. Over every rule that
// allows stands the guard: special-purpose addresses (RFC 6890 and the IANA
// registries that it founded, metadata services, and IPv4 addresses of that
// kind hidden in IPv6) stay denied unless a prefix in the target of the very
// rule that decides lies inside the special range. See Special.
//
// # Sessions without a user
//
// A rule that matches in everything but the identity decides all the same when
// the session has no user: it is a Challenge, and the rules behind it are not
// asked. That holds for
//
//   - a rule that names a user or a group, whether it allows or denies: leaving
//     the credentials out must not be a way around a deny;
//   - a rule that allows, where Request.RequireUser is set and the rule is not
//     Anonymous.
//
// So the order of the rules is the order in which they are asked, with or
// without credentials, as in Squid, where the first line that needs
// authentication asks for it. A rule with Anonymous must stand in front of the
// rules that need a user for the same requests; Warnings says where it does not.
// A session that has a user is never challenged: a rule that names others is
// passed over. Behind the last rule stands a plain deny, not a challenge, since
// no credentials would help.
package acl

import (
	"net/netip"
	"strconv"
	"time"

	"polyport/internal/target"
)

// Action is what a rule does with a request that it matches.
type Action uint8

const (
	// Deny refuses. It is the zero value: forgotten means denied.
	Deny Action = iota
	// Challenge refuses for now: with credentials the same request may pass
	// (407, or method 02 in SOCKS5).
	Challenge
	// Allow admits.
	Allow
)

// String returns the action as a rule writes it.
func (a Action) String() string {
	switch a {
	case Deny:
		return "deny"
	case Challenge:
		return "challenge"
	case Allow:
		return "allow"
	}
	return "invalid action"
}

// Reasons of a Decision, for logs and answers. Deny by the guard is
// RFC 9209's destination_ip_prohibited, any other deny http_request_denied.
const (
	ReasonRule      = "rule"       // a rule decided
	ReasonNoRule    = "no_rule"    // behind the last rule stands a deny
	ReasonGuard     = "guard"      // a special-purpose address, and no rule names it
	ReasonNeedsUser = "needs_user" // a user is required and the session has none; a Deny where there are no users at all
)

// Request is what is asked of a Policy. It is a value; nothing is kept.
type Request struct {
	Client     netip.Addr // unmapped, no zone; an invalid one is in no client list
	ClientPort uint16
	// ClientCountry is the country of Client in lower-case ISO 3166-1 alpha-2; "" is unknown. Only where
	// Policy.LooksAtCountry is it looked at, as is TargetCountry.
	ClientCountry string
	Identity      string   // "" for none; only ever an authenticated name
	Groups        []string // of Identity
	Protocol      string   // the row of the protocol table
	Method        string   // "CONNECT", "GET", ...; SOCKS: CONNECT, BIND, UDP; TLS and raw: ""
	Listener      string
	// Backend names the owner's servers that the request would be handed to; "" where it leaves for Target.
	Backend string
	// RequireUser is the listener's require_user: without an Identity only a
	// rule with Anonymous admits.
	RequireUser bool
	// Target is where the client asks to go. The zero Target is always denied.
	Target target.Target
	// TargetCountry is that of the address at hand: of the one that DecideAddr is asked about, else of Target where that is
	// an IP literal. "" is unknown; without an address it is not looked at.
	TargetCountry string
	// Time is when; only rules with a time look at it.
	Time time.Time
}

// Decision is what a Policy answers. The zero value denies.
type Decision struct {
	Action Action
	// Rule is the name of the rule that decided; "" for none. With ReasonGuard it
	// is the rule that would have allowed.
	Rule   string
	Reason string // one of the Reason constants
	// Way is how what is allowed leaves, as the rule that decided says it; nil where it names neither an upstream nor an
	// exit, and wherever Action is not Allow. Decisions of one Policy can be compared: a rule has one Way.
	Way *Way
}

// Way is the way out that a rule names: an upstream, or exits, never both. It must not be changed.
type Way struct {
	Upstream string   // "" for none; "direct" is the rule's wish to use none
	Exits    []string // the first is taken; the client may wish for any of them
}

// Options makes a Policy.
type Options struct {
	// Rules in order. Nil or empty means DefaultRules.
	Rules []Rule
	// HasUsers says that there are users to authenticate. Without any, nobody
	// could answer a Challenge, so it becomes a Deny (with ReasonNeedsUser).
	HasUsers bool
	// Location finds the time zone that a rule names. Nil means
	// time.LoadLocation.
	Location func(name string) (*time.Location, error)
}

// Rule is one [[rule]]. An empty field matches everything; of a list one entry
// has to match, and all fields have to. So User and Group together mean one of
// these users who is also in one of these groups. "*" in User is any
// authenticated user, in Backend any backend; in Protocol, Listener, Method and
// Target it is anything.
// One method has to be named to be allowed: MethodBind.
type Rule struct {
	// Name is what logs say of a Decision; "" becomes "rule[i]", i from 0.
	Name       string
	Action     Action         // Allow or Deny
	Client     []netip.Prefix // no bits behind its length
	ClientPort []PortRange
	User       []string // case-sensitive
	Group      []string // case-sensitive
	Protocol   []string // row names
	Listener   []string
	// Backend has the rule match what is handed to one of these backends, and nothing that leaves for a target: what it
	// allows makes nobody a client of a proxy. Such a rule has no Upstream, no Country and no addresses in Target, since a backend is reached
	// directly and judged by name.
	Backend []string
	// Target holds names and addresses in any spelling that package target
	// reads: "example.com" that name alone, "*.example.com" any depth below it,
	// ".example.com" both, "192.0.2.1" and "10.0.0.0/8" addresses, whether the
	// client asked for them or a name has led there, and "*" everything. Names
	// never match a client that asked for an address.
	Target []string
	Port   []PortRange // the target's
	Method []string    // in any case; a rule that allows has to name BIND
	// Time is when the rule holds, such as "Mon-Fri 08:00-18:00 Europe/Berlin";
	// "" is always. Days and hours are lists with commas, either may be left
	// out, the end is not included, and hours over midnight ("Fri 22:00-06:00")
	// belong to the day on which they begin. Several such windows stand
	// behind each other with semicolons. The zone stands at the end; without
	// one it is UTC. Local is refused: a rule must not depend on where it runs.
	Time string
	// Country holds countries of the target's address in ISO 3166-1 alpha-2, in any case. Like a prefix in Target it needs the
	// address, and it never matches by name alone (DecideName). An address whose country is unknown, as every
	// special-purpose one is, is in no list: a rule that denies some countries does not stop it. Whoever means to admit some
	// countries only has to allow those and no others.
	Country []string
	// ClientCountry is the same of the client's address.
	ClientCountry []string
	// Upstream and Exit name the way out of what the rule allows (Decision.Way); they match nothing. Only a rule that allows
	// can have one of them, and not both. A backend is reached through no upstream, so a rule with Backend has none. Whether there is
	// an upstream or exit of that name is for the caller to see.
	Upstream string
	Exit     []string
	// Anonymous admits sessions without a user where one is required. Only a
	// rule that allows and names no user can have it.
	Anonymous bool
}

// PortRange is an inclusive range of ports, First at least 1.
type PortRange struct{ First, Last uint16 }

// String returns the range as a rule writes it: "443" or "8000-8999".
func (r PortRange) String() string {
	s := strconv.Itoa(int(r.First))
	if r.Last != r.First {
		s += "-" + strconv.Itoa(int(r.Last))
	}
	return s
}
