package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is a source whose outcomes are set by hand.
type script struct {
	mu    sync.Mutex
	calls int
	takes time.Duration
	a     answer
	err   error
}

func (s *script) set(takes time.Duration, a answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes, s.a, s.err = takes, a, err
}

func (s *script) lookup(ctx context.Context, host string) (answer, error) {
	s.mu.Lock()
	s.calls++
	takes, a, err := s.takes, s.a, s.err
	s.mu.Unlock()
	select {
	case <-time.After(takes):
		return a, err
	case <-ctx.Done():
		return answer{}, systemError(host, ctx.Err())
	}
}

func (s *script) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

var (
	oldAnswer = answer{addrs: addrs("192.0.2.1"), ttl: 10 * time.Second}
	newAnswer = answer{addrs: addrs("192.0.2.2"), ttl: time.Minute}
)

// step is one Lookup in a test of what is in the cache.
type step struct {
	at    time.Duration // since the beginning
	want  string        // the address; "": an error
	kind  error
	takes time.Duration
	calls int // of the source when it is done
}

// play makes the steps.
func play(t *testing.T, r *Resolver, s *script, steps []step) {
	t.Helper()
	begin := time.Now()
	for i, st := range steps {
		time.Sleep(time.Until(begin.Add(st.at)))
		start := time.Now()
		got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
		switch {
		case st.want == "" && !errors.Is(err, st.kind), st.want != "" && (err != nil || got[0].String() != st.want):
			t.Errorf("step %d: Lookup = %v, %v, want %q, %v", i+1, got, err, st.want, st.kind)
		}
		if took := time.Since(start); took != st.takes {
			t.Errorf("step %d took %v, want %v", i+1, took, st.takes)
		}
		synctest.Wait()
		if got := s.called(); got != st.calls {
			t.Errorf("after step %d the source had been asked %d times, want %d", i+1, got, st.calls)
		}
	}
}

func TestServeStale(t *testing.T) {
	const end = 10 * time.Second // of oldAnswer
	servfail := &Error{Kind: ErrServer}
	for _, tt := range []struct {
		name  string
		stale time.Duration
		takes time.Duration // what the source does after its first answer
		a     answer
		err   error
		steps []step // after the first, at 0
		stats uint64
	}{
		{"the server is well", time.Hour, time.Second, newAnswer, nil, []step{
			{end, "192.0.2.2", nil, time.Second, 2},
			{end + 2*time.Second, "192.0.2.2", nil, 0, 2},
		}, 0},
		{"the server fails", time.Hour, 0, answer{}, servfail, []step{
			{end, "192.0.2.1", nil, 0, 2},
			{end + staleTTL - 1, "192.0.2.1", nil, 0, 2}, // the failure is not asked for again before
			{end + staleTTL, "192.0.2.1", nil, 0, 3},
		}, 3},
		{"the server is silent", time.Hour, time.Hour, answer{}, nil, []step{
			{end, "192.0.2.1", nil, clientResponse, 2},
			{end + 2*time.Second, "192.0.2.1", nil, 0, 2}, // nobody waits for the same look-up twice
			{end + defaultTimeout + staleTTL - 1, "192.0.2.1", nil, 0, 2},
			{end + defaultTimeout + staleTTL, "192.0.2.1", nil, clientResponse, 3},
		}, 4},
		{"the server is slow", time.Hour, 3 * time.Second, newAnswer, nil, []step{
			{end, "192.0.2.1", nil, clientResponse, 2},
			{end + 2*time.Second, "192.0.2.1", nil, 0, 2},
			{end + 3*time.Second + 1, "192.0.2.2", nil, 0, 2}, // it came though nobody waited
		}, 2},
		{"the name is gone", time.Hour, 0, answer{}, &Error{Kind: ErrNotFound}, []step{
			{end, "", ErrNotFound, 0, 2},
			{end + time.Second, "", ErrNotFound, 0, 2},
			{end + defaultNegativeTTL, "", ErrNotFound, 0, 3},
		}, 0},
		{"its time is over", time.Minute, 0, answer{}, servfail, []step{
			{end + time.Minute - 1, "192.0.2.1", nil, 0, 2},
			{end + time.Minute, "", ErrServer, 0, 3},
		}, 1},
		{"never", 0, 0, answer{}, servfail, []step{
			{end - 1, "192.0.2.1", nil, 0, 1},
			{end, "", ErrServer, 0, 2},
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{a: oldAnswer}
				r := withSource(t, Options{ServeStale: tt.stale}, s.lookup)
				if _, err := r.Lookup(t.Context(), netip.Addr{}, "a.example"); err != nil {
					t.Fatal(err)
				}
				s.set(tt.takes, tt.a, tt.err)
				play(t, r, s, tt.steps)
				if got := r.Stats().Stale; got != tt.stats {
					t.Errorf("Stats.Stale = %d, want %d", got, tt.stats)
				}
			})
		})
	}
}

