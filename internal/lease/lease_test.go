package lease

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// named is the i-th lease of a user.
func named(t *Table[int], user string, i int) Name { return t.Name(user, []string{fmt.Sprint(i)}) }

// entries counts what is in the table, by each of the things that know it, and fails the test where they differ.
func entries(t *testing.T, table *Table[int]) (all int) {
	t.Helper()
	for i := range table.parts {
		p := &table.parts[i]
		held := 0
		for at, h := range p.heap {
			held += h.own.count
			if h.at != at || p.holders[h.user] != h || h.own.count == 0 || h.own.count > p.heap[0].own.count {
				t.Errorf("part %d: the holder at %d of %d is not as it should be: %+v", i, at, len(p.heap), h)
			}
		}
		if n := len(p.leases); n != p.all.count || n != held || n > perPart || len(p.holders) != len(p.heap) {
			t.Errorf("part %d: %d leases, %d in order of age, %d held by %d of %d users", i, n, p.all.count, held, len(p.heap), len(p.holders))
		}
		all += len(p.leases)
	}
	return all
}

func TestLeaseLasts(t *testing.T) {
	table, now := New[int](), time.Now()
	n := named(table, "alice", 1)
	table.Put(n, nil, 7, now, time.Minute)
	for _, tt := range []struct {
		name string
		n    Name
		at   time.Duration
		want bool
	}{
		{"at once", n, 0, true},
		{"in its last moment", n, time.Minute - 1, true},
		{"after it", n, time.Minute, false},
		{"another one", named(table, "alice", 2), 0, false},
		{"that of another user", named(table, "bob", 1), 0, false},
		{"names that join to the same", table.Name("alic", []string{"e1"}), 0, false},
		{"lists that join to the same", table.Name("alice", nil, []string{"1"}), 0, false},
	} {
		l := table.Get(tt.n, now.Add(tt.at))
		if (l != nil) != tt.want || l != nil && (l.Value != 7 || l.Begun != now || l.Until != now.Add(time.Minute)) {
			t.Errorf("%s: %+v, want one: %v", tt.name, l, tt.want)
		}
	}
}

func TestFirstToPutWins(t *testing.T) {
	table, now := New[int](), time.Now()
	n := named(table, "alice", 1)
	first := table.Put(n, nil, 1, now, time.Hour)
	if got := table.Put(n, nil, 2, now, time.Hour); got != first || got.Value != 1 {
		t.Error("the second, who saw no lease either, has put his own there")
	}
	if got := table.Put(n, first, 2, now, time.Hour); got == first || got.Value != 2 || table.Get(n, now) != got {
		t.Error("who saw the first lease could not replace it")
	}
	if got := entries(t, table); got != 1 {
		t.Errorf("%d leases are in the table, want 1", got)
	}
}

// A user who takes as many as he can costs the others none of theirs, whenever they took them.
func TestFloodHurtsTheFlooder(t *testing.T) {
	const others, each, flood = 200, 50, 2 * parts * perPart
	table, now := New[int](), time.Now()
	taken := 0
	for i := range flood {
		table.Put(named(table, "mallory", i), nil, 0, now, time.Hour)
		if i%(flood/others/each) == 0 && taken < others*each { // the others come all along
			table.Put(named(table, fmt.Sprint("user", taken%others), taken/others), nil, 0, now, time.Hour)
			taken++
		}
	}
	for i := range taken {
		if table.Get(named(table, fmt.Sprint("user", i%others), i/others), now) == nil {
			t.Fatalf("lease %d of user %d is gone", i/others, i%others)
		}
	}
	if got := entries(t, table); taken != others*each || got != parts*perPart {
		t.Errorf("%d leases after %d of the others', want %d: room must not lie idle", got, taken, parts*perPart)
	}
	if table.Get(named(table, "mallory", flood-1), now) == nil || table.Get(named(table, "mallory", 0), now) != nil {
		t.Error("of the flooder's own the oldest must go first")
	}
}

// Of users with one each the oldest makes room.
func TestOldestOfEqualsMakesRoom(t *testing.T) {
	table, now := New[int](), time.Now()
	var first Name // of one part
	const users = 3 * parts * perPart / 2
	for i := range users {
		n := named(table, fmt.Sprint("user", i), 0)
		if i == 0 {
			first = n
		}
		if table.Put(n, nil, 0, now, time.Hour); table.Get(n, now) == nil {
			t.Fatalf("user %d was not let in", i)
		}
	}
	if table.Get(first, now) != nil {
		t.Error("the oldest has not made room")
	}
	if got := entries(t, table); got != parts*perPart {
		t.Errorf("%d leases, want %d", got, parts*perPart)
	}
}

func TestDeadLeasesGo(t *testing.T) {
	table, now := New[int](), time.Now()
	const old, fresh = 10_000, 6_000
	for i := range old {
		table.Put(named(table, "alice", i), nil, 0, now, time.Minute)
	}
	later := now.Add(time.Minute)
	for i := range fresh {
		table.Put(named(table, "bob", i), nil, 0, later, time.Minute)
	}
	if got := entries(t, table); got > fresh+old/20 {
		t.Errorf("%d leases, though %d are over and %d came since: each must clear two away", got, old, fresh)
	}
}

// Whatever is done, nobody loses a lease before its time who has no more than his share of the part that it is in.
func TestShare(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	table, now := New[int](), time.Now()
	const users = 16
	type taken struct {
		user string
		n    Name
	}
	var all []taken
	for i := range 3 * parts * perPart / 2 {
		u := fmt.Sprint("user", min(rnd.IntN(users), rnd.IntN(users), rnd.IntN(users), rnd.IntN(users))) // some take far more than others
		n := named(table, u, i)
		table.Put(n, nil, 0, now, time.Hour)
		all = append(all, taken{u, n})
	}
	has := map[*part[int]]map[string]int{}
	for _, l := range all {
		p := table.part(l.n)
		if has[p] == nil {
			has[p] = map[string]int{}
		}
		has[p][l.user]++
	}
	for _, l := range all {
		if p := table.part(l.n); has[p][l.user] <= perPart/users && table.Get(l.n, now) == nil {
			t.Fatalf("%s took %d of %d in a part that %d share, and has lost one", l.user, has[p][l.user], perPart, users)
		}
	}
	entries(t, table)
}

func TestManyAtOnce(t *testing.T) {
	table, now := New[int](), time.Now()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 5_000 {
				n := named(table, fmt.Sprint("user", g%3), i)
				old := table.Get(n, now)
				if l := table.Put(n, old, g, now.Add(time.Duration(i)), time.Millisecond); l == nil {
					t.Error("Put returned nothing")
				}
			}
		})
	}
	all.Wait()
	entries(t, table)
}

func TestGetDoesNotAllocate(t *testing.T) {
	table, now := New[int](), time.Now()
	user, session, tags := "alice", "k3j", []string{"home"}
	table.Put(table.Name(user, []string{session}, tags), nil, 1, now, time.Hour)
	if n := testing.AllocsPerRun(100, func() {
		if table.Get(table.Name(user, []string{session}, tags), now) == nil {
			t.Fatal("it is gone")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// A part that one user has filled, which costs the most.
func BenchmarkPut(b *testing.B) {
	table, now := New[int](), time.Now()
	for i := range 3 * parts * perPart / 2 {
		table.Put(named(table, fmt.Sprint("user", i%5000), i), nil, 0, now, time.Hour)
	}
	names := make([]Name, 1<<16)
	for i := range names {
		names[i] = named(table, "mallory", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Put(names[i%len(names)], nil, 0, now.Add(time.Duration(i)), time.Hour)
	}
}
