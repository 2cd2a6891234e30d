package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/internal/config"
	"polyport/mux"
)

// PortTakenError says that a socket could not be opened since another one has
// the address.
type PortTakenError struct {
	Listener string
	Address  netip.AddrPort
	Holder   string // who holds it, as "nginx (pid 812)"; "" when that cannot be seen
	Err      error
}

// Error implements error.
func (e *PortTakenError) Error() string {
	who := "another process holds it"
	if e.Holder != "" {
		who = e.Holder + " holds it"
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
	open   map[socketKey]*mux.Acceptor
}

// door is one socket that a configuration asks for.
type door struct {
	key  socketKey
	name string
	from []netip.Prefix
	// deferred is for how long the system keeps silent connections to itself.
	deferred time.Duration
}

// wanted lists the sockets that f asks for.
func wanted(f *config.File) []door {
	var all []door
	seen := map[netip.AddrPort]int{}
	for _, name := range f.ListenerNames() {
		l := f.Listen[name]
		for _, ap := range l.Sockets() {
			all = append(all, door{socketKey{ap, seen[ap]}, name, prefixes(l.ProxyProtocolFrom), time.Duration(l.DeferAccept)})
			seen[ap]++
		}
	}
	return all
}

// opened is a socket that is bound and does not accept yet.
type opened struct {
	door
	socket mux.Listener
}

// prepare opens every socket that f asks for and that is not open yet. With an error none is left open.
func (d *doors) prepare(ctx context.Context, f *config.File) ([]opened, error) {
	var fresh []opened
	var errs *multierror.Error
	for _, w := range wanted(f) {
		if d.open[w.key] != nil {
			continue
		}
		socket, err := mux.Listen(ctx, w.key.address, d.leaving(f, w.key.address.Port())...)
		if err != nil {
			errs = multierror.Append(errs, listenError(w, err))
			continue
		}
		fresh = append(fresh, opened{w, mux.Listener{Name: w.name, Socket: socket, ProxyFrom: w.from}})
	}
	if err := errs.ErrorOrNil(); err != nil {
		closeAll(fresh)
		return nil, config.Join(err)
	}
	return fresh, nil
}

// closeAll closes sockets that never accepted.
func closeAll(fresh []opened) {
	for _, o := range fresh {
		_ = o.socket.Socket.Close()
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
	case errors.Is(err, syscall.EADDRINUSE):
		return &PortTakenError{Listener: w.name, Address: w.key.address, Holder: holderOf(w.key.address), Err: err}
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen.%s: cannot listen on %s: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one: %w", w.name, w.key.address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen.%s: cannot listen on %s: no interface of this machine has that address: %w", w.name, w.key.address, err)
	}
	return fmt.Errorf("listen.%s: %w", w.name, err)
}

// swing opens the doors to f's: the fresh sockets begin to accept, those that f
// no longer asks for stop. Connections that are there go on.
func (d *doors) swing(f *config.File, fresh []opened) error {
	for _, o := range fresh {
		a, err := d.server.Add(o.socket)
		if err != nil {
			return err
		}
		d.open[o.key] = a
	}
	for _, w := range wanted(f) {
		a := d.open[w.key]
		a.Update(w.name, w.from)
		if err := a.DeferAccept(w.deferred); err != nil {
			return fmt.Errorf("listen.%s.defer_accept: set it on %s: %w", w.name, w.key.address, err)
		}
	}
	keep := wantedKeys(f)
	for key, a := range d.open {
		if !keep[key] {
			_ = d.server.Remove(a) // it fails only if the socket is closed already
			delete(d.open, key)
		}
	}
	return nil
}

// addresses returns what is listened on, with the ports that the system chose.
func (d *doors) addresses() []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range d.open {
		all = append(all, a.Addr())
	}
	return all
}
