package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"polyport/bench/certificate"
	"polyport/bench/load"
	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/peer"
	"polyport/bench/report"
)

// session is one run of the benchmark.
type session struct {
	opts     options
	start    time.Time
	site     peer.Site
	leaf     []byte // the certificate of the run, in DER
	programs []peer.Program
	origin   *peer.Process
	hop      *peer.Process // the next hop, while chains are measured
	limits   []string      // what could not be done as it should
	account  *peer.Account // of programs beside idle tunnels; nil is our own
	// associations are those of the options that the limit on open files has room for.
	associations int
	out          io.Writer
	log          io.Writer
}

// run measures everything and writes tables, and the page if the run is whole.
func run(ctx context.Context, o options, stdout, stderr io.Writer) error {
	if runtime.GOOS != "linux" {
		return errors.New("the benchmark reads /proc and runs on Linux alone")
	}
	dir, err := os.MkdirTemp("", "polyport-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &session{opts: o, start: time.Now(), log: stderr}
	if err := s.prepare(ctx, dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	defer f.Close()
	s.out = f
	if err := s.measure(ctx); err != nil {
		return err
	}
	return finish(o, stdout, stderr)
}

// finish shows what the run has written.
func finish(o options, stdout, stderr io.Writer) error {
	info, all, err := measure.ReadFiles([]string{o.out})
	if err != nil {
		return err
	}
	data := report.NewData(all)
	fmt.Fprint(stdout, report.Text(data))
	switch {
	case o.page == "":
		return nil
	case !o.whole():
		fmt.Fprintf(stderr, "%s is left as it is: it shows runs of all programs and workloads with 3 rounds or more\n", o.page)
		return nil
	}
	return writePage(o.page, info, data)
}

// measure starts the origin and goes through the rounds.
func (s *session) measure(ctx context.Context) (err error) {
	s.origin, err = peer.Start(ctx, s.originProgram(), s.site, nil)
	if err != nil {
		return err
	}
	defer s.origin.Stop()
	if err := measure.WriteRun(s.out, s.describe(ctx)); err != nil {
		return err
	}
	for n := 1; n <= s.opts.rounds; n++ {
		fmt.Fprintf(s.log, "round %d of %d\n", n, s.opts.rounds)
		if err := s.round(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// prepare finds programs, builds polyport and looks for free ports.
func (s *session) prepare(ctx context.Context, dir string) error {
	limit, err := raiseDescriptors()
	if err != nil {
		return err
	}
	s.associations = fittingAssociations(s.opts.associations, limit)
	if err := os.Chmod(dir, 0o755); err != nil { // accounts without rights start programs from here
		return err
	}
	polyport, self := filepath.Join(dir, "polyport-bin"), filepath.Join(dir, "bench-bin")
	other, err := s.copyOther(dir)
	if err != nil {
		return err
	}
	module, err := moduleFolder(ctx)
	if err != nil {
		return err
	}
	for _, p := range peer.Table(polyport, other, self, filepath.Join(module, ".tools")) {
		if len(s.opts.only) == 0 || slices.Contains(s.opts.only, p.Name) {
			s.programs = append(s.programs, p)
		}
	}
	if err := copySelf(self); err != nil {
		return err
	}
	if s.programs[0].Name == peer.Subject {
		if err := build(ctx, module, polyport); err != nil {
			return err
		}
	}
	s.site = peer.Site{Dir: dir, Port: s.opts.port, Keys: dir}
	cert, err := certificate.New(ownName)
	if err != nil {
		return err
	}
	s.leaf = cert.Certificate[0]
	if err := certificate.Write(dir, cert); err != nil {
		return err
	}
	if s.site.Origin, err = loopback.Check(s.site.At(peer.OriginPort)); err != nil {
		return err
	}
	if s.site.Web, err = loopback.Check(s.site.At(peer.WebPort)); err != nil {
		return err
	}
	if s.account, err = peer.Unprivileged(); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	s.unchain(ctx)
	return nil
}

// ready names every program that is missing and every port that is taken, at once.
func (s *session) ready() error {
	var errs []error
	for _, p := range s.everything() {
		if _, err := p.Find(); err != nil {
			errs = append(errs, err)
		}
		ports := map[string]bool{}
		for proto := range p.Ports {
			ports[p.Address(s.site, proto)] = true
		}
		for addr := range ports {
			l, err := loopback.Listen(addr)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s needs %s, choose other ports with -port: %w", p.Name, addr, err))
				continue
			}
			l.Close()
		}
	}
	return errors.Join(errs...)
}

// originProgram is the origin as a program.
func (s *session) originProgram() peer.Program {
	return peer.Program{
		Name: "origin", Binary: filepath.Join(s.site.Dir, "bench-bin"), Args: []string{"origin", s.site.Origin.String(), s.site.Web.String()},
		Ports: map[string]int{"tunnel": peer.OriginPort, "http": peer.WebPort}, Tunnel: "tunnel",
	}
}

// moduleFolder is that of the module that we stand in.
func moduleFolder(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module, run this inside the repository: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// build makes the binary that is measured.
func build(ctx context.Context, module, to string) error {
	c := exec.CommandContext(ctx, "go", "build", "-buildvcs=auto", "-o", to, ".")
	c.Dir = module
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build polyport: %w\n%s", err, out)
	}
	return nil
}

// copySelf puts this program where an account without rights can start it.
func copySelf(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return copyProgram(self, to)
}

func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// raiseDescriptors lifts the soft limit to the hard one, for what is started
// from here too: Go would give back the old limit otherwise. It returns the limit.
func raiseDescriptors() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise the limit on open files to %d: %w", l.Max, err)
	}
	const need = 19000 // six for each of 3,000 idle tunnels, and some more
	if l.Max < need {
		return 0, fmt.Errorf("%d open files are not enough for 3,000 tunnels: raise the hard limit to %d (ulimit -Hn)", l.Max, need)
	}
	return l.Max, nil
}

// describe says on what and with what the run is made.
func (s *session) describe(ctx context.Context) measure.Run {
	r := measure.Run{
		Date: s.start.UTC().Format(time.DateOnly), Rounds: s.opts.rounds, Window: s.opts.window.String(), Flags: s.opts.given,
		Machine: measure.Machine{
			CPU: peer.ReadProc.CPUName(), Cores: runtime.NumCPU(), Memory: peer.ReadProc.MemorySize(),
			System: peer.SystemName(), Kernel: peer.ReadProc.KernelRelease(), Go: runtime.Version(),
		},
	}
	for _, p := range s.programs {
		v := p.FindVersion(ctx)
		if p.Name == "copy" || p.Name == "gotls" {
			v = runtime.Version()
		}
		r.Programs = append(r.Programs, measure.Program{Name: p.Name, Version: v, Note: p.Note})
	}
	r.Limits = s.limits
	switch {
	case s.account != nil:
		r.Account = s.account.Name
	default:
		r.Limits = append(r.Limits, "The benchmark ran without root: all programs ran as the user who started it, none as an account of its own.")
	}
	if s.associations < s.opts.associations {
		r.Limits = append(r.Limits, fmt.Sprintf("%d UDP associations at rest, not %d: the limit on open files has no room for more.", s.associations, s.opts.associations))
	}
	return r
}

// loadOptions are the options of every load.
func (s *session) loadOptions() load.Options {
	return load.Options{Window: s.opts.window, Associations: s.associations}
}

// descriptorsEach is how many open files an association takes where it takes
// most: a connection and two sockets. The client's are one less.
const descriptorsEach = 3

// fittingAssociations is how many of n associations the limit on open files lets one process hold.
func fittingAssociations(n int, limit uint64) int {
	const spare = 1000
	if limit < spare {
		return 0
	}
	return int(min(uint64(n), (limit-spare)/descriptorsEach))
}