// An asker who gives up earlier gets an error, and does not end the look-up.
func TestStaleAskerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{ServeStale: time.Hour}, s.lookup)
		r.Lookup(t.Context(), netip.Addr{}, "a.example")
		time.Sleep(oldAnswer.ttl)
		s.set(time.Second, newAnswer, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := r.Lookup(ctx, netip.Addr{}, "a.example"); !errors.Is(err, context.Canceled) {
			t.Errorf("Lookup = %v, want the end of its context", err)
		}
		time.Sleep(time.Second)
		if got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example"); err != nil || got[0] != newAnswer.addrs[0] {
			t.Errorf("Lookup = %v, %v, want the new address", got, err)
		}
	})
}

// Renewals that hang are bounded, each asker's too, and leave turns to others.
func TestRenewalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{ServeStale: time.Hour, Lookups: 8, LookupsPerAsker: 2}, s.lookup)
		name := func(i int) string { return fmt.Sprintf("n%d.example", i) }
		for i := range 100 {
			r.Lookup(t.Context(), netip.Addr{}, name(i))
		}
		time.Sleep(oldAnswer.ttl)
		s.set(time.Hour, answer{}, nil)
		hostile := netip.MustParseAddr("192.0.2.66")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if got, err := r.Lookup(t.Context(), hostile, name(i)); err != nil {
					t.Errorf("Lookup = %v, %v", got, err)
				}
			})
		}
		synctest.Wait()
		r.mu.Lock()
		n := len(r.renewals)
		r.mu.Unlock()
		if running := r.Stats().Running; n > 8 || running != 2 {
			t.Errorf("%d renewals and %d look-ups run, want at most 8 and 2", n, running)
		}
		wg.Wait()
	})
}

// An answer that must not be kept still ends the one before it.
func TestStaleOfAnEarlierAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{ServeStale: time.Hour, MinimumTTL: -1}, s.lookup)
		play(t, r, s, []step{{0, "192.0.2.1", nil, 0, 1}})
		time.Sleep(oldAnswer.ttl)
		s.set(0, answer{addrs: newAnswer.addrs}, nil)
		play(t, r, s, []step{{0, "192.0.2.2", nil, 0, 2}})
		s.set(0, answer{}, &Error{Kind: ErrServer})
		play(t, r, s, []step{{0, "", ErrServer, 0, 3}})
	})
}

// Who has less time than a fresh answer is waited for gets the old one while it is of use.
func TestStaleBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{ServeStale: time.Hour}, s.lookup)
		play(t, r, s, []step{{0, "192.0.2.1", nil, 0, 1}})
		time.Sleep(oldAnswer.ttl)
		s.set(time.Hour, answer{}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		got, err := r.Lookup(ctx, netip.Addr{}, "a.example")
		if took := time.Since(start); err != nil || got[0] != oldAnswer.addrs[0] || took != time.Second/2 {
			t.Errorf("Lookup = %v, %v after %v, want the old address after half the time", got, err, took)
		}
	})
}

// A client whose look-ups all hang has names renewed by no one, and keeps nobody else from doing it.
func TestHangingNamesOfOneAskerLeaveRenewalsToOthers(t *testing.T) {
	hostile, other := netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("192.0.2.7")
	for name, asked := range map[string]time.Duration{"what has run out": oldAnswer.ttl, "what is about to": 9*time.Second + 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{a: oldAnswer}
				r := withSource(t, Options{ServeStale: time.Hour, LookupsPerAsker: 1}, func(ctx context.Context, host string) (answer, error) {
					if host == "hang.example" {
						<-ctx.Done()
						return answer{}, systemError(host, ctx.Err())
					}
					return s.lookup(ctx, host)
				})
				begin := time.Now()
				for range 3 {
					r.Lookup(t.Context(), netip.Addr{}, "a.example")
				}
				s.set(0, newAnswer, nil)
				time.Sleep(time.Until(begin.Add(asked)))
				go r.Lookup(t.Context(), hostile, "hang.example")
				synctest.Wait()
				go r.Lookup(t.Context(), hostile, "a.example")
				synctest.Wait()
				start := time.Now()
				r.Lookup(t.Context(), other, "a.example")
				synctest.Wait()
				got, err := r.Lookup(t.Context(), other, "a.example")
				if took := time.Since(start); err != nil || got[0] != newAnswer.addrs[0] || took != 0 {
					t.Errorf("Lookup = %v, %v after %v, want the new address at once", got, err, took)
				}
				time.Sleep(time.Minute)
				r.shares.mu.Lock()
				defer r.shares.mu.Unlock()
				if n := len(r.shares.by); n != 0 {
					t.Errorf("%d shares are left, want none", n)
				}
			})
		})
	}
}

