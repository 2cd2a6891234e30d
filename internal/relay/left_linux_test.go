package relay

import (
	"testing"

	"golang.org/x/sys/unix"
)

// nothingLeft waits until descriptors, pipes and loops are back where they were.
func nothingLeft(t *testing.T, files int) {
	t.Helper()
	waitFor(t, "the loops to end", func() bool {
		for i := range loops {
			l := &loops[i]
			l.mu.Lock()
			busy := l.used > 0 || l.epoll != nil || l.timer != nil || len(l.dues) > 0
			l.mu.Unlock()
			if busy {
				return false
			}
		}
		return true
	})
	waitFor(t, "the pipes to come back", func() bool {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		return pipes.out == 0 && pipes.users == 0 && len(pipes.idle) == 0
	})
	waitFor(t, "the descriptors to be closed", func() bool { return openFiles(t) <= files })
}

// newEvent is what epoll_wait gives for a watch.
func newEvent(at, generation int32) unix.EpollEvent {
	return unix.EpollEvent{Events: unix.EPOLLIN, Fd: at, Pad: generation}
}
