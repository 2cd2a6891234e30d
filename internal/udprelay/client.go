package udprelay

import (
	"net/netip"

	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/socks"
	"polyport/internal/target"
	"polyport/mux"
)

// firstOctet is that of every datagram of a SOCKS client: RSV (RFC 1928 section 7).
const firstOctet = 0

// Row is what the relay serves over UDP.
func (r *Relay) Row() mux.PacketRow {
	return mux.PacketRow{Name: "socks5", First: []byte{firstOctet}, Handler: r}
}

// maxBatch is how many messages are looked at together.
const maxBatch = reactor.ReceiveBatch

// ServePackets implements mux.PacketHandler for the ports that associations share.
func (r *Relay) ServePackets(on *mux.PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram) {
	for len(batch) > maxBatch {
		r.ServePackets(on, by, batch[:maxBatch])
		batch = batch[maxBatch:]
	}
	whose := r.whose(on, batch)
	// Those of one association leave together, however they have come.
	for i, a := range whose[:len(batch)] {
		if a != nil {
			a.fromClient(on, by, batch[i:], whose[i:len(batch)])
		}
	}
}

// whose finds the associations that messages belong to; nil is none.
func (r *Relay) whose(on *mux.PacketSocket, batch []reactor.Datagram) (whose [maxBatch]*Association) {
	var hopeful [maxBatch]bool // it may be the first datagram of an association
	at := on.Door()
	r.mu.RLock()
	for i, d := range batch {
		if i > 0 && d.From == batch[i-1].From {
			whose[i], hopeful[i] = whose[i-1], hopeful[i-1]
			continue
		}
		whose[i] = r.peers[peer{at, d.From}]
		if whose[i] == nil {
			hopeful[i] = r.isFirst(peer{at, d.From})
		}
	}
	r.mu.RUnlock()
	for i, d := range batch {
		if hopeful[i] && valid(d) {
			whose[i] = r.learn(peer{at, d.From})
		}
		if whose[i] == nil {
			r.strangers.Add(1)
		}
	}
	return whose
}

// valid reports whether a client's port may be learned from a message: it begins with a datagram that could be passed on.
func valid(d reactor.Datagram) bool {
	h, _, err := socks.ParseHeader(d.Data[:min(d.Size, len(d.Data))])
	return err == nil && h.Frag == 0 && h.Port != 0
}

// ownPort hears of the port that an association has for itself.
type ownPort Association

// Arrived implements reactor.PacketOwner.
func (o *ownPort) Arrived(c *reactor.PacketConn) {
	c.ReceiveAll(func(batch []reactor.Datagram) { (*Association)(o).fromOwnPort(c, batch) })
}

// fromOwnPort passes on what has come to the association's own port.
func (a *Association) fromOwnPort(c *reactor.PacketConn, batch []reactor.Datagram) {
	var whose [maxBatch]*Association
	for i := range batch {
		if a.isClient(batch[i]) {
			whose[i] = a
		} else {
			a.relay.strangers.Add(1)
		}
	}
	for i := range batch {
		if whose[i] != nil {
			a.fromClient(nil, c, batch[i:], whose[i:len(batch)])
		}
	}
}

// Unreachable implements reactor.PacketOwner. What became of answers to clients nobody asks.
func (o *ownPort) Unreachable(*reactor.PacketConn, netip.AddrPort) {}

// isClient reports whether a message that has come to the association's own port is its client's, whose port it learns.
func (a *Association) isClient(d reactor.Datagram) bool {
	if len(d.Data) == 0 || d.From.Addr().WithZone("") != a.request.Client {
		return false
	}
	a.relay.mu.RLock()
	known := a.peer
	a.relay.mu.RUnlock()
	if known.IsValid() {
		return known == d.From
	}
	if a.request.Port != 0 && a.request.Port != d.From.Port() || !valid(d) {
		return false
	}
	a.relay.mu.Lock() // only this loop learns it, but others look
	defer a.relay.mu.Unlock()
	a.peer = d.From
	return true
}

// fromClient passes on the messages of a batch that are the association's, and takes them off whose. on is what by belongs to; nil is the
// association's own port.
func (a *Association) fromClient(on *mux.PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram, whose []*Association) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.writer(by.Loop())
	for i := range batch {
		if whose[i] != a {
			continue
		}
		whose[i] = nil
		if a.ended {
			continue
		}
		if !a.keep(on) {
			a.counts.Dropped++
			continue
		}
		d := &batch[i]
		a.front, a.local, a.back = by, d.To, d.From
		for data := d.Data; len(data) > 0; data = data[min(d.Size, len(data)):] {
			w.pass(data[:min(d.Size, len(data))])
		}
	}
	w.flush()
}

