package daemon

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker (-X polyport/internal/daemon.version=...) when a release is built.
var version = ""

// Version returns the release, or "dev" for a build that is none.
func Version() string {
	if version == "" {
		return "dev"
	}
	return version
}

// VersionLine returns version, commit and Go version in one line.
func VersionLine() string {
	commit := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return "polyport " + Version() + " (commit " + commit + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}
