package config

import (
	"errors"
	"net/netip"
)

// Override is what the flags of "serve", or their twins in the environment, lay over a
// file or the defaults. The zero value changes nothing.
type Override struct {
	// Listen replaces the addresses of the only listener ("0.0.0.0:7659").
	Listen []string
	// Htpasswd replaces [auth] htpasswd. A relative path is taken from the working directory.
	Htpasswd string
	// AllowClient and AllowTarget put rules in front of the default policy, which keeps holding for
	// whatever they do not match: these clients may reach these targets, with a user where one is required. Without
	// AllowTarget that is public addresses (the guard sees to it); without AllowClient it is whom the
	// default policy admits: clients on this machine, and users. Port 25 stays closed.
	AllowClient, AllowTarget []string
	// AllowOpenProxy sets allow_open_proxy.
	AllowOpenProxy bool
}

// Override lays o over f. Every fault is reported at once, each under the
// name of its flag. The result still wants Validate.
func (f *File) Override(o Override) error {
	errs := &faults{f: &File{}} // what a flag says does not stand in the file
	f.overrideListen(errs, o.Listen)
	if o.Htpasswd != "" {
		f.Auth.Htpasswd = o.Htpasswd
	}
	if o.AllowOpenProxy {
		f.AllowOpenProxy = true
	}
	if len(o.AllowClient) > 0 || len(o.AllowTarget) > 0 {
		f.overrideRules(errs, o)
	}
	return errs.err()
}

func (f *File) overrideListen(errs *faults, addresses []string) {
	if len(addresses) == 0 {
		return
	}
	p := root.key("--listen")
	names := f.ListenerNames()
	if len(names) != 1 {
		errs.addf(p, "the file has %d listeners, and the flag cannot tell which is meant: change their addresses in the file", len(names))
		return
	}
	l := f.Listen[names[0]]
	l.Address = make([]AddrRange, len(addresses))
	for i, s := range addresses {
		if err := l.Address[i].UnmarshalText([]byte(s)); err != nil {
			errs.add(p.at(i), err)
		}
	}
	f.Listen[names[0]] = l
}

func (f *File) overrideRules(errs *faults, o Override) {
	f.flagRules = "--allow-client"
	if len(o.AllowClient) == 0 {
		f.flagRules = "--allow-target"
	}
	if !f.DefaultRules {
		errs.add(root.key(f.flagRules), errors.New("the file has rules, and where this one should stand among them the flag cannot say: write it as a [[rule]]"))
		return
	}
	for i, s := range o.AllowTarget {
		if err := checkTarget(s); err != nil {
			errs.add(root.key("--allow-target").at(i), err)
		}
	}
	r := Rule{Name: f.flagRules, Action: ActionAllow, Target: o.AllowTarget, Port: notSMTP()}
	if len(o.AllowClient) == 0 {
		machine, users := r, r
		machine.Name, machine.Client = r.Name+" (this machine)", thisMachine()
		users.Name, users.User = r.Name+" (users)", []string{"*"}
		if f.Rule = []Rule{machine}; f.Auth.Htpasswd != "" {
			f.Rule = append(f.Rule, users)
		}
		return
	}
	for i, s := range o.AllowClient {
		p, err := parsePrefix(s)
		if err != nil {
			errs.add(root.key("--allow-client").at(i), err)
			continue
		}
		r.Client = append(r.Client, Prefix{p})
	}
	f.Rule = []Rule{r}
}

// notSMTP is every port but 25, which the default policy keeps closed too.
func notSMTP() []PortRange { return []PortRange{{1, 24}, {26, 65535}} }

// thisMachine is the loopback addresses (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
func thisMachine() []Prefix {
	return []Prefix{
		{netip.MustParsePrefix("127.0.0.0/8")},
		{netip.MustParsePrefix("::1/128")},
	}
}
