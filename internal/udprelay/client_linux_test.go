package udprelay

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/reactor"
	"polyport/internal/socks"
)

// FuzzFromClient: whatever a client sends is counted once, and goes nowhere but where a permit has been given for.
func FuzzFromClient(f *testing.F) {
	allowed := netip.MustParseAddrPort("127.99.0.1:9")
	for _, b := range [][]byte{
		nil,
		{0},
		to(allowed, "hello"), to(netip.MustParseAddrPort("127.0.0.1:9"), "x"), to(netip.MustParseAddrPort("[::1]:9"), "x"),
		to(netip.MustParseAddrPort("[::ffff:127.99.0.1]:9"), ""), toName("a.test", 9, "x"), toName("z.test", 9, "x"), toName("127.0.0.1", 9, ""),
		toName("127.99.0.1.", 9, "dot"), toName(strings.Repeat("a", 255), 65535, "x"), append([]byte{0, 0, 1}, to(allowed, "frag")[3:]...),
		to(netip.AddrPortFrom(allowed.Addr(), 0), "x"), []byte("\x00\x00\x00\x03\x00\x00\x09"), []byte("\x00\x00\x00\x03\xffabc"),
	} {
		f.Add(b, uint16(0))
		f.Add(append(append([]byte(nil), b...), b...), uint16(len(b)))
	}
	r := newRig(f, Options{})
	policy := policyOf(f, acl.Rule{Name: "some", Action: acl.Allow, Target: []string{"127.99.0.0/16"}})
	dialer := egress.New(egress.Options{Policy: policy, Resolver: names{"a.test": allowed.Addr(), "z.test": netip.MustParseAddr("127.0.0.1")}})
	front, err := reactor.OpenPacket(netip.MustParseAddrPort("127.0.0.1:0"), reactor.PacketOptions{Destination: true})
	if err != nil {
		f.Fatal(err)
	}
	if err := front.Watch(r.loops.Next(), deaf{}); err != nil {
		f.Fatal(err)
	}
	client := netip.MustParseAddrPort("127.0.0.1:9")
	var one sync.Mutex
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		one.Lock()
		defer one.Unlock()
		s := newAsker(t, nil)
		s.dialer = dialer
		q := r.request(s)
		q.Loop = front.Loop()
		a, err := r.Open(q)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		d := reactor.Datagram{Data: data, Size: max(1, int(size)), From: client, To: client.Addr()}
		if len(data) > 0 && size == 0 {
			d.Size = len(data)
		}
		pieces := int64((len(data) + d.Size - 1) / d.Size)
		onLoop(a, func() { a.fromClient(r.socket, front, []reactor.Datagram{d}, []*Association{a}) })
		eventually(t, "no name is looked up any more", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.asking == 0
		})
		a.mu.Lock()
		defer a.mu.Unlock()
		c := a.counts
		if got := c.FromClient + c.Denied + c.Fragmented + c.Limited + c.Dropped; got != pieces {
			t.Errorf("%d datagrams are counted, want %d: %+v", got, pieces, c)
		}
		spoken := 0
		for at, flow := range a.flows.all {
			if !s.permits[at] || flow.dest.AddrPort() != at || at.Addr().As4()[1] != 99 {
				t.Errorf("there is a way to %v, want none", at)
			}
			if flow.spoken {
				spoken++
			}
		}
		if spoken != c.Targets {
			t.Errorf("%d targets were spoken to, %d are counted", spoken, c.Targets)
		}
		if valid(d) {
			if h, _, err := socks.ParseHeader(data[:min(d.Size, len(data))]); err != nil || h.Frag != 0 || h.Port == 0 {
				t.Error("a port would be learned from what cannot be passed on")
			}
		}
	})
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Arrived(*reactor.PacketConn)                     {}
func (deaf) Unreachable(*reactor.PacketConn, netip.AddrPort) {}
