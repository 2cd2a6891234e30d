//go:build !linux

package relay

import "testing"

// nothingLeft waits until descriptors are back where they were.
func nothingLeft(t *testing.T, files int) {
	t.Helper()
	waitFor(t, "the descriptors to be closed", func() bool { return openFiles(t) <= files })
}
