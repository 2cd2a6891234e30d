package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Exit is an [exit.NAME] table: a way out, which a rule offers and a user may name.
type Exit struct {
	// Upstream names the upstream; "" is none, or the default one where Country or Tag chooses. See File.ExitUpstream.
	Upstream string `toml:"upstream" reload:"live"`
	// Country and Tag leave the upstream's servers that are in one of these countries (lower case) and have one of
	// these tags; none leaves all.
	Country []string `toml:"country" reload:"live"`
	Tag     []string `toml:"tag" reload:"live"`
	// LocalAddress are the addresses that connections leave from, single ones and prefixes; none is the system's choice.
	LocalAddress []Prefix `toml:"local_address" reload:"live"`
	// Choose is which of LocalAddress: ChooseRandom, StickyClient, StickyUser or StickySession.
	Choose string `toml:"choose" reload:"live"`
	// Interface is the device that connections leave by (SO_BINDTODEVICE); "" is the system's choice.
	Interface string `toml:"interface" reload:"live"`
	// Mark is the firewall mark of connections (SO_MARK); 0 is none.
	Mark int `toml:"mark" reload:"live"`
}

// ChooseRandom is the value of Exit.Choose that is not one of the sticky ones.
const ChooseRandom = "random"

// Values of Auth.UserParameters: what clients may add to their user names.
const (
	ParameterExit    = "exit"
	ParameterCountry = "country"
	ParameterSession = "session"
	ParameterTTL     = "ttl"
)

// GeoIP is the [geoip] table.
type GeoIP struct {
	// Database is the path of a file in the format of MaxMind; "" is none, and then no rule names a country.
	Database string `toml:"database" reload:"live"`
}

// setDefaults is what an [exit.NAME] table starts from.
func (e *Exit) setDefaults() { e.Choose = ChooseRandom }

// ExitNames returns the names of the exits, sorted.
func (f *File) ExitNames() []string { return sortedKeys(f.Exit) }

// ExitUpstream returns the upstream that an exit leads to: its own, else default_upstream if the exit names countries
// or tags, which only servers have, else "", which is none.
func (f *File) ExitUpstream(name string) string {
	e := f.Exit[name]
	if e.Upstream == "" && len(e.Country)+len(e.Tag) > 0 {
		return f.DefaultUpstream
	}
	return e.Upstream
}

func (f *File) checkExits(errs *faults, known knownNames) {
	for _, name := range f.ExitNames() {
		p, e := root.key("exit").key(name), f.Exit[name]
		checkName(errs, p)
		if e.Upstream != "" {
			checkUpstreamName(errs, p.key("upstream"), e.Upstream, known)
		}
		checkChoices(errs, p.key("country"), e.Country)
		for i, c := range e.Country {
			checkCountry(errs, p.key("country").at(i), c)
		}
		checkChoices(errs, p.key("tag"), e.Tag)
		checkTags(errs, p.key("tag"), e.Tag)
		f.checkExitServers(errs, p, name)
		checkLocalAddress(errs, p.key("local_address"), e)
		checkEnum(errs, p.key("choose"), e.Choose, ChooseRandom, StickyClient, StickyUser, StickySession)
		if err := checkInterface(e.Interface); err != nil {
			errs.add(p.key("interface"), err)
		}
		if e.Mark < 0 || e.Mark > math.MaxUint32 {
			errs.addf(p.key("mark"), "%d is not a mark: write a number from 1 to %d, or 0 for none", e.Mark, uint32(math.MaxUint32))
		}
	}
}

// checkChoices refuses a list that is there and empty.
func checkChoices[T any](errs *faults, p *place, values []T) {
	if values != nil && len(values) == 0 {
		errs.addf(p, "an empty list leaves nothing to choose from: name something, or remove the key")
	}
}

// checkExitServers refuses what no server meets: whoever takes such an exit would never get anywhere.
func (f *File) checkExitServers(errs *faults, p *place, name string) {
	e := f.Exit[name]
	if len(e.Country)+len(e.Tag) == 0 {
		return
	}
	upstream := f.ExitUpstream(name)
	if upstream == "" {
		key := "country"
		if len(e.Country) == 0 {
			key = "tag"
		}
		errs.addf(p.key(key), `it chooses among the servers of an upstream, and there is none: write upstream = "NAME" as well`)
		return
	}
	u, ok := f.Upstream[upstream]
	if !ok {
		return // a fault of its own
	}
	servers := u.Servers[:min(len(u.Servers), maxServers)] // more are a fault of their own
	met := true
	for i, c := range e.Country {
		if !slices.ContainsFunc(servers, func(s UpstreamServer) bool { return s.Country == c }) {
			errs.addf(p.key("country").at(i), `no server of upstream %s has country = %s: write it into one, as in { url = "...", country = "de" }`, quote(upstream), quote(c))
			met = false
		}
	}
	for i, t := range e.Tag {
		if !slices.ContainsFunc(servers, func(s UpstreamServer) bool { return slices.Contains(s.Tags, t) }) {
			errs.addf(p.key("tag").at(i), `no server of upstream %s has the tag %s: write it into one, as in { url = "...", tags = ["home"] }`, quote(upstream), quote(t))
			met = false
		}
	}
	if met && !slices.ContainsFunc(servers, e.fits) {
		errs.addf(p, "no server of upstream %s has both one of these countries and one of these tags: nobody could take this exit", quote(upstream))
	}
}

// fits reports whether a server has one of the exit's countries and one of its tags.
func (e Exit) fits(s UpstreamServer) bool {
	return (len(e.Country) == 0 || slices.Contains(e.Country, s.Country)) &&
		(len(e.Tag) == 0 || slices.ContainsFunc(e.Tag, func(t string) bool { return slices.Contains(s.Tags, t) }))
}

func checkLocalAddress(errs *faults, p *place, e Exit) {
	checkChoices(errs, p, e.LocalAddress)
	for i, a := range e.LocalAddress {
		switch {
		case !a.IsValid(): // a fault of its own
		case a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() && e.Interface == "":
			errs.addf(p.at(i), `%s is on every link (RFC 4291 section 2.5.6), and nothing says which: write interface = "eth0", or whichever it is, as well, or another address`, quote(a.String()))
		case a.Addr().IsUnspecified() || a.Addr().IsMulticast():
			errs.addf(p.at(i), "%s is no address that a connection can leave from: write one of this machine's own, or remove the key for the system's choice", quote(a.String()))
		}
	}
}

// checkInterface accepts the name of a network device; "" is none.
func checkInterface(name string) error {
	const longest = 15 // IFNAMSIZ of Linux, without the NUL at the end
	if len(name) > longest || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' }) {
		return fmt.Errorf(`%s is not the name of a network device: write 1 to %d characters, such as "wg0"`, quote(name), longest)
	}
	return nil
}

func (f *File) checkUserParameters(errs *faults) {
	p, names := root.key("auth").key("user_parameters"), f.Auth.UserParameters
	if len(names) > 0 && !f.HasUsers() {
		errs.addf(p, "there are no users whose names could have them: write htpasswd as well")
	}
	for i, n := range names {
		checkEnum(errs, p.at(i), n, ParameterExit, ParameterCountry, ParameterSession, ParameterTTL)
		checkTwice(errs, p, names, i)
	}
	if i := slices.Index(names, ParameterTTL); i >= 0 && !slices.Contains(names, ParameterSession) {
		errs.addf(p.at(i), "%q is how long a session lasts, and clients may name none: write %q as well", ParameterTTL, ParameterSession)
	}
}
