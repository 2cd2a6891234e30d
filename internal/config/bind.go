package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// methodBind is BIND as rules name it.
const methodBind = "BIND"

// Bind is the [bind] table: the command BIND of SOCKS, by which the gateway listens for clients.
type Bind struct {
	// Ports are listened on; the zero range is none, and BIND is refused.
	Ports PortRange `toml:"ports" reload:"live"`
	// Advertise is the name or the IP address that clients are told; "" is the address that is listened on.
	Advertise string `toml:"advertise" reload:"live"`
	// Timeout is how long a peer may take to connect. Positive.
	Timeout Duration `toml:"timeout" reload:"live"`
	// PerClient is how many one client may have waiting at once. At least 1.
	PerClient int `toml:"per_client" reload:"live"`
}

func (f *File) checkBind(errs *faults) {
	p := root.key("bind")
	if err := checkAdvertise(f.Bind.Advertise); err != nil {
		errs.add(p.key("advertise"), err)
	}
	if f.Bind.Timeout <= 0 {
		errs.addf(p.key("timeout"), "this must be longer than 0: without it a client could hold a port for ever")
	}
	if n := f.Bind.PerClient; n < 1 || n > maxLimit {
		errs.addf(p.key("per_client"), "%d is not a limit: write a number from 1 to %d", n, maxLimit)
	}
}

// warnBind finds half of what BIND needs without the other half.
func (f *File) warnBind(w *warnings) {
	allowed, served := false, f.Bind.Ports.First != 0
	for i, r := range f.Rule {
		named := slices.ContainsFunc(r.Method, func(m string) bool { return strings.EqualFold(m, methodBind) })
		if r.Action != ActionAllow || !named && !slices.Contains(r.Method, "*") {
			continue
		}
		if allowed = true; named && !served {
			w.addf(f.rulePlace(i).key("method"), "BIND is allowed and yet not served: write ports = \"40000-40100\", or others, into [bind]")
		}
	}
	if served && !allowed {
		w.addf(root.key("bind").key("ports"), "no rule that allows names the method BIND, so nobody may use it: write method = [\"CONNECT\", \"BIND\"] into one")
	}
}

// checkAdvertise accepts a name, or an address to which somebody can connect.
func checkAdvertise(s string) error {
	if s == "" {
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		if strings.Contains(s, ":") {
			return fmt.Errorf(`%s is neither a name nor an IP address: write one without a port, such as "ftp.example.net" or "192.0.2.1"`, quote(s))
		}
		return checkHost(s)
	}
	switch {
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4-mapped address: write %q", quote(s), a.Unmap())
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone, which means nothing elsewhere: write %q", quote(s), a.WithZone(""))
	case a.IsUnspecified(), a.IsMulticast():
		return errors.New("nobody can connect to that address: write the one by which others reach this machine")
	}
	return nil
}