// After Close what has run out still answers, and nothing is begun.
func TestStaleAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{ServeStale: time.Hour}, s.lookup)
		play(t, r, s, []step{{0, "192.0.2.1", nil, 0, 1}})
		r.Close()
		time.Sleep(oldAnswer.ttl)
		play(t, r, s, []step{{0, "192.0.2.1", nil, 0, 1}})
	})
}

func TestCloseEndsARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{ServeStale: time.Hour}, s.lookup)
		r.Lookup(t.Context(), netip.Addr{}, "a.example")
		time.Sleep(oldAnswer.ttl)
		s.set(time.Hour, answer{}, nil)
		done := make(chan error)
		go func() {
			_, err := r.Lookup(context.Background(), netip.Addr{}, "a.example")
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		r.Close()
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("Lookup = %v after %v, want the stale answer at once", err, time.Since(start))
		}
	})
}

func TestPrefetch(t *testing.T) {
	const due = 9*time.Second + 1 // nine tenths of oldAnswer's life, and a little
	again := func(n int, at time.Duration, calls int) (steps []step) {
		for range n {
			steps = append(steps, step{at, "192.0.2.1", nil, 0, calls})
		}
		return steps
	}
	for _, tt := range []struct {
		name    string
		options Options
		takes   time.Duration
		a       answer
		err     error
		steps   []step
		stats   uint64
	}{
		{"hot", Options{}, time.Second / 2, newAnswer, nil, append(again(2, time.Second, 1),
			step{due, "192.0.2.1", nil, 0, 2}, // nobody waits
			step{due + time.Second/4, "192.0.2.1", nil, 0, 2},
			step{due + time.Second/2 + 1, "192.0.2.2", nil, 0, 2},
			step{due + time.Second/2 + newAnswer.ttl - 1, "192.0.2.2", nil, 0, 2}, // not hot any more
		), 1},
		{"not hot", Options{}, 0, newAnswer, nil, append(again(1, time.Second, 1),
			step{due, "192.0.2.1", nil, 0, 1},
			step{10 * time.Second, "192.0.2.2", nil, 0, 2},
		), 0},
		{"hot at the end only", Options{}, 0, newAnswer, nil, append(again(2, due, 1), again(1, due, 2)...), 1},
		{"not yet", Options{}, 0, newAnswer, nil, again(9, due-1, 1), 0},
		{"switched off", Options{NoPrefetch: true}, 0, newAnswer, nil, again(9, due, 1), 0},
		{"the server fails", Options{}, 0, answer{}, &Error{Kind: ErrServer}, append(again(2, time.Second, 1),
			step{due, "192.0.2.1", nil, 0, 2},
			step{10*time.Second - 1, "192.0.2.1", nil, 0, 2}, // once, and what is known stays
			step{10 * time.Second, "", ErrServer, 0, 3},
		), 1},
		{"the name is gone", Options{}, 0, answer{}, &Error{Kind: ErrNotFound}, append(again(2, time.Second, 1),
			step{due, "192.0.2.1", nil, 0, 2},
			step{due + 1, "", ErrNotFound, 0, 2},
		), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{a: oldAnswer}
				r := withSource(t, tt.options, s.lookup)
				r.Lookup(t.Context(), netip.Addr{}, "a.example")
				s.set(tt.takes, tt.a, tt.err)
				play(t, r, s, tt.steps)
				if got := r.Stats().Prefetched; got != tt.stats {
					t.Errorf("Stats.Prefetched = %d, want %d", got, tt.stats)
				}
			})
		})
	}
}

// Without a free turn there is no prefetch, and nobody waits for one.
func TestPrefetchWaitsForNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: oldAnswer}
		r := withSource(t, Options{Lookups: 1, Timeout: time.Hour}, func(ctx context.Context, host string) (answer, error) {
			if strings.HasPrefix(host, "hangs") {
				<-ctx.Done()
				return answer{}, ctx.Err()
			}
			return s.lookup(ctx, host)
		})
		play(t, r, s, []step{{0, "192.0.2.1", nil, 0, 1}, {0, "192.0.2.1", nil, 0, 1}, {0, "192.0.2.1", nil, 0, 1}})
		go r.Lookup(context.Background(), netip.Addr{}, "hangs.example")
		synctest.Wait()
		time.Sleep(9*time.Second + 1)
		play(t, r, s, []step{{0, "192.0.2.1", nil, 0, 1}, {0, "192.0.2.1", nil, 0, 1}})
		if got := r.Stats(); got.Prefetched != 0 || got.Running != 1 {
			t.Errorf("Stats = %+v, want no prefetch", got)
		}
		r.Close()
	})
}
