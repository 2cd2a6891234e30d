package loopback

import (
	"net/netip"
	"testing"
)

func TestCheck(t *testing.T) {
	tests := []struct {
		addr string
		ok   bool
	}{
		{"127.0.0.1:15000", true},
		{"127.8.9.10:1", true},
		{"[::1]:80", true},
		{"0.0.0.0:80", false},
		{"192.0.2.1:80", false},
		{"10.0.0.1:80", false},
		{"localhost:80", false},
		{"127.0.0.1", false},
		{"", false},
	}
	for _, tt := range tests {
		if _, err := Check(tt.addr); (err == nil) != tt.ok {
			t.Errorf("Check(%q) = %v, want ok = %v", tt.addr, err, tt.ok)
		}
	}
}

func TestNothingLeavesTheMachine(t *testing.T) {
	if l, err := Listen("0.0.0.0:0"); err == nil {
		l.Close()
		t.Error("Listen opened all addresses")
	}
	if c, err := Dial(netip.MustParseAddrPort("192.0.2.1:80"), 0); err == nil {
		c.Close()
		t.Error("Dial left the machine")
	}
	here, there := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("192.0.2.1:80")
	if c, err := ListenUDP("0.0.0.0:0"); err == nil {
		c.Close()
		t.Error("ListenUDP opened all addresses")
	}
	for _, ends := range [][2]netip.AddrPort{{here, there}, {there, here}} {
		if c, err := DialUDP(ends[0], ends[1]); err == nil {
			c.Close()
			t.Errorf("DialUDP went from %s to %s", ends[0], ends[1])
		}
		if c, err := DialFrom(ends[0].Addr(), ends[1]); err == nil {
			c.Close()
			t.Errorf("DialFrom went from %s to %s", ends[0], ends[1])
		}
	}
}
