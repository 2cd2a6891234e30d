package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"

	"polyport/internal/config"
	"polyport/mux"
)

// Reload reads the configuration again and goes over to it as a whole, or, with an
// error that lists every fault, not at all. No connection is lost: sessions keep what they
// began with, and an HTTP connection takes the new configuration with its next request.
func (d *Daemon) Reload(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return errors.New("there is nothing to reload: the gateway is shutting down")
	}
	if d.opts.Path == "" {
		return errors.Join(d.state.access.Reopen(), errors.New("there is nothing to reload: the gateway was started without a file"))
	}
	f, a, relisten, err := d.next(ctx)
	if err != nil {
		return err
	}
	fresh, err := d.doors.prepare(ctx, f)
	if err != nil {
		a.close()
		return err
	}
	if err := d.state.update(d.file, f, d.opts); err != nil {
		closeAll(fresh)
		a.close()
		return err
	}
	for _, o := range fresh {
		d.state.own.add(o.bound())
	}
	d.switchTo(f, a)
	if err := d.doors.swing(f, fresh); err != nil {
		return err
	}
	d.state.own.set(d.doors.addresses())
	for _, w := range allWarnings(f, a) {
		d.log.Warn("the configuration is legal, but: " + w)
	}
	d.log.Info("reloaded", slog.Uint64("generation", d.sessions.Runtime().Generation), slog.String("relisten", strings.Join(relisten, ", ")))
	return nil
}

// next reads and builds the configuration as it is now, and names the keys that open sockets anew.
func (d *Daemon) next(ctx context.Context) (f *config.File, a *assembly, relisten []string, err error) {
	if f, err = load(d.opts); err != nil {
		return nil, nil, nil, err
	}
	if a, err = assemble(f, d.state.lent); err != nil {
		return nil, nil, nil, err
	}
	restart, relisten := config.Diff(d.file, f)
	if len(restart) > 0 {
		a.close()
		return nil, nil, nil, fmt.Errorf("these keys change only with a restart: %s. Nothing was changed", strings.Join(restart, ", "))
	}
	if err := d.state.advertise(ctx, f, a, d.file); err != nil {
		a.close()
		return nil, nil, nil, err
	}
	return f, a, relisten, nil
}

// switchTo puts f in force for whatever begins from now on.
func (d *Daemon) switchTo(f *config.File, a *assembly) {
	d.file = f
	d.setLevel(f)
	rt := a.runtime(f, d.state, d.sessions.Runtime().Generation+1)
	d.sessions.SetRuntime(rt)
	d.server.SetTable(withLeaving(a.table, d.assembly.table))
	d.server.SetInside(withLeaving(a.inside, d.assembly.inside))
	d.assembly.close()
	d.assembly = a
	a.ways.watch(f, rt.Egress)
	d.state.upstreams.Retain(f.UpstreamNames())
	d.state.backends.Retain(f.BackendNames())
	d.server.SetSniff(muxSniff(f))
	d.server.SetLimits(muxLimits(f))
}

// withLeaving adds to a table the listeners of the one before that are no more:
// connections that came through them are still to be classified.
func withLeaving(table, before mux.Table) mux.Table {
	all := maps.Clone(before)
	maps.Copy(all, table)
	return all
}

// ReloadAndLog is Reload for a signal: there is nobody to return an error to.
func (d *Daemon) ReloadAndLog(ctx context.Context) {
	if err := d.Reload(ctx); err != nil {
		d.log.Error("not reloaded; the old configuration holds", slog.String("err", err.Error()))
	}
}
