// Package daemon assembles the gateway from a configuration and runs it:
// listeners, reload, shutdown. It also answers for the commands that look at a configuration
// without running it (check, explain), so that they share the code of the running gateway.
package daemon

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"polyport/internal/config"
	"polyport/internal/reactor"
	"polyport/internal/session"
	"polyport/mux"
)

// Options configures a Daemon.
type Options struct {
	// Path is the configuration file; "" runs on the defaults.
	Path string
	// Flags are laid over the file, or over the defaults.
	Flags Flags
	// Stdout gets the lines for people who paste; Stderr the log. Neither may be nil.
	Stdout, Stderr io.Writer
}

// Flags are the settings of those who want no file.
type Flags struct {
	Listen         []string // "address:port", instead of the file's
	Htpasswd       string   // file of users
	AllowClient    []string // prefixes
	AllowTarget    []string // names, patterns, prefixes
	AllowOpenProxy bool
}

// Daemon is a running gateway.
type Daemon struct {
	opts  Options
	log   *slog.Logger
	level *slog.LevelVar
	state *state

	mu        sync.Mutex // held by a reload, and by Stop
	stopped   bool
	file      *config.File
	assembly  *assembly // of file
	sessions  *session.Manager
	server    *mux.Server
	doors     *doors
	refused   *refusals
	loops     *reactor.Group // nil where there are none
	strangers *strangers
	heap      *heapKeeper // nil where the environment keeps it
}

// Start builds the gateway and begins to accept. The error is a *PortTakenError
// (inside others, perhaps) when an address is taken; all else is the configuration's.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	f, err := load(o)
	if err != nil {
		return nil, err
	}
	d := &Daemon{opts: o, file: f, level: new(slog.LevelVar)}
	d.log = newLog(o.Stderr, d.level)
	adoptStandardLog(d.log)
	d.setLevel(f)
	keep := newKept(d.log)
	a, err := assemble(f, keep)
	if err != nil {
		return nil, err
	}
	d.assembly = a
	for _, w := range allWarnings(f, a) {
		d.log.Warn("the configuration is legal, but: " + w)
	}
	if d.state, err = newState(f, o, d.log, keep); err != nil {
		a.close()
		return nil, err
	}
	if err := d.state.advertise(ctx, f, a, f); err != nil {
		a.close()
		return nil, errors.Join(err, d.state.close())
	}
	if d.loops, err = openLoops(); err != nil {
		a.close()
		return nil, errors.Join(err, d.state.close())
	}
	if err := d.begin(ctx, f, a); err != nil {
		d.loops.Close()
		a.close()
		return nil, errors.Join(err, d.state.close())
	}
	d.heap = keepHeap()
	d.strangers = watchStrangers(d.log, d.state.udp.Strangers)
	return d, nil
}

// openLoops starts the event loops; nil on systems that have none.
func openLoops() (*reactor.Group, error) {
	loops, err := reactor.Open(0)
	if errors.Is(err, reactor.ErrUnsupported) {
		return nil, nil
	}
	return loops, err
}

// begin opens the sockets and serves them.
func (d *Daemon) begin(ctx context.Context, f *config.File, a *assembly) error {
	d.doors = &doors{own: d.state.own, open: map[socketKey]*mux.Acceptor{}, udp: map[uint16]bool{}}
	fresh, err := d.doors.prepare(ctx, f)
	if err != nil {
		return err
	}
	d.refused = newRefusals(d.log)
	rt := a.runtime(f, d.state, 1)
	d.sessions = session.NewManager(rt, session.Options{
		Observers: []session.Observer{d.state.access},
		Log:       d.log,
		Loops:     d.loops,
		UDP:       d.state.udp,
		Inject:    func(c *mux.Conn, row string) (mux.Cause, error) { return d.server.Inject(c, row) },
	})
	d.server = d.newServer(f)
	d.doors.server = d.server
	d.server.SetTable(a.table)
	d.server.SetInside(a.inside)
	if err := d.state.openACME(f); err != nil {
		closeAll(fresh)
		return err
	}
	// Before the first connection: no session may be pointed back at us.
	for _, o := range fresh {
		d.state.own.add(o.bound())
	}
	if err := d.doors.swing(f, fresh); err != nil {
		return err
	}
	a.ways.watch(f, rt.Egress)
	d.announce()
	d.state.startACME()
	return nil
}