// keep holds the socket that answers are to leave by, in place of the one before. Ports have several when two listeners share a number,
// or when a reload has opened one beside those that associations still hold. False is that it has just been closed.
func (a *Association) keep(on *mux.PacketSocket) bool {
	if on == nil || on == a.socket {
		return true
	}
	if !on.Hold() {
		return false
	}
	a.socket.Release()
	a.socket = on
	return true
}

// writer passes datagrams of a client on, from a loop. The association's lock is held.
type writer struct {
	a    *Association
	loop *reactor.Loop
	opts *Options
	out  *outlet // that has datagrams that are not flushed
}

func (a *Association) writer(l *reactor.Loop) writer {
	return writer{a: a, loop: l, opts: a.relay.opts.Load()}
}

// pass passes one datagram on.
func (w *writer) pass(datagram []byte) {
	a := w.a
	h, n, err := socks.ParseHeader(datagram)
	switch {
	case err != nil:
		a.counts.Dropped++
		return
	case h.Frag != 0:
		a.counts.Fragmented++
		return
	}
	payload := datagram[n:]
	if !a.account.spend(w.opts, w.loop.Now(), len(payload)) {
		a.counts.Limited++
		return
	}
	if f := w.flow(h, payload); f != nil {
		w.send(f, payload)
	}
}

// flow finds the way to the target of a header; nil is that the datagram has been seen to: counted, or put aside until the name has been
// looked up.
func (w *writer) flow(h socks.Header, payload []byte) *flow {
	if !h.IP.IsValid() {
		return w.byName(h, payload)
	}
	to := netip.AddrPortFrom(h.IP.Unmap(), h.Port)
	if f := w.a.flows.literal(to); f != nil && !w.isOver(f.out) {
		return f
	}
	return w.literal(to)
}

// literal asks for the way to an IP address.
func (w *writer) literal(to netip.AddrPort) *flow {
	if to.Port() == 0 {
		w.a.counts.Dropped++
		return nil
	}
	// The rules and the guard are not asked in vain: a flood of targets would have them asked for each datagram.
	if w.a.flows.to(to) == nil && !w.a.room(w.loop.Now(), false) {
		w.a.counts.Limited++
		return nil
	}
	p, err := w.a.request.Session.AuthorizePacket(background, target.FromAddrPort(to))
	if err != nil {
		w.a.refused(err)
		return nil
	}
	f := w.admit(p)
	if f != nil {
		f.literal = true
	}
	return f
}

// admit makes the flow of a permit.
func (w *writer) admit(p *egress.Permit) *flow {
	a := w.a
	to, ok := p.Destination()
	if !ok {
		a.counts.Dropped++
		return nil
	}
	out := a.outletOf(p.PacketWay())
	if out != nil && w.isOver(out) {
		out = nil
	}
	if out != nil {
		if f := a.flows.find(to.AddrPort(), out); f != nil {
			return f
		}
	}
	named := !to.AddrPort().IsValid() // its name has been counted
	if !named && !a.room(w.loop.Now(), false) {
		a.counts.Limited++
		return nil
	}
	if out == nil {
		if out = w.openOutlet(p); out == nil {
			return nil
		}
	}
	var f *flow
	if named {
		f = &flow{dest: to, out: out}
	} else {
		f = a.flows.add(to, out)
	}
	f.used = w.loop.Now()
	return f
}

// send sends a datagram's payload, now or once the way is open.
func (w *writer) send(f *flow, payload []byte) {
	out := f.out
	if out.conn == nil {
		out.keep(f, payload)
		return
	}
	if out != w.out {
		w.flush()
		w.out = out
	}
	if !f.spoken {
		w.speak(f)
	}
	f.used = w.loop.Now()
	out.conn.Send(w.loop, f.dest, payload)
}

// speak notes that the client has spoken to a target.
func (w *writer) speak(f *flow) {
	f.spoken = true
	w.a.counts.Targets++
	if !f.isNamed() || f.gone {
		return
	}
	if f.out.ports == nil {
		f.out.ports = map[uint16]int{}
	}
	f.out.ports[f.dest.Port()]++
}

// flush sends what has been gathered.
func (w *writer) flush() {
	if w.out == nil {
		return
	}
	out := w.out
	s := out.conn.Flush(w.loop)
	w.out = nil
	switch {
	case s.Datagrams > 0: // what is dropped keeps nothing alive
		w.a.active, out.used = w.loop.Now(), w.loop.Now()
	case s.Dropped > 0 && out.conn.Lost():
		out.stop() // the next one leaves by what has that name then
	}
	w.a.counts.FromClient += s.Datagrams
	w.a.counts.BytesFromClient += s.Bytes
	w.a.counts.Dropped += s.Dropped
}
