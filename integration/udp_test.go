package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// caller is a client of UDP ASSOCIATE (RFC 1928 section 7): its connection, and the socket that its datagrams go by.
type caller struct {
	t     *testing.T
	conn  net.Conn
	udp   *net.UDPConn
	relay netip.AddrPort // BND.ADDR and BND.PORT
}

// wireAddress is ATYP, an address and a port as SOCKS5 writes them. What is no IP address is a name.
func wireAddress(host string, port uint16) []byte {
	b := append([]byte{3, byte(len(host))}, host...)
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		b = append([]byte{1}, a.AsSlice()...)
	} else if err == nil {
		b = append([]byte{4}, a.AsSlice()...)
	}
	return append(b, byte(port>>8), byte(port))
}

// wireTarget is wireAddress of "host:port".
func wireTarget(t *testing.T, target string) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.LookupPort("udp", port)
	if err != nil {
		t.Fatal(err)
	}
	return wireAddress(host, uint16(n))
}

// readAddress reads what wireAddress writes, and returns how long it is.
func readAddress(b []byte) (string, int, error) {
	host, end := "", 0
	switch {
	case len(b) >= 7 && b[0] == 1:
		end = 5
		host = netip.AddrFrom4([4]byte(b[1:5])).String()
	case len(b) >= 19 && b[0] == 4:
		end = 17
		host = netip.AddrFrom16([16]byte(b[1:17])).String()
	default:
		return "", 0, fmt.Errorf("no address in % x", b)
	}
	return net.JoinHostPort(host, fmt.Sprint(int(b[end])<<8|int(b[end+1]))), end + 2, nil
}

// greet logs in to SOCKS5 as "user:password", or as nobody.
func greet(t *testing.T, c net.Conn, login string) {
	t.Helper()
	user, password, named := strings.Cut(login, ":")
	if !named {
		say(t, c, "\x05\x01\x00")
		hear(t, c, "\x05\x00")
		return
	}
	say(t, c, "\x05\x01\x02")
	hear(t, c, "\x05\x02")
	say(t, c, "\x01"+string([]byte{byte(len(user))})+user+string([]byte{byte(len(password))})+password)
	hear(t, c, "\x01\x00")
}

// askUDP asks for an association on behalf of DST, and returns REP and BND.
func askUDP(t *testing.T, c net.Conn, dst []byte) (byte, netip.AddrPort) {
	t.Helper()
	say(t, c, "\x05\x03\x00"+string(dst))
	b := make([]byte, 10)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("the reply to UDP ASSOCIATE: %v", err)
	}
	if b[3] == 4 {
		b = append(b, make([]byte, 12)...)
		if _, err := io.ReadFull(c, b[10:]); err != nil {
			t.Fatalf("the reply to UDP ASSOCIATE: %v", err)
		}
	}
	bnd, _, err := readAddress(b[3:])
	if err != nil || b[0] != 5 || b[2] != 0 {
		t.Fatalf("the reply to UDP ASSOCIATE is % x: %v", b, err)
	}
	return b[1], netip.MustParseAddrPort(bnd)
}

// nobody is a DST that says nothing of where datagrams will come from.
var nobody = wireAddress("0.0.0.0", 0)

// call opens an association for a client that has connected.
func call(t *testing.T, c net.Conn, login string) *caller {
	t.Helper()
	greet(t, c, login)
	rep, relay := askUDP(t, c, nobody)
	if rep != 0 {
		t.Fatalf("UDP ASSOCIATE is refused with REP %02x", rep)
	}
	return &caller{t, c, bindUDP(t, c.LocalAddr().(*net.TCPAddr).IP.String()), relay}
}

// associate connects, and opens an association.
func associate(t *testing.T, proxy string) *caller {
	t.Helper()
	return call(t, dial(t, proxy), "")
}

// refusedUDP connects from an address, asks for an association, and returns REP.
func refusedUDP(t *testing.T, from, proxy, login string) byte {
	t.Helper()
	c := dialFrom(t, from, proxy)
	defer c.Close()
	greet(t, c, login)
	rep, _ := askUDP(t, c, nobody)
	return rep
}

// bindUDP opens a socket on an address of this machine.
func bindUDP(t *testing.T, ip string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw sends bytes to the relay as they are.
func (c *caller) raw(b []byte) { c.t.Helper(); sendTo(c.t, c.udp, c.relay, b) }

func sendTo(t *testing.T, from *net.UDPConn, to netip.AddrPort, b []byte) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

// wrap puts the header of RFC 1928 section 7 in front of a payload.
func wrap(t *testing.T, target, payload string) []byte {
	t.Helper()
	return append(append([]byte{0, 0, 0}, wireTarget(t, target)...), payload...)
}

func (c *caller) say(target, payload string) { c.t.Helper(); c.raw(wrap(c.t, target, payload)) }

// hear waits for a datagram and returns whose it is and what it says.
func (c *caller) hear() (from, payload string) {
	c.t.Helper()
	_ = c.udp.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1<<16)
	n, relay, err := c.udp.ReadFromUDPAddrPort(b)
	if err != nil {
		c.t.Fatalf("no datagram comes: %v", err)
	}
	if netip.AddrPortFrom(relay.Addr().Unmap(), relay.Port()) != c.relay {
		c.t.Errorf("a datagram comes from %v, want %v", relay, c.relay)
	}
	if !bytes.HasPrefix(b[:n], []byte{0, 0, 0}) {
		c.t.Fatalf("the header is % x, want RSV and FRAG of 0", b[:min(n, 10)])
	}
	from, length, err := readAddress(b[3:n])
	if err != nil {
		c.t.Fatal(err)
	}
	return from, string(b[3+length : n])
}

