package reactor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestDues: whatever is put, moved and removed, what is first is always due first, and each Timer knows its place.
func TestDues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h dues
	timers := make([]*Timer, 60)
	at := map[*Timer]time.Duration{}
	for i := range timers {
		timers[i] = new(Timer)
	}
	for range 20000 {
		x := timers[r.IntN(len(timers))]
		if r.IntN(3) == 0 {
			h.remove(x)
			delete(at, x)
		} else {
			at[x] = time.Duration(1 + r.IntN(1000))
			h.put(x, at[x])
		}
		if len(h) != len(at) {
			t.Fatalf("%d timers are set, want %d", len(h), len(at))
		}
		for i, d := range h {
			if int(d.t.place) != i+1 || at[d.t] != d.at {
				t.Fatalf("place %d holds a timer for %v that believes in place %d and %v", i, d.at, d.t.place-1, at[d.t])
			}
			if i > 0 && h[(i-1)/2].at > d.at {
				t.Fatalf("place %d is due at %v, above it stands %v", i, d.at, h[(i-1)/2].at)
			}
		}
	}
	var order []time.Duration
	for len(h) > 0 {
		order = append(order, h[0].at)
		h.remove(h[0].t)
	}
	if !slices.IsSorted(order) {
		t.Errorf("taken out in the order %v", order)
	}
}

func TestNoGroup(t *testing.T) {
	var g *Group
	if l := g.Next(); l != nil {
		t.Errorf("a nil Group deals out the loop %v", l)
	}
	g.Kill()
	g.Close()
}
