package udprelay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/socks"
	"polyport/internal/target"
	"polyport/mux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a relay behind UDP sockets of a server.
type rig struct {
	*Relay
	t      testing.TB
	loops  *reactor.Group
	server *mux.Server
	socket *mux.PacketSocket // on 127.0.0.1

	lock  sync.Mutex
	ports map[netip.AddrPort]int // that associations have for themselves
}

// newRig starts one. In the end nothing may be left of it, no descriptor either.
func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	portOfNobody(t) // what package net opens once is open
	before := descriptors(t)
	loops, err := reactor.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, loops: loops, ports: map[netip.AddrPort]int{}}
	r.Relay = New(o, r.heard)
	r.server = mux.NewServer(mux.Options{Loops: loops, Packets: []mux.PacketRow{r.Row()}})
	t.Cleanup(func() {
		_ = r.server.Shutdown(context.Background()) // it has no listeners
		loops.Close()
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
		if r.Count() != 0 || len(r.peers) != 0 || len(r.unused) != 0 || len(r.ports) != 0 {
			t.Errorf("left: %d associations, peers %v, unused %v, ports %v", r.Count(), r.peers, r.unused, r.ports)
		}
	})
	r.socket = r.listen("127.0.0.1")
	return r
}

// heard keeps which ports there are.
func (r *rig) heard(at netip.AddrPort, open bool) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if open {
		r.ports[at]++
	} else if r.ports[at]--; r.ports[at] == 0 {
		delete(r.ports, at)
	}
}

// listen opens one more socket that associations share.
func (r *rig) listen(address string) *mux.PacketSocket {
	r.t.Helper()
	for range 16 { // another process may take the port meanwhile
		p, err := mux.ListenPacket(netip.AddrPortFrom(netip.MustParseAddr(address), portOfNobody(r.t)), false)
		if err == nil {
			r.serve(p)
			return p
		}
	}
	r.t.Fatalf("no port of %s is free", address)
	return nil
}

func (r *rig) serve(p *mux.PacketSocket) {
	r.t.Helper()
	r.t.Cleanup(p.Release)
	if err := r.server.AddPackets(p); err != nil {
		r.t.Fatal(err)
	}
}

// portOfNobody returns a UDP port that nobody has.
func portOfNobody(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// names is a resolver of what it holds.
type names map[string]netip.Addr

var errNoName = errors.New("there is no such name")

func (n names) Lookup(_ context.Context, _ netip.Addr, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, errNoName
}

// policyOf is one that admits the rules' targets.
func policyOf(t testing.TB, rules ...acl.Rule) *acl.Policy {
	t.Helper()
	p, err := acl.New(acl.Options{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asker is a session: loopback but 127.0.0.66 is admitted, and what script says.
type asker struct {
	dialer *egress.Dialer
	// script answers in place of the dialer where it does not return two nils.
	script   func(ctx context.Context, t target.Target) (*egress.Permit, error)
	openErr  error
	ended    chan End   // by AssociationEnded
	lapsed   chan error // see heldUp
	mu       sync.Mutex
	asked    []string
	permits  map[netip.AddrPort]bool // that were given
	openings int
}

func newAsker(t testing.TB, n names) *asker {
	t.Helper()
	policy := policyOf(t, acl.Rule{Name: "not there", Action: acl.Deny, Target: []string{"127.0.0.66/32"}},
		acl.Rule{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8", "::1/128"}})
	return &asker{
		dialer: egress.New(egress.Options{Policy: policy, Resolver: n}),
		ended:  make(chan End, 16), lapsed: make(chan error, maxAsking), permits: map[netip.AddrPort]bool{},
	}
}

// AuthorizePacket implements Session.
func (s *asker) AuthorizePacket(ctx context.Context, t target.Target) (*egress.Permit, error) {
	s.mu.Lock()
	s.asked = append(s.asked, t.String())
	s.mu.Unlock()
	if s.script != nil {
		if p, err := s.script(ctx, t); p != nil || err != nil {
			return p, err
		}
	}
	p, err := s.dialer.AuthorizePacket(ctx, acl.Request{Client: netip.MustParseAddr("127.0.0.1"), Target: t, Protocol: "socks5", Method: "UDP"})
	if err == nil {
		d, _ := p.Destination()
		s.mu.Lock()
		s.permits[d.AddrPort()] = true
		s.mu.Unlock()
	}
	return p, err
}

// OpenPacket implements Session.
func (s *asker) OpenPacket(ctx context.Context, l *reactor.Loop, p *egress.Permit, owner egress.PacketOwner) (*egress.PacketConn, error) {
	s.mu.Lock()
	s.openings++
	err := s.openErr
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.dialer.OpenPacket(ctx, l, p, owner)
}

// AssociationEnded implements Session.
func (s *asker) AssociationEnded(why End) { s.ended <- why }

// questions returns what was asked.
func (s *asker) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// request is that of a client on 127.0.0.1.
func (r *rig) request(s Session) Request {
	return Request{Session: s, Client: netip.MustParseAddr("127.0.0.1"), Socket: r.socket, Loop: r.loops.Next()}
}

// open opens an association, closed with the test at the latest.
func (r *rig) open(q Request) *Association {
	r.t.Helper()
	a, err := r.Open(q)
	if err != nil {
		r.t.Fatal(err)
	}
	a.Start()
	r.t.Cleanup(func() { a.Close() })
	return a
}

// now returns the counts of the moment.
func (a *Association) now() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

// peerSocket is the UDP socket of a client or a target.
type peerSocket struct {
	*net.UDPConn
	t testing.TB
}

func newSocket(t testing.TB, address string) *peerSocket {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peerSocket{c, t}
}

func (p *peerSocket) addr() netip.AddrPort { return p.LocalAddr().(*net.UDPAddr).AddrPort() }

// send sends bytes as they are.
func (p *peerSocket) send(to netip.AddrPort, b []byte) {
	p.t.Helper()
	if _, err := p.WriteToUDPAddrPort(b, to); err != nil {
		p.t.Fatal(err)
	}
}

// receive waits for a datagram.
func (p *peerSocket) receive() (b []byte, from netip.AddrPort) {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(20 * time.Second))
	b = make([]byte, 1<<16)
	n, from, err := p.ReadFromUDPAddrPort(b)
	if err != nil {
		p.t.Fatalf("nothing comes: %v", err)
	}
	return b[:n], from
}

// wants waits for an answer of a target.
func (p *peerSocket) wants(from netip.AddrPort, payload string) {
	p.t.Helper()
	b, _ := p.receive()
	if want := string(socks.AppendHeader(nil, from)) + payload; string(b) != want {
		p.t.Fatalf("the answer is %.40q (%d octets), want %.40q (%d)", b, len(b), want, len(want))
	}
}

// to is a client's datagram to an address.
func to(target netip.AddrPort, payload string) []byte {
	return append(socks.AppendHeader(nil, target), payload...)
}

// toName is one to a name.
func toName(name string, port uint16, payload string) []byte {
	b := append([]byte{0, 0, 0, 3, byte(len(name))}, name...)
	return append(append(b, byte(port>>8), byte(port)), payload...)
}

// echo returns a target that sends back what it gets.
func echo(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	c := newSocket(t, address)
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from) // who has gone need not hear it
		}
	})
	t.Cleanup(func() { c.Close(); running.Wait() })
	return c.addr()
}
