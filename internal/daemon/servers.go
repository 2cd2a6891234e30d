package daemon

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/target"
)

// ServerCheck is what was found about one server of an upstream or a backend.
type ServerCheck struct {
	Pool string // "upstream eu" or "backend web"
	What string // what was done, with the server's name without credentials
	Took time.Duration
	Err  error // nil is health
}

// ServersOptions says how CheckServers looks.
type ServersOptions struct {
	// Target has every proxy asked for a tunnel to it, "host:port"; "" does what [upstream.NAME] health says.
	Target string
	// Timeout bounds each check.
	Timeout time.Duration
}

// CheckServers looks at all servers of the configuration's upstreams and backends, all at once. A gateway that runs is not asked: its
// own view of their health is in its log.
func CheckServers(ctx context.Context, o Options, s ServersOptions) ([]ServerCheck, error) {
	f, err := load(o)
	if err != nil {
		return nil, err
	}
	a, err := assemble(f, lent{})
	if err != nil {
		return nil, err
	}
	defer a.close()
	quiet := slog.New(slog.DiscardHandler)
	f.Log.Access, f.Log.AccessTo = config.AccessOff, config.ToStderr // a question leaves no line, and makes no file
	st, err := newState(f, Options{Stderr: io.Discard, Stdout: io.Discard}, quiet, newKept(quiet))
	if err != nil {
		return nil, err
	}
	defer st.close()
	asked, err := askedProbe(s.Target)
	if err != nil {
		return nil, err
	}
	return a.ways.check(ctx, f, a.runtime(f, st, 1).Egress, asked, s.Timeout), nil
}

// askedProbe is the check of proxies that a target asks for; nil leaves it to the configuration.
func askedProbe(to string) (*egress.Probe, error) {
	if to == "" {
		return nil, nil
	}
	if _, err := target.Parse(to); err != nil {
		return nil, err
	}
	p := probeOf(config.Health{Probe: config.ProbeTunnel, Target: to})
	return &p, nil
}

// check looks at all servers at once; the order of the result is that of names and of the file.
func (w *ways) check(ctx context.Context, f *config.File, d *egress.Dialer, asked *egress.Probe, timeout time.Duration) []ServerCheck {
	var checks []ServerCheck
	var looks []func(context.Context) error
	add := func(pool, what string, look func(context.Context) error) {
		checks = append(checks, ServerCheck{Pool: pool, What: what})
		looks = append(looks, look)
	}
	for _, name := range f.UpstreamNames() {
		u, p := w.upstreams[name], probeOf(f.Upstream[name].Health)
		if asked != nil {
			p = *asked
		}
		for i, m := range u.Pool().Members() {
			add("upstream "+name, proxyCheck(p, m.Name()), func(ctx context.Context) error { return d.ProbeUpstream(ctx, u, i, p) })
		}
	}
	for _, name := range f.BackendNames() {
		b, p := w.backends[name], probeOf(f.Backend[name].Health)
		for i, m := range b.Pool().Members() {
			add("backend "+name, serverCheck(p, m.Name()), func(ctx context.Context) error { return d.ProbeBackend(ctx, b, i, p) })
		}
	}
	var wg sync.WaitGroup
	for i, look := range looks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			begun := time.Now()
			checks[i].Err = look(ctx)
			checks[i].Took = time.Since(begun)
		})
	}
	wg.Wait()
	return checks
}

// proxyCheck says what is done to a proxy.
func proxyCheck(p egress.Probe, server string) string {
	switch p.Kind {
	case egress.ProbeTunnel:
		return "tunnel to " + p.Target.String() + " by " + server
	case egress.ProbeHTTP:
		return "GET " + p.Path + " of " + p.Target.String() + " by " + server
	}
	return "connect to " + server
}

// serverCheck says what is done to a server of a backend.
func serverCheck(p egress.Probe, server string) string {
	if p.Kind == egress.ProbeHTTP {
		return "GET " + p.Path + " of " + server
	}
	return "connect to " + server
}
