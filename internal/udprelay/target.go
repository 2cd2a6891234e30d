package udprelay

import (
	"net/netip"

	"polyport/internal/reactor"
	"polyport/internal/socks"
)

// headerRoom is what the header of an answer needs, that of an IPv6 address.
const headerRoom = 22

// arrived passes answers on to the client.
func (o *outlet) arrived(l *reactor.Loop, batch []reactor.Datagram) {
	a := o.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || a.front == nil || o.conn == nil {
		return
	}
	if o.relay.IsValid() {
		o.fromRelay(l, batch)
	} else {
		o.fromTargets(l, batch)
	}
	s := a.front.Flush(l)
	if s.Datagrams > 0 { // what strangers send keeps nothing alive
		a.active, o.used = l.Now(), l.Now()
	}
	a.counts.FromTarget += s.Datagrams
	a.counts.BytesFromTarget += s.Bytes
	a.counts.Dropped += s.Dropped
}

// fromTargets takes what targets have sent.
func (o *outlet) fromTargets(l *reactor.Loop, batch []reactor.Datagram) {
	a, opts, headers := o.a, o.a.relay.opts.Load(), l.Scratch()
	var header []byte
	var from netip.AddrPort
	for i := range batch {
		d := &batch[i]
		pieces := int64((max(1, len(d.Data)) + d.Size - 1) / d.Size)
		if !o.passes(d.From) {
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
}

// fromRelay takes what an upstream has sent. The header that it has put in front is the one that the client is to get.
func (o *outlet) fromRelay(l *reactor.Loop, batch []reactor.Datagram) {
	a, opts := o.a, o.a.relay.opts.Load()
	for i := range batch {
		d := &batch[i]
		known := withoutZone(d.From) == o.relay
		if known {
			o.lost = 0
		}
		for data := d.Data; len(data) > 0; data = data[min(d.Size, len(data)):] {
			datagram := data[:min(d.Size, len(data))]
			h, n, err := socks.ParseHeader(datagram)
			if !known || err != nil || h.Frag != 0 || !o.passesInner(h) {
				a.counts.Dropped++
				continue
			}
			payload := datagram[n:]
			if !a.account.spend(opts, l.Now(), len(payload)) {
				a.counts.Limited++
				continue
			}
			a.front.Send(l, a.back, a.local, datagram[:n], payload)
		}
	}
}

// withoutZone returns an address as flows know it.
func withoutZone(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Zone() == "" {
		return a
	}
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// passes reports whether answers from an address pass the filter.
func (o *outlet) passes(from netip.AddrPort) bool {
	from = withoutZone(from)
	if f := o.a.flows.find(from, o); f != nil && f.spoken {
		f.answered = true
		return true
	}
	switch o.a.filter {
	case EndpointIndependent:
		return true
	case Address:
		return o.spokenTo(from.Addr())
	}
	return false
}

// passesInner is passes for the sender that an upstream names. Which address a name has that the upstream has resolved nobody here
// knows, so its answers are told by the port alone: the upstream, whom the rule trusts with them, has to filter the rest.
func (o *outlet) passesInner(h socks.Header) bool {
	if o.ports[h.Port] > 0 {
		return true
	}
	if !h.IP.IsValid() {
		return o.a.filter == EndpointIndependent
	}
	return o.passes(netip.AddrPortFrom(h.IP.Unmap(), h.Port))
}
