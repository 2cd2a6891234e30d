package daemon

import (
	"slices"
	"testing"
)

func TestPercentFor(t *testing.T) {
	for _, tt := range []struct {
		live uint64
		want int
	}{
		{0, maxGCPercent},
		{1 << 20, maxGCPercent},
		{4 << 20, 300},
		{8 << 20, 100}, // twice its size is the floor
		{16 << 20, 100},
		{64 << 20, 100},
		{8 << 30, 100},
		{20 << 20, 100},
	} {
		if got := percentFor(tt.live); got != tt.want {
			t.Errorf("percentFor(%d MiB) = %d, want %d", tt.live>>20, got, tt.want)
		}
	}
}

func TestHeapKeeper(t *testing.T) {
	const mb = 1 << 20
	var did []int // percentages, and 0 for a collection
	k := newHeapKeeper(func(p int) { did = append(did, p) }, func() { did = append(did, 0) })
	for _, s := range []struct {
		name                     string
		live, objects, allocated uint64
		want                     []int
	}{
		{"begins", 4 * mb, 5 * mb, 10 * mb, []int{300}},
		{"works", 4 * mb, 20 * mb, 60 * mb, nil},
		{"in use is about the same", 4*mb + 100<<10, 20 * mb, 160 * mb, nil},
		{"becomes calm", 4 * mb, 20 * mb, 160*mb + 1, []int{0}},
		{"stays calm", 4 * mb, 20 * mb, 160*mb + 2, nil}, // as if the collection had freed nothing
		{"works again", 4 * mb, 20 * mb, 170 * mb, nil},
		{"calm, and little to collect", 4 * mb, 5 * mb, 170 * mb, nil},
		{"calm, and then some more", 4 * mb, 7 * mb, 170*mb + 100<<10, []int{0}},
		{"grows", 64 * mb, 80 * mb, 270 * mb, []int{100}},
		{"calm, but a quarter is not reached", 64 * mb, 79 * mb, 270 * mb, nil},
	} {
		did = nil
		k.look(s.live, s.objects, s.allocated)
		if !slices.Equal(did, s.want) {
			t.Errorf("%s: did %v, want %v", s.name, did, s.want)
		}
	}
}

// It ends, and the collector is as it was.
func TestHeapKeeperCloses(t *testing.T) {
	var last int
	k := newHeapKeeper(func(p int) { last = p }, func() {})
	go k.run()
	k.close()
	if last != 100 {
		t.Errorf("the collector was left at %d %%", last)
	}
	t.Setenv("GOGC", "50")
	if k := keepHeap(); k != nil {
		t.Error("GOGC of the environment is overruled")
		k.close()
	}
}
