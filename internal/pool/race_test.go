package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// While health flaps, servers come and go with reloads and clients come by the thousand, no count is lost.
func TestNoCountIsLost(t *testing.T) {
	for b := First; b <= StickySession; b++ {
		t.Run(b.String(), func(t *testing.T) {
			o := Options{
				Servers: places(), Balance: b, Eject: Eject{Failures: 2, Pause: 50 * time.Microsecond, MaxPause: time.Millisecond},
				SlowStart: time.Millisecond, Rise: 1, Fall: 2, Changed: func(Event) {},
			}
			memory := NewMemory()
			first := mustNew(t, o, memory)
			var now atomic.Pointer[Pool]
			now.Store(first)
			var clients, others sync.WaitGroup
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			for range 2 {
				others.Go(func() { flap(ctx, &now) })
			}
			others.Go(func() { reload(ctx, t, o, memory, &now) })
			for g := range 8 {
				clients.Go(func() { connect(t, &now, g) })
			}
			clients.Wait()
			stop()
			others.Wait()
			if n := connections(first); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

func flap(ctx context.Context, now *atomic.Pointer[Pool]) {
	for ctx.Err() == nil {
		p := now.Load()
		i := rand.IntN(len(p.Members()))
		check(p, i, errBroken, errBroken, nil)
		p.Members()[i].Status()
		p.Explain(&Request{Session: "1"}, nil)
	}
}

func reload(ctx context.Context, t *testing.T, o Options, m *Memory, now *atomic.Pointer[Pool]) {
	for ctx.Err() == nil {
		p, err := New(o, m)
		if err != nil {
			t.Errorf("New: %v", err)
			return
		}
		m.Retain([]string{o.Name})
		now.Store(p)
	}
}

func connect(t *testing.T, now *atomic.Pointer[Pool], g int) {
	for n := range 2000 {
		r := client(n)
		if n%3 == 0 {
			r.Session = fmt.Sprint(n % 50)
		}
		if n%5 == 0 {
			r.Countries = []string{"de"}
		}
		var tried Tried
		for {
			m, err := now.Load().Choose(r, &tried)
			if errors.Is(err, ErrDown) {
				break
			}
			if err != nil {
				t.Errorf("Choose: %v", err)
				return
			}
			tried.Add(m.Index())
			switch (n + g) % 4 {
			case 0:
				m.Failed(errBroken)
			case 1:
				m.Abandoned()
			case 2:
				m.Succeeded()
			}
			m.Release()
			if n%2 == 0 {
				break
			}
		}
	}
}

// Two that see the same view want the same trial: the one who is late goes elsewhere.
func TestLateForTheTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Options{Servers: alike(2), Eject: Eject{Failures: 1}}, nil)
		fail(p, 0, 1)
		time.Sleep(time.Second)
		v := p.current()
		for i, want := range []int{0, 1} {
			if m := p.take(v, v.usable, &Request{}); m == nil || m.Index() != want {
				t.Errorf("connection %d took %v, want %d", i, m, want)
			}
		}
	})
}

// However many come at once after the pause, one of them is the trial.
func TestOneOfManyIsTheTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Options{Servers: alike(2), Eject: Eject{Failures: 1, MaxPause: time.Second}}, nil)
		fail(p, 0, 1)
		for round := range 50 {
			time.Sleep(time.Second)
			var trials atomic.Int32
			var mu sync.Mutex
			var trial *Member
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					m, err := p.Choose(&Request{}, nil)
					switch {
					case err != nil:
						t.Errorf("Choose: %v", err)
					case m.Index() == 0:
						trials.Add(1)
						mu.Lock()
						trial = m
						mu.Unlock()
					}
				})
			}
			all.Wait()
			if n := trials.Load(); n != 1 {
				t.Fatalf("round %d: %d trials", round, n)
			}
			trial.Failed(errBroken)
		}
	})
}
