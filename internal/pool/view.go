package pool

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// whole is the share of a server that is not warming; weights in a view are multiplied with the share.
const whole = 1000

// warmSteps is how many times the share of a warming server is looked at anew.
const warmSteps = 100

// view is what Choose needs to know of the servers' health at a time. It is never changed, only replaced.
type view struct {
	version uint64    // of kept when it was made
	until   time.Time // from then on it is out of date; zero: until the version changes
	usable  set
	trial   set // the usable ones that were ejected: one connection only may try them
	share   [MaxServers]uint32
	inverse [MaxServers]uint64 // 2^64 / (weight * share)
	groups  []group            // by priority, the lowest first
}

// group is the usable servers of one priority.
type group struct {
	set   set
	wheel wheel
}

// wheel is a list of servers by index that says how much of the whole each one has: sums[k] is the weight of the first k+1.
// It holds no slices, so that Choose can make one on its stack.
type wheel struct {
	n     int
	index [MaxServers]uint8
	sums  [MaxServers]uint32
	equal bool // all weights are the same
	turn  *turn
}

func (w *wheel) add(i int, weight uint32) {
	w.equal = w.n == 0 || w.equal && weight == w.weight(w.n-1)
	w.index[w.n], w.sums[w.n] = uint8(i), w.total()+weight
	w.n++
}

func (w *wheel) servers() []uint8 { return w.index[:w.n] }

func (w *wheel) total() uint32 {
	if w.n == 0 {
		return 0
	}
	return w.sums[w.n-1]
}

func (w *wheel) weight(k int) uint32 {
	if k == 0 {
		return w.sums[0]
	}
	return w.sums[k] - w.sums[k-1]
}

// at is the place in the list that y, which is below the total, falls on.
func (w *wheel) at(y uint32) int {
	lo, hi := 0, w.n-1
	for lo < hi {
		if mid := (lo + hi) / 2; w.sums[mid] > y {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// current is the view of now. Only the first to come after a change, or after another step of a slow start, waits.
func (p *Pool) current() *view {
	if v := p.view.Load(); v.version == p.kept.version.Load() && (v.until.IsZero() || time.Now().Before(v.until)) {
		return v
	}
	return p.rebuild()
}

func (p *Pool) rebuild() *view {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The version is read before the health: what changes in between is seen by the next to come.
	version, now := p.kept.version.Load(), time.Now()
	if v := p.view.Load(); v != nil && v.version == version && (v.until.IsZero() || now.Before(v.until)) {
		return v
	}
	v := &view{version: version}
	for at, i := range p.byPriority {
		if at == 0 || p.o.Servers[i].Priority != p.o.Servers[p.byPriority[at-1]].Priority {
			v.groups = append(v.groups, group{})
		}
		if p.look(v, i, now) {
			g := &v.groups[len(v.groups)-1]
			g.set.add(i)
			g.wheel.add(i, p.weightIn(v, i))
		}
	}
	for i := range v.groups {
		v.groups[i].wheel.turn = p.kept.turn(&v.groups[i].set)
	}
	p.view.Store(v)
	return v
}

// look puts into v what there is to say of server i, and says whether it is usable.
func (p *Pool) look(v *view, i int, now time.Time) bool {
	h := p.servers[i].health.Load()
	v.share[i] = p.shareOf(h, now)
	v.inverse[i] = ^uint64(0) / uint64(p.weightIn(v, i))
	switch p.stateOf(i, h, now) {
	case Draining, Down:
		return false
	case Ejected:
		if now.Before(h.ejected.until) {
			v.expire(h.ejected.until)
			return false
		}
		if h.ejected.trial {
			return false
		}
		v.trial.add(i)
	case Warming:
		v.expire(now.Add(max(p.o.SlowStart/warmSteps, time.Millisecond)))
	}
	v.usable.add(i)
	return true
}

func (v *view) expire(at time.Time) {
	if v.until.IsZero() || at.Before(v.until) {
		v.until = at
	}
}

// shareOf grows from a tenth of whole to the whole of it during a slow start.
func (p *Pool) shareOf(h *health, now time.Time) uint32 {
	warm := now.Sub(h.back)
	if h.back.IsZero() || warm >= p.o.SlowStart {
		return whole
	}
	return whole/10 + uint32(float64(whole-whole/10)*float64(max(warm, 0))/float64(p.o.SlowStart))
}

func (p *Pool) weightIn(v *view, i int) uint32 { return uint32(p.o.Servers[i].Weight) * v.share[i] }

// turn counts the choices among one set of servers, on a cache line of its own.
type turn struct {
	n atomic.Uint64
	_ [56]byte
}

// turn gives each set its own count, as far as the hash tells them apart: if two sets took turns on one count, each could
// see the even turns or the odd ones only.
func (k *kept) turn(s *set) *turn { return &k.turns[s.hash()%uint64(len(k.turns))] }

// golden is 2^64 divided by the golden ratio. Its multiples modulo 2^64 fall more evenly on a range than any others, at
// every length, so that parts of the range are hit in proportion to their size and never twice in a row without need.
const golden = 0x9e3779b97f4a7c15

// next is the server whose turn it is; advance false leaves the turn where it is.
func (w *wheel) next(advance bool) int {
	n := w.turn.n.Load()
	if advance {
		n = w.turn.n.Add(1) - 1
	}
	if w.equal {
		return int(w.index[n%uint64(w.n)])
	}
	y, _ := bits.Mul64(n*golden, uint64(w.total()))
	return int(w.index[w.at(uint32(y))])
}
