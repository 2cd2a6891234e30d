package daemon

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ownSockets knows the gateway's own listening sockets, so that no session can
// be pointed back at the gateway.
type ownSockets struct {
	sockets atomic.Pointer[map[uint16][]netip.Addr] // of listeners, by port
	bound   sync.Map                                // of BIND and of UDP associations: by port, a uint16, the []netip.Addr; loops change it

	changing sync.Mutex // bound

	mu      sync.Mutex
	locals  map[netip.Addr]bool // the addresses of this machine
	asOf    time.Time
	lookups func() ([]net.Addr, error)
	binds   func(netip.Addr) bool // whether a socket can be bound to an address
}

// localsLife is how long the machine's addresses are believed.
const localsLife = 10 * time.Second

func newOwnSockets() *ownSockets {
	o := &ownSockets{lookups: net.InterfaceAddrs, binds: canBind}
	o.set(nil)
	return o
}

// open adds one that is about to be listened on for BIND or a UDP association, which no set takes away.
func (o *ownSockets) open(ap netip.AddrPort) {
	o.changing.Lock()
	defer o.changing.Unlock()
	o.bound.Store(ap.Port(), append(slices.Clone(o.boundTo(ap.Port())), ap.Addr()))
}

// close takes away what one open has added: TCP of BIND and UDP of an association may have the same address and port.
func (o *ownSockets) close(ap netip.AddrPort) {
	o.changing.Lock()
	defer o.changing.Unlock()
	left := slices.Clone(o.boundTo(ap.Port()))
	if i := slices.Index(left, ap.Addr()); i >= 0 {
		left = slices.Delete(left, i, i+1)
	}
	if len(left) == 0 {
		o.bound.Delete(ap.Port())
		return
	}
	o.bound.Store(ap.Port(), left)
}

// boundTo returns the addresses that open has added for a port. They stay as they are.
func (o *ownSockets) boundTo(port uint16) []netip.Addr {
	all, _ := o.bound.Load(port)
	addrs, _ := all.([]netip.Addr)
	return addrs
}

// set replaces what is listened on.
func (o *ownSockets) set(all []netip.AddrPort) {
	byPort := map[uint16][]netip.Addr{}
	for _, ap := range all {
		byPort[ap.Port()] = append(byPort[ap.Port()], ap.Addr().Unmap())
	}
	o.sockets.Store(&byPort)
}

// add adds one that is about to be listened on.
func (o *ownSockets) add(ap netip.AddrPort) {
	byPort := maps.Clone(*o.sockets.Load())
	byPort[ap.Port()] = append(slices.Clone(byPort[ap.Port()]), ap.Addr().Unmap())
	o.sockets.Store(&byPort)
}

// holds reports whether a connection to ap would reach one of the gateway's
// own sockets. An unspecified address connects to this machine.
func (o *ownSockets) holds(ap netip.AddrPort) bool {
	return o.reaches(ap.Addr(), (*o.sockets.Load())[ap.Port()]) || o.reaches(ap.Addr(), o.boundTo(ap.Port()))
}

// reaches reports whether a connection to a would reach one of the addresses.
func (o *ownSockets) reaches(a netip.Addr, sockets []netip.Addr) bool {
	for _, own := range sockets {
		switch {
		case own == a:
			return true
		case own.Is4() != a.Is4():
			continue
		case own.IsUnspecified():
			if a.IsLoopback() || a.IsUnspecified() || o.isLocal(a) {
				return true
			}
		case a.IsUnspecified() && own.IsLoopback():
			return true
		}
	}
	return false
}

// isLocal reports whether a connection to a stays on this machine. A system may
// have whole prefixes to itself (a network on the loopback interface, a route of
// type local), whose addresses no interface lists; but sockets can be bound to them.
func (o *ownSockets) isLocal(a netip.Addr) bool {
	return o.isListed(a) || o.binds(a) && !o.binds(foreign(a))
}

// foreign returns an address of a's family that no machine has (RFC 5737, RFC 3849).
// Where a socket can be bound even to that (net.ipv4.ip_nonlocal_bind), binding tells nothing.
func foreign(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: 1})
}

// canBind reports whether a socket can be bound to a. It sends nothing.
func canBind(a netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was done with it
	return true
}

// isListed reports whether an interface of this machine has the address.
func (o *ownSockets) isListed(a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); o.locals == nil || now.Sub(o.asOf) > localsLife {
		o.refresh(now)
	}
	return o.locals[a]
}

func (o *ownSockets) refresh(now time.Time) {
	addrs, err := o.lookups()
	if err != nil && o.locals != nil {
		return // the old list is better than none
	}
	o.asOf, o.locals = now, map[netip.Addr]bool{}
	for _, addr := range addrs {
		if p, err := netip.ParsePrefix(addr.String()); err == nil {
			o.locals[p.Addr().Unmap().WithZone("")] = true
		}
	}
}
