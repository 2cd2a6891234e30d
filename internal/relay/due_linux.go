package relay

import (
	"container/heap"
	"time"
)

// epoch is what the deadlines of parked tunnels are counted from.
var epoch = time.Now()

// due is when a parked tunnel's limits must be looked at.
type due struct {
	at time.Duration // since epoch
	t  *Tunnel
}

// dueHeap has the earliest due first and tells each tunnel its place.
type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].t.park.due, h[j].t.park.due = int32(i)+1, int32(j)+1
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	d := x.(due)
	*h = append(*h, d)
	d.t.park.due = int32(len(*h))
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = due{}
	*h = (*h)[:last]
	d.t.park.due = 0
	return d
}

// schedule has t.tick called after a delay, instead of when it was due before.
func (l *loop) schedule(t *Tunnel, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := due{time.Since(epoch) + after, t}
	if at := int(t.park.due) - 1; at >= 0 {
		l.dues[at] = d
		heap.Fix(&l.dues, at)
	} else {
		heap.Push(&l.dues, d)
	}
	l.setTimer()
}

// unschedule forgets when t is due.
func (l *loop) unschedule(t *Tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := int(t.park.due) - 1; at >= 0 {
		heap.Remove(&l.dues, at)
		l.setTimer()
	}
}

// setTimer sets the one timer of all parked tunnels to the earliest due.
func (l *loop) setTimer() {
	if len(l.dues) == 0 {
		if l.timer != nil {
			l.timer.Stop()
			l.timer = nil
		}
		l.dues = nil
		return
	}
	after := l.dues[0].at - time.Since(epoch)
	if l.timer == nil {
		l.timer = time.AfterFunc(after, l.expire)
		return
	}
	l.timer.Reset(after)
}

// expire calls the ticks that are due.
func (l *loop) expire() {
	var late []*Tunnel
	l.mu.Lock()
	for now := time.Since(epoch); len(l.dues) > 0 && l.dues[0].at <= now; {
		late = append(late, heap.Pop(&l.dues).(due).t)
	}
	l.setTimer()
	l.mu.Unlock()
	for _, t := range late {
		t.tick()
	}
}
