package pool

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSessionKeepsItsServer(t *testing.T) {
	s := func(user, name string, countries ...string) *Request {
		return &Request{User: user, Session: name, Countries: countries}
	}
	tests := []struct {
		name string
		do   func(p *Pool)
		r    *Request
		same bool // as the first use of session s of user u
	}{
		{"again", func(*Pool) {}, s("u", "s"), true},
		{"another session", func(*Pool) {}, s("u", "t"), false},
		{"another user", func(*Pool) {}, s("v", "s"), false},
		{"another wish", func(*Pool) {}, s("u", "s", "de"), false},
		{"names that join to the same", func(*Pool) {}, s("us", ""), false},
		{"at the end of its time", wait(10*time.Minute - 1), s("u", "s"), true},
		{"after it", wait(10 * time.Minute), s("u", "s"), false},
		{"another server went", func(p *Pool) { check(p, 1, errBroken) }, s("u", "s"), true},
		{"its server went", func(p *Pool) { check(p, 0, errBroken) }, s("u", "s"), false},
		{"its server failed too often", func(p *Pool) { fail(p, 0, 5) }, s("u", "s"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				servers := alike(4)
				for i := range servers {
					servers[i].Country = "de"
				}
				p := mustNew(t, Options{Servers: servers, Balance: RoundRobin, Fall: 1}, nil)
				if first := once(t, p, s("u", "s")); first != 0 {
					t.Fatalf("the first use got %d", first)
				}
				tt.do(p)
				if got := once(t, p, tt.r); (got == 0) != tt.same {
					// RoundRobin never gives the first server twice in a row.
					t.Errorf("chosen %d, want the same: %v", got, tt.same)
				}
			})
		})
	}
}

func TestSessionStaysWhereItWent(t *testing.T) {
	p := mustNew(t, Options{Servers: alike(3), Rise: 1, Fall: 1}, nil)
	r := &Request{Session: "s"}
	steps := []struct {
		name string
		do   func()
		want int
	}{
		{"first", func() {}, 0},
		{"its server went", func() { check(p, 0, errBroken) }, 1},
		{"and came back", func() { check(p, 0, nil) }, 1},
	}
	for _, s := range steps {
		s.do()
		if got := once(t, p, r); got != s.want {
			t.Errorf("%s: chosen %d, want %d", s.name, got, s.want)
		}
	}
	var tried Tried
	tried.Add(1)
	m, err := p.Choose(r, &tried)
	if err != nil || m.Index() != 0 {
		t.Fatalf("with its server tried: %v, %v", m, err)
	}
	if got := once(t, p, r); got != 0 {
		t.Errorf("after it was tried in vain: chosen %d, want 0", got)
	}
}

func TestSessionTTL(t *testing.T) {
	tests := []struct{ asked, want time.Duration }{
		{0, 10 * time.Minute}, {-1, 10 * time.Minute}, {time.Second, time.Second}, {48 * time.Hour, 24 * time.Hour},
	}
	for _, tt := range tests {
		if got := sessionTTL(tt.asked); got != tt.want {
			t.Errorf("sessionTTL(%v) = %v, want %v", tt.asked, got, tt.want)
		}
	}
}

func TestDrainedServerLosesItsSessions(t *testing.T) {
	m := NewMemory()
	o := Options{Servers: alike(2)}
	r := &Request{Session: "s"}
	if got := once(t, mustNew(t, o, m), r); got != 0 {
		t.Fatalf("chosen %d", got)
	}
	o.Servers[0].Drain = true
	if got := once(t, mustNew(t, o, m), r); got != 1 {
		t.Errorf("chosen %d after it was told to drain", got)
	}
}

func TestOldestSessionsMakeRoom(t *testing.T) {
	s, now := newSessions(), time.Now()
	name := func(i int) sessionName { return s.name(&Request{Session: fmt.Sprint(i)}) }
	for i := range maxSessions + 10 {
		s.put(name(i), nil, nil, now, time.Hour)
	}
	for i := range maxSessions + 10 {
		if kept := s.get(name(i), now) != nil; kept != (i >= 10) {
			t.Fatalf("session %d kept: %v", i, kept)
		}
	}
	later := now.Add(2 * time.Hour)
	s.put(name(0), nil, nil, later, time.Hour)
	s.put(name(1), nil, nil, later, time.Hour)
	entries := 0
	for i := range s.shards {
		entries += len(s.shards[i].m)
	}
	if want := maxSessions - 2; s.oldest.Len() != want || entries != want {
		t.Errorf("%d in the list, %d in the table: each new one must clear two old ones away, want %d", s.oldest.Len(), entries, want)
	}
}

func TestFirstToPutASessionWins(t *testing.T) {
	s, now := newSessions(), time.Now()
	n := s.name(&Request{Session: "s"})
	a, b := new(server), new(server)
	first := s.put(n, nil, a, now, time.Hour)
	if got := s.put(n, nil, b, now, time.Hour); got != first || got.kept != a {
		t.Errorf("the second, who saw no session either, has put his own there")
	}
	if got := s.put(n, first, b, now, time.Hour); got == first || got.kept != b || s.get(n, now) != got {
		t.Errorf("who saw the first session could not replace it")
	}
	if s.oldest.Len() != 1 {
		t.Errorf("%d sessions are in the list, want 1", s.oldest.Len())
	}
}

// Of many first uses at once one decides for all.
func TestFirstUsesOfASessionAgree(t *testing.T) {
	p := mustNew(t, Options{Servers: alike(50), Balance: RoundRobin}, nil)
	for i := range 200 {
		r := &Request{Session: fmt.Sprint(i)}
		var all sync.WaitGroup
		got := make([]int, 8)
		for g := range got {
			all.Go(func() {
				if m, err := p.Choose(r, nil); err == nil {
					got[g] = m.Index()
					m.Release()
				}
			})
		}
		all.Wait()
		for _, index := range got {
			if index != got[0] {
				t.Fatalf("session %d went to %v", i, got)
			}
		}
	}
	if n := connections(p); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
