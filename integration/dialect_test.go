package integration

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// dialect is one way of asking for a place.
type dialect struct {
	name    string
	row     string // "" is the place's own raw row
	host    string // how the place is spelled; "" where its name is used
	version string // in the record
	method  string // in the record
	// ask is all that a client sends in front of its own data.
	ask func(d dialect, p place) []byte
	// open, if not nil, opens the tunnel by itself, and sends early data in it.
	open func(t *testing.T, st *stage, early string) end
	// welcome reads the answer that opens the tunnel, and returns it. Nil: there is none, and
	// what was asked with goes to the server as data.
	welcome func(t *testing.T, c net.Conn) []byte
	// accept is what the server does before the tunnel stands; nil is nothing.
	accept func(t *testing.T, c net.Conn)
	// counts says that the record counts what was asked and answered too (HTTP).
	counts bool
	ok     int // the status of a tunnel that stands
	// denied, refused and timeout are what the client hears instead.
	denied, refused, timeout answer
}

// answer is a refusal as the client sees it, and as the record has it.
type answer struct {
	begins string
	status int
}

// dialects are all the ways to a tunnel, in the forms that their protocols have.
func dialects() []dialect {
	connect := dialect{
		name: "connect", row: "connect", version: "HTTP/1.1", method: "CONNECT", ask: askConnect, welcome: hearStatusLine("200"), ok: 200,
		denied:  answer{"HTTP/1.1 403 ", 403},
		refused: answer{"HTTP/1.1 502 ", 502},
		timeout: answer{"HTTP/1.1 504 ", 504},
	}
	upgrade := connect
	upgrade.name, upgrade.row, upgrade.method, upgrade.ask = "http upgrade", "http", "GET", askUpgrade
	upgrade.welcome, upgrade.accept, upgrade.counts, upgrade.ok = hearStatusLine("101"), acceptUpgrade, true, 101
	rejected := answer{"\x00\x5b\x00\x00\x00\x00\x00\x00", 91}
	socks4 := dialect{
		name: "socks4", row: "socks4", version: "SOCKS4", method: "CONNECT", ask: askSOCKS4, welcome: hearSOCKS4, ok: 90,
		denied: rejected, refused: rejected, timeout: rejected,
	}
	socks4a := socks4
	socks4a.name, socks4a.version, socks4a.ask = "socks4a", "SOCKS4a", askSOCKS4a
	socks5 := dialect{
		name: "socks5", row: "socks5", version: "SOCKS5", method: "CONNECT", ask: askSOCKS5, welcome: hearSOCKS5,
		denied:  answer{"\x05\x00\x05\x02\x00", 2},
		refused: answer{"\x05\x00\x05\x05\x00", 5},
		timeout: answer{"\x05\x00\x05\x06\x00", 6},
	}
	passthrough := dialect{
		name: "tls", row: "tls", version: "TLSv1.3", ask: askTLS,
		denied:  answer{"\x15\x03\x03\x00\x02\x02\x31", 0}, // access_denied
		refused: answer{"\x15\x03\x03\x00\x02\x02\x50", 0}, // internal_error
		timeout: answer{"\x15\x03\x03\x00\x02\x02\x50", 0},
	}
	raw := dialect{name: "raw", ask: askRaw}
	return []dialect{
		connect.at("127.0.0.1"), connect.at("::1"), connect.at("localhost"),
		upgrade.at("127.0.0.1"), upgrade.at("::1"),
		socks4.at("127.0.0.1"), socks4a.at("localhost"),
		socks5.at("127.0.0.1"), socks5.at("::1"), socks5.at("localhost"),
		passthrough, raw,
	}
}

// at is the dialect with another spelling of the place.
func (d dialect) at(host string) dialect {
	d.name += " " + host
	d.host = host
	return d
}

// rowFor is the row of the protocol table that the record names.
func (d dialect) rowFor(p place) string {
	if d.row == "" {
		return p.name
	}
	return d.row
}

// target is what the record says that the client asked for.
func (d dialect) target(p place) string {
	switch {
	case d.host != "":
		return net.JoinHostPort(d.host, strconv.Itoa(int(p.port)))
	case d.row == "tls":
		return p.name + ".test:443"
	}
	return p.name
}

func (d dialect) bytes(p place) []byte { return d.ask(d, p) }

func askConnect(d dialect, p place) []byte {
	return []byte("CONNECT " + d.target(p) + " HTTP/1.1\r\nHost: " + d.target(p) + "\r\n\r\n")
}