// mustEcho sends a word to a server that sends it back, which is the next that is heard.
func (c *caller) mustEcho(target, word string) (from string) {
	c.t.Helper()
	c.say(target, word)
	from, got := c.hear()
	if got != word {
		c.t.Fatalf("from %s came %d bytes, %.40q; want %d, %.40q", from, len(got), got, len(word), word)
	}
	return from
}

// record ends the association and returns its line of the log.
func (c *caller) record(g *gateway, want map[string]any) logLine {
	c.t.Helper()
	c.conn.Close()
	l := g.record("client=" + c.conn.LocalAddr().String())
	check(c.t, l, map[string]any{"method": "UDP", "protocol": "socks5"})
	check(c.t, l, want)
	return l
}

// silent fails the test if a socket has got anything.
func silent(t *testing.T, what string, c *net.UDPConn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // which no answer takes
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s got %.40q from %v, %v; want nothing", what, b[:n], from, err)
	}
}

// udpServer hands each datagram to a function.
func udpServer(t *testing.T, ip string, handle func(c *net.UDPConn, from netip.AddrPort, b []byte)) string {
	t.Helper()
	c := bindUDP(t, ip)
	serveUDP(t, c, handle)
	return c.LocalAddr().String()
}

func serveUDP(t *testing.T, c *net.UDPConn, handle func(c *net.UDPConn, from netip.AddrPort, b []byte)) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 1<<16); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				handle(c, from, b[:n])
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
}

// udpEcho sends datagrams back.
func udpEcho(c *net.UDPConn, from netip.AddrPort, b []byte) { _, _ = c.WriteToUDPAddrPort(b, from) }

// echoPort has a server at one port of both loopback addresses.
func echoPort(t *testing.T) uint16 {
	t.Helper()
	return dualListen(t, func(_, addr string) (io.Closer, uint16, error) {
		a := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
		c, err := net.ListenUDP("udp", a)
		if err != nil {
			return nil, 0, err
		}
		serveUDP(t, c, udpEcho)
		return c, c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
	})
}

// TestUDPAssociate goes to every kind of target by listeners of both IP versions, with payloads from nothing to the most that fits.
func TestUDPAssociate(t *testing.T) {
	t.Parallel()
	l := newLiar(t, map[string]answerer{"echo.example.": records("60 A 127.0.0.1"), "six.example.": records("60 AAAA ::1")})
	g := startTidy(t, listenBoth+"[dns]\nservers = [\"udp://"+l.addr+"\"]\n"+allowLoopback)
	port := echoPort(t)
	answerers := map[string]string{"127.0.0.1": "127.0.0.1", "::1": "::1", "localhost": "", "echo.example": "127.0.0.1", "six.example": "::1"}
	for _, listener := range []string{"main", "six"} {
		for host, from := range answerers {
			t.Run(host+" by "+listener, func(t *testing.T) {
				c := associate(t, g.addr(listener))
				if want := g.addr(listener); c.relay.String() != want {
					t.Errorf("BND is %v, want %s, where the client is connected to", c.relay, want)
				}
				target := net.JoinHostPort(host, fmt.Sprint(port))
				sent := 0
				sizes := []int{0, 1, 512, 1472, 9000, 65000}
				for _, size := range sizes {
					got := c.mustEcho(target, strings.Repeat("x", size))
					if want := net.JoinHostPort(from, fmt.Sprint(port)); got != want && from != "" {
						t.Errorf("the answer is from %s, want %s", got, want)
					}
					sent += size
				}
				c.record(g, map[string]any{
					"listener": listener, "target": target, "rule": "test servers", "identity": "", "reason": "", "targets": 1.0, "status": 0.0,
					"bytes_from_client": float64(sent), "bytes_from_target": float64(sent), "datagrams_from_client": float64(len(sizes)), "datagrams_from_target": float64(len(sizes)),
					"datagrams_denied": 0.0, "datagrams_fragmented": 0.0, "datagrams_limited": 0.0, "datagrams_dropped": 0.0, "unreachable": 0.0,
				})
			})
		}
	}
}

// One association goes to many targets, and each answer says whose it is.
func TestUDPManyTargets(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	c := associate(t, g.at())
	const n = 40
	var targets []string
	for i := range n {
		targets = append(targets, udpServer(t, []string{"127.0.0.1", "127.0.0.2", "::1"}[i%3], udpEcho))
	}
	for range 3 {
		for _, target := range targets {
			c.say(target, "for "+target)
		}
		heard := map[string]bool{}
		for range targets {
			from, payload := c.hear()
			if heard[from] || payload != "for "+from {
				t.Fatalf("from %s came %q", from, payload)
			}
			heard[from] = true
		}
	}
	c.record(g, map[string]any{"targets": float64(n), "datagrams_from_client": 3.0 * n, "datagrams_from_target": 3.0 * n, "target": targets[0], "reason": ""})
}
