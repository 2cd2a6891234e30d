// Package peer starts, pauses and stops the programs that are measured, with
// configurations that it writes itself, and reads from /proc what they use.
package peer

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"polyport/bench/load"
	"polyport/bench/loopback"
)

const (
	startTimeout = 10 * time.Second // until a program listens
	stopTimeout  = 5 * time.Second  // until it is killed
	pollEvery    = 20 * time.Millisecond
)

// Process is a program that runs.
type Process struct {
	Program Program
	Site    Site
	cmd     *exec.Cmd
	exited  chan struct{}
}

// Find gives the path of the program's binary. The error names the Debian package that has it.
func (p Program) Find() (string, error) {
	path, err := exec.LookPath(p.Binary)
	if err != nil && !strings.Contains(p.Binary, "/") {
		path, err = exec.LookPath("/usr/sbin/" + p.Binary) // not in everybody's PATH
	}
	if err == nil && p.Needs != "" {
		_, err = os.Stat(p.Needs)
	}
	if err != nil && p.Package != "" {
		return "", fmt.Errorf("%s is missing: install the Debian package %s, or leave it out with -only: %w", p.Name, p.Package, err)
	}
	if err != nil && p.Tool {
		return "", fmt.Errorf("%s is missing: `make bench` builds it, or leave it out with -only: %w", p.Name, err)
	}
	return path, err
}

