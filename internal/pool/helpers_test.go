package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var errBroken = errors.New("connection refused")

// weighted makes servers a, b, c ... with these weights.
func weighted(weights ...int) []Server {
	servers := make([]Server, len(weights))
	for i, w := range weights {
		servers[i] = Server{Name: fmt.Sprintf("server-%d", i), Weight: w}
	}
	return servers
}

func alike(n int) []Server {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1
	}
	return weighted(weights...)
}

func mustNew(t testing.TB, o Options, m *Memory) *Pool {
	t.Helper()
	if o.Name == "" {
		o.Name = "eu"
	}
	p, err := New(o, m)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return p
}

func mustChoose(t testing.TB, p *Pool, r *Request) *Member {
	t.Helper()
	m, err := p.Choose(r, nil)
	if err != nil {
		t.Fatalf("Choose: %v", err)
	}
	return m
}

// once chooses, releases and says what was chosen.
func once(t testing.TB, p *Pool, r *Request) int {
	t.Helper()
	m := mustChoose(t, p, r)
	m.Succeeded()
	m.Release()
	return m.Index()
}

// client is the i-th of many clients that differ in address, user and session.
func client(i int) *Request {
	a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return &Request{Client: a, User: fmt.Sprintf("user%d", i)}
}

// fail makes a server fail so many attempts that it had before it was ejected.
func fail(p *Pool, i, times int) {
	for range times {
		p.Members()[i].Failed(errBroken)
	}
}

func check(p *Pool, i int, outcomes ...error) {
	for _, err := range outcomes {
		p.Members()[i].Checked(err)
	}
}

func stateOf(p *Pool, i int) State { return p.Members()[i].Status().State }

func connections(p *Pool) (all int64) {
	for _, m := range p.Members() {
		all += m.Status().Connections
	}
	return all
}

const never = -1

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
