package pool

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseBalance(t *testing.T) {
	for b := First; b <= StickySession; b++ {
		if got, err := ParseBalance(b.String()); got != b || err != nil {
			t.Errorf("ParseBalance(%q) = %v, %v", b.String(), got, err)
		}
	}
	for _, s := range []string{"", "First", "round_robin", "balance 7"} {
		if got, err := ParseBalance(s); err == nil {
			t.Errorf("ParseBalance(%q) = %v, want an error", s, got)
		} else if !strings.Contains(err.Error(), "sticky-session") {
			t.Errorf("ParseBalance(%q): %q does not say what there is", s, err)
		}
	}
}

// Every balance gives each server what its weight says, whether connections are over at once or all stay.
func TestBalanceFollowsWeights(t *testing.T) {
	const choices = 10000
	rare := []int{1, 2, 3, 4}
	sets := [][]int{{1, 1}, {1, 1, 1, 1}, {1, 3}, {5, 3, 2}, {200, 100, 100}, rare}
	for b := RoundRobin; b <= StickySession; b++ {
		for _, weights := range sets {
			for _, hold := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v %v hold=%v", b, weights, hold), func(t *testing.T) {
					n := choices
					if b == RandomTwo && !hold || b >= StickyClient && slices.Equal(weights, rare) {
						n *= 10 // a tenth of 10,000 is 3 % off for one in three hashes or draws that are without fault
					}
					testWeights(t, mustNew(t, Options{Servers: weighted(weights...), Balance: b}, nil), weights, n, hold)
				})
			}
		}
	}
}

func testWeights(t *testing.T, p *Pool, weights []int, choices int, hold bool) {
	got := make([]int, len(weights))
	for i := range choices {
		m := mustChoose(t, p, client(i))
		got[m.Index()]++
		if !hold {
			m.Release()
		}
	}
	sum := 0
	for _, w := range weights {
		sum += w
	}
	for i, w := range weights {
		want := float64(choices) * float64(w) / float64(sum)
		if off := math.Abs(float64(got[i])-want) / want; off > 0.05 {
			t.Errorf("server %d of weight %d got %d, want %.0f: %.1f %% off", i, w, got[i], want, off*100)
		}
	}
}

// A part of the servers follows the weights too, and takes turns of its own.
func TestBalanceFollowsWeightsAmongSome(t *testing.T) {
	for b := RoundRobin; b <= StickySession; b++ {
		for _, weights := range [][]int{{1, 3, 9, 2, 2}, {1, 1, 1, 1}} {
			t.Run(fmt.Sprint(b, weights), func(t *testing.T) {
				servers := weighted(weights...)
				servers[0].Country, servers[1].Country = "de", "de"
				p := mustNew(t, Options{Servers: servers, Balance: b}, nil)
				const n = 10000
				got := 0
				for i := range n {
					once(t, p, client(i)) // another request between any two
					r := client(i)
					r.Countries = []string{"de"}
					got += once(t, p, r)
				}
				want := float64(weights[1]) / float64(weights[0]+weights[1])
				if share := float64(got) / n; math.Abs(share-want) > want*0.05 {
					t.Errorf("the second of two got %v of the choices, want %v", share, want)
				}
			})
		}
	}
}

func TestRandomTwoDrawsTwo(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 100}, {100, 1}} {
		p := mustNew(t, Options{Servers: weighted(weights...), Balance: RandomTwo}, nil)
		busy := p.servers[0]
		busy.connections.Add(1000)
		for range 200 {
			if got := once(t, p, &Request{}); got != 1 {
				t.Fatalf("weights %v: the busy one of two was chosen", weights)
			}
		}
	}
}

func TestRoundRobinOrder(t *testing.T) {
	tests := []struct {
		name    string
		weights []int
		want    []int
	}{
		{"one", []int{1}, []int{0, 0, 0}},
		{"in turn", []int{1, 1, 1}, []int{0, 1, 2, 0, 1, 2}},
		{"same weight of more than one", []int{7, 7}, []int{0, 1, 0, 1}},
		{"the heavy one not in one go", []int{2, 1, 1}, []int{0, 1, 0, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Options{Servers: weighted(tt.weights...), Balance: RoundRobin}, nil)
			var got []int
			for range tt.want {
				got = append(got, once(t, p, &Request{}))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("chosen %v, want %v", got, tt.want)
			}
		})
	}
}

