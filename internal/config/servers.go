package config

import (
	"slices"
	"strings"
)

// What servers of upstreams and of backends may be.
const (
	maxServers  = 256 // of one pool
	maxWeight   = 256
	maxPriority = 15
)

// below returns the place of a key of a table that may also be written as a string, which is then its place itself, as is whatever
// else stands there.
func (f *File) below(p *place, key string) *place {
	if f.doc != nil {
		if _, table := f.doc.value(p).(map[string]any); !table {
			return p
		}
	}
	return p.key(key)
}

// checkServerCount refuses no servers and too many.
func checkServerCount(errs *faults, p *place, n int, such string) {
	switch {
	case n == 0:
		errs.addf(p, "there is no server: write one such as [%q]", such)
	case n > maxServers:
		errs.addf(p, "there are %d servers, and %d is the most", n, maxServers)
	}
}

func checkWeight(errs *faults, p *place, weight, priority int) {
	if weight < 1 || weight > maxWeight {
		errs.addf(p.key("weight"), "%d is not a weight: write a number from 1 to %d, or drain = true for a server that is to get nothing", weight, maxWeight)
	}
	if priority < 0 || priority > maxPriority {
		errs.addf(p.key("priority"), "%d is not a priority: write a number from 0, which comes first, to %d", priority, maxPriority)
	}
}

func checkBalance(errs *faults, p *place, balance string) {
	checkEnum(errs, p.key("balance"), balance, BalanceFirst, BalanceRoundRobin, BalanceRandomTwo, BalanceLeastConnections, StickyClient, StickyUser, StickySession)
}

// checkHealth judges what upstreams and backends have in common.
func checkHealth(errs *faults, p *place, h Health) {
	if h.Every > 0 && h.Timeout <= 0 {
		errs.addf(p.key("timeout"), `this must be longer than 0: a check needs an end (every = "0s" makes no checks)`)
	}
	if !strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
		errs.addf(p.key("path"), `%s is not the path of a request: write one such as "/health", other characters as %%XX`, quote(h.Path))
	}
	if h.Host != "" {
		if err := checkHostMaybePort(h.Host); err != nil {
			errs.add(p.key("host"), err)
		}
	}
	checkChecks(errs, p.key("rise"), h.Rise)
	checkChecks(errs, p.key("fall"), h.Fall)
}

func checkChecks(errs *faults, p *place, n int) {
	if n < 1 || n > maxLimit {
		errs.addf(p, "%d is not a number of checks: write one from 1 to %d", n, maxLimit)
	}
}

// checkHostMaybePort accepts what a Host field holds (RFC 9110 section 7.2).
func checkHostMaybePort(s string) error {
	if strings.Contains(s, ":") && !strings.HasSuffix(s, "]") {
		return checkHostPort(s)
	}
	return checkHost(s)
}

func checkEject(errs *faults, p *place, e Eject) {
	switch {
	case e.Failures < 0 || e.Failures > maxLimit:
		errs.addf(p.key("failures"), "%d is not a number of failures: write one up to %d; 0 never ejects a server", e.Failures, maxLimit)
	case e.Failures > 0 && e.Pause <= 0:
		errs.addf(p.key("pause"), "this must be longer than 0: write failures = 0 to leave no server alone")
	case e.Failures > 0 && e.MaxPause < e.Pause:
		errs.addf(p.key("max_pause"), "%s must not be below pause, %s", e.MaxPause, e.Pause)
	}
}

// checkCountry accepts a country's code in lower case.
func checkCountry(errs *faults, p *place, country string) {
	if len(country) != 2 || strings.Trim(country, "abcdefghijklmnopqrstuvwxyz") != "" {
		errs.addf(p, `%s is not a country: write its two letters (ISO 3166-1 alpha-2), such as "de"`, quote(country))
	}
}

// checkCountries judges those of a rule, of which the empty list would be everything.
func checkCountries(errs *faults, p *place, countries []string) {
	checkEmpty(errs, p, countries)
	for i, c := range countries {
		checkCountry(errs, p.at(i), c)
	}
}

// checkTags accepts what can stand in a log and in a user's name.
func checkTags(errs *faults, p *place, tags []string) {
	for i, t := range tags {
		if t == "" || !isBare(t) || len(t) > maxNameLength {
			errs.addf(p.at(i), "%s is not a tag: write 1 to %d letters, digits, - and _", quote(t), maxNameLength)
		}
	}
}

// lowerCountries folds the case of every country of the file, since they are compared with those of databases and of one another.
func (f *File) lowerCountries() {
	lower := func(list []string) {
		for i, c := range list {
			list[i] = strings.ToLower(c)
		}
	}
	for _, r := range f.Rule {
		lower(r.Country)
		lower(r.ClientCountry)
	}
	for _, e := range f.Exit {
		lower(e.Country)
	}
	for _, u := range f.Upstream {
		for i, s := range u.Servers {
			u.Servers[i].Country = strings.ToLower(s.Country)
		}
	}
}

// checkTwice refuses an entry that stands in a list before; where they are many nobody could tell which one is meant.
func checkTwice(errs *faults, p *place, names []string, i int) {
	if slices.Contains(names[:i], names[i]) {
		errs.addf(p.at(i), "%s is named twice", quote(names[i]))
	}
}
