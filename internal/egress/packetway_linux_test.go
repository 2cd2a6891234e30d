package egress

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/reactor"
	"polyport/internal/upstream"
)

func TestAuthorizePacketWays(t *testing.T) {
	const noUDP = "upstream eu has no server that carries UDP"
	near := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near", Servers: make([]pool.Server, 1)}}, "socks5://192.0.2.9")
	tests := []struct {
		name   string
		urls   []string
		o      upstream.Options
		target string
		want   string // the address; "" is none
		header string
		says   string // "" is a permit
	}{
		{name: "socks5", urls: []string{"socks5://192.0.2.1"}, target: "8.8.4.4:53", want: "8.8.4.4", header: "\x00\x00\x00\x01\x08\x08\x04\x04\x00\x35"},
		{name: "one of several", urls: []string{"http://192.0.2.1", "socks5s://192.0.2.1", "socks5://192.0.2.1"}, target: "8.8.4.4:53", want: "8.8.4.4", header: "\x00\x00\x00\x01\x08\x08\x04\x04\x00\x35"},
		{name: "IPv4 first", urls: []string{"socks5://192.0.2.1"}, target: "both.example:53", want: "8.8.4.4", header: "\x00\x00\x00\x01\x08\x08\x04\x04\x00\x35"},
		{name: "IPv6 alone", urls: []string{"socks5://192.0.2.1"}, target: "[2600::1]:53", want: "2600::1", header: "\x00\x00\x00\x04\x26\x00" + strings.Repeat("\x00", 13) + "\x01\x00\x35"},
		{name: "a name", urls: []string{"socks5://192.0.2.1"}, o: upstream.Options{ResolvesNames: true}, target: "A.example:53", header: "\x00\x00\x00\x03\x09a.example\x00\x35"},
		{name: "http", urls: []string{"http://192.0.2.1", "https://192.0.2.1", "h2://192.0.2.1"}, target: "8.8.4.4:53", says: noUDP},
		{name: "socks4", urls: []string{"socks4://192.0.2.1", "socks4a://192.0.2.1"}, target: "both.example:53", says: noUDP},
		{name: "SOCKS5 in TLS", urls: []string{"socks5s://192.0.2.1"}, target: "8.8.4.4:53", says: noUDP},
		{name: "behind another", urls: []string{"socks5://192.0.2.1"}, o: upstream.Options{Via: near}, target: "8.8.4.4:53", says: noUDP},
		{name: "a name for http", urls: []string{"http://192.0.2.1"}, o: upstream.Options{ResolvesNames: true}, target: "a.example:53", says: noUDP},
		{name: "guarded", urls: []string{"socks5://192.0.2.1"}, target: "10.0.0.1:53", says: "its address is for"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := New(Options{
				Policy: policy(t, false, leaves("r", "eu")), Ways: oneUpstream(t, tt.o, tt.urls...), Resolver: names(map[string]string{"both.example": "2600::1 8.8.4.4"}),
			})
			p, err := d.AuthorizePacket(t.Context(), to(t, tt.target))
			if tt.says != "" {
				var e *Error
				if p != nil || !errors.As(err, &e) || !strings.Contains(err.Error(), tt.says) || e.Target != to(t, tt.target).Target {
					t.Fatalf("AuthorizePacket = %v, %v, want %q", p, err, tt.says)
				}
				if tt.says == noUDP && (e.Reason != ConfigurationError || e.Upstream != "eu" || !errors.Is(err, ErrNoUDP)) {
					t.Errorf("AuthorizePacket: %s of upstream %q, want %s of eu", e.Reason, e.Upstream, ConfigurationError)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, ok := p.Destination()
			address := ""
			if got.AddrPort().IsValid() {
				address = got.AddrPort().Addr().String()
			}
			if !ok || address != tt.want || string(got.header) != tt.header || got.Port() != 53 || !p.PacketWay().Waits() {
				t.Errorf("Destination = %s, % x, port %d, %v; want %s, % x", address, got.header, got.Port(), ok, tt.want, tt.header)
			}
		})
	}
}

func TestPacketWay(t *testing.T) {
	ways := testWays(t)
	rules := func(target, upstreamName string, exits ...string) acl.Rule {
		return with(leaves(target, upstreamName, exits...), func(r *acl.Rule) { r.Target = []string{target} })
	}
	d := New(Options{Policy: policy(t, false, rules("8.8.0.0/16", "eu"), rules("8.9.0.0/16", "", "eu"), rules("8.10.0.0/16", "", "v4"), leaves("rest", "")), Ways: ways})
	way := func(d *Dialer, address string) PacketWay {
		p, err := d.AuthorizePacket(t.Context(), to(t, address))
		if err != nil {
			t.Fatal(err)
		}
		return p.PacketWay()
	}
	for _, tt := range []struct {
		name, one, other string
		same             bool
	}{
		{"direct", "9.9.9.9:53", "9.9.9.8:54", true},
		{"of another family", "9.9.9.9:53", "[2600::1]:53", false},
		{"an upstream", "8.8.8.8:53", "8.8.4.4:54", true},
		{"an upstream and its exit", "8.8.8.8:53", "8.9.8.8:53", false},
		{"an upstream and none", "8.8.8.8:53", "9.9.9.9:53", false},
		{"an exit", "8.10.8.8:53", "8.10.8.9:53", true},
		{"an exit and none", "8.10.8.8:53", "9.9.9.9:53", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if same := way(d, tt.one) == way(d, tt.other); same != tt.same {
				t.Errorf("%s and %s leave by the same way: %v, want %v", tt.one, tt.other, same, tt.same)
			}
		})
	}
	if way(d.Wishing(exit.Wish{Session: "a"}), "8.8.8.8:53") == way(d.Wishing(exit.Wish{Session: "b"}), "8.8.8.8:53") {
		t.Error("two sessions of a user share a way")
	}
}

