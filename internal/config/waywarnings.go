package config

import (
	"slices"
	"strings"
)

// methodUDP is UDP ASSOCIATE as rules name it.
const methodUDP = "UDP"

// warnUpstreams finds what upstreams cannot do although they are configured well.
func (f *File) warnUpstreams(w *warnings) {
	for _, name := range f.UpstreamNames() {
		p, u := root.key("upstream").key(name), f.Upstream[name]
		if (u.TLS != UpstreamTLS{}) && !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return s.URL.TLS() }) {
			w.addf(p.key("tls"), "no server is https, h2 or socks5s, and nothing else needs it")
		}
		old := slices.IndexFunc(u.Servers, func(s UpstreamServer) bool { return strings.HasPrefix(s.URL.Scheme, "socks4") })
		if old >= 0 && u.Resolve == ResolveLocal {
			f.warnIPv4Alone(w, p.key("servers").at(old), u.Servers[old].URL.Scheme)
		}
		if !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return !s.Drain }) {
			w.addf(p.key("servers"), allDrain)
		}
	}
}

// allDrain is what is said of the servers of an upstream or a backend of which none is left.
const allDrain = "all of them have drain = true, so that no connection gets through"

// warnIPv4Alone warns of a SOCKS4 server that is sent addresses.
func (f *File) warnIPv4Alone(w *warnings, p *place, scheme string) {
	lost, hint := "so that targets with IPv6 addresses only are not reached through it", ""
	if f.DNS.Family == FamilyOnlyIPv6 {
		lost = `and [dns] family = "only-ipv6" finds none, so that no name is reached through it`
	}
	if scheme == "socks4a" {
		hint = `: resolve = "upstream" sends names on`
	}
	w.addf(p, "%s carries IPv4 addresses alone, %s%s", scheme, lost, hint)
}

// warnDrained finds the backends that have nobody left.
func (f *File) warnDrained(w *warnings) {
	for _, name := range f.BackendNames() {
		if !slices.ContainsFunc(f.Backend[name].Servers, func(s BackendServer) bool { return !s.Drain }) {
			w.addf(root.key("backend").key(name).key("servers"), allDrain)
		}
	}
}

// warnUnused finds the upstreams and exits that nothing takes: whoever writes one does not mean everything to leave another way.
func (f *File) warnUnused(w *warnings) {
	taken, offered := map[string]bool{f.DefaultUpstream: true}, map[string]bool{}
	for _, r := range f.Rule {
		taken[r.Upstream] = true
		for _, exit := range r.Exit {
			offered[exit] = true
		}
	}
	for _, u := range f.Upstream {
		taken[u.Via] = true
	}
	for _, name := range f.ExitNames() {
		taken[f.ExitUpstream(name)] = true
		if !offered[name] {
			w.addf(root.key("exit").key(name), "no rule offers it, so that nothing leaves this way: write exit = [%q] into one", name)
		}
	}
	for _, name := range f.UpstreamNames() {
		if !taken[name] {
			w.addf(root.key("upstream").key(name),
				"no rule, exit, via or default_upstream names it, so that nothing leaves this way: write upstream = %q into a rule, or default_upstream = %q at the top", name, name)
		}
	}
}

// eachWay tells found of the upstreams, "" and DirectUpstream among them, that the rules for which match holds lead to, and of the
// places that say so.
func (f *File) eachWay(match func(Rule) bool, found func(p *place, upstream string)) {
	byDefault := false
	for i, r := range f.Rule {
		p := f.rulePlace(i)
		switch {
		case !match(r):
			continue
		case r.Upstream != "":
			found(p.key("upstream"), r.Upstream)
		case len(r.Exit) == 0:
			byDefault = true
		}
		for j, exit := range r.Exit {
			found(p.key("exit").at(j), f.ExitUpstream(exit))
		}
	}
	if byDefault {
		found(root.key("default_upstream"), f.DefaultUpstream)
	}
}

