package lease

// ring is a list of leases, the oldest first. Each lease is in two: that of its part and that of its holder.
type ring[V any] struct {
	oldest, newest *Lease[V]
	count          int
}

// links are a lease's neighbours in a ring.
type links[V any] struct{ older, newer *Lease[V] }

// which selects the links of one of the two rings.
type which uint8

const (
	ofAll which = iota
	ofHolder
)

// push adds l as the newest.
func (r *ring[V]) push(w which, l *Lease[V]) {
	l.links[w] = links[V]{older: r.newest}
	if r.newest != nil {
		r.newest.links[w].newer = l
	} else {
		r.oldest = l
	}
	r.newest = l
	r.count++
}

// remove takes l out.
func (r *ring[V]) remove(w which, l *Lease[V]) {
	at := l.links[w]
	if at.older != nil {
		at.older.links[w].newer = at.newer
	} else {
		r.oldest = at.newer
	}
	if at.newer != nil {
		at.newer.links[w].older = at.older
	} else {
		r.newest = at.older
	}
	l.links[w] = links[V]{} // whoever still has l must not keep the others
	r.count--
}

// byCount is a heap of holders, the one with the most leases first.
type byCount[V any] []*holder[V]

// Len implements heap.Interface.
func (b byCount[V]) Len() int { return len(b) }

// Less implements heap.Interface.
func (b byCount[V]) Less(i, j int) bool { return b[i].own.count > b[j].own.count }

// Swap implements heap.Interface.
func (b byCount[V]) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].at, b[j].at = i, j
}

// Push implements heap.Interface.
func (b *byCount[V]) Push(h any) {
	holder := h.(*holder[V])
	holder.at = len(*b)
	*b = append(*b, holder)
}

// Pop implements heap.Interface.
func (b *byCount[V]) Pop() any {
	last := len(*b) - 1
	h := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return h
}
