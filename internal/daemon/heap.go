package daemon

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapFloor is what the heap may grow to before it is collected, however little of it is in use. The collector goes by
// proportion: on a gateway that holds a few megabytes it would run after each few dozen TLS handshakes.
const heapFloor = 16 << 20

const (
	heapCheckEvery = time.Second
	// calmBytes is up to how much is allocated in that time while nothing is going on.
	calmBytes = 256 << 10
	// worthBytes is how much garbage is worth a collection then.
	worthBytes = 2 << 20
	// maxGCPercent is the proportion for a nearly empty heap: the runtime takes 4 MiB for the least there is.
	maxGCPercent = 100 * heapFloor / (4 << 20)
)

// heapKeeper sets the collector's proportion by the heap that is in use, and collects once the gateway has become calm, so that an
// idle one holds as little as it would without a floor.
type heapKeeper struct {
	samples   []metrics.Sample
	percent   int // that the collector goes by now
	set       func(percent int)
	collect   func()
	allocated uint64 // at the last look
	collected bool   // since it was calm
	stop      chan struct{}
	done      chan struct{}
}

// The samples that are looked at.
const (
	heapLive      = iota // what the last collection left
	heapObjects          // what there is now, garbage too
	heapAllocated        // in all
)

// keepHeap begins to keep the heap; nil where the environment says how it is to be kept (GOGC, GOMEMLIMIT).
func keepHeap() *heapKeeper {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	k := newHeapKeeper(func(percent int) { debug.SetGCPercent(percent) }, debug.FreeOSMemory)
	go k.run()
	return k
}

func newHeapKeeper(set func(int), collect func()) *heapKeeper {
	return &heapKeeper{
		samples: []metrics.Sample{
			heapLive:      {Name: "/gc/heap/live:bytes"},
			heapObjects:   {Name: "/memory/classes/heap/objects:bytes"},
			heapAllocated: {Name: "/gc/heap/allocs:bytes"},
		},
		percent: 100, set: set, collect: collect,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// close ends it and gives the collector its own proportion back. It may be called for nil.
func (k *heapKeeper) close() {
	if k != nil {
		close(k.stop)
		<-k.done
	}
}

func (k *heapKeeper) run() {
	defer close(k.done)
	t := time.NewTicker(heapCheckEvery)
	defer t.Stop()
	for {
		metrics.Read(k.samples)
		k.look(k.samples[heapLive].Value.Uint64(), k.samples[heapObjects].Value.Uint64(), k.samples[heapAllocated].Value.Uint64())
		select {
		case <-t.C:
		case <-k.stop:
			k.set(100)
			return
		}
	}
}

// look decides on what is in use.
func (k *heapKeeper) look(live, objects, allocated uint64) {
	if p := percentFor(live); p > k.percent+k.percent/8 || p < k.percent-k.percent/8 {
		k.percent = p
		k.set(p)
	}
	calm := allocated-k.allocated < calmBytes
	k.allocated = allocated
	switch {
	case !calm:
		k.collected = false
	case !k.collected && objects > live+max(worthBytes, live/4):
		k.collected = true
		k.collect()
	}
}

// percentFor is the proportion by which a heap with live bytes in use grows to the floor, or to twice its size if that is more.
func percentFor(live uint64) int {
	live = max(live, 1)
	return int(min(max(100, (max(heapFloor, live)-live)*100/live), maxGCPercent))
}
