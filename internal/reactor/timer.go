package reactor

import "time"

// epoch is what loops count time from.
var epoch = time.Now()

// since converts a moment into loop time; at least 1, since 0 is no moment.
func since(t time.Time) time.Duration { return max(1, t.Sub(epoch)) }

// A Timer calls Expire once, on its loop. The zero value with Owner set is ready for Loop.Set.
type Timer struct {
	// Owner is who is called. It must be set before the Timer is.
	Owner interface{ Expire() }
	place int32 // in the heap plus one; 0: not set
}

// due is a Timer that is set.
type due struct {
	at time.Duration // since epoch
	t  *Timer
}

// dues is a binary heap with the earliest first that tells each Timer its place.
type dues []due

// put adds t, or moves it.
func (h *dues) put(t *Timer, at time.Duration) {
	i := int(t.place) - 1
	if i < 0 {
		i = len(*h)
		*h = append(*h, due{})
	} else if (*h)[i].at < at {
		(*h)[i].at = at
		h.down(i)
		return
	}
	h.up(i, due{at, t})
}

// remove takes t out, if it is in.
func (h *dues) remove(t *Timer) {
	i := int(t.place) - 1
	if i < 0 {
		return
	}
	t.place = 0
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = due{}
	*h = (*h)[:last]
	if i == last {
		return
	}
	if i > 0 && d.at < (*h)[(i-1)/2].at {
		h.up(i, d)
		return
	}
	h.set(i, d)
	h.down(i)
}

func (h dues) set(i int, d due) {
	h[i] = d
	d.t.place = int32(i) + 1
}

// up places d at i or above.
func (h dues) up(i int, d due) {
	for i > 0 && d.at < h[(i-1)/2].at {
		h.set(i, h[(i-1)/2])
		i = (i - 1) / 2
	}
	h.set(i, d)
}

// down places what is at i there or below.
func (h dues) down(i int) {
	d := h[i]
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[child].at >= d.at {
			break
		}
		h.set(i, h[child])
		i = child
	}
	h.set(i, d)
}
