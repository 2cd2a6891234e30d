package config

import "fmt"

// Warnings lists what is legal but dangerous, or surely not what was meant, for a file
// without faults. Each is a sentence that begins with its place. Package acl has warnings of its own about the rules.
func (f *File) Warnings() []string {
	w := &warnings{f: f}
	if f.AllowOpenProxy {
		w.addf(root.key("allow_open_proxy"), "the check that keeps this gateway from becoming an open proxy is off")
	}
	f.warnListeners(w)
	f.warnUsers(w)
	f.warnRules(w)
	f.warnBind(w)
	f.warnUpstreams(w)
	f.warnDrained(w)
	f.warnUnused(w)
	f.warnUDP(w)
	f.warnBindWays(w)
	f.warnIPv6(w)
	f.warnUserParameters(w)
	f.warnDNS(w)
	if f.Timeouts.Idle == 0 {
		w.addf(root.key("timeouts").key("idle"), "0 keeps tunnels that nobody uses any more for ever")
	}
	if !f.Log.RedactQuery && f.Log.Access != AccessOff {
		w.addf(root.key("log").key("redact_query"), "the access log will hold query strings, in which people's passwords and tokens stand")
	}
	return w.list
}

type warnings struct {
	f    *File
	list []string
}

func (w *warnings) addf(p *place, format string, args ...any) {
	e := w.f.newFaults()
	e.addf(p, format, args...)
	w.list = append(w.list, e.list[0].Error())
}

func (f *File) warnListeners(w *warnings) {
	for _, name := range f.ListenerNames() {
		p, l := root.key("listen").key(name), f.Listen[name]
		if f.Auth.Htpasswd != "" && !l.Loopback() && !l.RequireTLS {
			w.addf(p, "users' passwords cross the network in the clear to this listener (HTTP Basic, SOCKS5) from clients that do not use TLS: let only trusted networks reach it, or write require_tls = true")
		}
		if l.RequireUser != nil && *l.RequireUser && !f.HasUsers() {
			w.addf(p.key("require_user"), "there are no users ([auth] htpasswd or client_ca): only rules with anonymous = true will admit anybody")
		}
		if l.DeferAccept > 0 && f.Sniff.SilentTo != "" {
			w.addf(p.key("defer_accept"), "clients that wait for their server to speak first are not seen before it has passed: [sniff] silent_to serves them late on this listener")
		}
		for i, b := range l.ProxyProtocolFrom {
			f.warnBalancer(w, p.key("proxy_protocol_from").at(i), b)
		}
	}
}

// warnBalancer warns of a balancer that rules also take for a client: whoever it is may
// declare any client address it likes.
func (f *File) warnBalancer(w *warnings, p *place, b Prefix) {
	if !b.IsValid() {
		return
	}
	if b.Bits() == 0 {
		w.addf(p, "%s lets everybody declare any client address: name the balancers alone", b)
		return
	}
	for i, r := range f.Rule {
		for _, c := range r.Client {
			if c.IsValid() && c.Bits() > 0 && c.Overlaps(b.Prefix) {
				w.addf(p, "%s overlaps %s, the client of %s: whoever connects from there may declare any client address", b, c, f.rulePlace(i))
				return
			}
		}
	}
}

func (f *File) warnUsers(w *warnings) {
	p := root.key("auth")
	if f.Auth.Htpasswd == "" {
		if len(f.Auth.Groups) > 0 && !f.HasUsers() {
			w.addf(p.key("groups"), "there are no users (htpasswd, client_ca), so that nobody is in these groups")
		}
		return
	}
	if f.Auth.Lockout.Failures == 0 {
		w.addf(p.key("lockout").key("failures"), "0 turns the lockout off: passwords may be guessed without end")
	}
}

func (f *File) warnRules(w *warnings) {
	for i, r := range f.Rule {
		p := f.rulePlace(i)
		if !f.HasUsers() && (len(r.User) > 0 || len(r.Group) > 0) {
			w.addf(p, "it names users, but there are none ([auth] htpasswd or client_ca), so that it never matches")
		}
	}
}

// String returns the prefix as it is written: one address without its length.
func (p Prefix) String() string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return fmt.Sprint(p.Prefix)
}
