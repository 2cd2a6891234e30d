package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"polyport/internal/socks"
)

// hears is says that also passes on what it has read.
func hears(heard chan<- string, answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		b := make([]byte, 64<<10)
		for _, a := range answers {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			heard <- string(b[:n])
			io.WriteString(c, a)
		}
	}
}

func TestAssociate(t *testing.T) {
	user := Options{User: "alice", Password: "secret"}
	const request = "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"
	const rest = "\x00\x01\x00\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		name   string
		o      Options
		reads  []string // what is to be heard before each answer
		says   []string
		ok     bool
		detail string // a part of it
	}{
		{"an association", Options{}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", "\x05\x00\x00\x01\x7f\x00\x00\x01\x1d\xeb"}, true, "REP 00, succeeded; datagrams go to 127.0.0.1:7659"},
		{"an association of a user", user, []string{"\x05\x02\x00\x02", "\x01\x05alice\x06secret", request}, []string{"\x05\x02", "\x01\x00", "\x05\x00\x00\x01\x7f\x00\x00\x01\x1d\xeb"}, true, "datagrams go to 127.0.0.1:7659"},
		{"no address", Options{}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x1d\xeb"}, true, "datagrams go to 0.0.0.0:7659, which is no address"},
		{"off", Options{}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", "\x05\x07" + rest}, true, "UDP is off on this listener (REP 07, command not supported)"},
		{"not by these rules", Options{Target: "198.51.100.7:80"}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", "\x05\x02" + rest}, true, "the rules admit no UDP (REP 02"},
		{"a limit", Options{}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", "\x05\x01" + rest}, true, "no association could be made (REP 01"},
		{"a reply of another command", Options{}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", "\x05\x05" + rest}, false, "REP 05, connection refused"},
		{"a user is required", Options{}, []string{"\x05\x01\x00"}, []string{"\x05\xff"}, true, "a user is required (method FF"},
		{"user not taken", user, []string{"\x05\x02\x00\x02", "\x01\x05alice\x06secret"}, []string{"\x05\x02", "\x01\x01"}, false, "not taken: authentication status 01"},
		{"another program", Options{}, []string{"\x05\x01\x00"}, []string{banner}, false, "what came back is not SOCKS"},
		{"closed", Options{}, []string{"\x05\x01\x00", request}, []string{"\x05\x00", ""}, false, "closed without an answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan string, len(tt.reads))
			tt.o.Address, tt.o.Timeout = listen(t, hears(heard, tt.says...)), 30*time.Second
			x, err := newExamination(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			c := x.check(t.Context(), named(t, "udp"))
			if c.OK != tt.ok || c.Skipped || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("check = %+v, want OK %v and %q in the detail", c, tt.ok, tt.detail)
			}
			for _, want := range tt.reads {
				if got := <-heard; got != want {
					t.Errorf("the gateway heard %q, want %q", got, want)
				}
			}
		})
	}
}

// The verdict about the address that a reply names depends on where the gateway was reached.
func TestJudgeBound(t *testing.T) {
	for _, tt := range []struct {
		name, bound, peer, want string
	}{
		{"this machine", "127.0.0.1:7659", "127.0.0.1", "; datagrams go to 127.0.0.1:7659"},
		{"IPv6", "[2001:db8::1]:7659", "2001:db8::1", "; datagrams go to [2001:db8::1]:7659"},
		{"an address of its own", "198.51.100.1:40000", "203.0.113.1", "; datagrams go to 198.51.100.1:40000"},
		{"public, seen from the machine", "198.51.100.1:7659", "127.0.0.1", "; datagrams go to 198.51.100.1:7659"},
		{"private, within the network", "172.17.0.2:7659", "192.168.1.9", "; datagrams go to 172.17.0.2:7659"},
		{"private, published", "172.17.0.2:7659", "203.0.113.1", "; datagrams go to 172.17.0.2:7659, an address of a private network, while the gateway was reached at a public one: write [udp] advertise, or the listener's public_address"},
		{"unique local, published", "[fd00::2]:7659", "2001:db8::1", "; datagrams go to [fd00::2]:7659, an address of a private network, while the gateway was reached at a public one: write [udp] advertise, or the listener's public_address"},
		{"a carrier's", "100.64.0.2:7659", "203.0.113.1", "; datagrams go to 100.64.0.2:7659, an address of a private network, while the gateway was reached at a public one: write [udp] advertise, or the listener's public_address"},
		{"link-local", "169.254.0.2:7659", "203.0.113.1", "; datagrams go to 169.254.0.2:7659, an address of a private network, while the gateway was reached at a public one: write [udp] advertise, or the listener's public_address"},
		{"loopback of another machine", "127.0.0.1:7659", "192.168.1.9", "; datagrams go to 127.0.0.1:7659, which from here is this machine and not the gateway: write [udp] advertise, or the listener's public_address"},
		{"unspecified", "[::]:7659", "192.168.1.9", "; datagrams go to [::]:7659, which is no address; only some clients send to the gateway's own then: write [udp] advertise, or the listener's public_address"},
		{"no port", "203.0.113.1:0", "203.0.113.1", "; datagrams go to 203.0.113.1:0, and no datagram can be sent to port 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := netip.MustParseAddrPort(tt.bound)
			if got := judgeBound(socks.Address{IP: at.Addr(), Port: at.Port()}, netip.MustParseAddr(tt.peer)); got != tt.want {
				t.Errorf("judgeBound(%s, %s) = %q, want %q", tt.bound, tt.peer, got, tt.want)
			}
		})
	}
	if got := judgeBound(socks.Address{Name: "evil.example", Port: 1}, netip.Addr{}); strings.Contains(got, "evil") || !strings.Contains(got, "a name") {
		t.Errorf("judgeBound of a name = %q, want it told of and not shown", got)
	}
	if got := judgeBound(socks.Address{IP: netip.MustParseAddr("10.0.0.1"), Port: 1}, netip.Addr{}); got != "; datagrams go to 10.0.0.1:1" {
		t.Errorf("judgeBound without a peer = %q, want nothing but the address", got)
	}
}

// Inside TLS to the gateway it is the same: the address below tells where the gateway was reached.
func TestAssociateInsideTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate, which is for example.com
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	associated := says("\x05\x00", "\x05\x00\x00\x01\x7f\x00\x00\x01\x1d\xeb")
	address := listen(t, func(c net.Conn) {
		inside := tls.Server(c, &tls.Config{Certificates: web.TLS.Certificates})
		if got := peerOf(inside); got != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("peerOf = %v, want the address below TLS", got)
		}
		associated(inside)
	})
	x, err := newExamination(Options{Address: address, Secure: "example.com", Roots: roots, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if c := x.check(t.Context(), named(t, "udp")); !c.OK || c.Detail != "REP 00, succeeded; datagrams go to 127.0.0.1:7659" {
		t.Errorf("check = %+v, want an association", c)
	}
}
