package udprelay

import (
	"net/netip"
	"time"

	"polyport/internal/egress"
)

// flow is a target that the association may send to, and the way there.
type flow struct {
	dest     egress.Destination
	out      *outlet
	other    *flow // to the same address by another way; nil is none
	literal  bool  // it was admitted as an address; else by a name alone
	spoken   bool  // something has been sent
	answered bool  // and something has come back
	gone     bool  // it has been dropped
	used     time.Duration
}

// isNamed reports whether the flow leads to a name, which an upstream resolves. It is known by that name alone.
func (f *flow) isNamed() bool { return !f.dest.AddrPort().IsValid() }

// flows are those of an association to addresses. Most have one, and one is mostly asked for again.
type flows struct {
	last    *flow
	all     map[netip.AddrPort]*flow
	n       int
	cleared time.Duration // when the unused ones were last looked for
}

// to finds the first flow to an address, which knows the others; nil is none.
func (s *flows) to(a netip.AddrPort) *flow {
	if s.last != nil && s.last.dest.AddrPort() == a {
		return s.last
	}
	if f := s.all[a]; f != nil {
		s.last = f
		return f
	}
	return nil
}

// literal finds the flow to an address that was admitted as such; nil is none.
func (s *flows) literal(a netip.AddrPort) *flow {
	f := s.to(a)
	for f != nil && !f.literal {
		f = f.other
	}
	return f
}

// find finds the flow to an address by an outlet; nil is none.
func (s *flows) find(a netip.AddrPort, out *outlet) *flow {
	f := s.all[a]
	for f != nil && f.out != out {
		f = f.other
	}
	return f
}

// add makes the flow to an address by an outlet by which there is none.
func (s *flows) add(to egress.Destination, out *outlet) *flow {
	if s.all == nil {
		s.all = map[netip.AddrPort]*flow{}
	}
	a := to.AddrPort()
	f := &flow{dest: to, out: out, other: s.all[a]}
	s.all[a] = f
	s.n++
	if out.addresses != nil {
		out.addresses[a.Addr()]++
	}
	s.last = nil
	return f
}

// spokenTo reports whether there is a flow to an address, whatever its port.
func (o *outlet) spokenTo(a netip.Addr) bool {
	if o.addresses == nil {
		o.addresses = map[netip.Addr]int{}
		for to, f := range o.a.flows.all {
			for ; f != nil; f = f.other {
				if f.out == o {
					o.addresses[to.Addr()]++
				}
			}
		}
	}
	return o.addresses[a] > 0
}

// drop forgets the flows that have not been used since a moment.
func (s *flows) drop(since time.Duration) { s.dropIf(func(f *flow) bool { return f.used <= since }) }

// dropAll forgets the flows by an outlet.
func (s *flows) dropAll(out *outlet) { s.dropIf(func(f *flow) bool { return f.out == out }) }

func (s *flows) dropIf(over func(*flow) bool) {
	for to, first := range s.all {
		var kept *flow
		for f := first; f != nil; {
			next := f.other
			if over(f) {
				s.forget(to, f)
			} else {
				f.other, kept = kept, f
			}
			f = next
		}
		if kept == nil {
			delete(s.all, to)
		} else {
			s.all[to] = kept
		}
	}
	s.last = nil
}

// forget counts a flow off.
func (s *flows) forget(to netip.AddrPort, f *flow) {
	f.gone = true
	s.n--
	count := f.out.addresses
	if count == nil {
		return
	}
	if count[to.Addr()]--; count[to.Addr()] == 0 {
		delete(count, to.Addr())
	}
}

// forgetName has answers from the port of a named flow not pass any more for its sake.
func (f *flow) forgetName() {
	if f.gone = true; !f.spoken {
		return
	}
	ports, port := f.out.ports, f.dest.Port()
	if ports[port]--; ports[port] == 0 {
		delete(ports, port)
	}
}

const (
	// flowLife is how long a target that nothing is sent to keeps its place when others want it (RFC 4787 REQ-5: 2 minutes at least).
	flowLife = 2 * time.Minute
	// clearEvery bounds how often they are looked for.
	clearEvery = time.Second
)

// room reports whether the association may speak to one more target, and know one more name if that is asked for. Those that it has long not
// spoken to make room.
func (a *Association) room(now time.Duration, named bool) bool {
	full := func() bool {
		return a.targets > 0 && (a.flows.n >= a.targets || named && len(a.names) >= a.targets)
	}
	if !full() {
		return true
	}
	if a.flows.cleared > 0 && now-a.flows.cleared < clearEvery {
		return false
	}
	a.flows.cleared = now
	a.flows.drop(now - flowLife)
	for key, n := range a.names {
		if f := n.flow; f != nil && f.isNamed() && f.used <= now-flowLife {
			f.forgetName()
		}
		if n.flow == nil && !n.asking && n.until < now || n.flow != nil && n.flow.gone {
			delete(a.names, key)
		}
	}
	return !full()
}
