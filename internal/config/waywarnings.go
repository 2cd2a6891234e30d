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
			scheme, hint := u.Servers[old].URL.Scheme, ""
			if scheme == "socks4a" {
				hint = `: resolve = "upstream" sends names on`
			}
			w.addf(p.key("servers").at(old), "%s carries IPv4 addresses alone, so that targets with IPv6 addresses only are not reached through it%s", scheme, hint)
		}
	}
}

// warnUDP finds the rules that name datagrams and send them where none get through. Others admit them too, but few who write those think of
// UDP.
func (f *File) warnUDP(w *warnings) {
	if !slices.ContainsFunc(f.ListenerNames(), f.ServesUDP) {
		return
	}
	byDefault := false
	for i, r := range f.Rule {
		p := f.rulePlace(i)
		switch {
		case !r.allowsUDP():
		case r.Upstream != "":
			f.warnNoDatagrams(w, p.key("upstream"), r.Upstream)
		case len(r.Exit) == 0:
			byDefault = true
		}
		for j, exit := range r.Exit {
			if r.allowsUDP() {
				f.warnNoDatagrams(w, p.key("exit").at(j), f.ExitUpstream(exit))
			}
		}
	}
	if byDefault {
		f.warnNoDatagrams(w, root.key("default_upstream"), f.DefaultUpstream)
	}
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
