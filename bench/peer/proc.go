package peer

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"polyport/bench/load"
)

// userHZ is the unit of times in /proc on all of Linux' common architectures.
const userHZ = 100

// Proc reads /proc. The zero value is not usable; ReadProc is the machine's.
type Proc struct{ fs fs.FS }

// ReadProc is this machine's /proc.
var ReadProc = Proc{os.DirFS("/proc")}

// stat is what /proc/PID/stat says of a process.
type stat struct {
	parent  int
	state   byte
	cpu     float64 // seconds, of its own and of children that it has waited for
	threads int
}

// parseStat parses proc_pid_stat(5). A name may hold blanks and parentheses.
func parseStat(b []byte) (stat, error) {
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 18 {
		return stat{}, fmt.Errorf("%d fields behind the name in stat, want 18 or more", len(f))
	}
	s := stat{state: f[0][0], parent: int(number(string(f[1]))), threads: int(number(string(f[17])))}
	for _, ticks := range f[11:15] {
		s.cpu += number(string(ticks)) / userHZ
	}
	return s, nil
}

// number is 0 where there is none: /proc is written by the kernel.
func number(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v
}

func (p Proc) stat(pid int) (stat, error) {
	b, err := fs.ReadFile(p.fs, path.Join(strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// Tree is the processes and all that descend from them.
func (p Proc) Tree(roots ...int) []int {
	children := map[int][]int{}
	entries, _ := fs.ReadDir(p.fs, ".")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if s, err := p.stat(pid); err == nil {
				children[s.parent] = append(children[s.parent], pid)
			}
		}
	}
	all := slices.Clone(roots)
	for i := 0; i < len(all); i++ {
		for _, c := range children[all[i]] {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// CPU is the user and system time, in seconds, of processes, of all that
// descend from them and of those that they have waited for.
func (p Proc) CPU(roots ...int) (sum float64) {
	for _, pid := range p.Tree(roots...) {
		if s, err := p.stat(pid); err == nil {
			sum += s.cpu
		}
	}
	return sum
}

// busy is the CPU time, in seconds, that the machine has used since it started.
func (p Proc) busy() (sum float64) {
	b, _ := fs.ReadFile(p.fs, "stat")
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0
	}
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // neither idle nor waiting for I/O
		sum += number(f[i]) / userHZ
	}
	return sum
}

// memory of processes and of all that descend from them, and the kernel's.
func (p Proc) memory(roots ...int) (m load.Memory) {
	for _, pid := range p.Tree(roots...) {
		m.Procs++
		if s, err := p.stat(pid); err == nil {
			m.Threads += float64(s.threads)
		}
		pages := p.sizes(path.Join(strconv.Itoa(pid), "smaps_rollup"))
		m.RSS += pages["Rss"]
		m.PSS += pages["Pss"]
		fds, _ := fs.ReadDir(p.fs, path.Join(strconv.Itoa(pid), "fd"))
		m.FDs += float64(len(fds))
	}
	info := p.sizes("meminfo")
	m.Kernel = info["SUnreclaim"] + info["KernelStack"] + info["PageTables"]
	return m
}

// sizes reads lines such as "Pss: 12 kB" as bytes.
func (p Proc) sizes(name string) map[string]float64 {
	b, _ := fs.ReadFile(p.fs, name)
	all := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(line, ":")
		if f := strings.Fields(value); ok && len(f) == 2 && f[1] == "kB" {
			all[key] = number(f[0]) * 1024
		}
	}
	return all
}

// alive says whether a process runs; one that nobody has waited for does not.
func (p Proc) alive(pid int) bool {
	s, err := p.stat(pid)
	return err == nil && s.state != 'Z'
}
