package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A step of a test of health: what is done, and the state of server 0 and what is chosen then.
type step struct {
	name   string
	do     func(p *Pool)
	state  State
	chosen int
}

func wait(d time.Duration) func(*Pool) { return func(*Pool) { time.Sleep(d) } }

func TestHealth(t *testing.T) {
	nothing := func(*Pool) {}
	failed := func(n int) func(*Pool) { return func(p *Pool) { fail(p, 0, n) } }
	succeeded := func(p *Pool) { p.Members()[0].Succeeded() }
	checked := func(outcomes ...error) func(*Pool) { return func(p *Pool) { check(p, 0, outcomes...) } }
	tests := []struct {
		name  string
		o     Options
		steps []step
	}{
		{"begins up", Options{}, []step{{"new", nothing, Up, 0}}},
		{"fall and rise by checks", Options{}, []step{
			{"two bad", checked(errBroken, errBroken), Up, 0},
			{"a good one between", checked(nil, errBroken, errBroken), Up, 0},
			{"three bad", checked(errBroken), Down, 1},
			{"one good", checked(nil), Down, 1},
			{"a bad one between", checked(errBroken, nil), Down, 1},
			{"two good", checked(nil), Up, 0},
		}},
		{"fall and rise of our own", Options{Fall: 1, Rise: 1}, []step{
			{"bad", checked(errBroken), Down, 1}, {"good", checked(nil), Up, 0},
		}},
		{"a canceled check says nothing", Options{Fall: 1}, []step{
			{"canceled", checked(fmt.Errorf("dial: %w", context.Canceled)), Up, 0},
		}},
		{"five failures", Options{}, []step{
			{"four, then a success", failed(4), Up, 0},
			{"four more", failed(4), Up, 0},
			{"five", failed(5), Ejected, 1},
			{"nearly a second", wait(time.Second - 1), Ejected, 1},
			{"a second", wait(1), Ejected, 0},
			{"the trial succeeded", nothing, Up, 0},
		}},
		{"failures of our own", Options{Eject: Eject{Failures: 1, Pause: ms(10)}}, []step{
			{"one", failed(1), Ejected, 1}, {"the pause", wait(ms(10)), Ejected, 0},
		}},
		{"never", Options{Eject: Eject{Failures: never}}, []step{{"a thousand", failed(1000), Up, 0}}},
		{"cancellations do not count", Options{Eject: Eject{Failures: 1}}, []step{
			{"canceled", func(p *Pool) { p.Members()[0].Failed(fmt.Errorf("dial: %w", context.Canceled)) }, Up, 0},
			{"timed out", func(p *Pool) { p.Members()[0].Failed(context.DeadlineExceeded) }, Ejected, 1},
		}},
		{"what is older than the ejection says nothing", Options{Eject: Eject{Failures: 1}}, []step{
			{"ejected", failed(1), Ejected, 1},
			{"a late success", succeeded, Ejected, 1},
			{"late failures", failed(9), Ejected, 1},
			{"the pause is still the first", wait(time.Second), Ejected, 0},
		}},
		{"a good check ends an ejection", Options{}, []step{{"ejected", failed(5), Ejected, 1}, {"checked", checked(nil), Up, 0}}},
		{"a bad check does not", Options{}, []step{{"ejected", failed(5), Ejected, 1}, {"checked", checked(errBroken), Ejected, 1}}},
		{"down and ejected are apart", Options{Fall: 1, Rise: 2}, []step{
			{"both", func(p *Pool) { fail(p, 0, 5); check(p, 0, errBroken) }, Down, 1},
			{"the pause ends", wait(time.Minute), Down, 1},
			{"the first good check", checked(nil), Down, 1},
			{"the second", checked(nil), Up, 0},
		}},
		{"slow start after a rise", Options{Fall: 1, Rise: 1, SlowStart: time.Minute, Balance: RoundRobin}, []step{
			{"down", checked(errBroken), Down, 1}, {"up", checked(nil), Warming, 0}, {"nearly", wait(time.Minute - 1), Warming, 1}, {"warm", wait(1), Up, 0},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.o.Servers = alike(2)
				p := mustNew(t, tt.o, nil)
				for _, s := range tt.steps {
					s.do(p)
					if got := stateOf(p, 0); got != s.state {
						t.Errorf("%s: %v, want %v", s.name, got, s.state)
					}
					if got := once(t, p, &Request{}); got != s.chosen {
						t.Errorf("%s: chosen %d, want %d", s.name, got, s.chosen)
					}
				}
			})
		})
	}
}

func TestPauseDoubles(t *testing.T) {
	tests := []struct {
		name    string
		between func(m *Member) // after each trial that failed
		pauses  []time.Duration
	}{
		{"up to the most", func(*Member) {}, []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}},
		{"a check ends the pause but not the doubling", func(m *Member) {
			m.Checked(nil)
			m.Failed(errBroken)
		}, []time.Duration{1 * time.Second, 4 * time.Second, 5 * time.Second}},
		{"a success begins anew", func(m *Member) {
			m.Checked(nil)
			m.Succeeded()
			m.Failed(errBroken)
		}, []time.Duration{1 * time.Second, 1 * time.Second, 1 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, Options{Servers: alike(2), Eject: Eject{Failures: 1, MaxPause: 5 * time.Second}}, nil)
				fail(p, 0, 1)
				for i, want := range tt.pauses {
					st := p.Members()[0].Status()
					if got := time.Until(st.Until); got != want || st.State != Ejected {
						t.Fatalf("ejection %d: %v for %v, want %v", i+1, st.State, got, want)
					}
					time.Sleep(want)
					m := mustChoose(t, p, &Request{})
					m.Failed(errBroken)
					m.Release()
					tt.between(p.Members()[0])
				}
			})
		})
	}
}