func TestStickyKeys(t *testing.T) {
	req := func(client, user, session string) *Request {
		return &Request{Client: netip.MustParseAddr(client), User: user, Session: session}
	}
	tests := []struct {
		name    string
		balance Balance
		a, b    *Request
		same    bool
	}{
		{"client, another user", StickyClient, req("192.0.2.1", "u", ""), req("192.0.2.1", "v", ""), true},
		{"client, another address", StickyClient, req("192.0.2.1", "u", ""), req("192.0.2.2", "u", ""), false},
		{"client, mapped", StickyClient, req("192.0.2.1", "", ""), req("::ffff:192.0.2.1", "", ""), true},
		{"client, same /64", StickyClient, req("2001:db8::1", "", ""), req("2001:db8::ffff:2", "", ""), true},
		{"client, another /64", StickyClient, req("2001:db8::1", "", ""), req("2001:db8:0:1::1", "", ""), false},
		{"user, another client", StickyUser, req("192.0.2.1", "u", ""), req("192.0.2.2", "u", ""), true},
		{"user, another one", StickyUser, req("192.0.2.1", "u", ""), req("192.0.2.1", "v", ""), false},
		{"user, none", StickyUser, req("192.0.2.1", "", ""), req("192.0.2.2", "", ""), false},
		{"session, none", StickySession, req("192.0.2.1", "u", ""), req("192.0.2.2", "u", ""), true},
		{"session, neither", StickySession, req("192.0.2.1", "", ""), req("192.0.2.2", "", ""), false},
		{"session", StickySession, req("192.0.2.1", "u", "s"), req("192.0.2.2", "u", "s"), true},
		{"session, another one", StickySession, req("192.0.2.1", "u", "s"), req("192.0.2.1", "u", "t"), false},
		{"session, another user", StickySession, req("192.0.2.1", "u", "s"), req("192.0.2.1", "v", "s"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Options{Servers: alike(3), Balance: tt.balance}, nil)
			if same := p.stickyKey(tt.a) == p.stickyKey(tt.b); same != tt.same {
				t.Errorf("same key: %v, want %v", same, tt.same)
			}
		})
	}
}

// Which server a key sticks to is part of what users see: a new version must not change it.
func TestStickyIsTheSameForEver(t *testing.T) {
	p := mustNew(t, Options{Servers: weighted(1, 2, 3, 4), Balance: StickyClient}, nil)
	var got []int
	for i := range 20 {
		got = append(got, once(t, p, client(i)))
	}
	want := []int{3, 3, 2, 2, 1, 1, 3, 0, 0, 2, 3, 2, 3, 3, 3, 1, 2, 2, 3, 1}
	if !slices.Equal(got, want) {
		t.Errorf("chosen %v, want %v", got, want)
	}
}

func TestStickyMovesOnlyTheKeysOfTheServerThatIsGone(t *testing.T) {
	const keys, gone = 5000, 3
	for b := StickyClient; b <= StickySession; b++ {
		t.Run(b.String(), func(t *testing.T) {
			p := mustNew(t, Options{Servers: weighted(1, 2, 3, 4, 5, 6, 7, 8), Balance: b, Rise: 1, Fall: 1}, nil)
			where := func() (all [keys]int) {
				for i := range all {
					all[i] = once(t, p, client(i))
				}
				return all
			}
			before := where()
			check(p, gone, errBroken)
			for i, now := range where() {
				if before[i] == gone && now == gone || before[i] != gone && now != before[i] {
					t.Fatalf("key %d went from %d to %d when %d was gone", i, before[i], now, gone)
				}
			}
			check(p, gone, nil)
			if where() != before {
				t.Error("the keys did not all come back with their server")
			}
		})
	}
}

func TestStickyLoadIsBounded(t *testing.T) {
	const connections = 10000
	p := mustNew(t, Options{Servers: alike(10), Balance: StickyUser}, nil)
	for range connections {
		mustChoose(t, p, &Request{User: "everybody"})
	}
	for _, m := range p.Members() {
		if got, most := m.Status().Connections, int64(connections/10*defaultLoad+2); got > most {
			t.Errorf("%s has %d connections, want at most %d", m.Name(), got, most)
		}
	}
}

func TestFirst(t *testing.T) {
	o := Options{Servers: weighted(1, 9, 1), Fall: 1, Rise: 1}
	o.Servers[1].Priority = 1
	p := mustNew(t, o, nil)
	steps := []struct {
		name string
		do   func()
		want int
	}{
		{"the first", func() {}, 0},
		{"the next of the same priority", func() { check(p, 0, errBroken) }, 2},
		{"the next priority", func() { check(p, 2, errBroken) }, 1},
		{"back", func() { check(p, 2, nil) }, 2},
		{"back at the first", func() { check(p, 0, nil) }, 0},
	}
	for _, s := range steps {
		s.do()
		if got := once(t, p, &Request{}); got != s.want {
			t.Errorf("%s: chosen %d, want %d", s.name, got, s.want)
		}
	}
}

// negLog2 must rise steadily and be right, or weights do not hold.
func TestNegLog2(t *testing.T) {
	for _, x := range []uint64{1, 2, 3, 1 << 20, 1<<20 + 12345, 1 << 63, 1<<63 + 1<<40, 3 << 62, math.MaxUint64 - 1<<50, math.MaxUint64} {
		got, want := float64(negLog2(x))/(1<<32), 64-math.Log2(float64(x|1))
		if math.Abs(got-want) > 3e-6 {
			t.Errorf("negLog2(%#x) = %v, want %v", x, got, want)
		}
	}
	last := negLog2(1)
	for x := uint64(3); x < 1<<63; x += x/1000 + 2 {
		now := negLog2(x)
		if now > last {
			t.Fatalf("negLog2(%#x) = %d is more than at the number before", x, now)
		}
		last = now
	}
}

func TestMixTurnsHalfOfTheBits(t *testing.T) {
	for bit := range 64 {
		turned := 0
		for x := range uint64(256) {
			d := mix(x) ^ mix(x^1<<bit)
			for ; d != 0; d &= d - 1 {
				turned++
			}
		}
		if mean := float64(turned) / 256; mean < 29 || mean > 35 {
			t.Errorf("bit %d turns %.1f bits over, want about 32", bit, mean)
		}
	}
}