// newServer makes the shared port.
func (d *Daemon) newServer(f *config.File) *mux.Server {
	return mux.NewServer(mux.Options{
		Rows:        builtInRows,
		Handle:      d.sessions.Handle,
		Loops:       d.loops,
		OnLoop:      d.sessions.OnLoop,
		Serve:       d.sessions.Serve,
		Refused:     d.refused.add,
		AcceptFault: d.acceptFault,
		Packets:     []mux.PacketRow{d.state.udp.Row()},
		Limits:      muxLimits(f),
		Sniff:       muxSniff(f),
	})
}

// announce logs and prints what is listened on.
func (d *Daemon) announce() {
	listening := map[string][]netip.AddrPort{}
	for _, w := range wanted(d.file) {
		ap := d.doors.open[w.key].Addr()
		listening[w.name] = append(listening[w.name], ap)
		d.log.Info("listening", slog.String("address", ap.String()), slog.String("listener", w.name),
			slog.String("version", Version()))
	}
	greet(d.opts.Stdout, d.file, listening, d.assembly.security.name(d.file))
}

// acceptFault logs that a listener cannot accept, and when it can again.
func (d *Daemon) acceptFault(listener string, err error) {
	if err == nil {
		d.log.Info("connections are accepted again", slog.String("listener", listener))
		return
	}
	total, unfinished := d.server.Connections()
	d.log.Error("cannot accept connections; trying again, with pauses. If descriptors are short, raise the limit (ulimit -n, LimitNOFILE) or lower [limits] connections",
		slog.String("listener", listener), slog.String("err", err.Error()),
		slog.Int("connections", total), slog.Int("unfinished", unfinished))
}

// Stop stops accepting, lets the sessions under way end until ctx does or
// [timeouts] drain has passed, then ends the rest.
func (d *Daemon) Stop(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	ctx, cancel := context.WithTimeout(ctx, time.Duration(d.file.Timeouts.Drain))
	defer cancel()
	d.log.Info("shutting down", slog.Int("connections", d.sessions.Count()), slog.String("drain", d.file.Timeouts.Drain.String()))
	d.sessions.BeginDrain()
	err := d.server.Shutdown(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = nil // what was still being sniffed is closed; that is what was asked for
	}
	killed := d.sessions.Drain(ctx)
	d.doors.closePackets()
	d.strangers.close()
	d.strangers = nil
	d.loops.Close()
	d.refused.close()
	d.assembly.close()
	d.heap.close()
	d.heap = nil
	d.log.Info("stopped", slog.Int("sessions_ended", killed))
	return errors.Join(err, d.state.close())
}

// load reads the configuration that o names.
func load(o Options) (*config.File, error) {
	f := config.Default()
	if o.Path != "" {
		var err error
		if f, err = config.Load(o.Path); err != nil {
			return nil, withFurtherFaults(f, o, err)
		}
	}
	if err := f.Override(config.Override(o.Flags)); err != nil {
		return nil, err
	}
	return f, nil
}

// withFurtherFaults adds what else is wrong with a file that already has
// faults, so that its owner sees all of them at once.
func withFurtherFaults(f *config.File, o Options, err error) error {
	if f == nil {
		return err
	}
	if e := f.Override(config.Override(o.Flags)); e != nil {
		err = errors.Join(err, e)
	}
	err = errors.Join(err, checkUsers(f), checkRoots(f))
	if a, e := assemble(f, lent{}); e != nil {
		err = errors.Join(err, e)
	} else {
		a.close()
	}
	return config.Join(err)
}

// adoptStandardLog has what libraries write to the standard log (net/http on bad HTTP/2 of a proxy) become lines of ours.
func adoptStandardLog(to *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(to.Handler(), slog.LevelWarn).Writer())
}

func (d *Daemon) setLevel(f *config.File) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(f.Log.Level)); err == nil { // Validate has seen to it
		d.level.Set(l)
	}
}

// newLog makes the log: text for a person at a terminal, else JSON.
func newLog(w io.Writer, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
