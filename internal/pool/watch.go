package pool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

// defaultTimeout is how long an active check may take.
const defaultTimeout = 3 * time.Second

// firstCheckWithin bounds the wait for the first check where the checks are far apart.
const firstCheckWithin = time.Second

// Watch checks every server about every so often, with a goroutine for each, until ctx ends, and tells Checked what probe
// says of the server with index i. The first check is within a second. It returns at once; wait waits for the end of all.
// timeout is for one probe; zero is 3 s. With every zero or negative nothing is checked, and what earlier checks said is
// forgotten.
func (p *Pool) Watch(ctx context.Context, every, timeout time.Duration, probe func(ctx context.Context, i int) error) (wait func()) {
	if every <= 0 {
		p.forgetChecks()
		return func() {}
	}
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	var all sync.WaitGroup
	for _, m := range p.members {
		all.Go(func() { m.watch(ctx, every, timeout, probe) })
	}
	return all.Wait
}

// watch checks one server until ctx ends.
func (m *Member) watch(ctx context.Context, every, timeout time.Duration, probe func(ctx context.Context, i int) error) {
	timer := time.NewTimer(rand.N(min(every, firstCheckWithin)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begun := time.Now()
		err := m.check(ctx, timeout, probe)
		if ctx.Err() != nil {
			return // the end of the checks is no fault of the server
		}
		m.Checked(err)
		timer.Reset(time.Until(begun.Add(jitter(every))))
	}
}

func (m *Member) check(ctx context.Context, timeout time.Duration, probe func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer to a check within %v", timeout))
	defer cancel()
	err := safely(func() error { return probe(ctx, m.index) })
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		// Not with %w: the probe may call this a cancellation, which would say nothing.
		return fmt.Errorf("%w: %v", context.Cause(ctx), err)
	}
	return err
}

// safely makes an error of a panic: a fault in one check must not end the process.
func safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// jitter is d and up to a tenth more or less: servers of many proxies must not see all checks at once.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// forgetChecks makes an end of what nobody would ever take back.
func (p *Pool) forgetChecks() {
	for i := range p.members {
		p.change(i, func(s *server, h *health) bool {
			s.good, s.bad = 0, 0
			if h.down == nil {
				return false
			}
			h.down, h.back = nil, time.Now()
			return true
		})
	}
}
