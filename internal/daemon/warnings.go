package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"polyport/acl"
	"polyport/internal/config"
)

// allWarnings collects what is legal but dangerous, or surely not what was meant, each
// behind its place in the file.
func allWarnings(f *config.File, a *assembly) []string {
	all := f.Warnings()
	for _, w := range slices.Concat(a.policy.Warnings(), a.collisions(), closedToAll(f), a.security.warnings(), unusedRoutes(f, a), unprovable(f)) {
		all = append(all, f.At("", errors.New(w)).Error())
	}
	return all
}

// closedToAll finds the listeners that a network reaches and through which no
// rule admits anybody but this machine, as the default policy does while there are no
// users: whoever opens a port to others has most likely forgotten to say who may use it.
func closedToAll(f *config.File) []string {
	var found []string
	for _, name := range f.ListenerNames() {
		if f.Listen[name].Loopback() || admitsOthers(f, name) {
			continue
		}
		why := "no rule admits them"
		if f.DefaultRules && len(f.Rule) == 0 {
			why = "without rules and without users only this machine may"
		}
		found = append(found, fmt.Sprintf("listen.%s: other machines can connect to it and none of them may pass: %s. "+
			"Write a [[rule]] with action = \"allow\" and those who may, such as client = [\"192.168.0.0/16\"] (or --allow-client 192.168.0.0/16), "+
			"or set up users with [auth] htpasswd (or --htpasswd)", name, why))
	}
	return found
}

// unprovable finds a CA whose challenges no listener can answer, and that gives no certificate therefore.
func unprovable(f *config.File) []string {
	if len(f.TLS.ACME.Names) == 0 || slices.ContainsFunc(f.TLS.ACME.Challenges, func(c string) bool { return answersChallenge(f, c) }) {
		return nil
	}
	return []string{"tls.acme.challenges: the CA will find no answer and give no certificate: tls-alpn-01 needs a listener that serves the row tls, " +
		"http-01 one that serves the row http outside TLS (without require_tls)"}
}

// admitsOthers reports whether some rule may admit a client that is not on this machine.
func admitsOthers(f *config.File, listener string) bool {
	for _, r := range policyOptions(f).Rules {
		if r.Action == acl.Allow && (len(r.Listener) == 0 || slices.Contains(r.Listener, listener)) &&
			(len(r.Client) == 0 || slices.ContainsFunc(r.Client, holdsOthers)) &&
			(f.HasUsers() || len(r.User)+len(r.Group) == 0 && (r.Anonymous || !f.RequireUser(listener))) {
			return true
		}
	}
	return false
}

// holdsOthers reports whether a prefix holds addresses of other machines.
func holdsOthers(p netip.Prefix) bool { return !p.Addr().IsLoopback() }

// unusedRoutes finds the route for clients without a server name where the gateway answers them itself.
func unusedRoutes(f *config.File, a *assembly) []string {
	for _, r := range a.rows {
		if h, ok := r.Handler.(interface{ Routes(name string) bool }); ok && f.TLS.NoSNI && h.Routes("") {
			return []string{`tls.no_sni: it takes all clients that send no server name, so that the route with sni = [""] takes none`}
		}
	}
	return nil
}
