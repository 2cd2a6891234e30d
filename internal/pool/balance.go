package pool

import (
	"fmt"
	"strings"
)

// Balance is the way a pool chooses among its usable servers.
type Balance uint8

// The balances. First takes the first as written and ignores weights; all others follow them.
const (
	First            Balance = iota // as written, the others when it cannot be used
	RoundRobin                      // in turn
	RandomTwo                       // two at random, and of them the one with fewer connections
	LeastConnections                // the fewest connections
	StickyClient                    // the same for the same client: an IPv4 address, an IPv6 /64
	StickyUser                      // the same for the same user; without one, for the client
	StickySession                   // the same for the same session of a user; without one, for the user
)

var balanceNames = [...]string{"first", "round-robin", "random-two", "least-connections", "sticky-client", "sticky-user", "sticky-session"}

// ParseBalance reads the name of a balance, as String writes it. The error lists the names.
func ParseBalance(s string) (Balance, error) {
	for i, name := range balanceNames {
		if s == name {
			return Balance(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a balance: use one of %s", s, strings.Join(balanceNames[:], ", "))
}

// String is the name of the balance in a configuration.
func (b Balance) String() string {
	if int(b) < len(balanceNames) {
		return balanceNames[b]
	}
	return fmt.Sprintf("balance %d", uint8(b))
}
