// Package udprelay relays the datagrams of SOCKS5 clients (RFC 1928 section 7): what UDP ASSOCIATE has asked for.
//
// An association belongs to the TCP session that has asked for it, and lasts no longer. Only datagrams from that client's
// address are its own. They come to the UDP port of the listener, which all associations share, or to a port of
// the association's own, and each target is authorized before anything is sent to it. What belongs to
// no association is dropped without an answer, so the port is neither a relay for others nor a reflector.
//
// The package speaks no TCP, decides nothing itself and knows no configuration. It runs on event loops, so it is for Linux alone.
package udprelay

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/target"
	"polyport/mux"
)

// Filter says from whom answers pass (RFC 4787 section 5).
type Filter uint8

// The filters.
const (
	Endpoint            Filter = iota // exactly the addresses and ports that were spoken to
	Address                           // any port of an address that was spoken to
	EndpointIndependent               // anybody, once the client has spoken to someone
)

// Options bounds what associations may do.
type Options struct {
	Idle         time.Duration // without a datagram, after which an association ends; zero and negative are never
	Associations int           // in all; zero and negative are no limit, as below
	PerClient    int           // of one client (mux.ClientKey)
	Targets      int           // of one association
	Datagrams    int           // per second of one client, both ways together
	Bytes        int           // of payload, likewise
	Filter       Filter
	FirstPort    uint16 // of those that associations get for themselves; 0: they share their listener's
	LastPort     uint16
}

// Session is what an association needs of the session that it belongs to. Its methods are called from many goroutines.
type Session interface {
	// AuthorizePacket asks whether the session may send to t. For an IP address it must not block.
	AuthorizePacket(ctx context.Context, t target.Target) (*egress.Permit, error)
	// OpenPacket opens the way out for the datagrams of a permit. Where that waits it is called in a task of the loop.
	OpenPacket(ctx context.Context, l *reactor.Loop, p *egress.Permit, owner egress.PacketOwner) (*egress.PacketConn, error)
	// AssociationEnded says that the association has come to its end by itself. It must not block, and closes the
	// association.
	AssociationEnded(why End)
}

// End is why an association ends by itself.
type End uint8

// The ends.
const (
	Idle     End = iota // nothing has passed for too long
	Lifetime            // it has lasted long enough
)

// Request is what an association is asked for with.
type Request struct {
	Session  Session
	Client   netip.Addr // whose datagrams they are, unmapped, no zone
	Identity string     // who the client is; "" is nobody
	// Port is what the client sends from; 0 is that of the first valid datagram.
	Port uint16
	// Socket is UDP beside the listening socket that the client came by.
	Socket *mux.PacketSocket
	// Loop has the association's timer, and its own port if it gets one.
	Loop *reactor.Loop
	// Lifetime ends the association, whatever it carries. Zero and negative are never.
	Lifetime time.Duration
}

// Errors of Relay.Open.
var (
	ErrUnsupported  = errors.New("UDP is not served on this listener")
	ErrTooMany      = errors.New("there are too many UDP associations: [udp] associations says how many there may be")
	ErrTooManyOfOne = errors.New("this client has too many UDP associations: [udp] associations_per_client says how many it may have")
	// ErrAmbiguous says that datagrams could not be told from those of another user.
	ErrAmbiguous = errors.New("another user at the client's address has a UDP association that has not been used yet, and nobody could tell whose the next datagram is; " +
		"try again once it has, or give each association a port of its own with [udp] ports")
)

// Relay holds all associations. It outlives configurations. Make one with New; it is safe for concurrent use.
type Relay struct {
	opened func(port netip.AddrPort, open bool)
	opts   atomic.Pointer[Options]

	mu       sync.RWMutex
	peers    map[peer]*Association    // whose ports are known
	unused   map[place][]*Association // which no datagram has come for yet, in the order in which they were opened
	groups   map[place][]*group       // one for each identity
	departed departed
	accounts map[netip.Addr]*account // of clients
	total    int

	strangers atomic.Uint64
}

// peer is a client's UDP socket.
type peer struct {
	door unique.Handle[mux.Door]
	from netip.AddrPort
}

// place is all of a client's address.
type place struct {
	door unique.Handle[mux.Door]
	addr netip.Addr
}

// New makes a Relay without associations. opened hears of the ports that associations get for themselves, and of their end; nil hears
// nothing.
func New(o Options, opened func(port netip.AddrPort, open bool)) *Relay {
	if opened == nil {
		opened = func(netip.AddrPort, bool) {}
	}
	r := &Relay{opened: opened, peers: map[peer]*Association{}, unused: map[place][]*Association{}, groups: map[place][]*group{}, accounts: map[netip.Addr]*account{}}
	r.SetOptions(o)
	return r
}

// SetOptions replaces the options for associations to come. Those that there are heed the new rates.
func (r *Relay) SetOptions(o Options) { r.opts.Store(&o) }

// Strangers returns how many messages have come that belonged to no association.
func (r *Relay) Strangers() uint64 { return r.strangers.Load() }

// Count returns how many associations there are.
func (r *Relay) Count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.total
}

// Open opens an association; the caller closes it, and calls Start. The error is one of this package, or that of the system.
func (r *Relay) Open(q Request) (*Association, error) {
	if q.Socket == nil || q.Loop == nil || !q.Socket.Hold() {
		return nil, ErrUnsupported
	}
	o := r.opts.Load()
	a := &Association{relay: r, request: q, filter: o.Filter, targets: o.Targets, idle: o.Idle, socket: q.Socket}
	if err := r.admit(a, o); err != nil {
		q.Socket.Release()
		return nil, err
	}
	if err := r.place(a, o); err != nil {
		r.leave(a)
		q.Socket.Release()
		return nil, err
	}
	return a, nil
}

// admit counts an association.
func (r *Relay) admit(a *Association, o *Options) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := mux.ClientKey(a.request.Client)
	acc := r.accounts[key]
	switch {
	case o.Associations > 0 && r.total >= o.Associations:
		return ErrTooMany
	case acc != nil && o.PerClient > 0 && acc.associations >= o.PerClient:
		return ErrTooManyOfOne
	case acc == nil:
		acc = &account{}
		r.accounts[key] = acc
	}
	acc.associations++
	r.total++
	a.account = acc
	return nil
}

// leave takes admit back.
func (r *Relay) leave(a *Association) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	if a.account.associations--; a.account.associations > 0 {
		return
	}
	// Else whoever opens one association after the other would have the whole allowance each time.
	key, acc, life := mux.ClientKey(a.request.Client), a.account, r.opts.Load().accountLife()
	if life == 0 {
		delete(r.accounts, key)
		return
	}
	time.AfterFunc(life, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if acc.associations == 0 && r.accounts[key] == acc {
			delete(r.accounts, key)
		}
	})
}

// place finds the port that an association's datagrams come to.
func (r *Relay) place(a *Association, o *Options) error {
	if o.FirstPort > 0 && a.openPort(o.FirstPort, o.LastPort) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := a.place()
	for _, other := range r.unused[at] {
		if other.request.Identity != a.request.Identity {
			return ErrAmbiguous
		}
	}
	for _, g := range r.groups[at] {
		if g.owed > 0 && g.identity != a.request.Identity {
			return ErrAmbiguous
		}
	}
	if known := r.peers[a.claimed()]; known != nil && known.request.Identity != a.request.Identity {
		return ErrAmbiguous
	}
	r.unused[at] = append(r.unused[at], a)
	return nil
}
