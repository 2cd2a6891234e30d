package reactor

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloseTwice: the second time the descriptors are others'.
func TestCloseTwice(t *testing.T) {
	g, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	was := g.loops[0].event
	g.Close()
	mine := -1
	for mine < was {
		if mine, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(mine)
	}
	g.Close()
	var b [8]byte
	if _, err := unix.Read(mine, b[:]); mine != was || err != unix.EAGAIN {
		t.Errorf("reading descriptor %d, which was %d: %v, want %v", mine, was, err, unix.EAGAIN)
	}
}
