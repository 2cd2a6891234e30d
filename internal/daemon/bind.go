package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"polyport/internal/config"
	"polyport/internal/egress"
)

// advertiseTimeout bounds the look-up of a name that clients are told.
const advertiseTimeout = 10 * time.Second

// bindOptions is what [bind] says.
func (a *assembly) bindOptions(f *config.File, st *state) egress.BindOptions {
	return egress.BindOptions{
		First: f.Bind.Ports.First, Last: f.Bind.Ports.Last, Advertise: a.advertise,
		Timeout: time.Duration(f.Bind.Timeout), PerClient: f.Bind.PerClient, Binds: st.binds,
	}
}

// advertise finds out what clients are told of addresses; see addresses.
func (st *state) advertise(ctx context.Context, f *config.File, a *assembly, running *config.File) (err error) {
	if f.Bind.Advertise != "" && f.Bind.Ports.First != 0 { // else nobody would be told
		if a.advertise, err = st.addresses(ctx, f, running, f.Bind.Advertise); err != nil {
			return f.At("", advertiseError("bind", f.Bind.Advertise, err))
		}
	}
	return st.udpAddresses(ctx, f, a, running)
}

// advertiseError says that a name that clients are to be told cannot be resolved.
func advertiseError(table, name string, err error) error {
	return fmt.Errorf("%s.advertise: %q cannot be resolved, so clients could not be told where to; write the IP address itself, or correct the name: %w", table, name, err)
}

// addresses returns the addresses that a host stands for. Names are asked of the name servers of f, which differ from those
// that are in use where running has others.
func (st *state) addresses(ctx context.Context, f, running *config.File, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, nil
	}
	resolver := st.resolver
	if !sameNames(running, f) {
		var err error
		if resolver, err = newResolver(f); err != nil {
			return nil, err
		}
		defer resolver.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, advertiseTimeout)
	defer cancel()
	addrs, err := resolver.Lookup(ctx, netip.Addr{}, name)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap().WithZone("")
	}
	return addrs, err
}
