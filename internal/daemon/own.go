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
	sockets atomic.Pointer[map[uint16][]netip.Addr] // by port

	mu      sync.Mutex
	locals  map[netip.Addr]bool // the addresses of this machine
	asOf    time.Time
	lookups func() ([]net.Addr, error)
}

// localsLife is how long the machine's addresses are believed.
const localsLife = 10 * time.Second

func newOwnSockets() *ownSockets {
	o := &ownSockets{lookups: net.InterfaceAddrs}
	o.set(nil)
	return o
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

// boundTo returns the address that a socket has.
func boundTo(l *net.TCPListener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// holds reports whether a connection to ap would reach one of the gateway's
// own sockets. An unspecified address connects to this machine.
func (o *ownSockets) holds(ap netip.AddrPort) bool {
	for _, own := range (*o.sockets.Load())[ap.Port()] {
		switch a := ap.Addr(); {
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

// isLocal reports whether a is an address of this machine.
func (o *ownSockets) isLocal(a netip.Addr) bool {
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
