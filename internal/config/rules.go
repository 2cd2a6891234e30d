package config

import (
	"errors"
	"fmt"
	"strings"
)

// rulePlace is where a rule stands: in the file, or on the command line.
func (f *File) rulePlace(i int) *place {
	if f.flagRules != "" {
		return root.key(f.flagRules)
	}
	return root.key("rule").at(i)
}

// checkRules judges what only this package can: that what a rule names exists, and that
// no list is empty. What the rules mean together is for package acl.
func (f *File) checkRules(errs *faults, known knownNames) {
	for i, r := range f.Rule {
		p := f.rulePlace(i)
		checkAction(errs, p, r)
		checkMatchers(errs, p, r, known)
		f.checkRuleCountries(errs, p, r)
		checkWay(errs, p, r, known)
	}
}

// checkRuleCountries judges what only a database can match.
func (f *File) checkRuleCountries(errs *faults, p *place, r Rule) {
	for _, key := range []struct {
		name      string
		countries []string
	}{{"country", r.Country}, {"client_country", r.ClientCountry}} {
		if len(key.countries) > 0 && f.GeoIP.Database == "" {
			errs.addf(p.key(key.name), `there is no database that knows countries: write database = "GeoLite2-Country.mmdb", or another, into [geoip]`)
		}
		checkCountries(errs, p.key(key.name), key.countries)
	}
}

// checkWay judges the names in upstream and exit, which say how what the rule allows gets to its target. Which rule may have them is judged by
// package acl.
func checkWay(errs *faults, p *place, r Rule, known knownNames) {
	if r.Upstream != "" && r.Upstream != DirectUpstream {
		checkExists(errs, p.key("upstream"), "upstream", r.Upstream, known.upstreams)
	}
	if r.Exit != nil && len(r.Exit) == 0 {
		errs.addf(p.key("exit"), "an empty list names no exit: name one, or remove the key")
	}
	for i, name := range r.Exit {
		checkExists(errs, p.key("exit").at(i), "exit", name, known.exits)
		checkTwice(errs, p.key("exit"), r.Exit, i)
	}
}

func checkAction(errs *faults, p *place, r Rule) {
	switch r.Action {
	case ActionAllow, ActionDeny:
	case "":
		errs.addf(p.key("action"), `there is no action: write "allow" or "deny"`)
	default:
		errs.addf(p.key("action"), "unknown action %s%s", quote(r.Action), oneOf(r.Action, []string{ActionAllow, ActionDeny}))
	}
}

// checkMatchers judges what a rule names.
func checkMatchers(errs *faults, p *place, r Rule, known knownNames) {
	checkEmpty(errs, p.key("client"), r.Client)
	checkEmpty(errs, p.key("client_port"), r.ClientPort)
	checkEmpty(errs, p.key("port"), r.Port)
	checkEmpty(errs, p.key("target"), r.Target)
	checkEmpty(errs, p.key("method"), r.Method)
	checkNames(errs, p.key("user"), "user", r.User, nil)
	checkNames(errs, p.key("group"), "group", r.Group, known.groups)
	checkNames(errs, p.key("protocol"), "protocol", r.Protocol, known.rows)
	checkNames(errs, p.key("listener"), "listener", r.Listener, known.listeners)
	checkNames(errs, p.key("backend"), "backend", r.Backend, known.backends)
	for i, t := range r.Target {
		if err := checkTarget(t); err != nil {
			errs.add(p.key("target").at(i), err)
		}
	}
	for i, m := range r.Method {
		if !isToken(m) {
			errs.addf(p.key("method").at(i), "%s is not a method (a token of RFC 9110 section 5.6.2)", quote(m))
		}
	}
}

// checkTarget refuses what needs a hint of its own; package acl judges the rest.
func checkTarget(t string) error {
	switch {
	case t == "":
		return errors.New("the target is empty: remove it")
	case strings.HasPrefix(t, "list:"):
		return fmt.Errorf("%s: lists are not supported by this version of polyport: write the names themselves", quote(t))
	case strings.Contains(t, "://"):
		return fmt.Errorf(`%s is a URL: a rule names hosts, as in "*.example.com", and ports by its key "port"`, quote(t))
	case strings.Contains(t, "/"):
		_, err := parsePrefix(t)
		return err
	}
	return nil
}

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) < 0
}
