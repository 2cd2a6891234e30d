package pool

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFits: a connection that stays open may be used as long as Choose might take its server.
func TestFits(t *testing.T) {
	down := func(servers ...int) func(*Pool) {
		return func(p *Pool) {
			for _, i := range servers {
				check(p, i, errBroken)
			}
		}
	}
	both := func(a, b func(*Pool)) func(*Pool) { return func(p *Pool) { a(p); b(p) } }
	up := func(p *Pool) { check(p, 0, nil) }
	eject := func(p *Pool) { fail(p, 0, 5) }
	later := func(p *Pool) { time.Sleep(time.Minute) }
	priorities := []Server{{Name: "a"}, {Name: "b", Priority: 1}, {Name: "c", Priority: 1}}
	drains := []Server{{Name: "a", Drain: true}, {Name: "b"}}
	tests := []struct {
		name    string
		balance Balance
		servers []Server
		change  func(*Pool)
		r       Request
		want    []bool // for each server
	}{
		{"all", RoundRobin, alike(3), nil, Request{}, []bool{true, true, true}},
		{"one is down", RandomTwo, alike(3), down(0), Request{}, []bool{false, true, true}},
		{"one is ejected", LeastConnections, alike(3), eject, Request{}, []bool{false, true, true}},
		{"one is due for a trial", RoundRobin, alike(3), both(eject, later), Request{}, []bool{false, true, true}},
		{"the only one is ejected", First, alike(1), eject, Request{}, []bool{true}},
		{"the only one is due for a trial", First, alike(1), both(eject, later), Request{}, []bool{true}},
		{"one is ejected, and one is down", RoundRobin, alike(2), both(eject, down(1)), Request{}, []bool{true, false}},
		{"one drains", RoundRobin, drains, nil, Request{}, []bool{false, true}},
		{"others wait", RoundRobin, priorities, nil, Request{}, []bool{true, false, false}},
		{"others wait no more", RoundRobin, priorities, down(0), Request{}, []bool{false, true, true}},
		{"others wait again", RoundRobin, priorities, both(down(0), up), Request{}, []bool{true, false, false}},
		{"none is left", RoundRobin, alike(2), down(0, 1), Request{}, []bool{false, false}},
		{"in order", First, alike(3), nil, Request{}, []bool{true, false, false}},
		{"in order, the first is down", First, alike(3), down(0), Request{}, []bool{false, true, false}},
		{"of a country", First, []Server{{Name: "a"}, {Name: "b", Country: "de"}}, nil, Request{Countries: []string{"de"}}, []bool{false, true}},
		{"of a country, and others wait", RoundRobin, []Server{{Name: "a"}, {Name: "b", Country: "de", Priority: 1}}, nil, Request{Countries: []string{"de"}}, []bool{false, true}},
		{"a session that has no server", RoundRobin, alike(2), nil, Request{Session: "s"}, []bool{false, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, Options{Servers: tt.servers, Balance: tt.balance, Fall: 1, Rise: 1}, nil)
				if tt.change != nil {
					tt.change(p)
				}
				for i, m := range p.Members() {
					if got := m.Fits(&tt.r); got != tt.want[i] {
						t.Errorf("server %d: %v, want %v", i, got, tt.want[i])
					}
				}
			})
		})
	}
}

// TestFitsTheOneThatIsChosen: where a request belongs to one server its connection fits, and no other; one that a full server has passed on stays
// with the next until the first has room.
func TestFitsTheOneThatIsChosen(t *testing.T) {
	fitting := func(p *Pool, r *Request) (all []int) {
		for i, m := range p.Members() {
			if m.Fits(r) {
				all = append(all, i)
			}
		}
		return all
	}
	p := mustNew(t, Options{Servers: alike(4), Balance: StickyClient}, nil)
	r := client(7)
	first := mustChoose(t, p, r)
	if got := fitting(p, r); len(got) != 1 || got[0] != first.Index() {
		t.Errorf("%v fit, want %d alone", got, first.Index())
	}
	for range 3 { // with more than its share
		p.servers[first.Index()].connections.Add(1)
	}
	next := mustChoose(t, p, r)
	if next.Index() == first.Index() {
		t.Fatal("a full server was chosen")
	}
	if !first.Fits(r) || !next.Fits(r) {
		t.Errorf("of %d, which is full, and %d, which was chosen, fit %v", first.Index(), next.Index(), fitting(p, r))
	}
	p.servers[first.Index()].connections.Add(-3)
	if got := fitting(p, r); len(got) != 1 || got[0] != first.Index() {
		t.Errorf("with room again %v fit, want %d alone", got, first.Index())
	}

	some := mustNew(t, Options{Servers: []Server{{Name: "a", Country: "de"}, {Name: "b", Country: "de"}, {Name: "c", Country: "fr"}}, Balance: StickyClient}, nil)
	for i := range 20 {
		r := client(i)
		r.Countries = []string{"de"}
		m := mustChoose(t, some, r)
		if got := fitting(some, r); len(got) != 1 || got[0] != m.Index() {
			t.Errorf("client %d, of a country: %v fit, want %d alone", i, got, m.Index())
		}
		m.Release()
	}

	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Options{Servers: alike(4), Balance: RoundRobin}, nil)
		r := &Request{User: "alice", Session: "s", TTL: time.Minute}
		m := mustChoose(t, p, r)
		if got := fitting(p, r); len(got) != 1 || got[0] != m.Index() {
			t.Errorf("of a session %v fit, want %d alone", got, m.Index())
		}
		time.Sleep(time.Minute)
		if got := fitting(p, r); len(got) != 0 {
			t.Errorf("of a session that is over %v fit, want none", got)
		}
	})
}
