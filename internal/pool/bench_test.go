package pool

import (
	"fmt"
	"testing"
)

// A choice among a hundred servers, alone and with all processors at once.
func BenchmarkChoose(b *testing.B) {
	for balance := First; balance <= StickySession; balance++ {
		servers := alike(100)
		for i := range servers {
			servers[i].Weight = 1 + i%3
		}
		b.Run(balance.String(), func(b *testing.B) {
			p := mustNew(b, Options{Servers: servers, Balance: balance}, nil)
			b.Run("one", func(b *testing.B) {
				b.ReportAllocs()
				r := client(1)
				for i := 0; b.Loop(); i++ {
					r.Client = r.Client.Next()
					use(b, p, r)
				}
			})
			b.Run("parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					r := client(1)
					for pb.Next() {
						r.Client = r.Client.Next()
						use(b, p, r)
					}
				})
			})
		})
	}
}

// What costs more: a choice among some, one beside a tried server, a session, and a step of a slow start or of health.
func BenchmarkChooseSpecial(b *testing.B) {
	servers := alike(100)
	for i := range servers {
		servers[i].Country = []string{"de", "fr"}[i%2]
	}
	rows := []struct {
		name string
		r    *Request
	}{
		{"country", &Request{Countries: []string{"de"}}},
		{"session", &Request{User: "alice", Session: "k3j", Countries: []string{"de"}}},
	}
	for _, row := range rows {
		b.Run(row.name, func(b *testing.B) {
			p := mustNew(b, Options{Servers: servers, Balance: RoundRobin}, nil)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					use(b, p, row.r)
				}
			})
		})
	}
	b.Run("rebuild", func(b *testing.B) {
		p := mustNew(b, Options{Servers: servers}, nil)
		b.ReportAllocs()
		for b.Loop() {
			p.kept.version.Add(1)
			p.rebuild()
		}
	})
}

// What each further request on a connection that is kept costs.
func BenchmarkFits(b *testing.B) {
	for balance := First; balance <= StickySession; balance++ {
		for _, n := range []int{3, 100} {
			b.Run(fmt.Sprintf("%v/%d", balance, n), func(b *testing.B) {
				p, r := mustNew(b, Options{Servers: alike(n), Balance: balance}, nil), client(1)
				m, err := p.Choose(r, nil)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if !m.Fits(r) {
						b.Fatal("the server that was chosen does not fit")
					}
				}
			})
		}
	}
}

func use(b *testing.B, p *Pool, r *Request) {
	m, err := p.Choose(r, nil)
	if err != nil {
		b.Fatal(err)
	}
	m.Succeeded()
	m.Release()
}

func TestChooseDoesNotAllocate(t *testing.T) {
	for balance := First; balance <= StickySession; balance++ {
		servers := weighted(1, 2, 3)
		servers[1].Country, servers[2].Country = "de", "de"
		p := mustNew(t, Options{Servers: servers, Balance: balance}, nil)
		requests := map[string]*Request{
			"any":     {User: "alice"},
			"country": {User: "alice", Countries: []string{"de"}},
			"session": {User: "alice", Session: "k3j", Countries: []string{"de"}},
		}
		for name, r := range requests {
			var tried Tried
			tried.Add(0)
			allocs := testing.AllocsPerRun(100, func() {
				m, err := p.Choose(r, &tried)
				if err != nil {
					t.Fatal(err)
				}
				m.Succeeded()
				m.Fits(r)
				m.Release()
			})
			if allocs != 0 {
				t.Errorf("%v, %s: %v allocations", balance, name, allocs)
			}
		}
	}
}
