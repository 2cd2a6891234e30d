package udprelay

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"polyport/internal/reactor"
	"polyport/mux"
)

// TestClose: it may be called again, nothing passes once it has returned, and all that the association had is given back.
func TestClose(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	for _, own := range []bool{false, true} {
		name := map[bool]string{false: "a shared port", true: "a port of its own"}[own]
		t.Run(name, func(t *testing.T) {
			var o Options
			if own {
				o.FirstPort = portOfNobody(t)
				o.LastPort = o.FirstPort
			}
			r := newRig(t, o)
			a := r.open(r.request(newAsker(t, nil)))
			if r.mu.RLock(); own != (r.Relay.unused[a.place()] == nil) {
				t.Error("who has a port of his own waits for nothing, others do")
			}
			r.mu.RUnlock()
			c, target := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.9:0")
			c.send(a.Bound(), to(target.addr(), "x"))
			_, way := target.receive()
			first := a.Close()
			if want := (Counts{FromClient: 1, BytesFromClient: 1, Targets: 1}); first.Counts != want {
				t.Errorf("Close = %+v, want %+v", first.Counts, want)
			}
			target.send(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), way.Port()), []byte("late"))
			c.send(a.Bound(), to(target.addr(), "late"))
			if !own {
				eventually(t, "the client has become a stranger", func() bool { return r.Strangers() == 1 })
			}
			if again := a.Close(); again != first {
				t.Errorf("Close again = %+v, want %+v", again, first)
			}
			// The socket serves others, and the client may come again; its own port is free again for that.
			var b *Association
			eventually(t, "another one is opened as the one before", func() bool {
				var err error
				if b, err = r.Open(r.request(newAsker(t, nil))); err != nil {
					t.Fatal(err)
				}
				if b.Bound() == a.Bound() {
					return true
				}
				b.Close()
				return false
			})
			defer b.Close()
			c.send(b.Bound(), to(good, "y"))
			c.wants(good, "y") // and nothing that was late
		})
	}
}

// TestLateBatch: what its loop was about to pass on when the association was closed goes nowhere.
func TestLateBatch(t *testing.T) {
	target := newSocket(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	s := newAsker(t, nil)
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(target.addr(), "x"))
	target.receive()
	a.mu.Lock()
	front, out := a.front, a.outlets[0]
	a.mu.Unlock()
	want := a.Close()
	late := to(target.addr(), "late")
	batch := []reactor.Datagram{{Data: late, Size: len(late), From: c.addr(), To: c.addr().Addr()}}
	done := make(chan struct{})
	front.Loop().Post(func() {
		defer close(done)
		a.fromClient(r.socket, front, batch, []*Association{a})
		out.arrived(front.Loop(), batch)
	})
	<-done
	if got := a.Close(); got != want || len(s.questions()) != 1 || s.openings != 1 {
		t.Errorf("Close = %+v after %q and %d openings, want %+v", got, s.questions(), s.openings, want)
	}
}

// TestTheSocketIsHeld: the listener may be gone, its UDP socket stays as long as an association needs it, and not longer.
func TestTheSocketIsHeld(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portOfNobody(t))
	p, err := mux.ListenPacket(at, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.server.AddPackets(p); err != nil {
		t.Fatal(err)
	}
	q := r.request(newAsker(t, nil))
	q.Socket = p
	a := r.open(q)
	p.Release()
	c := newSocket(t, "127.0.0.1:0")
	c.send(at, to(good, "x"))
	c.wants(good, "x")
	if p, err := mux.ListenPacket(at, false); err == nil {
		p.Release()
		t.Error("the port is free, though the association needs it")
	}
	a.Close()
	eventually(t, "the port is free", func() bool {
		p, err := mux.ListenPacket(at, false)
		if err == nil {
			p.Release()
		}
		return err == nil
	})
}

// TestAnotherSocketOfTheSamePort: answers leave by the socket that the client sends to now, and that one is held then.
func TestAnotherSocketOfTheSamePort(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	r.open(r.request(newAsker(t, nil)))
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), r.socket.Addr().Port())
	beside, err := mux.ListenPacket(at, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.server.AddPackets(beside); err != nil {
		t.Fatal(err)
	}
	c, target := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.9:0")
	c.send(r.socket.Addr(), to(good, "here"))
	c.wants(good, "here")
	c.send(at, to(target.addr(), "there"))
	_, way := target.receive()
	beside.Release() // its listener is gone, the client has not noticed
	target.send(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), way.Port()), []byte("answer"))
	if _, from := c.receive(); from != at {
		t.Errorf("the answer comes from %v, want %v", from, at)
	}
	c.send(r.socket.Addr(), to(good, "back"))
	c.wants(good, "back")
	eventually(t, "the socket that nobody needs is closed", func() bool {
		if held := beside.Hold(); held {
			beside.Release()
			return false
		}
		return true
	})
	if !r.socket.Hold() {
		t.Fatal("the socket that is needed is closed")
	}
	r.socket.Release()
}