func askUpgrade(d dialect, p place) []byte {
	return []byte("GET http://" + d.target(p) + "/chat HTTP/1.1\r\nHost: " + d.target(p) + "\r\nConnection: Upgrade\r\nUpgrade: matrix\r\n\r\n")
}

// acceptUpgrade reads a request head and switches protocols.
func acceptUpgrade(t *testing.T, c net.Conn) {
	t.Helper()
	if line := hearHead(t, c); !strings.HasPrefix(line, "GET /chat ") {
		t.Fatalf("the server was asked %q", line)
	}
	say(t, c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: matrix\r\n\r\n")
}

func askSOCKS4(d dialect, p place) []byte {
	b := append([]byte{4, 1}, p.wire()...)
	return append(append(b, netip.MustParseAddr(d.host).AsSlice()...), "tester\x00"...)
}

func askSOCKS4a(d dialect, p place) []byte {
	b := append([]byte{4, 1}, p.wire()...)
	return append(append(b, 0, 0, 0, 1), "tester\x00"+d.host+"\x00"...)
}

func askSOCKS5(d dialect, p place) []byte {
	b := []byte{5, 1, 0, 5, 1, 0}
	switch a, err := netip.ParseAddr(d.host); {
	case err != nil:
		b = append(append(b, 3, byte(len(d.host))), d.host...)
	case a.Is4():
		b = append(append(b, 1), a.AsSlice()...)
	default:
		b = append(append(b, 4), a.AsSlice()...)
	}
	return append(b, p.wire()...)
}

// askTLS is a real ClientHello.
func askTLS(_ dialect, p place) []byte {
	var hello firstWrite
	_ = tls.Client(&hello, &tls.Config{ServerName: p.name + ".test", MinVersion: tls.VersionTLS13}).Handshake() // ends at its first read
	return hello.bytes
}

// firstWrite keeps what is written first, and has nothing to read.
type firstWrite struct {
	net.Conn
	bytes []byte
}

func (f *firstWrite) Write(b []byte) (int, error) {
	if f.bytes == nil {
		f.bytes = bytes.Clone(b)
	}
	return len(b), nil
}

func (f *firstWrite) Read([]byte) (int, error) { return 0, io.EOF }

func askRaw(_ dialect, p place) []byte { return []byte(strings.ToUpper(p.name) + "/1 ready\n") }

// hearStatusLine reads a response head with a status.
func hearStatusLine(status string) func(*testing.T, net.Conn) []byte {
	return func(t *testing.T, c net.Conn) []byte {
		t.Helper()
		head := hearAll(t, c, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 "+status+" ") {
			t.Fatalf("the answer is %q, want %s", head, status)
		}
		return []byte(head)
	}
}

// hearAll reads up to and with the end that is given.
func hearAll(t *testing.T, c net.Conn, end string) string {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(got), end); got = append(got, b[0]) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("heard %q and then %v; want %q at its end", got, err, end)
		}
	}
	return string(got)
}

func hearSOCKS4(t *testing.T, c net.Conn) []byte {
	t.Helper()
	reply := make([]byte, 8)
	if n, err := io.ReadFull(c, reply); err != nil || reply[0] != 0 || reply[1] != 90 {
		t.Fatalf("the SOCKS4 reply is %x, %v; want 00 5a", reply[:n], err)
	}
	return reply
}

// hearSOCKS5 reads the method selection and the reply, which names the address
// from which the target is reached.
func hearSOCKS5(t *testing.T, c net.Conn) []byte {
	t.Helper()
	reply := make([]byte, 6)
	if n, err := io.ReadFull(c, reply); err != nil || !bytes.Equal(reply[:5], []byte{5, 0, 5, 0, 0}) {
		t.Fatalf("the SOCKS5 answers begin with %x, %v; want 05 00 05 00 00", reply[:n], err)
	}
	bound := make([]byte, map[byte]int{1: 4, 4: 16}[reply[5]]+2)
	if _, err := io.ReadFull(c, bound); err != nil {
		t.Fatalf("the SOCKS5 reply is cut short: %v", err)
	}
	if a, _ := netip.AddrFromSlice(bound[:len(bound)-2]); !a.IsLoopback() || bytes.HasSuffix(bound, []byte{0, 0}) {
		t.Errorf("the SOCKS5 reply says that the target is reached from %x, want a loopback address and its port", bound)
	}
	return append(reply, bound...)
}
