package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

func BenchmarkAuthorizeLiteral(b *testing.B) {
	d := New(Options{Policy: policy(b, false, loopback)})
	r := to(b, "127.0.0.1:80")
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Authorize(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthorizeName(b *testing.B) {
	known := constResolver(addrs("127.0.0.1"))
	d := New(Options{Policy: policy(b, false, loopback), Resolver: known})
	r := to(b, "a.example:80")
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Authorize(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
}

type constResolver []netip.Addr

func (c constResolver) Lookup(context.Context, netip.Addr, string) ([]netip.Addr, error) {
	return c, nil
}

// BenchmarkDial dials a literal; BenchmarkBareDial is what package net takes for
// the same, without a permit and with a timer.
func BenchmarkDial(b *testing.B) {
	ap := echoAt(b, "127.0.0.1:0")
	d := New(Options{Policy: policy(b, false, loopback)})
	r := to(b, ap.String())
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		p, err := d.Authorize(ctx, r)
		if err != nil {
			b.Fatal(err)
		}
		c, err := d.Dial(ctx, p)
		if err != nil {
			b.Fatal(err)
		}
		abort(c)
	}
}

func BenchmarkBareDial(b *testing.B) {
	ap := echoAt(b, "127.0.0.1:0")
	d := net.Dialer{Timeout: 10 * time.Second}
	d.SetMultipathTCP(false)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		c, err := d.DialContext(ctx, "tcp", ap.String())
		if err != nil {
			b.Fatal(err)
		}
		abort(c)
	}
}

func TestAuthorizeAllocates(t *testing.T) {
	d := New(Options{Policy: policy(t, false, loopback), Resolver: constResolver(addrs("127.0.0.1"))})
	for _, hostport := range []string{"127.0.0.1:80", "a.example:80"} {
		r := to(t, hostport)
		got := testing.AllocsPerRun(100, func() {
			if _, err := d.Authorize(context.Background(), r); err != nil {
				t.Fatal(err)
			}
		})
		if got > 1 {
			t.Errorf("Authorize(%s) allocates %v times, want only the permit", hostport, got)
		}
	}
}

// BenchmarkOpenThrough chooses among 100 proxies and opens a connection for requests in absolute-form to one, which is dialled in no time.
func BenchmarkOpenThrough(b *testing.B) {
	var urls []string
	for i := range 100 {
		urls = append(urls, fmt.Sprintf("http://192.0.2.%d", i+1))
	}
	for _, balance := range []pool.Balance{pool.First, pool.RoundRobin, pool.RandomTwo, pool.LeastConnections, pool.StickyClient} {
		b.Run(balance.String(), func(b *testing.B) {
			d := throughUpstream(b, upstreamOf(b, upstream.Options{Pool: pool.Options{Balance: balance}}, urls...), Options{})
			d.dial = func(context.Context, *dialSet, netip.AddrPort, time.Time) (net.Conn, error) { return idleConn{}, nil }
			p, err := d.Authorize(b.Context(), to(b, "127.0.0.1:80"))
			if err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				link, err := d.Open(ctx, p, OpenOptions{Forward: true})
				if err != nil {
					b.Fatal(err)
				}
				link.Release()
			}
		})
	}
}

// idleConn is a connection that does nothing.
type idleConn struct{ net.Conn }

func (idleConn) SetDeadline(time.Time) error { return nil }
