package pool

import "time"

// Fits reports whether a connection to m that has stayed open serves r as well as one to the server that Choose would take now: m can be used, and
// none of a lower priority number can be; where r belongs to one server, by its session, a sticky balance or the order of the servers, it is m.
// A connection that a full server has passed on to m stays until that one has room again. It is false for a server whose trial is due, which takes
// a new connection. What an ejected server has still serves where all that could be used are ejected.
func (m *Member) Fits(r *Request) bool {
	p, v := m.p, m.p.current()
	want := p.fits(r)
	want = want.and(&v.usable)
	if healthy := want.without(&v.trial); healthy.empty() {
		return m.Status().State == Ejected
	}
	switch {
	case !want.has(m.index) || v.trial.has(m.index):
		return false
	case r.Session != "":
		l := p.session(r, time.Now())
		return l != nil && l.Value == m.Name()
	}
	group, w := v.first(&want)
	switch {
	case !group.has(m.index):
		return false
	case p.o.Balance == First:
		return !v.precedes(&group, m.index)
	case p.Sticky():
		if w != nil {
			return p.isNearest(v, w, m.index, p.stickyKey(r))
		}
		part := p.wheelOf(v, &group)
		return p.isNearest(v, &part, m.index, p.stickyKey(r))
	}
	return true
}

// first is those of want that take part: of the lowest priority number. w is their wheel if they are the whole of a group.
func (v *view) first(want *set) (s set, w *wheel) {
	for g := range v.groups {
		switch s = want.and(&v.groups[g].set); {
		case s == v.groups[g].set && !s.empty():
			return s, &v.groups[g].wheel
		case !s.empty():
			return s, nil
		}
	}
	return s, nil
}

// precedes reports whether one that is not warming comes before i.
func (v *view) precedes(s *set, i int) bool {
	for j := s.next(0); j < i; j = s.next(j + 1) {
		if v.share[j] == whole {
			return true
		}
	}
	return false
}

// isNearest reports whether none of w's servers that has room has a better score for the key than i.
func (p *Pool) isNearest(v *view, w *wheel, i int, key uint64) bool {
	all := uint64(0)
	for _, j := range w.servers() {
		all += p.connections(int(j))
	}
	mine, perWeight := score(key, p.serverSeeds[i], v.inverse[i]), p.perWeight(w, all)
	for k, j := range w.servers() {
		if score(key, p.serverSeeds[j], v.inverse[j]) < mine && !p.isFull(w, k, perWeight) {
			return false
		}
	}
	return true
}
