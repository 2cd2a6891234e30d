package egress

import (
	"encoding/binary"
	"net/netip"

	"polyport/acl"
	"polyport/internal/target"
	"polyport/internal/upstream"
)

// Permit is the right to dial one target: it pins the addresses that were
// checked. It is immutable and safe for concurrent use.
type Permit struct {
	target     target.Target
	decision   acl.Decision
	generation uint64
	pinned     dialSet
	backend    *upstream.Backend // nil: the target itself is dialled
	way        *way              // nil: simply from here to there
	bind       *bindRight        // nil: it is not one to listen
	shared     bool              // connections to the backend may be shared
	one        [1]netip.Addr     // holds pinned.addrs in the common case of one address
}

// dialSet is what may be connected to: some addresses, in the order in which
// they are tried, and one port.
type dialSet struct {
	addrs []netip.Addr // unmapped; a zone only in a backend's
	port  uint16
	from  *origin // nil leaves to the system where connections leave from
}

// covers reports whether ap, mapped or not, is in the set. An address that was
// checked without a zone covers it in every zone.
func (s *dialSet) covers(ap netip.AddrPort) bool {
	if ap.Port() != s.port {
		return false
	}
	a := ap.Addr().Unmap()
	for _, pinned := range s.addrs {
		if pinned == a || pinned == a.WithZone("") {
			return true
		}
	}
	return false
}

// Target returns where the client asked to go.
func (p *Permit) Target() target.Target { return p.target }

// Decision returns the decision that admitted the session. With several
// addresses it is that of the first one that is dialled.
func (p *Permit) Decision() acl.Decision { return p.decision }

// Backend returns the name of the backend that is dialled in the target's
// place; "" where the target itself is.
func (p *Permit) Backend() string {
	if p.backend == nil {
		return ""
	}
	return p.backend.Name()
}

// WantsHeader reports whether the backend's servers are told of the client by the PROXY protocol.
func (p *Permit) WantsHeader() bool {
	return p.backend != nil && p.backend.Header() != upstream.NoHeader
}

// Addrs returns a copy of the checked addresses in the order in which they are
// tried; none for a backend, whose names are resolved when it is dialled.
func (p *Permit) Addrs() []netip.Addr { return append([]netip.Addr(nil), p.pinned.addrs...) }

// Covers reports whether a connection whose peer is a may be used under this
// permit. It is false for every address of a backend but of one that AuthorizeSite admits: those connections carry raw
// bytes of one client and are never shared. Of a connection through an upstream a is Link.Address; an invalid one is covered, since
// Key tells whether it leads to the same place.
func (p *Permit) Covers(a netip.AddrPort) bool {
	if p.shared || !a.IsValid() && p.way != nil && p.way.upstream != nil {
		return true
	}
	return p.pinned.covers(a)
}

// Keeps reports whether a connection that l is of, which this permit covers, may go on to be used: a new one would lead by the same servers, as
// far as their pools know now. Of a server that is down, or stood in for one that is back, nobody is to hold on to what lies idle.
func (p *Permit) Keeps(l *Link) bool {
	for i, m := range l.members {
		r := &p.way.request
		if i > 0 { // of an upstream on the way to the first
			r = p.way.hopRequest()
		}
		if !m.Fits(r) {
			return false
		}
	}
	return true
}

// Key identifies connections that may be shared between permits: target, or backend, way out, rule
// and generation of the Dialer. It is an opaque string that is unlike that of any
// other combination, and costs one allocation, so ask once.
func (p *Permit) Key() string { return string(p.AppendKey(nil)) }

// AppendKey appends the bytes of Key to b.
func (p *Permit) AppendKey(b []byte) []byte {
	backend, to := p.Backend(), p.target
	if p.shared {
		to = target.Target{} // visitors of a site can name it in any number of ways, by the port alone
	}
	b = binary.BigEndian.AppendUint64(b, p.generation)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, uint32(len(backend)))
	lengthAt := len(b)
	b = binary.BigEndian.AppendUint32(b, 0) // of the host
	if a, ok := to.Addr(); ok {
		b = a.AppendTo(b)
	} else {
		b = append(b, to.Host()...)
	}
	binary.BigEndian.PutUint32(b[lengthAt:], uint32(len(b)-lengthAt-4))
	b = append(b, backend...)
	b = p.way.appendKey(b, p.backend)
	return append(b, p.decision.Rule...)
}
