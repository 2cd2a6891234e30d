package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"polyport/internal/config"
	"polyport/internal/udprelay"
)

// filters are the values of [udp] filter.
var filters = map[string]udprelay.Filter{
	config.FilterEndpoint: udprelay.Endpoint, config.FilterAddress: udprelay.Address, config.FilterIndependent: udprelay.EndpointIndependent,
}

// udpOptions is what [udp] says.
func udpOptions(f *config.File) udprelay.Options {
	u := f.UDP
	return udprelay.Options{
		Idle: time.Duration(u.Idle), Associations: u.Associations, PerClient: u.AssociationsPerClient, Targets: u.Targets,
		Datagrams: u.DatagramsPerSecond, Bytes: int(u.BytesPerSecond), Filter: filters[u.Filter],
		FirstPort: u.Ports.First, LastPort: u.Ports.Last,
	}
}

// ownPort notes a port that an association has for itself.
func (st *state) ownPort(at netip.AddrPort, open bool) {
	if open {
		st.own.open(at)
		return
	}
	st.own.close(at)
}

// udpAddresses notes for each listener what replies to UDP ASSOCIATE name. A name in [udp] advertise must resolve; one in public_address
// may be for the help page alone.
func (st *state) udpAddresses(ctx context.Context, f *config.File, a *assembly, running *config.File) error {
	ctx, cancel := context.WithTimeout(ctx, advertiseTimeout) // for all of them
	defer cancel()
	for _, name := range f.ListenerNames() {
		host, port := f.Advertise(name)
		if host == "" || !f.ServesUDP(name) {
			continue
		}
		addrs, err := st.addresses(ctx, f, running, host)
		switch {
		case err == nil:
		case f.UDP.Advertise != "":
			return f.At("", advertiseError("udp", host, err))
		default:
			st.log.Warn("replies to UDP ASSOCIATE name the address that the client connected to, since that of public_address is not known",
				slog.String("listener", name), slog.String("err", err.Error()))
			continue
		}
		l := a.listeners[name]
		for _, addr := range addrs {
			l.UDPAddress = append(l.UDPAddress, netip.AddrPortFrom(addr, port))
		}
		a.listeners[name] = l
	}
	return nil
}

// strangers tells of datagrams that belong to no association, now and then: one by one they would be the flood that they may be part of.
type strangers struct {
	stop chan struct{}
	done sync.WaitGroup
}

const strangersEvery = time.Minute

// watchStrangers logs how much count grows.
func watchStrangers(log *slog.Logger, count func() uint64) *strangers {
	s := &strangers{stop: make(chan struct{})}
	s.done.Go(func() {
		t := time.NewTicker(strangersEvery)
		defer t.Stop()
		for before := uint64(0); ; {
			select {
			case <-s.stop:
				return
			case <-t.C:
			}
			if now := count(); now > before {
				log.Info("datagrams were dropped that belong to no UDP association", slog.Uint64("count", now-before), slog.String("within", strangersEvery.String()))
				before = now
			}
		}
	})
	return s
}

// close ends it. It may be called for nil.
func (s *strangers) close() {
	if s == nil {
		return
	}
	close(s.stop)
	s.done.Wait()
}
