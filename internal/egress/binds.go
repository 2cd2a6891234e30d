package egress

import (
	"math/rand/v2"
	"net/netip"
	"sync"
)

// Binds is what the listening sockets of BIND take up, over all configurations of a process: one Binds is lent to
// every Dialer. It is safe for concurrent use.
type Binds struct {
	client         func(netip.Addr) netip.Addr // what counts as one client
	opened, closed func(netip.AddrPort)

	mu      sync.Mutex
	next    uint16                  // where the search for a free port goes on, from the range's first port
	taken   map[netip.AddrPort]bool // reserved or listened on
	waiting map[netip.Addr]int      // by client
}

// NewBinds makes a Binds. client returns what counts as one client, whose addresses share BindOptions.PerClient. opened is called before an address is listened on, closed once it no longer is, so that the
// address counts as one of the gateway's own sockets meanwhile (Options.Own); neither may call back, and nil is none.
func NewBinds(client func(netip.Addr) netip.Addr, opened, closed func(netip.AddrPort)) *Binds {
	nobody := func(netip.AddrPort) {}
	b := &Binds{
		client: client, opened: opened, closed: closed, next: uint16(rand.Uint32()),
		taken: map[netip.AddrPort]bool{}, waiting: map[netip.Addr]int{},
	}
	if opened == nil {
		b.opened = nobody
	}
	if closed == nil {
		b.closed = nobody
	}
	return b
}

// enter counts one more that waits for client. It is false if there are most of them already.
func (b *Binds) enter(client netip.Addr, most int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.client(client.Unmap().WithZone(""))
	if b.waiting[key] >= most {
		return false
	}
	b.waiting[key]++
	return true
}

// leave takes back what enter has counted.
func (b *Binds) leave(client netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.client(client.Unmap().WithZone(""))
	if b.waiting[key]--; b.waiting[key] <= 0 {
		delete(b.waiting, key)
	}
}

// start returns where the search for a port begins in a range of so many.
func (b *Binds) start(ports int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return int(b.next) % ports
}

// reserve takes an address, unless it is taken.
func (b *Binds) reserve(ap netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken[ap] {
		return false
	}
	b.taken[ap] = true
	b.opened(ap)
	return true
}

// free gives an address back.
func (b *Binds) free(ap netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.taken, ap)
	b.closed(ap)
}
