package daemon

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/config"
	"polyport/internal/resolve"
	"polyport/internal/target"
)

func TestBindAdvertise(t *testing.T) {
	tests := []struct {
		name, table string
		want        []netip.Addr
		fault       string
	}{
		{"nothing", "ports = \"40000\"", nil, ""},
		{"an address", "ports = \"40000\"\nadvertise = \"192.0.2.7\"", []netip.Addr{netip.MustParseAddr("192.0.2.7")}, ""},
		{"a name", "ports = \"40000\"\nadvertise = \"gateway.localhost\"", []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, ""},
		{"a name that nobody would be told", "advertise = \"gateway.onion\"", nil, ""},
		{"a name that does not exist", "ports = \"40000\"\nadvertise = \"gateway.onion\"", nil, "polyport.toml:3: bind.advertise: \"gateway.onion\" cannot be resolved"},
	}
	for _, tt := range tests {
		for _, dns := range []string{"", "[dns]\nservers = [\"udp://192.0.2.53\"]\n"} { // not asked about such names
			t.Run(tt.name, func(t *testing.T) {
				f, err := config.Parse("polyport.toml", []byte("[bind]\n"+tt.table+"\n"+dns))
				if err != nil {
					t.Fatal(err)
				}
				st := &state{resolver: resolverOf(t, f)}
				defer st.resolver.Close()
				a := &assembly{}
				err = st.advertise(t.Context(), f, a, f)
				got := a.advertise
				slices.SortFunc(got, netip.Addr.Compare)
				if !slices.Equal(got, tt.want) || (err == nil) != (tt.fault == "") || err != nil && !strings.HasPrefix(err.Error(), tt.fault) {
					t.Errorf("advertise = %v, %v; want %v and the fault %q", got, err, tt.want, tt.fault)
				}
			})
		}
	}
}

func TestOwnSocketsOfBind(t *testing.T) {
	o := newOwnSockets()
	listener, bound := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	o.set([]netip.AddrPort{listener})
	o.open(bound)
	o.open(netip.MustParseAddrPort("127.0.0.2:2"))
	o.set([]netip.AddrPort{listener}) // a reload
	if !o.holds(listener) || !o.holds(bound) || !o.holds(netip.MustParseAddrPort("0.0.0.0:2")) {
		t.Error("a socket of BIND is lost with a reload")
	}
	o.close(bound)
	if o.holds(bound) || !o.holds(netip.MustParseAddrPort("127.0.0.2:2")) || !o.holds(listener) {
		t.Error("one socket of BIND was closed, and not that one alone is gone")
	}
}

// bindFile serves BIND on one port.
const bindFile = `
[listen.main]
address = ["127.0.0.1:%d"]
[bind]
ports = "%d"
advertise = "%s"
[[rule]]
name   = "here"
action = "allow"
method = ["*"]
target = ["127.0.0.0/8"]
`

// socks sends a SOCKS5 request and returns the connection once the first reply has come.
func (s *served) socks(command byte, to netip.AddrPort) (net.Conn, byte, netip.AddrPort) {
	s.t.Helper()
	c, err := net.Dial("tcp4", s.address("main"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	a := to.Addr().As4()
	request := append([]byte{5, 1, 0, 5, command, 0, 1}, a[:]...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(request, to.Port())); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		s.t.Fatal(err)
	}
	code, bound := s.socksReply(c)
	return c, code, bound
}

// socksReply reads a reply with an IPv4 address.
func (s *served) socksReply(c net.Conn) (byte, netip.AddrPort) {
	s.t.Helper()
	var b [10]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		s.t.Fatal(err)
	}
	return b[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[8:]))
}

// A BIND that waits goes on under a reload that moves the ports, and no session is led to where it listens.
func TestBindOutlivesAReload(t *testing.T) {
	port, first, second := freePort(t), freePort(t), freePort(t)
	home := netip.MustParseAddr("127.0.0.1")
	s := serve(t, fmt.Sprintf(bindFile, port, first, ""))
	c, code, bound := s.socks(2, netip.AddrPortFrom(home, 0))
	at := netip.AddrPortFrom(home, first)
	if code != 0 || bound != at {
		t.Fatalf("the first reply is %d, %v; want 0, %v", code, bound, at)
	}
	if err := s.reload(fmt.Sprintf(bindFile, port, second, "192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	if _, code, _ := s.socks(1, at); code != 2 {
		t.Errorf("CONNECT to where BIND listens is answered %d, want 2", code)
	}
	_, code, bound = s.socks(2, netip.AddrPortFrom(home, 0))
	if want := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), second); code != 0 || bound != want {
		t.Errorf("after the reload the first reply is %d, %v; want 0, %v", code, bound, want)
	}
	peer, err := net.Dial("tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	code, from := s.socksReply(c)
	if code != 0 || from.String() != peer.LocalAddr().String() {
		t.Errorf("the second reply is %d, %v; want 0, %v", code, from, peer.LocalAddr())
	}
	if s.d.state.own.holds(at) {
		t.Error("the port counts as the gateway's own after it was closed")
	}
}

func TestAdvertiseMustBeResolved(t *testing.T) {
	text := fmt.Sprintf(bindFile, freePort(t), freePort(t), "gateway.onion")
	if d, err := Start(t.Context(), Options{Path: write(t, "polyport.toml", text), Stdout: io.Discard, Stderr: io.Discard}); err == nil || !strings.Contains(err.Error(), "bind.advertise: \"gateway.onion\" cannot be resolved") {
		t.Errorf("Start = %v, %v; want a fault of bind.advertise", d, err)
	}
	port, first := freePort(t), freePort(t)
	s := serve(t, fmt.Sprintf(bindFile, port, first, ""))
	if err := s.reload(fmt.Sprintf(bindFile, port, first, "gateway.onion")); err == nil || !strings.Contains(err.Error(), "bind.advertise") {
		t.Errorf("Reload = %v, want a fault of bind.advertise", err)
	}
	if _, code, bound := s.socks(2, netip.MustParseAddrPort("127.0.0.1:0")); code != 0 || bound.Port() != first {
		t.Errorf("after a reload that was refused the first reply is %d, %v", code, bound)
	}
}

func TestParseTarget(t *testing.T) {
	tests := []struct{ method, text, want string }{
		{"BIND", "192.0.2.1:0", "192.0.2.1:0"},
		{"bind", "[2001:db8::1]:0", "[2001:db8::1]:0"},
		{"BIND", "ftp.example.com:0", "ftp.example.com"},
		{"BIND", "192.0.2.1:20", "192.0.2.1:20"},
		{"BIND", "192.0.2.1", ""},
		{"CONNECT", "192.0.2.1:0", ""},
	}
	for _, tt := range tests {
		got, err := parseTarget(Question{Method: tt.method, Target: tt.text})
		if got.String() != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("parseTarget(%s, %s) = %v, %v; want %s", tt.method, tt.text, got, err, tt.want)
		}
	}
	if !bindsUnknown(acl.Request{Method: "BIND", Target: target.FromAddrPort(netip.MustParseAddrPort("[::]:0"))}) {
		t.Error("[::]:0 is taken for somebody")
	}
}

// resolverOf makes the resolver that f describes.
func resolverOf(t *testing.T, f *config.File) *resolve.Resolver {
	t.Helper()
	r, err := newResolver(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
