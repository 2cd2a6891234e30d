package peer

import (
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// CPUName is the model of the processor, as /proc/cpuinfo has it.
func (p Proc) CPUName() string {
	b, _ := fs.ReadFile(p.fs, "cpuinfo")
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// MemorySize is how much memory the machine has, in bytes.
func (p Proc) MemorySize() int64 { return int64(p.sizes("meminfo")["MemTotal"]) }

// KernelRelease is what uname -r says.
func (p Proc) KernelRelease() string {
	b, _ := fs.ReadFile(p.fs, "sys/kernel/osrelease")
	return strings.TrimSpace(string(b))
}

// SystemName is the distribution's name for itself.
func SystemName() string {
	b, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return runtime.GOOS
}
