package peer

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"polyport/bench/load"
	"polyport/bench/loopback"
)

func TestParseStat(t *testing.T) {
	const line = "17 (a ) b) S 5 17 17 0 -1 4194304 100 0 0 0 150 50 30 20 20 0 9 0 100 1000 10"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{parent: 5, state: 'S', cpu: 2.5, threads: 9}); got != want {
		t.Errorf("parseStat = %+v, want %+v", got, want)
	}
	if _, err := parseStat([]byte("17 (a) S 5")); err == nil {
		t.Error("a stat that is cut short is accepted")
	}
}

// machine is a /proc with a process 10, its child 11, and 12 of somebody else.
func machine() Proc {
	stat := func(pid, parent, ticks string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(pid + " (x) S " + parent + " 0 0 0 0 0 0 0 0 0 " + ticks + " 0 0 0 20 0 3 0 1 1 1")}
	}
	return Proc{fstest.MapFS{
		"10/stat": stat("10", "1", "100"), "11/stat": stat("11", "10", "50"), "12/stat": stat("12", "1", "900"),
		"10/smaps_rollup": {Data: []byte("0-1 ---p [rollup]\nRss:   20 kB\nPss:   10 kB\nPss_Dirty: 5 kB\n")},
		"10/fd/0":         {}, "10/fd/1": {}, "11/fd/0": {},
		"stat":                 {Data: []byte("cpu  100 0 200 9999 50 0 100 0 0 0\ncpu0 1\n")},
		"meminfo":              {Data: []byte("MemTotal: 1024 kB\nSUnreclaim: 3 kB\nKernelStack: 2 kB\nPageTables: 1 kB\n")},
		"cpuinfo":              {Data: []byte("processor\t: 0\nmodel name\t: A CPU\n")},
		"sys/kernel/osrelease": {Data: []byte("6.1.0\n")},
	}}
}

func TestProc(t *testing.T) {
	p := machine()
	if got, want := p.CPU(10), 1.5; got != want {
		t.Errorf("CPU = %v, want %v", got, want)
	}
	if got := p.CPU(); got != 0 {
		t.Errorf("CPU of nothing = %v", got)
	}
	if got, want := p.busy(), 4.0; got != want {
		t.Errorf("busy = %v, want %v", got, want)
	}
	want := load.Memory{RSS: 20 << 10, PSS: 10 << 10, Kernel: 6 << 10, FDs: 3, Threads: 6, Procs: 2}
	if d := cmp.Diff(want, p.memory(10)); d != "" {
		t.Error(d)
	}
	if got := []any{p.CPUName(), p.MemorySize(), p.KernelRelease(), p.alive(10), p.alive(99)}; !cmp.Equal(got, []any{"A CPU", int64(1 << 20), "6.1.0", true, false}) {
		t.Errorf("machine = %v", got)
	}
}

func TestConfigurationsAreWhole(t *testing.T) {
	s := Site{Port: 15000, Origin: netip.MustParseAddrPort("127.0.0.1:15000"), Web: netip.MustParseAddrPort("127.0.0.1:15001")}
	seen := map[int]string{}
	all := Table("polyport", "other", "bench", "/tools")
	for _, p := range all {
		if p.Chain != nil {
			all = append(all, p.Chained())
		}
	}
	for _, p := range all {
		s.Dir = filepath.Join(t.TempDir(), p.Name)
		args, err := p.prepare(s)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(args, " ")
		if p.Conf != "" {
			b, err := os.ReadFile(filepath.Join(s.Dir, p.Conf))
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
		}
		for proto, n := range p.Ports {
			addr := p.Address(s, proto)
			if _, err := loopback.Check(addr); err != nil {
				t.Error(err)
			}
			if n >= portCount || seen[n] != "" && seen[n] != p.Name {
				t.Errorf("port %d of %s is not its own", n, p.Name)
			}
			seen[n] = p.Name
			if port := addr[strings.IndexByte(addr, ':')+1:]; !strings.Contains(text, port) {
				t.Errorf("%s is not told to listen on %s for %s", p.Name, addr, proto)
			}
		}
		if p.Ports[p.Tunnel] == 0 {
			t.Errorf("%s has no port for its tunnel, %s", p.Name, p.Tunnel)
		}
		if hop := strconv.Itoa(s.PortAt(HopPort)); p.Far != strings.Contains(text, hop) {
			t.Errorf("%s is behind the next hop: %v, but %s is in its configuration: %v", p.Name, p.Far, hop, !p.Far)
		}
	}
}

func TestAMissingProgramNamesItsPackage(t *testing.T) {
	_, err := Program{Name: "squid", Package: "squid-package", Binary: "polyport-bench-no-such-program"}.Find()
	if err == nil || !strings.Contains(err.Error(), "squid-package") {
		t.Errorf("Find = %v, want the package", err)
	}
}

func TestAMissingToolNamesTheCommandThatBuildsIt(t *testing.T) {
	p := Program{Name: "sing-box", Tool: true, Binary: filepath.Join(t.TempDir(), "sing-box")}
	if _, err := p.Find(); err == nil || !strings.Contains(err.Error(), "make bench") {
		t.Errorf("Find = %v, want the command", err)
	}
	if got := p.FindVersion(t.Context()); got != "unknown" {
		t.Errorf("FindVersion = %q", got)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.Binary = self
	if got := p.FindVersion(t.Context()); !strings.Contains(got, runtime.Version()) {
		t.Errorf("FindVersion = %q, want that of Go in it", got)
	}
}

func TestAProgramThatEndsAtOnceSaysWhy(t *testing.T) {
	p := Program{Name: "broken", Binary: "sh", Args: []string{"-c", "echo no such key >&2; exit 3"}, Ports: map[string]int{"tls": 1}, Tunnel: "tls"}
	l, err := loopback.Listen("127.0.0.1:0") // a port that is free once it is closed
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	l.Close()
	r, err := Start(t.Context(), p, Site{Dir: t.TempDir(), Port: int(port) - 1}, nil)
	if err == nil {
		r.Stop()
		t.Fatal("it started")
	}
	if !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("Start = %v", err)
	}
}

func TestStartPauseStop(t *testing.T) {
	l, err := loopback.Listen("127.0.0.1:0") // stands in for the port of a program that does not listen itself
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go loopback.Serve(l, func(c *net.TCPConn) { c.Close() })
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	p := Program{Name: "sleeper", Binary: "sh", Args: []string{"-c", "sleep 60 & wait"}, Ports: map[string]int{"tls": 1}, Tunnel: "tls"}
	r, err := Start(t.Context(), p, Site{Dir: t.TempDir(), Port: int(port) - 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Pause()
	r.Stop()
	if r.Running() {
		t.Error("it runs after Stop")
	}
}