func TestOneTrialAtATime(t *testing.T) {
	tests := []struct {
		name  string
		end   func(m *Member)
		state State
		next  int // who is chosen after it
	}{
		{"success", (*Member).Succeeded, Up, 0},
		{"failure", func(m *Member) { m.Failed(errBroken) }, Ejected, 1},
		{"canceled", func(m *Member) { m.Failed(context.Canceled) }, Ejected, 0},
		{"abandoned", (*Member).Abandoned, Ejected, 0},
		{"released without a word", (*Member).Release, Ejected, 0},
		{"a check ended it", func(m *Member) { m.Checked(nil) }, Up, 0},
		{"a check ended it, then it failed", func(m *Member) { m.Checked(nil); m.Failed(errBroken) }, Up, 0},
		{"abandoned, then a word that is too late", func(m *Member) { m.Abandoned(); m.Succeeded() }, Ejected, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, Options{Servers: alike(2), Eject: Eject{Failures: 2}}, nil)
				fail(p, 0, 2)
				time.Sleep(time.Second)
				trial := mustChoose(t, p, &Request{})
				if trial.Index() != 0 {
					t.Fatalf("the trial went to %d", trial.Index())
				}
				for range 3 {
					if got := once(t, p, &Request{}); got != 1 {
						t.Fatalf("during the trial %d was chosen", got)
					}
				}
				tt.end(trial)
				if got := stateOf(p, 0); got != tt.state {
					t.Errorf("after the trial: %v, want %v", got, tt.state)
				}
				if got := mustChoose(t, p, &Request{}).Index(); got != tt.next {
					t.Errorf("after the trial %d was chosen, want %d", got, tt.next)
				}
			})
		})
	}
}

// While its share grows, a server gets about as much of the choices, whatever the balance.
func TestSlowStart(t *testing.T) {
	const choices, slow = 4000, 100 * time.Second
	for b := First; b <= StickySession; b++ {
		t.Run(b.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, Options{Servers: alike(2), Balance: b, SlowStart: slow, Rise: 1, Fall: 1}, nil)
				check(p, 0, errBroken, nil)
				for _, part := range []float64{0.1, 0.37, 0.64, 0.91, 1} {
					got := 0
					for i := range choices {
						if once(t, p, client(i)) == 0 {
							got++
						}
					}
					want := part / (1 + part) // of two servers
					if b == First {
						want = part
					}
					if share := float64(got) / choices; math.Abs(share-want) > 0.03 {
						t.Errorf("at %v of its weight it got %.3f of the choices, want %.3f", part, share, want)
					}
					time.Sleep(slow * 3 / 10)
				}
			})
		})
	}
}

func TestNoSlowStartAtFirst(t *testing.T) {
	p := mustNew(t, Options{Servers: alike(2), SlowStart: time.Hour}, nil)
	if got := stateOf(p, 0); got != Up {
		t.Errorf("a new server is %v", got)
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		o := Options{Servers: alike(2), Rise: 1, Fall: 1, SlowStart: time.Second, Changed: func(e Event) {
			got = append(got, fmt.Sprintf("%s/%s %v->%v %v", e.Pool, e.Server, e.From, e.To, e.Err))
		}}
		o.Servers[1].Drain = true
		p := mustNew(t, o, nil)
		check(p, 0, errBroken, errBroken, nil, nil)
		check(p, 1, errBroken, nil)
		time.Sleep(time.Second)
		fail(p, 0, 6)
		time.Sleep(time.Second)
		for _, end := range []func(m *Member){(*Member).Abandoned, func(m *Member) { m.Failed(errors.New("reset")) }} {
			m := mustChoose(t, p, &Request{})
			end(m)
			m.Release()
		}
		time.Sleep(2 * time.Second)
		once(t, p, &Request{})
		want := []string{
			"eu/server-0 up->down connection refused",
			"eu/server-0 down->warming <nil>",
			"eu/server-0 up->ejected connection refused",
			"eu/server-0 ejected->ejected reset",
			"eu/server-0 ejected->warming <nil>",
		}
		if !slices.Equal(got, want) {
			t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := mustNew(t, Options{Servers: alike(1), Rise: 1, Fall: 1, SlowStart: time.Minute}, nil)
		mustChoose(t, p, &Request{})
		steps := []struct {
			name string
			do   func()
			want Status
		}{
			{"new", func() {}, Status{State: Up}},
			{"down", func() { check(p, 0, errBroken) }, Status{State: Down, Since: start, Err: errBroken}},
			{"back", func() { check(p, 0, nil) }, Status{State: Warming, Since: start, Until: start.Add(time.Minute)}},
			{"warm", sleep(time.Minute), Status{State: Up, Since: start.Add(time.Minute)}},
			{"ejected", func() { fail(p, 0, 5) }, Status{
				State: Ejected, Since: start.Add(time.Minute), Until: start.Add(61 * time.Second), Err: errBroken,
			}},
		}
		for _, s := range steps {
			s.do()
			s.want.Connections = 1
			if got := p.Members()[0].Status(); got != s.want {
				t.Errorf("%s: %+v, want %+v", s.name, got, s.want)
			}
		}
	})
}

func sleep(d time.Duration) func() { return func() { time.Sleep(d) } }