// FindVersion is the version of the program's Debian package or Go module, or
// what it says itself, or "unknown".
func (p Program) FindVersion(ctx context.Context) string {
	if p.Tool {
		info, err := buildinfo.ReadFile(p.Binary)
		if err != nil {
			return "unknown"
		}
		return info.Main.Version + " (" + info.GoVersion + ")"
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	argv := p.Version
	if p.Package != "" {
		argv = []string{"dpkg-query", "-W", "-f", "${Version}", p.Package}
	}
	if len(argv) == 0 {
		return "unknown"
	}
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// Start starts the program as the account and waits until it listens. The
// caller stops it; it dies with the benchmark in any case.
func Start(ctx context.Context, p Program, s Site, as *Account) (*Process, error) {
	path, err := p.Find()
	if err != nil {
		return nil, err
	}
	s.Dir = filepath.Join(s.Dir, p.Name)
	args, err := p.prepare(s)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	out, err := p.output(s)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	r := &Process{Program: p, Site: s, exited: make(chan struct{})}
	r.cmd = exec.Command(path, args...)
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.Dir = out, out, s.Dir
	r.cmd.SysProcAttr = attributes(as)
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	go r.wait()
	if err := r.listens(ctx); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// Check has p, a build of polyport, check its configuration. The error says what it finds wrong.
func (p Program) Check(ctx context.Context, s Site) error {
	path, err := p.Find()
	if err != nil {
		return err
	}
	s.Dir = filepath.Join(s.Dir, p.Name)
	args, err := p.prepare(s)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, append([]string{"check"}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s refuses %s: %w: %s", p.Name, p.Conf, err, bytes.TrimSpace(out))
	}
	return nil
}

// wait ends when the program does.
func (r *Process) wait() {
	r.cmd.Wait()
	close(r.exited)
}

// prepare writes the configuration and returns the arguments that name it.
// Programs give up root at different moments, so everybody may write to the folder.
func (p Program) prepare(s Site) ([]string, error) {
	if err := os.RemoveAll(s.Dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.Dir, 0o777); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.Dir, 0o777); err != nil {
		return nil, err
	}
	s.Own = p.Ports[p.Tunnel]
	file := filepath.Join(s.Dir, p.Conf)
	if p.Conf != "" {
		if err := writeConf(file, p.Conf, s); err != nil {
			return nil, err
		}
	}
	words := []string{"{conf}", file, "{dir}", s.Dir, "{port}", p.port(s), "{origin}", s.Origin.String(), "{hop}", s.At(HopPort), "{certificate}", s.Certificate(), "{key}", s.Key()}
	for proto := range p.Ports {
		words = append(words, "{"+proto+"}", p.Address(s, proto))
	}
	args := make([]string, len(p.Args))
	for i, a := range p.Args {
		args[i] = strings.NewReplacer(words...).Replace(a)
	}
	return args, nil
}

func writeConf(file, name string, s Site) error {
	t, err := template.ParseFS(conf, "conf/"+name)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.Execute(f, s)
}

// output is where the program's own words go.
func (p Program) output(s Site) (*os.File, error) {
	if p.Noisy {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	return os.Create(filepath.Join(s.Dir, "output.log"))
}

// listens waits until all ports of the program take connections.
func (r *Process) listens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for proto := range r.Program.Ports {
		addr, err := loopback.Check(r.Program.Address(r.Site, proto))
		if err != nil {
			return err
		}
		for {
			c, err := loopback.Dial(addr, 0)
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-r.exited:
				return fmt.Errorf("%s ended as it started: %w%s", r.Program.Name, errors.New(r.cmd.ProcessState.String()), r.lastWords())
			case <-ctx.Done():
				return fmt.Errorf("%s does not listen on %s: %w%s", r.Program.Name, addr, err, r.lastWords())
			case <-time.After(pollEvery):
			}
		}
	}
	return nil
}

// lastWords is the end of what the program has said.
func (r *Process) lastWords() string {
	b, _ := os.ReadFile(filepath.Join(r.Site.Dir, "output.log"))
	if len(b) == 0 {
		return ""
	}
	return "; it said: " + strings.TrimSpace(string(b[max(0, len(b)-500):]))
}

// PID is the number of the program's first process.
func (r *Process) PID() int { return r.cmd.Process.Pid }

// Running says whether the program has not ended.
func (r *Process) Running() bool {
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// Pause stops the program where it is, so that it uses nothing while others are measured.
func (r *Process) Pause() { r.signal(syscall.SIGSTOP) }

// Resume lets a paused program go on.
func (r *Process) Resume() { r.signal(syscall.SIGCONT) }

// signal reaches the program and all its children while they are its own: a
// process that nobody has waited for keeps its number.
func (r *Process) signal(s syscall.Signal) {
	if r.Running() {
		for _, pid := range ReadProc.Tree(r.PID()) {
			syscall.Kill(pid, s)
		}
	}
}

// Stop ends the program and its children, with force if they take too long.
func (r *Process) Stop() {
	if !r.Running() {
		return
	}
	all := ReadProc.Tree(r.PID())
	for _, s := range []syscall.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		for _, pid := range all {
			syscall.Kill(pid, s)
		}
	}
	for end := time.Now().Add(stopTimeout); time.Now().Before(end) && anyAlive(all); {
		time.Sleep(pollEvery)
	}
	for _, pid := range all {
		if ReadProc.alive(pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-r.exited
}

func anyAlive(pids []int) bool {
	for _, pid := range pids {
		if ReadProc.alive(pid) {
			return true
		}
	}
	return false
}

// Meter reads the counters of one process, beside those of the benchmark.
type Meter struct {
	process *Process
	bench   []int
}

// NewMeter makes the meter of r, which is nil for direct. The numbers are the
// processes that belong to the benchmark: client and origin.
func NewMeter(r *Process, bench ...int) Meter { return Meter{r, bench} }

func (m Meter) roots() []int {
	if m.process == nil {
		return nil
	}
	return []int{m.process.PID()}
}

// CPU implements load.Meter.
func (m Meter) CPU() float64 { return ReadProc.CPU(m.roots()...) }

// Others implements load.Meter.
func (m Meter) Others() float64 {
	return ReadProc.busy() - ReadProc.CPU(append(m.roots(), m.bench...)...)
}

// Memory implements load.Meter.
func (m Meter) Memory() load.Memory { return ReadProc.memory(m.roots()...) }
