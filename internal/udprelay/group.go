package udprelay

import "slices"

// group is the associations of one identity at one place of which nobody knows whose client is whose: two of them have waited for their
// first datagrams at once, so each may have got the other's. As long as one of them lasts they answer for each other, for
// none may end the datagrams of a client whose session goes on. Each session still admits one socket of a client, and no more.
// All of it is guarded by Relay.mu.
type group struct {
	identity string
	members  []*Association
	// owed is how many sockets may still come although no member waits: those of members that have ended unused, since another
	// member may have had their clients.
	owed int
}

// groupOf finds the group of an association; nil is none.
func (r *Relay) groupOf(a *Association) *group {
	for _, g := range r.groups[a.place()] {
		if g.identity == a.request.Identity {
			return g
		}
	}
	return nil
}

// mix notes that one of several associations that wait is given a datagram that may be another's.
func (r *Relay) mix(waiting []*Association) {
	silent := slices.DeleteFunc(slices.Clone(waiting), func(a *Association) bool { return a.request.Port != 0 })
	if len(silent) < 2 {
		return
	}
	for _, a := range silent {
		if a.mixed {
			continue
		}
		g := r.groupOf(a)
		if g == nil {
			g = &group{identity: a.request.Identity}
			r.groups[a.place()] = append(r.groups[a.place()], g)
		}
		a.mixed = true
		g.members = append(g.members, a)
	}
}

// owing returns the group of which a socket may still come to a place where nobody waits for it; nil is none, or that it could be of
// several identities.
func (r *Relay) owing(at place) (g *group) {
	for _, other := range r.groups[at] {
		switch {
		case other.owed == 0:
		case g != nil:
			return nil
		default:
			g = other
		}
	}
	return g
}

// guest makes an association for a socket that a group is owed: it lasts as long as the group does. Nil is that the listener's socket is
// closed.
func (r *Relay) guest(g *group) *Association {
	host := g.members[len(g.members)-1]
	if !host.request.Socket.Hold() {
		return nil
	}
	g.owed--
	a := &Association{
		relay: r, request: host.request, account: host.account, filter: host.filter, targets: host.targets, idle: host.idle,
		socket: host.request.Socket, used: true,
	}
	a.stay(host)
	a.Start()
	return a
}

// stay makes a the guest of a host, whose session answers for it from now on.
func (a *Association) stay(host *Association) {
	a.host = host
	host.guests = append(host.guests, a)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.request.Session = host.request.Session
}

// ungroup takes an association out of its group, and returns who is to go on with its client; nil is nobody.
func (r *Relay) ungroup(a *Association) *Association {
	if !a.mixed {
		return nil
	}
	at, g := a.place(), r.groupOf(a)
	g.members = slices.DeleteFunc(g.members, func(other *Association) bool { return other == a })
	if len(g.members) == 0 {
		r.groups[at] = slices.DeleteFunc(r.groups[at], func(other *group) bool { return other == g })
		if len(r.groups[at]) == 0 {
			delete(r.groups, at)
		}
		return nil
	}
	if !a.used {
		g.owed++
	}
	return g.members[len(g.members)-1]
}

// close ends a session's hold on its association. It returns what has passed so far, and the associations that end with it.
func (r *Relay) close(a *Association) (s Summary, ending []*Association) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlist(a) // at once: who is closed must join no group, since nobody would end its guests
	heir, guests := r.ungroup(a), a.guests
	a.guests = nil
	if a.past != nil {
		s = *a.past
	}
	if heir == nil {
		return s, append(guests, a)
	}
	for _, guest := range guests {
		s.add(guest.take())
		guest.stay(heir)
	}
	if !a.used {
		return s, []*Association{a}
	}
	s.add(a.take())
	a.stay(heir)
	return s, nil
}

// retire ends a guest whose time is over, and leaves what has passed to its host. It is false for what is no guest.
func (r *Relay) retire(a *Association) bool {
	r.mu.Lock()
	host := a.host
	r.mu.Unlock()
	if host == nil {
		return false
	}
	s := a.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	host = a.host // it may have found another one meanwhile
	host.guests = slices.DeleteFunc(host.guests, func(other *Association) bool { return other == a })
	if host.past == nil {
		host.past = &Summary{}
	}
	host.past.add(s)
	return true
}

// hosts reports whether an association has guests.
func (r *Relay) hosts(a *Association) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(a.guests) > 0
}