// warnIPv6 finds the rules about IPv6 addresses alone that lead where none of these gets through.
func (f *File) warnIPv6(w *warnings) {
	ipv6 := func(t string) bool {
		p, err := parsePrefix(t)
		return err == nil && p.Addr().Is6() && !p.Addr().Is4In6()
	}
	f.eachWay(func(r Rule) bool {
		return r.Action == ActionAllow && len(r.Target) > 0 && !slices.ContainsFunc(r.Target, func(t string) bool { return !ipv6(t) })
	}, func(p *place, name string) {
		u, ok := f.Upstream[name]
		if ok && !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return !strings.HasPrefix(s.URL.Scheme, "socks4") }) {
			w.addf(p, "IPv6 is refused here: no server of upstream %s carries IPv6 addresses", quote(name))
		}
	})
}

// warnBindWays finds the rules that name BIND and send it where it is refused.
func (f *File) warnBindWays(w *warnings) {
	if f.Bind.Ports.First == 0 {
		return
	}
	f.eachWay(func(r Rule) bool {
		return r.Action == ActionAllow && slices.ContainsFunc(r.Method, func(m string) bool { return strings.EqualFold(m, methodBind) })
	}, func(p *place, name string) {
		if _, ok := f.Upstream[name]; ok {
			w.addf(p, `BIND is refused here: upstream %s does not carry it: write upstream = "direct" into a rule of its own for it`, quote(name))
		}
	})
}

// warnUDP finds the rules that name datagrams and send them where none get through. Others admit them too, but few who write those think of
// UDP.
func (f *File) warnUDP(w *warnings) {
	if !slices.ContainsFunc(f.ListenerNames(), f.ServesUDP) {
		return
	}
	f.eachWay(Rule.allowsUDP, func(p *place, name string) { f.warnNoDatagrams(w, p, name) })
}

// allowsUDP reports whether the rule admits datagrams by name.
func (r Rule) allowsUDP() bool {
	named := func(m string) bool { return strings.EqualFold(m, methodUDP) }
	return r.Action == ActionAllow && slices.ContainsFunc(r.Method, named) &&
		(len(r.Protocol) == 0 || slices.Contains(r.Protocol, "*") || slices.Contains(r.Protocol, "socks5"))
}

// warnNoDatagrams warns of an upstream that refuses UDP; "" and DirectUpstream are none.
func (f *File) warnNoDatagrams(w *warnings, p *place, name string) {
	u, ok := f.Upstream[name]
	switch {
	case !ok:
	case u.Via != "":
		w.addf(p, "UDP is refused here: upstream %s is reached via %s, and no datagrams go through a chain", quote(name), quote(u.Via))
	case !slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return s.URL.Scheme == "socks5" }):
		w.addf(p, "UDP is refused here: no server of upstream %s is socks5, which alone carries datagrams", quote(name))
	}
}

// warnUserParameters finds parameters that choose nothing, and users whose names are now read as something else.
func (f *File) warnUserParameters(w *warnings) {
	p, names := root.key("auth").key("user_parameters"), f.Auth.UserParameters
	if len(names) == 0 {
		return
	}
	choice := func(r Rule) bool { return len(r.Exit) > 1 }
	if i := slices.Index(names, ParameterExit); i >= 0 && !slices.ContainsFunc(f.Rule, choice) {
		w.addf(p.at(i), `no rule offers a choice: write exit = ["...", "..."] with two or more into one`)
	}
	if i := slices.Index(names, ParameterCountry); i >= 0 && !f.hasServerCountry() {
		w.addf(p.at(i), `no upstream server has a country, so that whoever names one is refused: write country = "de", or another, into the servers`)
	}
	for _, group := range sortedKeys(f.Auth.Groups) {
		for i, u := range f.Auth.Groups[group] {
			if strings.Contains(u, "+") {
				w.addf(root.key("auth").key("groups").key(group).at(i), `%s is never seen as a user: what follows a "+" is a parameter now`, quote(u))
			}
		}
	}
}

func (f *File) hasServerCountry() bool {
	for _, u := range f.Upstream {
		if slices.ContainsFunc(u.Servers, func(s UpstreamServer) bool { return s.Country != "" }) {
			return true
		}
	}
	return false
}
