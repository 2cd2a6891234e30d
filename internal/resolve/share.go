package resolve

import (
	"net/netip"
	"sync"
)

// shares bounds how many look-ups each asker may have under way, so that one who asks for
// names that hang cannot use up the turns of all others.
type shares struct {
	most int // of one asker

	mu sync.Mutex
	by map[netip.Addr]*share // only askers who look something up, or wait to
}

// share is one asker's.
type share struct {
	asker netip.Addr
	slots chan struct{} // one for each look-up under way
	users int           // those who hold a slot or wait for one; guarded by shares.mu
}

func newShares(most int) *shares {
	return &shares{most: most, by: make(map[netip.Addr]*share)}
}

// of returns the share of an asker. The caller leaves it.
func (s *shares) of(asker netip.Addr) *share {
	key := askerKey(asker)
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.by[key]
	if sh == nil {
		sh = &share{asker: key, slots: make(chan struct{}, s.most)}
		s.by[key] = sh
	}
	sh.users++
	return sh
}

// leave gives a share back, with the slot that the caller has of it or without one.
func (s *shares) leave(sh *share, slot bool) {
	if slot {
		<-sh.slots
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.users--; sh.users == 0 {
		delete(s.by, sh.asker)
	}
}

// askerKey is what counts as one asker: an IPv4 address, or an IPv6 /64, which
// one machine has all to itself (RFC 6177). The zero Addr is one too.
func askerKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 bits are valid for every IPv6 address
		return p.Addr()
	}
	return a
}
