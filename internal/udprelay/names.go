package udprelay

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/socks"
	"polyport/internal/target"
)

// background is for questions that do not block, and for those that end with the association.
var background = context.Background()

const (
	maxAsking  = 16               // names that an association has looked up at once
	maxWaiting = 16               // datagrams that wait for one name, and
	maxWaitFor = 32 << 10         // octets in them
	refusedFor = 2 * time.Second  // how long a name that was refused is not asked for again
	lookupTime = 15 * time.Second // for one name in all
)

// name is a target that clients name by its host name and port.
type name struct {
	flow    *flow          // nil until it is known
	permit  *egress.Permit // of flow, and of the addresses to try after it; nil until it is known
	asking  bool
	cancel  context.CancelFunc // ends the asking
	until   time.Duration      // after a refusal: when it may be asked for again
	denied  bool               // what the refusal counts as
	waiting [][]byte           // payloads
	octets  int                // in them
}

// byName finds the way to a name. Datagrams wait, within bounds, while it is looked up.
func (w *writer) byName(h socks.Header, payload []byte) *flow {
	a := w.a
	n := a.names[string(h.Address)]
	switch {
	case n == nil:
		return w.askFor(h, payload)
	case n.flow != nil && !n.flow.gone && !w.isOver(n.flow.out):
		return n.flow
	case n.asking:
		a.wait(n, payload)
		return nil
	case n.flow == nil && n.permit != nil: // nobody was at the address before
		n.flow = w.admit(n.permit)
		return n.flow
	case n.flow == nil && w.loop.Now() < n.until:
		a.countRefused(n.denied)
		return nil
	}
	delete(a.names, string(h.Address)) // what was known of it is too old
	return w.askFor(h, payload)
}

// askFor has a name looked up and authorized.
func (w *writer) askFor(h socks.Header, payload []byte) *flow {
	a := w.a
	t, err := target.New(string(h.Name), h.Port)
	if err != nil {
		a.counts.Dropped++
		return nil
	}
	if a.asking >= maxAsking || !a.room(w.loop.Now(), true) {
		a.counts.Limited++
		return nil
	}
	if a.names == nil {
		a.names = map[string]*name{}
	}
	ctx, cancel := context.WithTimeout(background, lookupTime)
	n := &name{asking: true, cancel: cancel}
	a.asking++
	a.names[string(h.Address)] = n
	a.wait(n, payload)
	go a.lookUp(ctx, a.request.Session, n, t, w.loop)
	return nil
}

// wait keeps a payload until the name is known.
func (a *Association) wait(n *name, payload []byte) {
	if len(n.waiting) >= maxWaiting || n.octets+len(payload) > maxWaitFor || !a.account.keep(len(payload)) {
		a.counts.Dropped++
		return
	}
	n.waiting = append(n.waiting, slices.Clone(payload))
	n.octets += len(payload)
}

// lookUp asks for a name, in a goroutine of its own, and has the loop go on.
func (a *Association) lookUp(ctx context.Context, s Session, n *name, t target.Target, l *reactor.Loop) {
	defer n.cancel()
	p, err := s.AuthorizePacket(ctx, t)
	l.Post(func() { a.lookedUp(n, p, err, l) })
}

// lookedUp sends what has waited for a name.
func (a *Association) lookedUp(n *name, p *egress.Permit, err error, l *reactor.Loop) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n.asking = false
	a.asking--
	waiting := n.waiting
	a.account.keep(-n.octets)
	n.waiting, n.octets = nil, 0
	if a.ended {
		return
	}
	if err != nil {
		n.until, n.denied = l.Now()+refusedFor, isDenied(err)
		for range waiting {
			a.refused(err)
		}
		return
	}
	w := a.writer(l)
	n.permit, n.flow = p, w.admit(p)
	for i, payload := range waiting {
		if n.flow == nil && i > 0 {
			n.flow = w.admit(p) // which counts each that has no way
		}
		if n.flow != nil {
			w.send(n.flow, payload)
		}
	}
	if n.flow == nil {
		n.permit, n.until = nil, l.Now()+refusedFor
	}
	w.flush()
}

// leave has names that lead to an address at which nobody is, by an outlet, lead to their next one, if they have any. An answer has to
// have been missing so far: an address that has answered is the right one. a.mu is held.
func (a *Association) leave(out *outlet, address netip.AddrPort) {
	f := a.flows.find(address, out)
	if f == nil || f.answered {
		return
	}
	for _, n := range a.names {
		if n.flow != f {
			continue
		}
		if rest, ok := n.permit.Rest(); ok {
			n.permit, n.flow = rest, nil
		}
	}
}

// refused counts a datagram that has no way, and keeps the first cause.
func (a *Association) refused(err error) {
	if a.failed == nil {
		a.failed = err
	}
	a.countRefused(isDenied(err))
}

func (a *Association) countRefused(denied bool) {
	if denied {
		a.counts.Denied++
		return
	}
	a.counts.Dropped++
}

// isDenied reports whether the rules, the guard or the need for a user said no, or demand a way out that there is not for UDP.
func isDenied(err error) bool {
	return errors.Is(err, egress.ErrDenied) || errors.Is(err, egress.ErrChallenge) || errors.Is(err, egress.ErrWish) || errors.Is(err, egress.ErrNoUDP)
}
