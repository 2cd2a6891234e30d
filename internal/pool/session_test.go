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

// A user who names sessions without end costs the others none of theirs.
func TestFloodOfSessions(t *testing.T) {
	p := mustNew(t, Options{Servers: alike(3), Balance: RoundRobin}, nil)
	const users, each = 50, 20
	r := func(user, session int) *Request {
		return &Request{User: fmt.Sprint("user", user), Session: fmt.Sprint(session), TTL: time.Hour}
	}
	kept := map[[2]int]int{}
	for u := range users {
		for s := range each {
			kept[[2]int{u, s}] = once(t, p, r(u, s))
		}
	}
	for i := range 100_000 {
		once(t, p, &Request{User: "mallory", Session: fmt.Sprint(i), TTL: 24 * time.Hour})
	}
	for of, want := range kept {
		if got := once(t, p, r(of[0], of[1])); got != want {
			t.Fatalf("session %d of user %d went from server %d to %d", of[1], of[0], want, got)
		}
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

// A reload may write the countries and tags of an exit in another order.
func TestSessionOfTheSameWish(t *testing.T) {
	servers := alike(2)
	for i := range servers {
		servers[i].Country, servers[i].Tags = "de", []string{"home"}
	}
	p := mustNew(t, Options{Servers: servers, Balance: RoundRobin}, nil)
	r := func(countries, tags []string) *Request {
		return &Request{Session: "s", Countries: countries, Tags: tags}
	}
	countries := []string{"fr", "de"}
	first := once(t, p, r(countries, []string{"home", "fast"}))
	if countries[0] != "fr" {
		t.Errorf("the countries of the request have become %q", countries)
	}
	tests := []struct {
		name            string
		countries, tags []string
		same            bool
	}{
		{"as they were", []string{"fr", "de"}, []string{"home", "fast"}, true},
		{"countries in another order", []string{"de", "fr"}, []string{"home", "fast"}, true},
		{"tags in another order", []string{"fr", "de"}, []string{"fast", "home"}, true},
		{"a country less", []string{"de"}, []string{"home", "fast"}, false},
	}
	for _, tt := range tests {
		// RoundRobin gives a session that is new to it the other server, as the first use was the only one.
		if got := once(t, p, r(tt.countries, tt.tags)); (got == first) != tt.same {
			t.Errorf("%s: chosen %d, the first was %d, want the same: %v", tt.name, got, first, tt.same)
		}
	}
}

// A server that one reload takes out and the next one puts back has the sessions that were not used meanwhile.
func TestSessionOfAServerThatIsPutBack(t *testing.T) {
	m := NewMemory()
	with := func(servers ...Server) *Pool {
		p := mustNew(t, Options{Name: "eu", Servers: servers, Balance: RoundRobin}, m)
		m.Retain([]string{"eu"})
		return p
	}
	all := alike(3)
	p := with(all...)
	quiet, busy := &Request{Session: "quiet"}, &Request{Session: "busy"}
	if a, b := once(t, p, quiet), once(t, p, busy); a != 0 || b != 1 {
		t.Fatalf("chosen %d and %d", a, b)
	}
	moved := all[2].Name
	if i := once(t, with(all[2]), busy); i != 0 {
		t.Fatalf("chosen %d of one", i)
	}
	p = with(all...)
	for range 3 {
		if got := once(t, p, quiet); got != 0 {
			t.Errorf("the session that was not used meanwhile has gone to server %d", got)
		}
		if got := once(t, p, busy); all[got].Name != moved {
			t.Errorf("the session that has moved meanwhile is with %s, want %s", all[got].Name, moved)
		}
	}
}
