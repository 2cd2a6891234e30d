package acl

import (
	"errors"
	"fmt"
	"net/netip"
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
		name:       r.Name,
		action:     r.Action,
		anonymous:  r.Anonymous,
		client:     c.prefixes("client", r.Client),
		clientPort: c.ports("client_port", r.ClientPort),
		user:       c.words("user", r.User),
		group:      c.groups(r.Group),
		protocol:   c.words("protocol", r.Protocol),
		listener:   c.words("listener", r.Listener),
		target:     c.targets(r.Target),
		port:       c.ports("port", r.Port),
		method:     c.words("method", r.Method),
		time:       c.schedule(r.Time),
	}
	if out.name == "" {
		out.name = c.place
	}
	c.checkAction(r)
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
