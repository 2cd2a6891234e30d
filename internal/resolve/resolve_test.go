package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	resolutionDelay = 400 * time.Millisecond
	goleak.VerifyTestMain(m)
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// withSource makes a Resolver whose source is f.
func withSource(t *testing.T, o Options, f source) *Resolver {
	t.Helper()
	r := New(o)
	r.source = f
	t.Cleanup(func() { r.Close() })
	return r
}

func TestCacheKeepsAnswersForTheirLife(t *testing.T) {
	good := answer{addrs: addrs("192.0.2.1"), ttl: 10 * time.Second}
	tests := []struct {
		name    string
		options Options
		answer  answer
		err     error
		life    time.Duration
	}{
		{"its time to live", Options{}, good, nil, 10 * time.Second},
		{"at least the minimum", Options{MinimumTTL: time.Minute}, good, nil, time.Minute},
		{"default minimum", Options{}, answer{addrs: good.addrs}, nil, time.Second},
		{"at most the maximum", Options{MaximumTTL: 3 * time.Second}, good, nil, 3 * time.Second},
		{"default maximum", Options{}, answer{addrs: good.addrs, ttl: 99 * time.Hour}, nil, time.Hour},
		{"no such name", Options{}, answer{}, &Error{Kind: ErrNotFound}, 5 * time.Second},
		{"an answer without addresses", Options{}, answer{ttl: time.Hour}, nil, 5 * time.Second},
		{"server failure", Options{}, answer{}, &Error{Kind: ErrServer}, time.Second},
		{"timeout", Options{}, answer{}, &Error{Kind: ErrTimeout}, time.Second},
		{"some other error", Options{}, answer{}, errors.New("boom"), time.Second},
		{"no cache", Options{CacheSize: -1}, good, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				r := withSource(t, tt.options, func(context.Context, string) (answer, error) {
					calls++
					return tt.answer, tt.err
				})
				ask := func(want int) {
					t.Helper()
					got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
					if (err == nil) != (len(tt.answer.addrs) > 0) || err == nil && !slices.Equal(got, tt.answer.addrs) {
						t.Errorf("Lookup = %v, %v, want %v", got, err, tt.answer.addrs)
					}
					if calls != want {
						t.Errorf("the source was asked %d times, want %d", calls, want)
					}
				}
				ask(1)
				if tt.life > 0 {
					time.Sleep(tt.life - 1)
					ask(1)
					time.Sleep(time.Nanosecond)
				}
				ask(2)
			})
		})
	}
}

func TestOneLookupForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		r := withSource(t, Options{Lookups: 1}, func(ctx context.Context, host string) (answer, error) {
			calls.Add(1)
			time.Sleep(time.Second)
			return answer{addrs: addrs("192.0.2.1")}, nil
		})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				// Different spellings are one name.
				host := []string{"a.example", "A.example.", "a.EXAMPLE"}[i%3]
				if got, err := r.Lookup(t.Context(), netip.Addr{}, host); err != nil || len(got) != 1 {
					t.Errorf("Lookup = %v, %v", got, err)
				}
			})
		}
		wg.Wait()
		if got := calls.Load(); got != 1 {
			t.Errorf("the source was asked %d times, want once", got)
		}
		want := Stats{Misses: 100, Lookups: 1, Cached: 1}
		if got := r.Stats(); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
	})
}

func TestTheFirstCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withSource(t, Options{}, func(ctx context.Context, host string) (answer, error) {
			select {
			case <-time.After(time.Second):
				return answer{addrs: addrs("192.0.2.1")}, nil
			case <-ctx.Done():
				return answer{}, ctx.Err()
			}
		})
		ctx, leave := context.WithCancel(t.Context())
		first := make(chan error)
		go func() {
			_, err := r.Lookup(ctx, netip.Addr{}, "a.example")
			first <- err
		}()
		second := make(chan error)
		go func() {
			_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			second <- err
		}()
		synctest.Wait()
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller who left got %v, want context.Canceled", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the caller who stayed got %v", err)
		}
	})
}

func TestTheLastCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, ended atomic.Int32
		r := withSource(t, Options{}, func(ctx context.Context, host string) (answer, error) {
			if calls.Add(1) > 1 {
				return answer{addrs: addrs("192.0.2.1")}, nil
			}
			<-ctx.Done()
			ended.Add(1)
			return answer{}, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Lookup(ctx, netip.Addr{}, "a.example")
		var e *Error
		if !errors.As(err, &e) || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lookup with a short deadline = %v, want a timeout", err)
		}
		synctest.Wait()
		if ended.Load() != 1 {
			t.Error("the look-up goes on though nobody waits for it")
		}
		// Giving up is no news of the name: nothing is cached, the next one asks again.
		if _, err := r.Lookup(t.Context(), netip.Addr{}, "a.example"); err != nil {
			t.Errorf("Lookup after that = %v", err)
		}
		want := Stats{Misses: 2, Lookups: 2, Cached: 1}
		if got := r.Stats(); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
	})
}

func TestLookupHasItsOwnTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withSource(t, Options{}, func(ctx context.Context, host string) (answer, error) {
			<-ctx.Done()
			return answer{}, systemError(host, ctx.Err())
		})
		start := time.Now()
		_, err := r.Lookup(context.Background(), netip.Addr{}, "a.example")
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("a look-up that hangs took %v, want 5s", took)
		}
		if !errors.Is(err, ErrTimeout) {
			t.Errorf("a look-up that hangs gives %v, want ErrTimeout", err)
		}
		want := Stats{Misses: 1, Lookups: 1, Failures: 1, Timeouts: 1, Cached: 1}
		if got := r.Stats(); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
	})
}

func TestLookupsAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		r := withSource(t, Options{Lookups: 2, Timeout: 10 * time.Second}, func(ctx context.Context, host string) (answer, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return answer{addrs: addrs("192.0.2.1")}, nil
		})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if _, err := r.Lookup(t.Context(), netip.Addr{}, fmt.Sprintf("n%d.example", i)); err != nil {
					t.Error(err)
				}
			})
		}
		// One who asks for a name that is being looked up needs no turn.
		synctest.Wait()
		r.mu.Lock()
		var busy string
		for busy = range r.flights {
			break
		}
		r.mu.Unlock()
		if _, err := r.Lookup(t.Context(), netip.Addr{}, busy); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("to join a look-up took %v, want 1s", took)
		}
		wg.Wait()
		if took := time.Since(start); took != 5*time.Second || most.Load() != 2 {
			t.Errorf("10 look-ups of 1s took %v with %d at once, want 5s with 2", took, most.Load())
		}
	})
}

func TestWaitingForATurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withSource(t, Options{Lookups: 1, Timeout: 3 * time.Second}, func(ctx context.Context, host string) (answer, error) {
			time.Sleep(time.Hour) // not even its context moves it
			return answer{addrs: addrs("192.0.2.1")}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Lookup(ctx, netip.Addr{}, "hangs.example")
		synctest.Wait()

		start := time.Now()
		_, err := r.Lookup(t.Context(), netip.Addr{}, "b.example")
		if took := time.Since(start); took != 3*time.Second || !errors.Is(err, ErrTimeout) {
			t.Errorf("without a turn Lookup gives %v after %v, want ErrTimeout after 3s", err, took)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := r.Lookup(short, netip.Addr{}, "c.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a turn Lookup gives %v, want the context's error", err)
		}
		last := make(chan error)
		go func() {
			_, err := r.Lookup(t.Context(), netip.Addr{}, "d.example")
			last <- err
		}()
		synctest.Wait()
		go r.Close()
		if err := <-last; !errors.Is(err, ErrClosed) {
			t.Errorf("without a turn Lookup gives %v at Close, want ErrClosed", err)
		}
		cancel()
	})
}

func TestTwoWaitForATurnForTheSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		r := withSource(t, Options{Lookups: 1}, func(ctx context.Context, host string) (answer, error) {
			if host == "b.example" {
				calls.Add(1)
			}
			time.Sleep(time.Second)
			return answer{addrs: addrs("192.0.2.1"), ttl: time.Minute}, nil
		})
		var wg sync.WaitGroup
		for _, host := range []string{"a.example", "b.example", "b.example", "b.example"} {
			wg.Go(func() {
				if _, err := r.Lookup(t.Context(), netip.Addr{}, host); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if calls.Load() != 1 || len(r.slots) != 0 || len(r.flights) != 0 {
			t.Errorf("%d look-ups of one name, %d slots and %d flights left, want 1, 0, 0", calls.Load(), len(r.slots), len(r.flights))
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withSource(t, Options{}, func(ctx context.Context, host string) (answer, error) {
			if host == "kept.example" {
				return answer{addrs: addrs("192.0.2.1"), ttl: time.Hour}, nil
			}
			<-ctx.Done()
			return answer{}, ctx.Err()
		})
		if _, err := r.Lookup(t.Context(), netip.Addr{}, "kept.example"); err != nil {
			t.Fatal(err)
		}
		running := make(chan error)
		go func() {
			_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			running <- err
		}()
		synctest.Wait()
		start := time.Now()
		go r.Close()
		if err := <-running; !errors.Is(err, ErrClosed) || time.Since(start) != 0 {
			t.Errorf("the look-up that ran got %v after %v, want ErrClosed at once", err, time.Since(start))
		}
		if _, err := r.Lookup(t.Context(), netip.Addr{}, "b.example"); !errors.Is(err, ErrClosed) {
			t.Errorf("Lookup after Close = %v, want ErrClosed", err)
		}
		if _, err := r.Lookup(t.Context(), netip.Addr{}, "kept.example"); err != nil {
			t.Errorf("Lookup of a cached name after Close = %v", err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("second Close = %v", err)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Unix(1, 0)
	c := newCache(100)
	for i := range 50 {
		c.put(fmt.Sprintf("good%d", i), &entry{life: time.Hour}, now)
	}
	for i := range 10_000 {
		c.put(fmt.Sprintf("bad%d", i), &entry{life: time.Second}, now)
		if c.len() > 100 {
			t.Fatalf("%d names are kept, want at most 100", c.len())
		}
	}
	good := 0
	for i := range 50 {
		if _, ok := c.get(fmt.Sprintf("good%d", i), now); ok {
			good++
		}
	}
	// Of a few random entries the shortest-lived goes, so a long-lived one is
	// lost only when all of them are long-lived.
	if good < 25 {
		t.Errorf("of 50 long-lived names %d outlived a flood, want at least 25", good)
	}
	for range 3 { // to replace needs no room
		c.put("bad9999", &entry{life: time.Hour}, now)
	}
	if c.len() != 100 {
		t.Errorf("%d names are kept, want 100", c.len())
	}
}

func TestSanitise(t *testing.T) {
	many := func(format string, n int) (out []netip.Addr) {
		for i := range n {
			out = append(out, netip.MustParseAddr(fmt.Sprintf(format, i)))
		}
		return out
	}
	v4, v6 := many("192.0.2.%d", 100), many("2001:db8::%x", 100)
	tests := []struct {
		name     string
		in, want []netip.Addr
	}{
		{"nothing", nil, nil},
		{"mapped", addrs("::ffff:10.0.0.1"), addrs("10.0.0.1")},
		{"zone", addrs("fe80::1%eth0"), addrs("fe80::1")},
		{"invalid", []netip.Addr{{}}, nil},
		{"twice", addrs("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"), addrs("10.0.0.1")},
		{"order is kept", addrs("10.0.0.2", "::1", "10.0.0.1"), addrs("10.0.0.2", "::1", "10.0.0.1")},
		{"too many of one family", v4, v4[:16]},
		{"too many of both", append(slices.Clone(v6), v4...), append(slices.Clone(v6[:8]), v4[:8]...)},
		{"room left by the other", append(slices.Clone(v6[:3]), v4...), append(slices.Clone(v6[:3]), v4[:13]...)},
		{"room left by IPv4", append(slices.Clone(v6), v4[:3]...), append(slices.Clone(v6[:13]), v4[:3]...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := sanitise(tt.in); !slices.Equal(got, tt.want) {
				t.Errorf("sanitise(%v) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func BenchmarkLookupCached(b *testing.B) {
	r := New(Options{})
	defer r.Close()
	r.source = func(context.Context, string) (answer, error) {
		return answer{addrs: addrs("192.0.2.1"), ttl: time.Hour}, nil
	}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Lookup(ctx, netip.Addr{}, "www.example.com"); err != nil {
			b.Fatal(err)
		}
	}
}
