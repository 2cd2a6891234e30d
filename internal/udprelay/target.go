package udprelay

import (
	"net/netip"

	"polyport/internal/reactor"
	"polyport/internal/socks"
)

// outlet hears of the sockets by which an association speaks to its targets.
type outlet Association

// Arrived implements reactor.PacketOwner.
func (o *outlet) Arrived(c *reactor.PacketConn) {
	c.ReceiveAll(func(batch []reactor.Datagram) { (*Association)(o).fromTarget(c.Loop(), batch) })
}

// Unreachable implements reactor.PacketOwner.
func (o *outlet) Unreachable(_ *reactor.PacketConn, to netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts.Unreachable++
	(*Association)(o).leave(to)
}

// headerRoom is what the header of an answer needs, that of an IPv6 address.
const headerRoom = 22

// fromTarget passes answers on to the client.
func (a *Association) fromTarget(l *reactor.Loop, batch []reactor.Datagram) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || a.front == nil {
		return
	}
	opts, headers := a.relay.opts.Load(), l.Scratch()
	var header []byte
	var from netip.AddrPort
	for i := range batch {
		d := &batch[i]
		pieces := int64((max(1, len(d.Data)) + d.Size - 1) / d.Size)
		if !a.passes(d.From) {
			a.counts.Dropped += pieces
			continue
		}
		if header == nil || d.From != from {
			from = d.From
			header = socks.AppendHeader(headers[:0:headerRoom], from)
			headers = headers[headerRoom:]
		}
		for data := d.Data; pieces > 0; pieces-- {
			payload := data[:min(d.Size, len(data))]
			data = data[len(payload):]
			if !a.account.spend(opts, l.Now(), len(payload)) {
				a.counts.Limited++
				continue
			}
			a.front.Send(l, a.back, a.local, header, payload)
		}
	}
	s := a.front.Flush(l)
	if s.Datagrams > 0 { // what strangers send keeps nothing alive
		a.active = l.Now()
	}
	a.counts.FromTarget += s.Datagrams
	a.counts.BytesFromTarget += s.Bytes
	a.counts.Dropped += s.Dropped
}

// passes reports whether answers from an address pass the filter.
func (a *Association) passes(from netip.AddrPort) bool {
	if from.Addr().Zone() != "" {
		from = netip.AddrPortFrom(from.Addr().WithZone(""), from.Port())
	}
	if f := a.flows.all[from]; f != nil && f.spoken {
		f.answered = true
		return true
	}
	switch a.filter {
	case EndpointIndependent:
		return true
	case Address:
		return a.flows.spokenTo(from.Addr())
	}
	return false
}
