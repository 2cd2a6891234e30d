package udprelay

import (
	"net/netip"
	"time"

	"polyport/internal/egress"
)

// flow is a target that the association may send to.
type flow struct {
	dest     egress.Destination
	literal  bool // it was admitted as an address; else by a name alone
	spoken   bool // something has been sent
	answered bool // and something has come back
	used     time.Duration
}

func (f *flow) family() int { return family(f.dest.AddrPort().Addr()) }

// flows are those of an association. Most have one, and one is mostly asked for again.
type flows struct {
	last      *flow
	all       map[netip.AddrPort]*flow
	addresses map[netip.Addr]int // how many there are of each; nil until somebody asks
	cleared   time.Duration      // when the unused ones were last looked for
}

// to finds the flow to an address; nil is none.
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

// add makes the flow to a destination, which there is none to.
func (s *flows) add(to egress.Destination) *flow {
	f := &flow{dest: to}
	if s.all == nil {
		s.all = map[netip.AddrPort]*flow{}
	}
	s.all[to.AddrPort()] = f
	if s.addresses != nil {
		s.addresses[to.AddrPort().Addr()]++
	}
	s.last = f
	return f
}

// spokenTo reports whether there is a flow to an address, whatever its port.
func (s *flows) spokenTo(a netip.Addr) bool {
	if s.addresses == nil {
		s.addresses = map[netip.Addr]int{}
		for to := range s.all {
			s.addresses[to.Addr()]++
		}
	}
	return s.addresses[a] > 0
}

// drop forgets the flows that have not been used since a moment.
func (s *flows) drop(since time.Duration) {
	for to, f := range s.all {
		if f.used > since {
			continue
		}
		delete(s.all, to)
		if s.addresses != nil {
			if s.addresses[to.Addr()]--; s.addresses[to.Addr()] == 0 {
				delete(s.addresses, to.Addr())
			}
		}
	}
	s.last = nil
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
		return a.targets > 0 && (len(a.flows.all) >= a.targets || named && len(a.names) >= a.targets)
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
		if n.flow == nil && !n.asking && n.until < now || n.flow != nil && a.flows.all[n.flow.dest.AddrPort()] != n.flow {
			delete(a.names, key)
		}
	}
	return !full()
}
