package acl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
)

// New compiles the rules. The error lists every fault (it is a
// *multierror.Error), each named "rule[i].key", i counting from 0.
func New(o Options) (*Policy, error) {
	rules := o.Rules
	if len(rules) == 0 {
		rules = DefaultRules()
	}
	load := o.Location
	if load == nil {
		load = time.LoadLocation
	}
	var errs *multierror.Error
	p := &Policy{hasUsers: o.HasUsers, rules: make([]rule, len(rules))}
	for i := range rules {
		c := compiler{place: "rule[" + strconv.Itoa(i) + "]", load: load}
		p.rules[i] = c.compile(&rules[i])
		p.timed = p.timed || p.rules[i].time != nil
		p.located = p.located || p.rules[i].country.named() || p.rules[i].clientCountry.named()
		errs = multierror.Append(errs, c.faults...)
	}
	if err := errs.ErrorOrNil(); err != nil {
		return nil, err
	}
	return p, nil
}

// compiler compiles one rule and gathers its faults.
type compiler struct {
	place  string
	load   func(string) (*time.Location, error)
	faults []error
}

func (c *compiler) fault(key string, err error) {
	c.faults = append(c.faults, fmt.Errorf("%s.%s: %w", c.place, key, err))
}

func (c *compiler) compile(r *Rule) rule {
	out := rule{
		name:          r.Name,
		action:        r.Action,
		anonymous:     r.Anonymous,
		client:        c.prefixes("client", r.Client),
		clientPort:    c.ports("client_port", r.ClientPort),
		clientCountry: c.countries("client_country", r.ClientCountry),
		user:          c.words("user", r.User),
		group:         c.groups(r.Group),
		protocol:      c.words("protocol", r.Protocol),
		listener:      c.words("listener", r.Listener),
		backend:       c.words("backend", r.Backend),
		target:        c.targets(r.Target),
		port:          c.ports("port", r.Port),
		method:        c.words("method", r.Method),
		time:          c.schedule(r.Time),
		country:       c.countries("country", r.Country),
		way:           c.way(r),
	}
	if out.name == "" {
		out.name = c.place
	}
	c.checkAction(r)
	c.checkBackend(r, &out)
	return out
}

// checkAction refuses what contradicts itself.
func (c *compiler) checkAction(r *Rule) {
	if r.Action != Allow && r.Action != Deny {
		c.fault("action", fmt.Errorf("%v is nothing that a rule can do; write allow or deny", r.Action))
	}
	switch {
	case !r.Anonymous:
	case r.Action != Allow:
		c.fault("anonymous", errors.New("only a rule that allows can admit sessions without a user; remove it here"))
	case len(r.User) > 0 || len(r.Group) > 0:
		c.fault("anonymous", errors.New("the rule also names a user or a group, which no session without a user can be; write two rules"))
	}
}

// checkBackend refuses what no backend could be reached by.
func (c *compiler) checkBackend(r *Rule, compiled *rule) {
	if len(r.Backend) == 0 {
		return
	}
	if r.Upstream != "" {
		c.fault("upstream", errors.New("the rule also names a backend, and backends are reached through no upstream; remove one of the two"))
	}
	if len(r.Country) > 0 {
		c.fault("country", errors.New("the rule also names a backend, and what is handed to one is judged by name, without an address; remove one of the two"))
	}
	if !compiled.target.prefixes.empty() {
		c.fault("target", errors.New("the rule also names a backend, and what is handed to one is judged by name, without an address; write the names that clients ask for"))
	}
}

func (c *compiler) prefixes(key string, list []netip.Prefix) prefixes {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		n, err := normalPrefix(p)
		if err != nil {
			c.fault(key, err)
			continue
		}
		out = append(out, n)
	}
	return newPrefixes(out)
}

func (c *compiler) ports(key string, list []PortRange) ports {
	for _, r := range list {
		switch {
		case r.First == 0:
			c.fault(key, fmt.Errorf("%v: ports begin at 1", r))
		case r.First > r.Last:
			c.fault(key, fmt.Errorf("%v ends before it begins; write %v", r, PortRange{r.Last, r.First}))
		}
	}
	return append(ports(nil), list...)
}

func (c *compiler) words(key string, list []string) words {
	for _, s := range list {
		if strings.TrimSpace(s) != s || s == "" {
			c.fault(key, fmt.Errorf("%q is empty or has spaces around it", s))
		}
	}
	return newWords(append([]string(nil), list...))
}

func (c *compiler) groups(list []string) words {
	w := c.words("group", list)
	if w.any {
		c.fault("group", errors.New(`"*" is no group; for any authenticated user write user = ["*"]`))
	}
	return w
}

// countries compiles a list of ISO 3166-1 alpha-2 codes. Which of them exist is not known here: the list changes.
func (c *compiler) countries(key string, list []string) words {
	out := make([]string, 0, len(list))
	for _, s := range list {
		switch {
		case s == "*":
			c.fault(key, errors.New(`"*" is no country; leave the key out for addresses of all countries and of none`))
		case len(s) != 2 || !isLetter(s[0]) || !isLetter(s[1]):
			c.fault(key, fmt.Errorf("%q is no country; write two letters such as \"de\" (ISO 3166-1 alpha-2)", s))
		}
		out = append(out, strings.ToLower(s))
	}
	return newWords(out)
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// way compiles the way out that a rule names, nil for none.
func (c *compiler) way(r *Rule) *Way {
	if r.Upstream == "" && len(r.Exit) == 0 {
		return nil
	}
	key := "exit"
	if r.Upstream != "" {
		key = "upstream"
	}
	if r.Upstream != "" && len(r.Exit) > 0 {
		c.fault("upstream", errors.New("the rule also names an exit, which says the way out by itself; remove one of the two"))
	}
	if r.Action != Allow {
		c.fault(key, errors.New("only a rule that allows has a way out; remove it here"))
	}
	if strings.TrimSpace(r.Upstream) != r.Upstream {
		c.fault("upstream", fmt.Errorf("%q has spaces around it", r.Upstream))
	}
	for i, s := range r.Exit {
		switch {
		case s == "*":
			c.fault("exit", errors.New(`"*" is no exit; name those that clients may choose from, and first the one that is taken`))
		case s == "" || strings.TrimSpace(s) != s:
			c.fault("exit", fmt.Errorf("%q is empty or has spaces around it", s))
		case slices.Contains(r.Exit[:i], s):
			c.fault("exit", fmt.Errorf("%q stands twice", s))
		}
	}
	return &Way{Upstream: r.Upstream, Exits: slices.Clone(r.Exit)}
}

func (c *compiler) targets(list []string) targets {
	t, faults := newTargets(list)
	for _, err := range faults {
		c.fault("target", err)
	}
	return t
}

func (c *compiler) schedule(s string) *schedule {
	if s == "" {
		return nil
	}
	sch, err := parseSchedule(s, c.load)
	if err != nil {
		c.fault("time", err)
	}
	return sch
}
