package udprelay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// warm is an association over which a datagram has gone to and fro.
func warm(t testing.TB, own bool, size int) (c *peerSocket, bound netip.AddrPort, datagram []byte) {
	var o Options
	if own {
		o.FirstPort = portOfNobody(t)
		o.LastPort = o.FirstPort
	}
	target := echo(t, "127.0.0.9:0")
	r := newRig(t, o)
	a := r.open(r.request(newAsker(t, nil)))
	c, datagram = newSocket(t, "127.0.0.1:0"), to(target, string(make([]byte, size)))
	c.send(a.Bound(), datagram)
	c.wants(target, string(datagram[10:]))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Minute))
	return c, a.Bound(), datagram
}

// roundTrips sends some datagrams at once and waits for their echoes.
func (p *peerSocket) roundTrips(n int, to netip.AddrPort, datagram, answer []byte) {
	for range n {
		if _, err := p.WriteToUDPAddrPort(datagram, to); err != nil {
			p.t.Fatal(err)
		}
	}
	for range n {
		if got, _, err := p.ReadFromUDPAddrPort(answer); err != nil || got != len(datagram) {
			p.t.Fatalf("the echo has %d octets, want %d (%v)", got, len(datagram), err)
		}
	}
}

// TestNoAllocationPerDatagram: on the way there and back, one by one and many at once.
func TestNoAllocationPerDatagram(t *testing.T) {
	for _, own := range []bool{false, true} {
		for _, size := range []int{64, 1200} {
			for _, atOnce := range []int{1, 16} {
				t.Run(fmt.Sprintf("%d octets, %d at once, own port %v", size, atOnce, own), func(t *testing.T) {
					c, bound, datagram := warm(t, own, size)
					answer := make([]byte, 1<<16)
					c.roundTrips(atOnce, bound, datagram, answer)
					if got := testing.AllocsPerRun(200, func() { c.roundTrips(atOnce, bound, datagram, answer) }); got > 0 {
						t.Errorf("%v allocations for %d datagrams to and fro, want none", got, atOnce)
					}
				})
			}
		}
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{64, 1200} {
		for _, atOnce := range []int{1, 16} {
			b.Run(fmt.Sprintf("%doctets/%dAtOnce", size, atOnce), func(b *testing.B) {
				c, bound, datagram := warm(b, false, size)
				answer := make([]byte, 1<<16)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for n := 0; n < b.N; n += atOnce {
					c.roundTrips(min(atOnce, b.N-n), bound, datagram, answer)
				}
			})
		}
	}
}
