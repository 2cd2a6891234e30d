package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/internal/config"
	"polyport/internal/reactor"
	"polyport/mux"
)

// PortTakenError says that a socket could not be opened since another one has
// the address.
type PortTakenError struct {
	Listener string
	Address  netip.AddrPort
	UDP      bool   // it is taken for UDP alone
	Holder   string // who holds it, as "nginx (pid 812)"; "" when that cannot be seen
	Err      error
}

// Error implements error.
func (e *PortTakenError) Error() string {
	who := "another process holds it"
	if e.Holder != "" {
		who = e.Holder + " holds it"
	}
	if e.UDP {
		if e.Holder == "" {
			who = "another process, or an association of this gateway with a port of its own ([udp] ports), holds it"
		}
		return fmt.Sprintf("listen.%s: cannot listen on %s for UDP: %s. Stop that, choose another address with --listen or in the file, or write udp = false "+
			"into [listen.%s] to serve TCP alone", e.Listener, e.Address, who, e.Listener)
	}
	return fmt.Sprintf("listen.%s: cannot listen on %s: %s. Stop that, or choose another address with --listen or in the file", e.Listener, e.Address, who)
}

// Unwrap returns the cause.
func (e *PortTakenError) Unwrap() error { return e.Err }

// socketKey names a configured socket. Two port-0 addresses of one listener differ by n.
type socketKey struct {
	address netip.AddrPort
	n       int
}

// doors are the sockets that are open.
type doors struct {
	server *mux.Server
	own    *ownSockets
	open   map[socketKey]*mux.Acceptor
	// udp are the ports on which UDP has ever been opened: a socket that is no longer asked for stays as long as associations need it.
	udp map[uint16]bool
}

// door is one socket that a configuration asks for.
type door struct {
	key  socketKey
	name string
	from []netip.Prefix
	// deferred is for how long the system keeps silent connections to itself.
	deferred time.Duration
	udp      bool // on the same port number
}

// wanted lists the sockets that f asks for.
func wanted(f *config.File) []door {
	var all []door
	seen := map[netip.AddrPort]int{}
	for _, name := range f.ListenerNames() {
		l := f.Listen[name]
		for _, ap := range l.Sockets() {
			all = append(all, door{socketKey{ap, seen[ap]}, name, prefixes(l.ProxyProtocolFrom), time.Duration(l.DeferAccept), f.ServesUDP(name)})
			seen[ap]++
		}
	}
	return all
}

// opened is a socket that is bound and does not accept yet. Without a TCP socket it is UDP for one that accepts already.
type opened struct {
	door
	socket mux.Listener
}

// bound returns the address that the socket has.
func (o *opened) bound() netip.AddrPort {
	if o.socket.Socket == nil {
		return o.socket.Packets.Addr()
	}
	return o.socket.Socket.Addr().(*net.TCPAddr).AddrPort()
}

// prepare opens every socket that f asks for and that is not open yet. With an error none is left open.
func (d *doors) prepare(ctx context.Context, f *config.File) ([]opened, error) {
	var fresh []opened
	var errs *multierror.Error
	for _, w := range wanted(f) {
		if a := d.open[w.key]; a != nil && (!w.udp || a.Packets() != nil) {
			continue
		}
		l, err := d.listen(ctx, f, w)
		if errors.Is(err, reactor.ErrUnsupported) {
			continue // TCP is open already, and UDP there is none
		}
		if err != nil {
			errs = multierror.Append(errs, listenError(w, err))
			continue
		}
		l.Name, l.ProxyFrom = w.name, w.from
		fresh = append(fresh, opened{w, *l})
	}
	if err := errs.ErrorOrNil(); err != nil {
		closeAll(fresh)
		return nil, config.Join(err)
	}
	return fresh, nil
}

