package reactor

import (
	"fmt"
	"net/netip"
	"testing"
)

// relayed is a relay between two sockets of one loop, with one at either end: what comes from the client goes to the target with a
// header in front.
type relayed struct {
	loop                  *Loop
	client, relay, target *PacketConn
	header, payload       []byte
}

// silent is a PacketOwner that leaves everything to somebody else.
type silent struct{}

func (silent) Arrived(*PacketConn)                     {}
func (silent) Unreachable(*PacketConn, netip.AddrPort) {}

func newRelayed(t testing.TB, l *Loop, address string, size int) *relayed {
	t.Helper()
	r := &relayed{loop: l, header: fill(10, 1), payload: fill(size, 2)}
	for _, p := range []**PacketConn{&r.client, &r.relay, &r.target} {
		var err error
		if *p, err = OpenPacket(netip.MustParseAddrPort(address), PacketOptions{Errors: true, Destination: true}); err != nil {
			t.Fatal(err)
		}
		if err := (*p).Watch(l, silent{}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// pass has n datagrams go all the way, and returns how many have arrived.
func (r *relayed) pass(n int) (arrived int) {
	for range n {
		r.client.Send(r.loop, r.relay.Local(), netip.Addr{}, nil, r.payload)
	}
	r.client.Flush(r.loop)
	for more := true; more; {
		var batch []Datagram
		batch, more = r.relay.Receive()
		for _, d := range batch {
			for data := d.Data; len(data) > 0; data = data[min(d.Size, len(data)):] {
				r.relay.Send(r.loop, r.target.Local(), d.To, r.header, data[:min(d.Size, len(data))])
			}
		}
		r.relay.Flush(r.loop)
	}
	for more := true; more; {
		var batch []Datagram
		batch, more = r.target.Receive()
		for _, d := range batch {
			arrived += (len(d.Data) + d.Size - 1) / d.Size
		}
	}
	return arrived
}

// TestPacketsAllocate: a datagram that passes costs no memory.
func TestPacketsAllocate(t *testing.T) {
	l := open(t, 1).Next()
	for _, address := range bothLoopbacks {
		for _, n := range []int{1, 20} {
			t.Run(fmt.Sprint(address, " ", n), func(t *testing.T) {
				r := newRelayed(t, l, address, 1200)
				run(t, l, func() {
					if got := testing.AllocsPerRun(100, func() {
						if got := r.pass(n); got != n {
							t.Errorf("%d datagrams have arrived, want %d", got, n)
						}
					}); got != 0 {
						t.Errorf("%d datagrams cost %v allocations, want none", n, got)
					}
				})
			})
		}
	}
}

// BenchmarkPackets is one datagram from a client by a relay to a target, all on one loop: alone, and amid others that the kernel
// keeps together.
func BenchmarkPackets(b *testing.B) {
	for _, size := range []int{64, 1200} {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("%d octets, %d at once", size, n), func(b *testing.B) {
				g, err := Open(1)
				if err != nil {
					b.Fatal(err)
				}
				defer g.Close()
				r := newRelayed(b, g.Next(), "127.0.0.1:0", size)
				done := make(chan struct{})
				b.ReportAllocs()
				b.SetBytes(int64(size))
				b.ResetTimer()
				r.loop.Post(func() {
					defer close(done)
					for left := b.N; left > 0; left -= n {
						k := min(n, left)
						if got := r.pass(k); got != k {
							b.Errorf("%d datagrams have arrived, want %d", got, k)
							return
						}
					}
				})
				<-done
			})
		}
	}
}
