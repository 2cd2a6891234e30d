package load

import (
	"net/netip"
	"testing"

	"polyport/bench/measure"
	"polyport/bench/yardstick"
)

// TestATunnelThatMissesTheNextHopIsAnError: the address that clients ask for leads to the origin through the hop alone.
func TestATunnelThatMissesTheNextHopIsAnError(t *testing.T) {
	tunnels, web := startOrigin(t)
	nobody, hop, through, past := listen(t), listen(t), listen(t), listen(t)
	nobody.Close()
	go yardstick.ServeHop(hop, netip.MustParseAddrPort(tunnels))
	go yardstick.ServeThrough(through, netip.MustParseAddrPort(hop.Addr().String()))
	go yardstick.Serve(past)
	tests := []struct {
		name, proxy string
		ok          bool
	}{
		{"through the hop", through.Addr().String(), true},
		{"the hop itself", hop.Addr().String(), true},
		{"past the hop", past.Addr().String(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := NewEndpoint("socks5", tt.proxy, tunnels, web, "bench.test")
			if err != nil {
				t.Fatal(err)
			}
			if e, err = e.Toward(nobody.Addr().String()); err != nil {
				t.Fatal(err)
			}
			l := New("copy", 1, e, still{}, small)
			if err := l.Check(); (err == nil) != tt.ok {
				t.Fatalf("Check = %v, want success %v", err, tt.ok)
			}
			if !tt.ok {
				return
			}
			for _, m := range append(l.Run(measure.Chain), l.Run(measure.ChainBulk)...) {
				if m.Errors > 0 {
					t.Errorf("%s %s: %d errors (%s)", m.Work, m.Variant, m.Errors, m.FirstErr)
				}
			}
		})
	}
}

func TestTowardRefusesOtherAddresses(t *testing.T) {
	e, err := NewEndpoint("socks5", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Toward("192.0.2.1:80"); err == nil {
		t.Error("tunnels to 192.0.2.1 are accepted")
	}
}