// listen opens what is missing of a door.
func (d *doors) listen(ctx context.Context, f *config.File, w door) (*mux.Listener, error) {
	port := w.key.address.Port()
	if a := d.open[w.key]; a != nil {
		packets, err := mux.ListenPacket(a.Addr(), d.udp[a.Addr().Port()])
		return &mux.Listener{Packets: packets}, err
	}
	leaving := d.leaving(f, port)
	if w.udp {
		return mux.ListenBoth(ctx, w.key.address, leaving, d.udp[port])
	}
	socket, err := mux.Listen(ctx, w.key.address, leaving...)
	return &mux.Listener{Socket: socket}, err
}

// closeAll closes sockets that never accepted.
func closeAll(fresh []opened) {
	for _, o := range fresh {
		if o.socket.Socket != nil {
			_ = o.socket.Socket.Close()
		}
		o.socket.Packets.Release()
	}
}

// leaving returns the open sockets on a port that f no longer asks for.
func (d *doors) leaving(f *config.File, port uint16) []*mux.Acceptor {
	keep := wantedKeys(f)
	var list []*mux.Acceptor
	for key, a := range d.open {
		if !keep[key] && a.Addr().Port() == port {
			list = append(list, a)
		}
	}
	return list
}

// wantedKeys returns the keys of the sockets that f asks for.
func wantedKeys(f *config.File) map[socketKey]bool {
	keys := map[socketKey]bool{}
	for _, w := range wanted(f) {
		keys[w.key] = true
	}
	return keys
}

// listenError explains why a socket could not be opened.
func listenError(w door, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && isUDP(err):
		return &PortTakenError{Listener: w.name, Address: w.key.address, UDP: true, Err: err}
	case errors.Is(err, syscall.EADDRINUSE):
		return &PortTakenError{Listener: w.name, Address: w.key.address, Holder: holderOf(w.key.address), Err: err}
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen.%s: cannot listen on %s: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one: %w", w.name, w.key.address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen.%s: cannot listen on %s: no interface of this machine has that address: %w", w.name, w.key.address, err)
	}
	return fmt.Errorf("listen.%s: %w", w.name, err)
}

// isUDP reports whether opening a UDP socket has failed.
func isUDP(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Net == "udp"
}

// swing opens the doors to f's: the fresh sockets begin to accept, those that f
// no longer asks for stop. Connections that are there go on.
func (d *doors) swing(f *config.File, fresh []opened) error {
	for _, o := range fresh {
		if err := d.add(o); err != nil {
			return err
		}
	}
	for _, w := range wanted(f) {
		a := d.open[w.key]
		a.Update(w.name, w.from)
		if !w.udp {
			a.SetPackets(nil).Release()
		}
		if err := a.DeferAccept(w.deferred); err != nil {
			return fmt.Errorf("listen.%s.defer_accept: set it on %s: %w", w.name, w.key.address, err)
		}
	}
	keep := wantedKeys(f)
	for key, a := range d.open {
		if !keep[key] {
			_ = d.server.Remove(a) // it fails only if the socket is closed already
			a.SetPackets(nil).Release()
			delete(d.open, key)
		}
	}
	return nil
}

// add begins to serve a socket.
func (d *doors) add(o opened) error {
	if p := o.socket.Packets; p != nil {
		d.own.open(p.Addr()) // for as long as associations hold it, whatever becomes of the listener
		p.Name(o.name, func() { d.own.close(p.Addr()) })
		if err := d.server.AddPackets(p); err != nil {
			return err
		}
		d.udp[p.Addr().Port()] = true
	}
	if o.socket.Socket == nil {
		d.open[o.key].SetPackets(o.socket.Packets)
		return nil
	}
	a, err := d.server.Add(o.socket)
	if err == nil {
		d.open[o.key] = a
	}
	return err
}

// closePackets ends UDP; associations that there still are keep their sockets.
func (d *doors) closePackets() {
	for _, a := range d.open {
		a.SetPackets(nil).Release()
	}
}

// addresses returns what is listened on, with the ports that the system chose.
func (d *doors) addresses() []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range d.open {
		all = append(all, a.Addr())
	}
	return all
}
