package udprelay

// place is where datagrams of the socket come from.
func (p peer) place() place { return place{p.door, p.from.Addr().WithZone("")} }

// isFirst reports whether a datagram from a socket that nobody knows may be the first one of an association. r.mu is held, at least for
// reading: a flood that is nobody's must not stop the others.
func (r *Relay) isFirst(socket peer) bool {
	if len(r.unused) == 0 && len(r.groups) == 0 && len(r.departed.all) == 0 {
		return false
	}
	if at := socket.place(); len(r.unused[at]) == 0 && r.owing(at) == nil {
		// Only what nobody waits for: else who has got the port of another's socket would bar himself.
		r.departed.speaks(socket)
		return false
	}
	a, g := r.expected(socket)
	return a != nil || g != nil
}

// expected returns who the first datagram from a socket would be for: an association that waits for one, or a group that is owed one. Two
// nils are nobody. r.mu is held, at least for reading.
func (r *Relay) expected(socket peer) (a *Association, g *group) {
	if a = r.waiting(socket); a != nil && a.request.Port != 0 {
		return a, nil
	}
	identity := ""
	if a != nil {
		identity = a.request.Identity
	} else if g = r.owing(socket.place()); g != nil {
		identity = g.identity
	}
	if r.departed.bars(identity, socket) {
		return nil, nil
	}
	return a, g
}

// waiting returns the association that waits for a socket: the one that has said its port, else the oldest that has not said any.
func (r *Relay) waiting(socket peer) (oldest *Association) {
	for _, a := range r.unused[socket.place()] {
		if a.request.Port == socket.from.Port() {
			return a
		}
		if a.request.Port == 0 && oldest == nil {
			oldest = a
		}
	}
	return oldest
}

// learn finds the association whose first datagram has come from a socket that nobody knew; nil is none.
func (r *Relay) learn(socket peer) *Association {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.peers[socket]; a != nil {
		return a
	}
	a, g := r.expected(socket)
	switch {
	case a != nil:
		if a.request.Port == 0 {
			r.mix(r.unused[socket.place()])
		}
		a.used = true
		r.unlist(a)
	case g != nil:
		a = r.guest(g)
	}
	if a != nil {
		a.peer = socket.from
		r.peers[socket] = a
	}
	return a
}

// unlist takes a off those that have not been used. r.mu is held.
func (r *Relay) unlist(a *Association) {
	at := a.place()
	list := r.unused[at]
	for i, other := range list {
		if other == a {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(r.unused, at)
		return
	}
	r.unused[at] = list
}

// forget ends what r knows of an association.
func (r *Relay) forget(a *Association) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.own != nil {
		return
	}
	r.unlist(a)
	if at := (peer{a.request.Socket.Door(), a.peer}); r.peers[at] == a {
		delete(r.peers, at)
		r.departed.add(at, a.request.Identity)
	}
}
