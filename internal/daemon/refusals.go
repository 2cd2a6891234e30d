package daemon

import (
	"log/slog"
	"sync"
	"time"

	"polyport/mux"
)

// refusals logs what ended before it became a session: the first of each cause
// at once, the others of the same kind as one line with their number, so that a flood
// is seen and does not flood the log.
type refusals struct {
	log   *slog.Logger
	every time.Duration

	mu     sync.Mutex
	quiet  map[mux.Cause]*refusalCount // causes whose first was logged a short time ago
	closed bool
}

// refusalCount is what has come since the last line of one cause.
type refusalCount struct {
	n     uint64
	last  mux.Refusal
	timer *time.Timer
}

const refusalsEvery = 10 * time.Second

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, every: refusalsEvery, quiet: map[mux.Cause]*refusalCount{}}
}

// add counts one refusal.
func (r *refusals) add(f mux.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if c := r.quiet[f.Cause]; c != nil {
		c.n++
		c.last = f
		return
	}
	r.write("connection refused before it became a session", f)
	c := &refusalCount{}
	c.timer = time.AfterFunc(r.every, func() { r.flush(f.Cause) })
	r.quiet[f.Cause] = c
}

// flush writes the line of those that came since, and is quiet about the cause
// for another while if there were any.
func (r *refusals) flush(cause mux.Cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.quiet[cause]
	if c == nil || r.closed {
		return
	}
	if c.n == 0 {
		delete(r.quiet, cause)
		return
	}
	r.sum(c)
	c.timer.Reset(r.every)
}

// sum writes how many have come since the last line. r.mu is held.
func (r *refusals) sum(c *refusalCount) {
	r.write("more connections refused before they became sessions", c.last, slog.Uint64("count", c.n))
	c.n = 0
}

// write writes one line about f. A client that merely went away is worth a line only to those who debug.
func (r *refusals) write(msg string, f mux.Refusal, more ...any) {
	args := append([]any{
		slog.String("reason", string(f.Cause)), slog.String("client", f.Client.String()),
		slog.String("listener", f.Listener), slog.Int("bytes", f.Bytes),
	}, more...)
	if f.Err != nil {
		args = append(args, slog.String("err", f.Err.Error()))
	}
	switch f.Cause {
	case mux.MatcherPanicked:
		r.log.Error(msg, args...)
	case mux.ClosedEarly, mux.ShuttingDown:
		r.log.Debug(msg, args...)
	default:
		r.log.Warn(msg, args...)
	}
}

// close writes what is still counted.
func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.quiet {
		c.timer.Stop()
		if c.n > 0 {
			r.sum(c)
		}
	}
	clear(r.quiet)
}
