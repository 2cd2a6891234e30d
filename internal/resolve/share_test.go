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

func TestAskerKey(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":          "192.0.2.1",
		"::ffff:192.0.2.1":   "192.0.2.1",
		"2001:db8:1:2::3":    "2001:db8:1:2::",
		"2001:db8:1:2:f::3":  "2001:db8:1:2::",
		"fe80::1%eth0":       "fe80::",
		"2001:db8:1:3::3":    "2001:db8:1:3::",
		"2001:db8:1:3:ff::1": "2001:db8:1:3::",
	} {
		if got := askerKey(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("askerKey(%s) = %v, want %s", in, got, want)
		}
	}
	if got := askerKey(netip.Addr{}); got.IsValid() {
		t.Errorf("askerKey of nobody = %v, want the zero Addr", got)
	}
}

// One who asks for names that hang has no more than his share, and nobody else waits for him.
func TestHangingNamesOfOneAskerLeaveTurnsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withSource(t, Options{Lookups: 4, LookupsPerAsker: 3, Timeout: 5 * time.Second}, func(ctx context.Context, host string) (answer, error) {
			if strings.HasPrefix(host, "hangs") {
				<-ctx.Done()
				return answer{}, &Error{Host: host, Kind: ErrTimeout}
			}
			return answer{addrs: addrs("192.0.2.1")}, nil
		})
		hostile, good := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				asker := hostile
				if i%2 == 0 {
					asker = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+2)) // the same /64
				}
				if _, err := r.Lookup(t.Context(), asker, fmt.Sprintf("hangs%d.example", i)); !errors.Is(err, ErrTimeout) {
					t.Errorf("a name that hangs gives %v, want ErrTimeout", err)
				}
			})
		}
		synctest.Wait()
		if n := len(r.slots); n != 3 {
			t.Errorf("one asker has %d look-ups under way, want 3", n)
		}
		start := time.Now()
		if _, err := r.Lookup(t.Context(), good, "a.example"); err != nil || time.Since(start) != 0 {
			t.Errorf("another asker gets %v after %v, want an answer at once", err, time.Since(start))
		}
		if _, err := r.Lookup(t.Context(), hostile, "a.example"); err != nil || time.Since(start) != 0 {
			t.Errorf("what is cached gives %v after %v, want an answer at once", err, time.Since(start))
		}
		wg.Wait()
		if len(r.shares.by) != 0 || len(r.slots) != 0 {
			t.Errorf("%d shares and %d slots are left, want none", len(r.shares.by), len(r.slots))
		}
	})
}

// Who gives up while he waits for his share leaves nothing behind.
func TestWaitingForAShareEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withSource(t, Options{LookupsPerAsker: 1, Timeout: 5 * time.Second}, func(ctx context.Context, _ string) (answer, error) {
			<-ctx.Done()
			return answer{}, &Error{Kind: ErrTimeout}
		})
		asker := netip.MustParseAddr("192.0.2.9")
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = r.Lookup(t.Context(), asker, "a.example") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := r.Lookup(ctx, asker, "b.example"); !errors.Is(err, ErrTimeout) || time.Since(start) != time.Second {
			t.Errorf("Lookup = %v after %v, want ErrTimeout after 1s", err, time.Since(start))
		}
		wg.Wait()
		if len(r.shares.by) != 0 {
			t.Errorf("%d shares are left, want none", len(r.shares.by))
		}
	})
}
