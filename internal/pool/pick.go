package pool

import "math/rand/v2"

// pick is the index of one of want; -1: want is empty. advance false leaves the turns where they are.
func (p *Pool) pick(v *view, want *set, r *Request, advance bool) int {
	for g := range v.groups {
		switch s := want.and(&v.groups[g].set); {
		case s.empty():
		case s == v.groups[g].set:
			return p.balance(v, &v.groups[g].wheel, r, advance)
		default:
			return p.pickPart(v, &s, r, advance)
		}
	}
	return -1
}

// pickPart is pick for a part of a group, with a wheel for it on the stack.
func (p *Pool) pickPart(v *view, s *set, r *Request, advance bool) int {
	w := p.wheelOf(v, s)
	return p.balance(v, &w, r, advance)
}

func (p *Pool) wheelOf(v *view, s *set) wheel {
	w := wheel{turn: p.kept.turn(s)}
	for i := s.next(0); i >= 0; i = s.next(i + 1) {
		w.add(i, p.weightIn(v, i))
	}
	return w
}

func (p *Pool) balance(v *view, w *wheel, r *Request, advance bool) int {
	if w.n == 1 {
		return int(w.index[0])
	}
	switch p.o.Balance {
	case RoundRobin:
		return w.next(advance)
	case RandomTwo:
		return p.randomTwo(w)
	case LeastConnections:
		return p.leastConnections(w, advance)
	case StickyClient, StickyUser, StickySession:
		return p.sticky(v, w, p.stickyKey(r))
	}
	return firstOf(v, w)
}

// firstOf passes over a server that is warming as often as its share is not yet whole.
func firstOf(v *view, w *wheel) int {
	for _, i := range w.index[:w.n-1] {
		if share := v.share[i]; share == whole || rand.Uint32N(whole) < share {
			return int(i)
		}
	}
	return int(w.index[w.n-1])
}

// randomTwo draws two different servers by weight, and takes the one with fewer connections for its weight (Mitzenmacher,
// The Power of Two Choices in Randomized Load Balancing).
func (p *Pool) randomTwo(w *wheel) int {
	a := w.at(rand.Uint32N(w.total()))
	y := rand.Uint32N(w.total() - w.weight(a))
	if y >= w.sums[a]-w.weight(a) {
		y += w.weight(a) // past the first one
	}
	b := w.at(y)
	i, j := int(w.index[a]), int(w.index[b])
	if p.connections(j)*uint64(w.weight(a)) < p.connections(i)*uint64(w.weight(b)) {
		return j
	}
	return i
}

// leastConnections takes turns among those with the fewest connections for their weight: an idle pool must follow the
// weights too.
func (p *Pool) leastConnections(w *wheel, advance bool) int {
	ties := wheel{turn: w.turn}
	least, weight := uint64(0), uint64(0)
	for k, i := range w.servers() {
		c, wk := p.connections(int(i)), uint64(w.weight(k))
		switch {
		case k > 0 && c*weight > least*wk:
			continue
		case k == 0 || c*weight < least*wk:
			ties.n = 0
			least, weight = c, wk
		}
		ties.add(int(i), uint32(wk))
	}
	return ties.next(advance)
}

// sticky takes the server with the best score for the key, or, if that has more than its share of the connections
// (Mirrokni, Thorup, Zadimoghaddam, Consistent Hashing with Bounded Loads), the best of those that have not.
func (p *Pool) sticky(v *view, w *wheel, key uint64) int {
	best, at, low := 0, 0, ^uint64(0)
	all := uint64(0)
	for k, i := range w.servers() {
		all += p.connections(int(i))
		if s := score(key, p.serverSeeds[i], v.inverse[i]); s < low {
			best, at, low = int(i), k, s
		}
	}
	perWeight := p.perWeight(w, all)
	if !p.isFull(w, at, perWeight) {
		return best
	}
	low = ^uint64(0)
	for k, i := range w.servers() {
		if p.isFull(w, k, perWeight) {
			continue
		}
		if s := score(key, p.serverSeeds[i], v.inverse[i]); s < low {
			best, low = int(i), s
		}
	}
	return best
}

// perWeight is how many connections, of all that w's servers have, each unit of weight may have.
func (p *Pool) perWeight(w *wheel, all uint64) float64 {
	return p.o.Load * float64(all) / float64(w.total())
}

// isFull reports whether w's k-th server has more than that.
func (p *Pool) isFull(w *wheel, k int, perWeight float64) bool {
	return float64(p.connections(int(w.index[k]))) > perWeight*float64(w.weight(k))+1
}

func (p *Pool) connections(i int) uint64 { return uint64(p.servers[i].connections.Load()) }
