package relay

import "testing"

// nothingLeft waits until descriptors and pipes are back where they were.
func nothingLeft(t *testing.T, files int) {
	t.Helper()
	waitFor(t, "the pipes to come back", func() bool {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		return pipes.out == 0 && pipes.users == 0 && len(pipes.idle) == 0
	})
	waitFor(t, "the descriptors to be closed", func() bool { return openFiles(t) <= files })
}
