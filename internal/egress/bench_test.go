package egress

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
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
