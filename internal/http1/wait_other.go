//go:build !unix

package http1

// rawWaiter waits for a socket where the system lets us read it without a buffer of its
// own.
type rawWaiter struct{}

func (r *Reader) waitRaw() bool { return false }

func (w *rawWaiter) take() error { return nil }
