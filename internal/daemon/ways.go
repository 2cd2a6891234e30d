package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/geoip"
	"polyport/internal/pool"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/protocols/spec"
)

// ways are the ways out, and the backends, that one configuration describes.
type ways struct {
	upstreams map[string]*upstream.Upstream
	backends  map[string]*upstream.Backend
	exits     map[string]*egress.Exit
	countries *geoip.Database // nil: there are none
	stop      context.CancelFunc
	checks    sync.WaitGroup // health checks that run
}

// makeWays builds what f says of ways out. What is known of servers from earlier configurations is in l. The error lists every fault. The
// caller closes it.
func makeWays(f *config.File, l lent) (*ways, error) {
	w := &ways{upstreams: map[string]*upstream.Upstream{}, backends: map[string]*upstream.Backend{}, exits: map[string]*egress.Exit{}}
	var errs *multierror.Error
	for _, name := range f.BackendNames() {
		errs = multierror.Append(errs, w.addBackend(f, l, name))
	}
	for _, name := range f.UpstreamNames() {
		errs = multierror.Append(errs, w.addUpstream(f, l, name, nil))
	}
	for _, name := range f.ExitNames() {
		w.exits[name] = w.exit(f, name)
	}
	if f.GeoIP.Database != "" {
		var err error
		if w.countries, err = geoip.Open(f.GeoIP.Database, l.complain); err != nil {
			errs = multierror.Append(errs, f.At("", fmt.Errorf("geoip.database: %w", err)))
		}
	}
	if err := errs.ErrorOrNil(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// close ends the checks and lets go of what is kept. Connections that stand go on.
func (w *ways) close() {
	if w == nil {
		return
	}
	if w.stop != nil {
		w.stop()
		w.checks.Wait()
	}
	for _, u := range w.upstreams {
		u.Close()
	}
	if w.countries != nil {
		w.countries.Close()
	}
}

func (w *ways) addBackend(f *config.File, l lent, name string) error {
	b := f.Backend[name]
	o := upstream.BackendOptions{Pool: poolOptions("backend."+name, b.Balance, b.SlowStart, b.Eject, b.Health, l)}
	o.Pool.Name = name
	switch b.ProxyProtocol {
	case config.ProxyProtocolV1:
		o.Header = upstream.ProxyV1
	case config.ProxyProtocolV2:
		o.Header = upstream.ProxyV2
	}
	for _, s := range b.Servers {
		o.Servers = append(o.Servers, s.Address)
		o.Pool.Servers = append(o.Pool.Servers, pool.Server{Weight: s.Weight, Priority: s.Priority, Drain: s.Drain})
	}
	made, err := upstream.NewBackend(o, l.backends)
	if err != nil {
		return f.AtUntold("backend."+name, err)
	}
	w.backends[name] = made
	return nil
}

// addUpstream adds an upstream, and before it those that it lies behind. behind are the names of those that lie behind it.
func (w *ways) addUpstream(f *config.File, l lent, name string, behind []string) error {
	u, known := f.Upstream[name]
	if !known || w.upstreams[name] != nil {
		return nil // Validate tells what is not there
	}
	if slices.Contains(behind, name) {
		return nil // Validate tells of the circle, so that nothing of this is used
	}
	o := upstream.Options{Pool: poolOptions("upstream."+name, u.Balance, u.SlowStart, u.Eject, u.Health, l), ResolvesNames: u.Resolve == config.ResolveUpstream}
	o.Pool.Name = name
	if u.Via != "" {
		if err := w.addUpstream(f, l, u.Via, append(behind, name)); err != nil {
			return err
		}
		o.Via = w.upstreams[u.Via]
	}
	if err := addProxies(&o, u); err != nil {
		return f.AtUntold("upstream."+name, err)
	}
	made, err := upstream.New(o, l.upstreams)
	if err != nil {
		return f.AtUntold("upstream."+name, err)
	}
	w.upstreams[name] = made
	return nil
}

// addProxies adds the servers of an upstream. The error lists every fault of them.
func addProxies(o *upstream.Options, u config.Upstream) error {
	papers, err := upstreamPapers(u.TLS)
	errs := multierror.Append(nil, err)
	unread := false
	for i, s := range u.Servers {
		p := papers
		if p.User, p.Password, err = u.Credentials(i); err != nil && !unread {
			unread = true // once: it is the same one for all of them
			errs = multierror.Append(errs, fmt.Errorf("password: %w", err))
		}
		p.URL = s.URL.String()
		proxy, err := upstream.NewProxy(p)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("servers[%d]: %w", i, err))
			continue
		}
		o.Proxies = append(o.Proxies, proxy)
		o.Pool.Servers = append(o.Pool.Servers, pool.Server{Weight: s.Weight, Priority: s.Priority, Drain: s.Drain, Country: s.Country, Tags: s.Tags})
	}
	return errs.ErrorOrNil()
}

