package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Site is a [site.NAME] table: a web site on the listeners' own ports, by requests in origin-form (RFC 9112 section 3.2.1).
type Site struct {
	Hosts   []string `toml:"hosts" reload:"live"`   // names and "*." with a suffix; never empty once validated
	Backend string   `toml:"backend" reload:"live"` // a [backend.NAME]
}

// SiteNames returns the names of the sites, sorted.
func (f *File) SiteNames() []string { return sortedKeys(f.Site) }

func (f *File) checkSites(errs *faults, known knownNames) {
	owner := map[string]*place{}
	for _, name := range f.SiteNames() {
		p, s := root.key("site").key(name), f.Site[name]
		checkName(errs, p)
		if len(s.Hosts) == 0 {
			errs.addf(p.key("hosts"), `there is no host: write one such as ["www.example.com"]`)
		}
		for i, h := range s.Hosts {
			here := p.key("hosts").at(i)
			if err := checkSiteHost(h); err != nil {
				errs.add(here, err)
				continue
			}
			folded := strings.TrimSuffix(strings.ToLower(h), ".")
			if other, taken := owner[folded]; taken {
				errs.addf(here, "%s is the host of %s already: write it into one of them", quote(h), other)
				continue
			}
			owner[folded] = here
		}
		if s.Backend == "" {
			errs.addf(p.key("backend"), "there is no backend: write the name of a [backend.NAME] table")
		} else {
			checkExists(errs, p.key("backend"), "backend", s.Backend, known.backends)
		}
	}
}

// checkSiteHost accepts a name, and "*." in front of one.
func checkSiteHost(h string) error {
	name, _ := strings.CutPrefix(h, "*.")
	bare := strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	_, notAddr := netip.ParseAddr(bare)
	switch {
	case h == "":
		return errors.New("the host is empty: remove it")
	case strings.Contains(name, "*") || name == "":
		return fmt.Errorf(`%s: "*" stands alone in front of a name, as in "*.example.com"`, quote(h))
	case notAddr == nil:
		return fmt.Errorf("%s is an address, and sites are told apart by their names", quote(h))
	case strings.Contains(h, "://"):
		return fmt.Errorf(`%s is a URL: write its host alone, such as "www.example.com"`, quote(h))
	case strings.Contains(h, ":"):
		return fmt.Errorf("%s has a port: leave it out, a site is served on every port of the gateway", quote(h))
	}
	return checkHost(name)
}
