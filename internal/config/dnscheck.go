package config

import (
	"net/netip"
	"slices"
	"strings"
)

// maxNameServers is far more than anybody asks.
const maxNameServers = 64

func (f *File) checkDNS(errs *faults) {
	p, d := root.key("dns"), f.DNS
	if n := len(d.Servers); n > maxNameServers {
		errs.addf(p.key("servers"), "there are %d servers, and %d is the most", n, maxNameServers)
		d.Servers = d.Servers[:maxNameServers]
	}
	for i, s := range d.Servers {
		here := p.key("servers").at(i)
		if s.Network == "" {
			continue // a fault of its own
		}
		if slices.Contains(d.Servers[:i], s) {
			errs.addf(here, "%s stands here twice: remove one", quote(s.String()))
		}
		if len(d.Addrs(s)) == 0 {
			errs.addf(here, "nobody can be asked for the address of %s, since it is what is asked: write bootstrap = { %q = [\"192.0.2.53\"] } with its own", quote(s.Host), s.Host)
		}
	}
	checkDNSValues(errs, p, d)
}

func checkDNSValues(errs *faults, p *place, d DNS) {
	checkNamedAddrs(errs, p.key("bootstrap"), d.Bootstrap)
	checkNamedAddrs(errs, p.key("hosts"), d.Hosts)
	checkEnum(errs, p.key("mode"), d.Mode, ModeInOrder, ModeParallel)
	checkEnum(errs, p.key("family"), d.Family, FamilyAny, FamilyPreferIPv4, FamilyPreferIPv6, FamilyOnlyIPv4, FamilyOnlyIPv6)
	if d.Cache < 0 || d.Cache > maxLimit {
		errs.addf(p.key("cache"), "%d is not a number of names: write one up to %d, or 0 to remember nothing", d.Cache, maxLimit)
	}
	if d.MaxTTL < d.MinTTL {
		errs.addf(p.key("max_ttl"), "%s must not be below min_ttl, %s", d.MaxTTL, d.MinTTL)
	}
}

// checkNamedAddrs judges a table of names with their addresses.
func checkNamedAddrs(errs *faults, p *place, names map[string][]Addr) {
	seen := make(map[string]string, len(names)) // in lower case, as it is written
	for _, name := range sortedKeys(names) {
		here, plain := p.key(name), strings.ToLower(strings.TrimSuffix(name, "."))
		if other, ok := seen[plain]; ok {
			errs.addf(here, "this is the same name as %s: remove one", quote(other))
		}
		seen[plain] = name
		if _, err := netip.ParseAddr(name); err == nil || strings.HasPrefix(name, "[") {
			errs.addf(here, "this is an address and not a name")
		} else if err := checkHost(name); err != nil {
			errs.add(here, err)
		}
		if len(names[name]) == 0 {
			errs.addf(here, `there is no address: write one such as ["192.0.2.1"]`)
		}
	}
}

// warnDNS finds what has been left over when servers were changed.
func (f *File) warnDNS(w *warnings) {
	p, d := root.key("dns"), f.DNS
	for _, name := range sortedKeys(d.Bootstrap) {
		if !slices.ContainsFunc(d.Servers, func(s DNSServer) bool { return strings.EqualFold(s.Host, name) }) {
			w.addf(p.key("bootstrap").key(name), "no server has this name, and nobody else is told its address: remove it, or write it into hosts")
		}
	}
	if d.CA != "" && !slices.ContainsFunc(d.Servers, func(s DNSServer) bool { return s.Network == "tls" || s.Network == "https" }) {
		w.addf(p.key("ca"), "no server is tls:// or https://, and nothing else needs it")
	}
}