func TestRelayAt(t *testing.T) {
	for _, tt := range []struct{ name, relay, server, want string }{
		{"the server's own address", "198.51.100.7:4000", "198.51.100.7", "198.51.100.7:4000"},
		{"another public one", "8.8.8.8:4000", "9.9.9.9", "8.8.8.8:4000"},
		{"its private one, behind a NAT", "10.0.0.7:4000", "9.9.9.9", "9.9.9.9:4000"},
		{"this machine", "127.0.0.1:53", "9.9.9.9", "9.9.9.9:53"},
		{"this network", "169.254.169.254:80", "10.0.0.1", "10.0.0.1:80"},
		{"a group", "224.0.0.251:5353", "10.0.0.1", "10.0.0.1:5353"},
		{"everybody", "255.255.255.255:9", "10.0.0.1", "10.0.0.1:9"},
		{"its neighbour", "10.0.0.2:4000", "10.0.0.1", "10.0.0.2:4000"},
		{"public, of a private server", "9.9.9.9:4000", "10.0.0.1", "9.9.9.9:4000"},
		{"IPv4-mapped", "[::ffff:127.0.0.1]:53", "9.9.9.9", "9.9.9.9:53"},
		{"another family", "[::1]:53", "9.9.9.9", "9.9.9.9:53"},
		{"its zone", "[fe80::1]:4000", "fe80::1%eth0", "[fe80::1%eth0]:4000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := relayAt(netip.MustParseAddrPort(tt.relay), netip.MustParseAddr(tt.server)); got.String() != tt.want {
				t.Errorf("relayAt(%s, %s) = %v, want %s", tt.relay, tt.server, got, tt.want)
			}
		})
	}
}

func TestOpenPacketBySources(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source *exit.Source
		target string // default 127.0.0.1:53
		from   string // a prefix
		device string
		reason Reason
		says   string
	}{
		{name: "an address", source: sourceOf("127.3.2.1/32", nil), from: "127.3.2.1/32"},
		{name: "a prefix", source: sourceOf("127.4.0.0/16", nil), from: "127.4.0.0/16"},
		{name: "a device", source: sourceOf("", func(s *exit.Source) { s.Interface = "lo" }), from: "0.0.0.0/32", device: "lo"},
		{name: "no such device", source: sourceOf("", func(s *exit.Source) { s.Interface = "none0" }), reason: ConfigurationError, says: "interface"},
		{name: "not ours", source: sourceOf("192.0.2.1/32", nil), reason: ConfigurationError, says: "local_address 192.0.2.1"},
		{name: "no IPv6", source: sourceOf("127.3.2.1/32", nil), target: "[::1]:53", reason: DestinationUnroutable, says: "no local_address of that family"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule := with(leaves("r", "", "x"), func(r *acl.Rule) { r.Target = []string{"127.0.0.0/8", "::1"} })
			d := New(Options{Policy: policy(t, false, rule), Ways: Ways{Exits: map[string]*Exit{"x": {Source: tt.source}}}})
			if tt.target == "" {
				tt.target = "127.0.0.1:53"
			}
			p, err := d.AuthorizePacket(t.Context(), to(t, tt.target))
			onALoop(t, func(l *reactor.Loop) {
				var c *PacketConn
				if err == nil {
					c, err = d.OpenPacket(t.Context(), l, p, &heard{})
				}
				if tt.says != "" {
					var e *Error
					if !errors.As(err, &e) || e.Reason != tt.reason || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("OpenPacket: %v, want %s and %q", err, tt.reason, tt.says)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if at := c.conn.Local().Addr(); !netip.MustParsePrefix(tt.from).Contains(at) || c.Relay().IsValid() || c.Server() != "" {
					t.Errorf("it leaves from %v by %q, want %s and no server", at, c.Server(), tt.from)
				}
				if device := deviceOf(t, c.conn.Local().Port()); device != tt.device {
					t.Errorf("it is bound to the device %q, want %q", device, tt.device)
				}
			})
		})
	}
}

