package udprelay

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"polyport/mux"
)

// clients are programs behind one address, each with a session and a socket of its own.
type client struct {
	session *asker
	a       *Association
	socket  *peerSocket
}

func (r *rig) clients(n int) []client {
	r.t.Helper()
	var all []client
	for range n {
		s := newAsker(r.t, nil)
		all = append(all, client{s, r.open(r.request(s)), newSocket(r.t, "127.0.0.1:0")})
	}
	return all
}

// echoes has the client's datagram there and back.
func (c client) echoes(r *rig, target netip.AddrPort, payload string) {
	r.t.Helper()
	c.socket.send(r.socket.Addr(), to(target, payload))
	c.socket.wants(target, payload)
}

// turnedAway wants a datagram dropped as a stranger's.
func (r *rig) turnedAway(from *peerSocket, target netip.AddrPort) {
	r.t.Helper()
	before := r.Strangers()
	from.send(r.socket.Addr(), to(target, "a stranger's"))
	eventually(r.t, "the stranger is turned away", func() bool { return r.Strangers() == before+1 })
}

// flow returns the source port at which a target sees a client.
func flowOf(r *rig, c client, target *peerSocket) netip.AddrPort {
	r.t.Helper()
	c.socket.send(r.socket.Addr(), to(target.addr(), "who am I"))
	_, from := target.receive()
	return from
}

func TestTheEndOfOneLeavesTheOther(t *testing.T) {
	r := newRig(t, Options{})
	target := newSocket(t, "127.0.0.9:0")
	c := r.clients(2)
	a, b := c[0], c[1]
	before := flowOf(r, b, target) // b comes first, and gets what a has opened
	flowOf(r, a, target)
	if got := a.a.Close(); got.FromClient != 1 || got.Targets != 1 || got.First == nil {
		t.Errorf("a's Close = %+v, want what one client has sent", got)
	}
	if after := flowOf(r, b, target); after != before {
		t.Errorf("the target saw b at %v and now at %v: its flow was not kept", before, after)
	}
	if r.Count() != 1 {
		t.Errorf("%d associations count, want b's alone", r.Count())
	}
	if got := b.a.Close(); got.FromClient != 2 || got.Targets != 1 {
		t.Errorf("b's Close = %+v, want its own datagram and that of a's client", got)
	}
	r.turnedAway(b.socket, target.addr())
	r.turnedAway(a.socket, target.addr())
}

// TestTheEndOfTheFirstLeavesTheSecondItsTurn: nothing was mixed up, but nobody could know.
func TestTheEndOfTheFirstLeavesTheSecondItsTurn(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	c := r.clients(2)
	c[0].echoes(r, target, "a")
	c[0].a.Close()
	c[1].echoes(r, target, "b")
	c = append(c, r.clients(1)...)
	c[2].echoes(r, target, "c")
	c[1].echoes(r, target, "b again")
}

func TestUsedAndClosedInReverse(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	const n = 10
	c := r.clients(n)
	var total int64
	for i := n - 1; i >= 0; i-- {
		c[i].echoes(r, target, fmt.Sprint("client ", i))
		total += c[i].a.Close().FromClient
	}
	if total != n || len(r.groups) != 0 {
		t.Errorf("%d datagrams were accounted for, want %d; %d groups are left", total, n, len(r.groups))
	}
	r.turnedAway(c[0].socket, target)
}

func TestEachSessionAdmitsOneSocket(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	c := r.clients(3)
	c[2].echoes(r, target, "c")
	c[2].a.Close() // unused: the first one's has been taken for it
	c[1].echoes(r, target, "b")
	c[0].echoes(r, target, "a")
	stranger := newSocket(t, "127.0.0.1:0")
	r.turnedAway(stranger, target)
	c[1].a.Close()
	r.turnedAway(stranger, target)
	c[0].echoes(r, target, "a goes on")
	c[0].a.Close()
	r.turnedAway(c[0].socket, target)
}

func TestWhatIsOwedIsOfOneIdentity(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	c := r.clients(3)
	c[2].echoes(r, target, "c")
	c[1].echoes(r, target, "b")
	c[2].a.Close() // it has waited for nobody so far, so one socket may still come
	q := r.request(newAsker(t, nil))
	q.Identity = "bob"
	if _, err := r.Open(q); !errors.Is(err, ErrAmbiguous) {
		t.Fatalf("Open for another = %v, want %v", err, ErrAmbiguous)
	}
	c[0].echoes(r, target, "a")
	bob := r.open(q)
	him := newSocket(t, "127.0.0.1:0")
	him.send(r.socket.Addr(), to(target, "bob"))
	him.wants(target, "bob")
	if got := bob.Close(); got.FromClient != 1 {
		t.Errorf("bob's Close = %+v, want his one datagram", got)
	}
}

func TestGuestsEndWhenNothingPasses(t *testing.T) {
	r, target := newRig(t, Options{Idle: 50 * time.Millisecond}), echo(t, "127.0.0.9:0")
	c := r.clients(2)
	c[1].echoes(r, target, "b")
	c[0].echoes(r, target, "a")
	c[0].a.Close()
	if why := <-c[1].session.ended; why != Idle {
		t.Errorf("it ended for %v, want %v", why, Idle)
	}
	eventually(t, "the guest is gone", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return len(r.peers) == 1
	})
	if got := c[1].a.Close(); got.FromClient != 1 {
		t.Errorf("Close = %+v, want one datagram: the guest's was accounted for before it stayed", got)
	}
}

func TestClaimedPortsMixWithNobody(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	socket := newSocket(t, "127.0.0.1:0")
	q := r.request(newAsker(t, nil))
	q.Port = socket.addr().Port()
	claimed, c := r.open(q), r.clients(1)
	c[0].echoes(r, target, "silent")
	socket.send(r.socket.Addr(), to(target, "claimed"))
	socket.wants(target, "claimed")
	if len(r.groups) != 0 {
		t.Errorf("%d groups, though it is clear whose is whose", len(r.groups))
	}
	claimed.Close()
	r.turnedAway(socket, target)
}

// TestWhoIsClosedJoinsNoGroup: between the two halves of its end others may be mixed up.
func TestWhoIsClosedJoinsNoGroup(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	c := r.clients(3)
	_, ending := r.close(c[2].a)
	c[1].echoes(r, target, "b")
	for _, a := range ending {
		a.end()
	}
	c[0].a.Close()
	c[1].a.Close()
	if len(r.groups) != 0 || len(r.peers) != 0 {
		t.Errorf("left: groups %v, peers %v", r.groups, r.peers)
	}
}

// TestListenersApart: two listeners may have one port number, at two addresses, and different rules. Neither's clients are the other's.
func TestListenersApart(t *testing.T) {
	r, target := newRig(t, Options{}), echo(t, "127.0.0.9:0")
	outer, err := mux.ListenPacket(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), r.socket.Addr().Port()), false)
	if err != nil {
		t.Fatal(err)
	}
	outer.Name("outer", nil)
	r.serve(outer)
	c := r.clients(1)[0]
	c.socket.send(outer.Addr(), to(target, "by the other door"))
	eventually(t, "it is turned away", func() bool { return r.Strangers() == 1 })
	q := r.request(newAsker(t, nil))
	q.Socket, q.Identity = outer, "bob"
	r.open(q) // nor is his name anything that the other listener's wait for
	c.echoes(r, target, "by its own")
}
