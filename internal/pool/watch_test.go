package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every, servers = 10 * time.Second, 20
		p := mustNew(t, Options{Servers: alike(servers)}, nil)
		start := time.Now()
		var mu sync.Mutex
		var at [servers][]time.Duration
		ctx, stop := context.WithCancel(t.Context())
		wait := p.Watch(ctx, every, 0, func(_ context.Context, i int) error {
			time.Sleep(time.Second) // the time that a check takes is not between the checks
			mu.Lock()
			defer mu.Unlock()
			at[i] = append(at[i], time.Since(start)-time.Second)
			return nil
		})
		if time.Since(start) != 0 {
			t.Fatal("Watch did not return at once")
		}
		time.Sleep(10 * time.Minute)
		stop()
		wait()
		for i, times := range at {
			if first := times[0]; first < 0 || first >= time.Second {
				t.Errorf("server %d: the first check was after %v", i, first)
			}
			even := true
			for n := 1; n < len(times); n++ {
				d := times[n] - times[n-1]
				if d < every*9/10 || d > every*11/10 {
					t.Errorf("server %d: %v between two checks", i, d)
				}
				even = even && d == every
			}
			if even || len(times) < 54 || len(times) > 67 {
				t.Errorf("server %d: %d checks in ten minutes, without jitter: %v", i, len(times), even)
			}
		}
	})
}

func TestWatchFindsOut(t *testing.T) {
	silent := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	}
	tests := []struct {
		name  string
		probe func(ctx context.Context, i int) error
		state State
		says  string
	}{
		{"good", func(context.Context, int) error { return nil }, Up, ""},
		{"bad", func(context.Context, int) error { return errBroken }, Down, "connection refused"},
		{"silent", silent, Down, "no answer to a check within 200ms"},
		{"silent, in other words", func(ctx context.Context, i int) error {
			return errors.Join(silent(ctx, i), fmt.Errorf("read: %w", context.Canceled))
		}, Down, "no answer to a check within 200ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, Options{Servers: alike(2)}, nil)
				ctx, stop := context.WithCancel(t.Context())
				wait := p.Watch(ctx, time.Second, ms(200), tt.probe)
				time.Sleep(5 * time.Second)
				for _, m := range p.Members() {
					st := m.Status()
					if st.State != tt.state || (st.Err != nil) != (tt.says != "") || st.Err != nil && !strings.Contains(st.Err.Error(), tt.says) {
						t.Errorf("%s is %v: %v", m.Name(), st.State, st.Err)
					}
				}
				stop()
				wait()
			})
		})
	}
}

func TestEndOfWatchIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Options{Servers: alike(1), Fall: 1}, nil)
		ctx, stop := context.WithCancel(t.Context())
		wait := p.Watch(ctx, time.Second, time.Hour, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return errBroken
		})
		time.Sleep(time.Minute)
		stop()
		wait()
		if st := p.Members()[0].Status(); st.State != Up {
			t.Errorf("the server is %v: %v", st.State, st.Err)
		}
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemory()
		o := Options{Name: "eu", Servers: alike(4), Fall: 1}
		before := mustNew(t, o, memory)
		check(before, 0, errBroken)
		fail(before, 1, 5)
		held := mustChoose(t, before, &Request{Session: "s"})

		o.Servers = append(alike(4)[1:], Server{Name: "server-0"}, Server{Name: "new"})
		after := mustNew(t, o, memory)
		want := []State{Ejected, Up, Up, Down, Up}
		for i, w := range want {
			if got := stateOf(after, i); got != w {
				t.Errorf("after the reload %s is %v, want %v", after.Members()[i].Name(), got, w)
			}
		}
		if got := mustChoose(t, after, &Request{Session: "s"}).Name(); got != held.Name() {
			t.Errorf("the session went from %s to %s", held.Name(), got)
		}
		if got := after.Members()[1].Status().Connections; got != 2 {
			t.Errorf("%d connections are counted, want 2", got)
		}
		check(before, 2, errBroken)
		if got := stateOf(after, 1); got != Down {
			t.Errorf("what the old pool found out is not known to the new one: %v", got)
		}
		after.Watch(t.Context(), 0, 0, nil)()
		if got := stateOf(after, 3); got != Up {
			t.Errorf("without checks a server stays %v", got)
		}
	})
}

func TestRetain(t *testing.T) {
	memory := NewMemory()
	o := Options{Servers: alike(2), Fall: 1}
	for _, o.Name = range []string{"eu", "us"} {
		p := mustNew(t, o, memory)
		check(p, 0, errBroken)
		check(p, 1, errBroken)
	}
	o.Name, o.Servers = "eu", alike(1)
	mustNew(t, o, memory)
	memory.Retain([]string{"eu"})
	tests := []struct {
		pool string
		want []State
	}{
		{"eu", []State{Down, Up}}, // the second server was given up, the pool was not
		{"us", []State{Up, Up}},
	}
	for _, tt := range tests {
		p := mustNew(t, Options{Name: tt.pool, Servers: alike(2)}, memory)
		for i, want := range tt.want {
			if got := stateOf(p, i); got != want {
				t.Errorf("%s: server %d is %v, want %v", tt.pool, i, got, want)
			}
		}
	}
}
