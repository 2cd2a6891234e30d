package upstream

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/internal/socks"
)

// TestAssociate asks for UDP relays of a proxy that our own codec plays.
func TestAssociate(t *testing.T) {
	peer := netip.MustParseAddr("127.0.0.1") // of the control connection
	for _, tt := range []struct {
		name   string
		local  netip.AddrPort
		bound  socks.Address
		want   string // "": an error
		target string
	}{
		{
			"an address", netip.MustParseAddrPort("192.0.2.9:5000"),
			socks.Address{IP: netip.MustParseAddr("198.51.100.1"), Port: 6000},
			"198.51.100.1:6000", "192.0.2.9:5000",
		},
		{"no address", netip.AddrPort{}, socks.Address{IP: netip.IPv4Unspecified(), Port: 6000}, netip.AddrPortFrom(peer, 6000).String(), "0.0.0.0:0"},
		{"no IPv6 address", netip.AddrPort{}, socks.Address{IP: netip.IPv6Unspecified(), Port: 6000}, netip.AddrPortFrom(peer, 6000).String(), "0.0.0.0:0"},
		{
			"IPv4 in IPv6", netip.MustParseAddrPort("[::]:0"),
			socks.Address{IP: netip.MustParseAddr("::ffff:198.51.100.1"), Port: 6000},
			"198.51.100.1:6000", "[::]:0",
		},
		{"no port", netip.AddrPort{}, socks.Address{IP: netip.MustParseAddr("198.51.100.1")}, "", "0.0.0.0:0"},
		{"a name", netip.AddrPort{}, socks.Address{Name: "gw.example", Port: 6000}, "", "0.0.0.0:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dial := served(t, func(c net.Conn) {
				r := socks.NewReader(c)
				defer r.Release()
				if _, err := socks.Read(r, socks.ParseGreeting); err != nil {
					t.Errorf("greeting: %v", err)
				}
				_, _ = c.Write(socks.AppendSelection(nil, socks.UsernamePassword))
				if got, err := socks.Read(r, socks.ParseCredentials); err != nil || got.User != "u" || got.Password != "p" {
					t.Errorf("credentials of %q: %v", got.User, err)
				}
				_, _ = c.Write(socks.AppendStatus(nil, socks.StatusSuccess))
				got, err := socks.Read(r, socks.ParseRequest5)
				if err != nil || got.Command != socks.UDPAssociate || got.Target.String() != tt.target {
					t.Errorf("request %v %v, %v; want UDP %s", got.Command, got.Target, err, tt.target)
				}
				b, err := socks.AppendReply5(nil, socks.Reply5{Code: socks.Succeeded, Bound: tt.bound})
				if err != nil {
					t.Errorf("AppendReply5: %v", err)
				}
				_, _ = c.Write(b)
				echo(c)
			})
			p := mustProxy(t, ProxyOptions{URL: "socks5://u:p@gw.example"})
			control, relay, err := p.Associate(t.Context(), time.Now().Add(time.Minute), dial, tt.local)
			if tt.want == "" {
				checkError(t, err, reasonTerminated, true, 0)
				return
			}
			if err != nil || relay.String() != tt.want {
				t.Fatalf("Associate = %v, %v; want %s", relay, err, tt.want)
			}
			control.Close()
		})
	}
}

// TestAssociateRefused has no relay come about.
func TestAssociateRefused(t *testing.T) {
	steps := []step{
		{"\x05\x01\x00", "\x05\x00"},
		{"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
	}
	dial, _, done := played(t, steps, 1, -1)
	_, _, err := mustProxy(t, ProxyOptions{URL: "socks5://gw.example"}).Associate(t.Context(), time.Time{}, dial, netip.AddrPort{})
	<-done
	checkError(t, err, reasonConfiguration, true, 7)
	for _, scheme := range []string{"http", "https", "h2", "socks4", "socks4a"} {
		_, _, err := mustProxy(t, ProxyOptions{URL: scheme + "://gw.example"}).Associate(t.Context(), time.Time{}, nil, netip.AddrPort{})
		checkError(t, err, reasonConfiguration, false, 0)
	}
	steps[1].send = "\x05\x00\x00\x01\x00\x00\x00\x00\x17\x70"
	dial, _, done = played(t, steps, 1, -1) // a net.Pipe has no address
	_, _, err = mustProxy(t, ProxyOptions{URL: "socks5://gw.example"}).Associate(t.Context(), time.Time{}, dial, netip.AddrPort{})
	<-done
	checkError(t, err, reasonTerminated, true, 0)
}
