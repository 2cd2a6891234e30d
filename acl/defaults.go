package acl

import "net/netip"

// Names of the default rules, as logs say them.
const (
	defaultNoMail      = "default: no mail"
	defaultThisMachine = "default: this machine"
	defaultUsers       = "default: users"
)

// DefaultRules are the rules of a file that has none: clients on this machine
// (a loopback client address) and authenticated users may reach public
// addresses, not port 25. The guard keeps them to public addresses. Where a
// user is required (Request.RequireUser), clients on this machine need one too,
// since only a written rule with Anonymous lifts that.
func DefaultRules() []Rule {
	return []Rule{
		{Name: defaultNoMail, Action: Deny, Port: []PortRange{{25, 25}}},
		{Name: defaultThisMachine, Action: Allow, Client: []netip.Prefix{
			netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
		}},
		{Name: defaultUsers, Action: Allow, User: []string{"*"}},
	}
}