func TestIdle(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	const idle = 100 * time.Millisecond
	r := newRig(t, Options{Idle: idle})
	s := newAsker(t, nil)
	begun := time.Now()
	never := r.open(r.request(newAsker(t, nil)))
	r.SetOptions(Options{Idle: time.Hour}) // is for those to come
	long := r.open(r.request(newAsker(t, nil)))
	r.SetOptions(Options{})
	always := r.open(r.request(newAsker(t, nil)))
	r.SetOptions(Options{Idle: idle})
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	last := begun
	for range 20 { // the first one opened has the port
		last = time.Now()
		c.send(r.socket.Addr(), to(good, "x"))
		c.wants(good, "x")
	}
	for _, it := range []*Association{a, never} {
		if why := <-it.request.Session.(*asker).ended; why != Idle {
			t.Errorf("it ended for %v, want %v", why, Idle)
		}
	}
	if spent := time.Since(last); spent < idle-20*time.Millisecond { // a loop's time is that of its round
		t.Errorf("it ended %v after the last datagram, want %v", spent, idle)
	}
	for _, still := range []*Association{long, always} {
		select {
		case <-still.request.Session.(*asker).ended:
			t.Error("one that has time yet has ended")
		default:
		}
	}
}

// onLoop runs f on the loop of an association.
func onLoop(a *Association, f func()) {
	done := make(chan struct{})
	a.request.Loop.Post(func() { defer close(done); f() })
	<-done
}

// TestExpire: what has passed since the timer was set counts; strangers' answers do not.
func TestExpire(t *testing.T) {
	r := newRig(t, Options{Idle: time.Hour})
	s := newAsker(t, nil)
	a := r.open(r.request(s))
	c, target, stranger := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.9:0"), newSocket(t, "127.0.0.8:0")
	ended := func() bool {
		onLoop(a, a.Expire)
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	}
	rested := func() { // for more than an hour
		a.mu.Lock()
		a.active -= 2 * time.Hour
		a.mu.Unlock()
	}
	if ended() {
		t.Error("it has ended at once")
	}
	rested()
	c.send(a.Bound(), to(target.addr(), "x"))
	_, way := target.receive()
	if ended() {
		t.Error("it has ended though the client has sent something")
	}
	rested()
	back := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), way.Port())
	target.send(back, []byte("y"))
	c.wants(target.addr(), "y")
	if ended() {
		t.Error("it has ended though the target has answered")
	}
	rested()
	stranger.send(back, []byte("z"))
	eventually(t, "the stranger is dropped", func() bool { return a.now().Dropped == 1 })
	if !ended() {
		t.Error("a stranger keeps it alive")
	}
	a.Close()
	if ended() {
		t.Error("what is closed has ended once more")
	}
}

// TestClosedBeforeItsClockStarts: the order in which a session does both is not of interest.
func TestClosedBeforeItsClockStarts(t *testing.T) {
	r := newRig(t, Options{Idle: time.Nanosecond})
	s := newAsker(t, nil)
	a, err := r.Open(r.request(s))
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	a.Start()
	onLoop(a, func() {})
	onLoop(a, a.Expire)
	if len(s.ended) != 0 {
		t.Error("it has ended, though it was closed")
	}
}

// TestRates: they are the client's, not the association's, and a new association has no more of them.
func TestRates(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	const rate = 20
	r := newRig(t, Options{Datagrams: rate})
	c := newSocket(t, "127.0.0.1:0")
	begun, passed := time.Now(), int64(0)
	for range 5 {
		a := r.open(r.request(newAsker(t, nil)))
		for range 2 * rate {
			c.send(a.Bound(), to(good, "x"))
		}
		eventually(t, "all are counted", func() bool {
			n := a.now()
			return n.FromTarget+n.Limited == 2*rate
		})
		sum := a.Close()
		passed += sum.FromClient + sum.FromTarget
	}
	if most := rate + int64(rate*time.Since(begun).Seconds()) + 1; passed > most {
		t.Errorf("%d datagrams have passed, want %d at most", passed, most)
	}
	if passed < rate {
		t.Errorf("%d datagrams have passed, want %d at least", passed, rate)
	}
}

// TestManyAtOnce: many associations of several clients, on both loops, that are closed while datagrams flow.
func TestManyAtOnce(t *testing.T) {
	targets := []netip.AddrPort{echo(t, "127.0.0.9:0"), echo(t, "127.0.0.10:0"), echo(t, "[::1]:0")}
	r := newRig(t, Options{Idle: time.Hour, Filter: Address})
	second := r.listen("127.0.0.1")
	var running sync.WaitGroup
	for n := range 16 {
		client := netip.AddrFrom4([4]byte{127, 0, 1, byte(n / 2)})
		c := newSocket(t, netip.AddrPortFrom(client, 0).String())
		s := newAsker(t, names{"echo.test": targets[0].Addr()})
		running.Go(func() {
			for round := range 10 {
				q := Request{Session: s, Client: client, Port: c.addr().Port(), Socket: r.socket, Loop: r.loops.Next()}
				if round%2 == 1 {
					q.Socket = second
				}
				a, err := r.Open(q)
				if err != nil {
					t.Error(err)
					return
				}
				a.Start()
				for i := range 30 {
					b := to(targets[i%len(targets)], "flow")
					if i%5 == 0 {
						b = toName("echo.test", targets[0].Port(), "name")
					}
					if _, err := c.WriteToUDPAddrPort(b, a.Bound()); err != nil {
						t.Error(err)
					}
				}
				before := a.Close()
				if after := a.Close(); after != before {
					t.Errorf("Close again = %+v, want %+v", after, before)
				}
			}
		})
	}
	running.Wait()
	if r.Count() != 0 {
		t.Errorf("%d associations are left", r.Count())
	}
}