// deviceOf finds the device that the UDP socket of this process with a port is bound to.
func deviceOf(t *testing.T, port uint16) string {
	for fd := range 1024 {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if in, ok := sa.(*unix.SockaddrInet4); err != nil || kind != unix.SOCK_DGRAM || !ok || in.Port != int(port) {
			continue
		}
		device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		if err != nil {
			t.Error(err)
		}
		return device
	}
	t.Errorf("no socket has the port %d", port)
	return ""
}

// relays serves UDP ASSOCIATE with a reply, behind which it says more, and waits until the client goes.
func relays(reply string) func(*testProxy, net.Conn) {
	return func(_ *testProxy, c net.Conn) {
		b := make([]byte, 13)
		if _, err := io.ReadFull(c, b[:3]); err != nil {
			return
		}
		_, _ = io.WriteString(c, "\x05\x00")
		if _, err := io.ReadFull(c, b[3:]); err != nil {
			return
		}
		_, _ = io.WriteString(c, reply)
		_, _ = io.Copy(io.Discard, c)
	}
}

func TestOpenPacketThroughUpstream(t *testing.T) {
	const ok = "\x05\x00\x00\x01"
	for _, tt := range []struct {
		name, reply string
		relay       string // "" is an error
		reason      Reason
		says        string
	}{
		{name: "at its own address", reply: ok + "\x00\x00\x00\x00\x10\x00", relay: "127.0.0.40:4096"},
		{name: "at another", reply: ok + "\x7f\x00\x00\x29\x10\x00", relay: "127.0.0.41:4096"},
		{name: "of another family", reply: "\x05\x00\x00\x04\x26\x00" + strings.Repeat("\x00", 13) + "\x01\x10\x00", relay: "[2600::1]:4096"},
		{name: "where it may not be", reply: ok + "\x0a\x00\x00\x01\x10\x00", relay: "127.0.0.40:4096"},
		{name: "one of our own sockets", reply: ok + "\x7f\x00\x00\x01\x04\x38", reason: LoopDetected, says: "own sockets"},
		{name: "without a port", reply: ok + "\x00\x00\x00\x00\x00\x00", reason: ConnectionTerminated, says: "no relay for UDP"},
		{name: "by name", reply: "\x05\x00\x00\x03\x01a\x10\x00", reason: ConnectionTerminated, says: "no relay for UDP"},
		{name: "refused", reply: "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", reason: RequestDenied, says: "does not allow UDP"},
		{name: "not known", reply: "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", reason: ConfigurationError, says: "does not serve UDP"},
		{name: "cut off", reply: "\x05\x00\x00", reason: ConnectionTimeout, says: "silent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := proxyAt(t, "127.0.0.40:0", relays(tt.reply))
			own := netip.MustParseAddrPort("127.0.0.1:1080")
			d := New(Options{
				Policy: policy(t, false, leaves("r", "eu")), Ways: oneUpstream(t, upstream.Options{}, "socks5://"+server.at.String()),
				Own: func(a netip.AddrPort) bool { return a == own }, ConnectTimeout: 200 * time.Millisecond,
			})
			p, err := d.AuthorizePacket(t.Context(), to(t, "8.8.4.4:53"))
			if err != nil {
				t.Fatal(err)
			}
			onALoop(t, func(l *reactor.Loop) {
				c, err := d.OpenPacket(t.Context(), l, p, &heard{words: make(chan string, 1)})
				if tt.relay == "" {
					var e *Error
					if !errors.As(err, &e) || e.Reason != tt.reason || e.Upstream != "eu" || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("OpenPacket: %v, want %s and %q", err, tt.reason, tt.says)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				from := netip.MustParseAddr("127.0.0.1")
				if c.Relay().Addr().Is6() {
					from = netip.IPv6Unspecified()
				}
				if c.Relay().String() != tt.relay || c.Server() != "socks5://"+server.at.String() || c.conn.Local().Addr() != from {
					t.Errorf("the relay is %v of %s, spoken to from %v; want %s", c.Relay(), c.Server(), c.conn.Local(), tt.relay)
				}
				if on, err := unix.GetsockoptInt(c.control.FD(), unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on != 1 {
					t.Errorf("SO_KEEPALIVE of the control connection is %d, %v; want 1", on, err)
				}
				direct := destination(t, New(Options{Policy: policy(t, false, loopback)}), netip.MustParseAddrPort("127.0.0.1:53"))
				c.Send(l, direct, []byte("x"))
				if s := c.Flush(l); s.Datagrams != 0 {
					t.Errorf("it sends %+v to what was admitted for another way, want nothing", s)
				}
				c.Close()
				c.Close()
			})
		})
	}
}

// TestNoUDPIsNoFault: a server that gives no association goes on giving tunnels, and the next one is asked for the association.
func TestNoUDPIsNoFault(t *testing.T) {
	own := netip.MustParseAddrPort("127.0.0.1:1080")
	for name, reply := range map[string]string{
		"refused":              "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00",
		"failed":               "\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00",
		"not known":            "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00",
		"silent":               "",
		"without a port":       "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		"one of our own ports": "\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38",
	} {
		t.Run(name, func(t *testing.T) {
			without := proxyAt(t, "127.0.0.40:0", relays(reply))
			carries := proxyAt(t, "127.0.0.41:0", relays("\x05\x00\x00\x01\x00\x00\x00\x00\x10\x00"))
			o := upstream.Options{Pool: pool.Options{Balance: pool.First, Eject: pool.Eject{Failures: 1}}}
			d := New(Options{
				Policy: policy(t, false, leaves("r", "eu")), Ways: oneUpstream(t, o, "socks5://"+without.at.String(), "socks5://"+carries.at.String()),
				Own: func(a netip.AddrPort) bool { return a == own }, ConnectTimeout: 2 * time.Second,
			})
			p, err := d.AuthorizePacket(t.Context(), to(t, "8.8.4.4:53"))
			if err != nil {
				t.Fatal(err)
			}
			onALoop(t, func(l *reactor.Loop) {
				c, err := d.OpenPacket(t.Context(), l, p, &heard{words: make(chan string, 1)})
				if err != nil {
					t.Error(err)
					return
				}
				if want := "socks5://" + carries.at.String(); c.Server() != want {
					t.Errorf("the relay is that of %s, want %s", c.Server(), want)
				}
				c.Close()
			})
			if s := d.ways.Upstreams["eu"].Pool().Members()[0].Status(); s.State != pool.Up {
				t.Errorf("the server without UDP is %v: %v", s.State, s.Err)
			}
		})
	}
}

// TestTheControlConnectionEnds: the owner hears of it once, and not of what he has ended himself.
func TestTheControlConnectionEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(net.Conn)
		closed bool
	}{
		{"an end", func(c net.Conn) { c.Close() }, false},
		{"a reset", func(c net.Conn) { abort(c) }, false},
		{"talk", func(c net.Conn) { _, _ = c.Write(make([]byte, maxControl+1)) }, false},
		{"our own end", func(net.Conn) {}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			loops, err := reactor.Open(1)
			if err != nil {
				t.Fatal(err)
			}
			defer loops.Close()
			l := loops.Next()
			server := proxyAt(t, "127.0.0.40:0", relays("\x05\x00\x00\x01\x00\x00\x00\x00\x10\x00"))
			d := New(Options{Policy: policy(t, false, leaves("r", "eu")), Ways: oneUpstream(t, upstream.Options{}, "socks5://"+server.at.String())})
			p, err := d.AuthorizePacket(t.Context(), to(t, "8.8.4.4:53"))
			if err != nil {
				t.Fatal(err)
			}
			h := &heard{words: make(chan string, 10)}
			opened := make(chan *PacketConn, 1)
			l.Post(func() {
				l.Go(func() {
					c, err := d.OpenPacket(t.Context(), l, p, h)
					if err != nil {
						t.Error(err)
					}
					opened <- c
				})
			})
			c := <-opened
			if c == nil {
				return
			}
			server.mu.Lock()
			for conn := range server.conns {
				tt.end(conn)
			}
			server.mu.Unlock()
			if !tt.closed {
				hears(t, h.words, "the end")
			}
			c.Close()
			onLoop(t, l, func() {})
			if len(h.words) > 0 {
				t.Errorf("the owner hears %q too", <-h.words)
			}
			if n := d.ways.Upstreams["eu"].Pool().Members()[0].Status().Connections; n != 0 {
				t.Errorf("%d connections are counted on the server, want none", n)
			}
		})
	}
}
