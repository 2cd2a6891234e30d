package http2

import "strings"

const (
	urgencies      = 8 // RFC 9218 section 4.1: 0 comes first
	defaultUrgency = 3
	// lowTurn is how often the turn is not that of the most urgent stream but of the
	// others, so that none of them ever starves.
	lowTurn = 8
)

// schedule is the streams that have content to send and a window for it. Each turn is one
// frame of the most urgent, in turns among the equally urgent: streams of a proxy belong
// to pages and users that know nothing of each other, so one that is not incremental
// (RFC 9218 section 4.2) has no right to be sent whole before the next.
type schedule struct {
	queues [urgencies]queue
	waiting,
	turn, low int
}

// queue is a list of streams linked by their next.
type queue struct{ head, tail *Stream }

func (q *queue) push(s *Stream) {
	s.next = nil
	if q.tail == nil {
		q.head = s
	} else {
		q.tail.next = s
	}
	q.tail = s
}

func (q *queue) pop() *Stream {
	s := q.head
	q.head = s.next
	if q.head == nil {
		q.tail = nil
	}
	s.next = nil
	return s
}

// remove takes s out of the middle, which is rare: the others are rotated around it.
func (q *queue) remove(s *Stream) {
	var rest queue
	for q.head != nil {
		if t := q.pop(); t != s {
			rest.push(t)
		}
	}
	*q = rest
}

// add puts s at the end of its queue, if it is in none.
func (d *schedule) add(s *Stream) {
	if !s.queued {
		s.queued = true
		d.waiting++
		d.queues[s.urgency].push(s)
	}
}

// drop takes s out, if it is in.
func (d *schedule) drop(s *Stream) {
	if s.queued {
		s.queued = false
		d.waiting--
		d.queues[s.urgency].remove(s)
	}
}

// move gives s another urgency.
func (d *schedule) move(s *Stream, urgency uint8) {
	if s.queued && urgency != s.urgency {
		d.queues[s.urgency].remove(s)
		d.queues[urgency].push(s)
	}
	s.urgency = urgency
}

// next takes out the stream whose turn it is; nil if there is none.
func (d *schedule) next() *Stream {
	if d.waiting == 0 {
		return nil
	}
	d.turn++
	s := d.queues[d.level()].pop()
	s.queued = false
	d.waiting--
	return s
}

// level is the queue whose turn it is. At least one is not empty.
func (d *schedule) level() int {
	from := 0
	if d.turn%lowTurn == 0 {
		from = d.low + 1
	}
	for i := range urgencies {
		if n := (from + i) % urgencies; d.queues[n].head != nil {
			if from != 0 {
				d.low = n
			}
			return n
		}
	}
	return 0
}

// parseUrgency returns the u of a priority field (RFC 9218 section 4), or old if it has
// no valid one.
func parseUrgency(value string, old uint8) uint8 {
	for member := range strings.SplitSeq(value, ",") {
		member, _, _ = strings.Cut(member, ";")
		u, ok := strings.CutPrefix(strings.Trim(member, " \t"), "u=")
		if ok && len(u) == 1 && u[0] >= '0' && u[0] < '0'+urgencies {
			old = u[0] - '0'
		}
	}
	return old
}

// urgencyOf returns the urgency of a request.
func urgencyOf(h *Head) uint8 {
	u := uint8(defaultUrgency)
	for _, f := range h.Fields {
		if f.Name == "priority" {
			u = parseUrgency(f.Value, u)
		}
	}
	return u
}