// upstreamPapers reads what TLS to the proxies of an upstream needs.
func upstreamPapers(t config.UpstreamTLS) (o upstream.ProxyOptions, err error) {
	var errs *multierror.Error
	o.RootCAs, err = readRoots("tls.ca", t.CA)
	errs = multierror.Append(errs, err)
	o.ServerName = t.ServerName
	if t.Certificate != "" && t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("tls.certificate: %w", err))
		}
		o.Certificate = func() (*tls.Certificate, error) { return &pair, nil }
	}
	return o, errs.ErrorOrNil()
}

// poolOptions is what upstreams and backends say alike. place is for the log.
func poolOptions(place, balance string, slow config.Duration, e config.Eject, h config.Health, l lent) pool.Options {
	b, err := pool.ParseBalance(balance)
	if err != nil { // Validate says so
		b = pool.First
	}
	o := pool.Options{
		Balance: b, SlowStart: time.Duration(slow), Rise: h.Rise, Fall: h.Fall,
		Eject: pool.Eject{Failures: noneIfZero(e.Failures), Pause: time.Duration(e.Pause), MaxPause: time.Duration(e.MaxPause)},
	}
	if l.told != nil {
		o.Changed = func(ev pool.Event) { l.told(place, ev) }
	}
	return o
}

// exit makes an exit of upstreams that have been made. What Validate refuses is left out.
func (w *ways) exit(f *config.File, name string) *egress.Exit {
	c := f.Exit[name]
	e := &egress.Exit{Upstream: w.upstreams[f.ExitUpstream(name)], Countries: c.Country, Tags: c.Tag}
	if len(c.LocalAddress) == 0 && c.Interface == "" && c.Mark == 0 {
		return e
	}
	choose, err := exit.ParseChoose(c.Choose)
	if err != nil { // Validate says so
		choose = exit.Random
	}
	e.Source = &exit.Source{Choose: choose, Interface: c.Interface, Mark: uint32(c.Mark), Addresses: prefixes(c.LocalAddress)}
	return e
}

// egress is what the way out needs to know of them.
func (w *ways) egress(f *config.File) egress.Ways {
	return egress.Ways{Upstreams: w.upstreams, Exits: w.exits, Default: w.upstreams[f.DefaultUpstream]}
}

// country tells the country of an address.
func (w *ways) country() func(netip.Addr) string {
	if w.countries == nil {
		return nil
	}
	return w.countries.Country
}

// finder finds backends for the rows. One that f has and that could not be made, or that went with others' faults (w is nil), is
// an empty one: what is wrong is told already, and nothing of that assembly is used.
func (w *ways) finder(f *config.File) func(name string) (*upstream.Backend, bool) {
	return func(name string) (*upstream.Backend, bool) {
		if w != nil && w.backends[name] != nil {
			return w.backends[name], true
		}
		_, known := f.Backend[name]
		return &upstream.Backend{}, known
	}
}

// sites lists the web sites of f.
func sites(f *config.File) (all []spec.Site) {
	for _, name := range f.SiteNames() {
		s := f.Site[name]
		all = append(all, spec.Site{Name: name, Hosts: s.Hosts, Backend: s.Backend})
	}
	return all
}

// watch begins the health checks. It is called once, when the configuration holds.
func (w *ways) watch(f *config.File, d *egress.Dialer) {
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	begin := func(p *pool.Pool, h config.Health, probe func(ctx context.Context, i int) error) {
		wait := p.Watch(ctx, time.Duration(h.Every), time.Duration(h.Timeout), probe)
		w.checks.Go(wait)
	}
	for name, u := range w.upstreams {
		h := f.Upstream[name].Health
		begin(u.Pool(), h, func(ctx context.Context, i int) error { return d.ProbeUpstream(ctx, u, i, probeOf(h)) })
	}
	for name, b := range w.backends {
		h := f.Backend[name].Health
		begin(b.Pool(), h, func(ctx context.Context, i int) error { return d.ProbeBackend(ctx, b, i, probeOf(h)) })
	}
}

var probeKinds = map[string]egress.ProbeKind{
	config.ProbeConnect: egress.ProbeConnect, config.ProbeTunnel: egress.ProbeTunnel, config.ProbeHTTP: egress.ProbeHTTP,
}

// probeOf is the check that [upstream.NAME.health] or [backend.NAME.health] describes.
func probeOf(h config.Health) egress.Probe {
	p := egress.Probe{Kind: probeKinds[h.Probe], Path: h.Path, Host: h.Host}
	if t, err := target.Parse(h.Target); err == nil {
		p.Target = upstream.Destination{Host: t.Host(), Port: t.Port()}
		if a, literal := t.Addr(); literal {
			p.Target.Host, p.Target.Addr = "", a
		}
	}
	return p
}

// userParameters are what clients may add to their user name.
func userParameters(f *config.File) exit.Parameters {
	p, err := exit.NewParameters(f.Auth.UserParameters)
	if err != nil { // Validate says so
		return exit.Parameters{}
	}
	return p
}
