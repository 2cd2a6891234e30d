package pool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNone is in the error of Choose when the pool has no server that fits the request, in whatever state.
var ErrNone = errors.New("no server fits the request")

// ErrDown is in the error of Choose when the servers that fit are all down, ejected, draining or tried.
var ErrDown = errors.New("no server can be used")

// maxReasons is how many servers an error of Choose speaks of.
const maxReasons = 8

// Choice is what Explain says of one server.
type Choice struct {
	Index      int
	Server     string
	Considered bool   // Choose would weigh it against the others that are considered
	Taken      bool   // Choose would take it; of none if chance decides
	Why        string // a part of a sentence
}

// Explain says what Choose would take for r, and of every server why it is or is not considered. It changes nothing. What could be chosen but
// for out, which may be nil, has no Why: that is the caller's.
func (p *Pool) Explain(r *Request, out *Tried) []Choice {
	v, fit := p.current(), p.fits(r)
	want := fit.and(&v.usable)
	if out != nil {
		want = want.without((*set)(out))
	}
	considered, kept := p.considered(v, want, r)
	taken := -1
	if !p.byChance(v, &considered) {
		taken = p.pick(v, &considered, r, false)
	}
	choices := make([]Choice, 0, len(p.servers))
	for i := range p.servers {
		c := Choice{Index: i, Server: p.o.Servers[i].Name, Considered: considered.has(i), Taken: i == taken}
		switch {
		case !fit.has(i):
			c.Why = p.unfit(i, r)
		case c.Considered:
			c.Why = p.chosenBy(v, i, kept)
		case !v.usable.has(i):
			c.Why = p.unusable(i)
		case out != nil && out.Has(i):
		case kept:
			c.Why = "the session keeps another server"
		default:
			c.Why = fmt.Sprintf("priority %d waits until no server with a lower one can be used", p.o.Servers[i].Priority)
		}
		choices = append(choices, c)
	}
	return choices
}

// considered is the part of want that the balance would choose from: the server of the session, or the first group.
func (p *Pool) considered(v *view, want set, r *Request) (s set, kept bool) {
	if l := p.session(r, time.Now()); l != nil {
		if i, ok := p.place[l.Value]; ok && want.has(i) {
			s.add(i)
			return s, true
		}
	}
	for g := range v.groups {
		if s = want.and(&v.groups[g].set); !s.empty() {
			return s, false
		}
	}
	return s, false
}

// byChance reports whether chance has a say in which of s is taken.
func (p *Pool) byChance(v *view, s *set) bool {
	first := s.next(0)
	if first < 0 || s.next(first+1) < 0 {
		return false
	}
	return p.o.Balance == RandomTwo || p.o.Balance == First && v.share[first] != whole
}

// chosenBy says by what a server that is considered is taken or not.
func (p *Pool) chosenBy(v *view, i int, kept bool) string {
	why := fmt.Sprintf("balance %v, weight %d", p.o.Balance, p.o.Servers[i].Weight)
	if kept {
		why = "the session keeps it"
	}
	if share := v.share[i]; share != whole {
		why += fmt.Sprintf(", of which %d %% after its return", share*100/whole)
	}
	if v.trial.has(i) {
		why += ", ejected before: the next connection is its trial"
	}
	return why
}

// unfit says what the request asks for and the server is not.
func (p *Pool) unfit(i int, r *Request) string {
	s := &p.o.Servers[i]
	switch {
	case len(r.Countries) == 0 || slices.Contains(r.Countries, s.Country):
		return "none of its tags is asked for"
	case s.Country == "":
		return "its country is unknown"
	}
	return fmt.Sprintf("its country is %s", s.Country)
}

// unusable says why a server takes no connection now.
func (p *Pool) unusable(i int) string {
	now := time.Now()
	switch st := p.status(i, now); st.State {
	case Down:
		return fmt.Sprintf("down for %v: %v", now.Sub(st.Since).Round(time.Second), st.Err)
	case Ejected:
		if now.Before(st.Until) {
			return fmt.Sprintf("left alone for %v more: %v", st.Until.Sub(now).Round(time.Millisecond), st.Err)
		}
		return fmt.Sprintf("another connection is its trial: %v", st.Err)
	case Draining:
		return "draining"
	}
	return "it was not usable a moment ago"
}

// unavailable is the error of Choose.
func (p *Pool) unavailable(r *Request, fit *set, tried *Tried) error {
	if fit.empty() {
		return fmt.Errorf("pool %q: %w: none %s", p.o.Name, ErrNone, asked(r))
	}
	var reasons []string
	for i := fit.next(0); i >= 0; i = fit.next(i + 1) {
		why := "tried"
		if tried == nil || !tried.Has(i) {
			why = p.unusable(i)
		}
		reasons = append(reasons, p.o.Servers[i].Name+": "+why)
	}
	if more := len(reasons) - maxReasons; more > 0 {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("pool %q: %w: %s", p.o.Name, ErrDown, strings.Join(reasons, "; "))
}

// asked says which servers the request is about.
func asked(r *Request) string {
	var parts []string
	if len(r.Countries) > 0 {
		parts = append(parts, fmt.Sprintf("is of country %q", r.Countries))
	}
	if len(r.Tags) > 0 {
		parts = append(parts, fmt.Sprintf("has the tag %q", r.Tags))
	}
	return strings.Join(parts, " and ")
}
