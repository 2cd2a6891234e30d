package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// noDatagrams are what no datagram of a client's may be; TARGET stands for ATYP, address and port of a server.
var noDatagrams = []struct {
	name, bytes string
	counter     string // of the record; "" is none, for what says nothing at all
}{
	{"nothing", "", ""},
	{"RSV", "\x00\x00", "datagrams_dropped"},
	{"no ATYP", "\x00\x00\x00", "datagrams_dropped"},
	{"no address", "\x00\x00\x00\x01", "datagrams_dropped"},
	{"half an address", "\x00\x00\x00\x01\x7f\x00", "datagrams_dropped"},
	{"no port", "\x00\x00\x00\x01\x7f\x00\x00\x01", "datagrams_dropped"},
	{"half a port", "\x00\x00\x00\x01\x7f\x00\x00\x01\x00", "datagrams_dropped"},
	{"half an IPv6 address", "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00", "datagrams_dropped"},
	{"no port behind an IPv6 address", "\x00\x00\x00\x04" + strings.Repeat("\x00", 15) + "\x01", "datagrams_dropped"},
	{"no length of a name", "\x00\x00\x00\x03", "datagrams_dropped"},
	{"a name of nothing", "\x00\x00\x00\x03\x00\x00\x35x", "datagrams_dropped"},
	{"a name cut off", "\x00\x00\x00\x03\xffexample", "datagrams_dropped"},
	{"a name without a port", "\x00\x00\x00\x03\x09localhost", "datagrams_dropped"},
	{"ATYP 0", "\x00\x00\x00\x00\x7f\x00\x00\x01\x00\x35x", "datagrams_dropped"},
	{"ATYP 2", "\x00\x00\x00\x02\x7f\x00\x00\x01\x00\x35x", "datagrams_dropped"},
	{"ATYP 255", "\x00\x00\x00\xff\x7f\x00\x00\x01\x00\x35x", "datagrams_dropped"},
	{"port 0", "\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x00x", "datagrams_dropped"},
	{"a name with NUL", "\x00\x00\x00\x03\x0alocal\x00host\x00\x35x", "datagrams_dropped"},
	{"FRAG 1", "\x00\x00\x01TARGETx", "datagrams_fragmented"},
	{"FRAG 127", "\x00\x00\x7fTARGETx", "datagrams_fragmented"},
	{"the last of fragments", "\x00\x00\x81TARGETx", "datagrams_fragmented"},
	{"FRAG 128", "\x00\x00\x80TARGETx", "datagrams_fragmented"},
}

// counters are those of datagrams that went nowhere.
var counters = []string{"datagrams_denied", "datagrams_fragmented", "datagrams_limited", "datagrams_dropped"}

// TestUDPNoDatagrams sends each before the client's port is known, which it must not become by that, and again behind it.
func TestUDPNoDatagrams(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	var reached atomic.Int64
	target := udpServer(t, "127.0.0.1", func(c *net.UDPConn, from netip.AddrPort, b []byte) { reached.Add(1); udpEcho(c, from, b) })
	for _, tt := range noDatagrams {
		t.Run(tt.name, func(t *testing.T) {
			before := reached.Load()
			b := []byte(strings.Replace(tt.bytes, "TARGET", string(wireTarget(t, target)), 1))
			c, stranger := associate(t, g.at()), bindUDP(t, "127.0.0.1")
			sendTo(t, stranger, c.relay, b)
			c.mustEcho(target, "good")
			c.raw(b)
			c.mustEcho(target, "again")
			c.raw(b)
			c.mustEcho(target, "and again")
			silent(t, "the client", c.udp)
			silent(t, "another port", stranger)
			l := c.record(g, map[string]any{"datagrams_from_client": 3.0, "datagrams_from_target": 3.0, "targets": 1.0, "target": target, "reason": ""})
			for _, counter := range counters {
				if n := l.num(counter); n != 0 && counter != tt.counter || counter == tt.counter && n != 2 && n != 3 { // the stranger may count
					t.Errorf("%s is %d: %v", counter, n, l)
				}
			}
			if n := reached.Load() - before; n != 3 {
				t.Errorf("the server was reached %d times, want 3", n)
			}
		})
	}
}

// RSV is nobody's business: what is in it is ignored, or the datagram is, and never more.
func TestUDPReservedOctets(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	c := associate(t, g.at())
	c.mustEcho(target, "good")
	c.raw(append([]byte{0xff, 0xff, 0}, append(wireTarget(t, target), "reserved"...)...))
	c.say(target, "the last")
	for _, got := c.hear(); got != "the last"; _, got = c.hear() {
		if got != "reserved" {
			t.Fatalf("heard %q", got)
		}
	}
	c.record(g, map[string]any{"reason": ""})
}

// Names of any length that lead nowhere, or to places that are denied, cost their datagrams and nothing else.
func TestUDPNames(t *testing.T) {
	t.Parallel()
	l := newLiar(t, map[string]answerer{"inside.example.": records("60 A 10.0.0.1"), "silent.example.": silence, "good.example.": records("60 A 127.0.0.1")})
	g := startTidy(t, behindLiar(l))
	_, port, _ := strings.Cut(udpServer(t, "127.0.0.1", udpEcho), ":")
	c := associate(t, g.at())
	c.mustEcho("good.example:"+port, "good")
	for _, name := range []string{
		strings.Repeat("a", 255), strings.Repeat("a.", 127) + "a", strings.Repeat("\xff", 255), "silent.example", "nowhere.example", "inside.example", "a.ads.example",
		"..", "x.onion", "good.example\r\nhost", "169.254.169.254", "0x0a000001", "[::1]", "224.0.0.1", "255.255.255.255", "0.0.0.0",
	} {
		c.say(net.JoinHostPort(strings.Trim(name, "[]"), port), "lost")
		c.mustEcho("good.example:"+port, "good")
	}
	silent(t, "the client", c.udp)
	if l := c.record(g, map[string]any{"datagrams_from_target": 17.0, "reason": ""}); l.num("datagrams_denied") < 5 {
		t.Errorf("of the denied ones %d are counted: %v", l.num("datagrams_denied"), l)
	}
}

// TestUDPStrangers sends good datagrams to a relay by sockets that are not the client's.
func TestUDPStrangers(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	var reached atomic.Int64
	target := udpServer(t, "127.0.0.1", func(c *net.UDPConn, from netip.AddrPort, b []byte) {
		if strings.HasPrefix(string(b), "forged") {
			reached.Add(1)
		}
		udpEcho(c, from, b)
	})
	c := associate(t, g.at())
	strangers := map[string]*net.UDPConn{"another address": bindUDP(t, "127.0.0.66"), "another port": bindUDP(t, "127.0.0.1"), "the client's port": nil}
	own := c.udp.LocalAddr().(*net.UDPAddr)
	twin, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 67), Port: own.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { twin.Close() })
	strangers["the client's port"] = twin
	sendTo(t, strangers["another address"], c.relay, wrap(t, target, "forged, before the client"))
	c.mustEcho(target, "good")
	for range 10 {
		for _, s := range strangers {
			sendTo(t, s, c.relay, wrap(t, target, "forged"))
		}
		c.mustEcho(target, "good")
	}
	for what, s := range strangers {
		silent(t, what, s)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the server got %d forged datagrams", n)
	}
	c.record(g, map[string]any{"datagrams_from_client": 11.0, "datagrams_from_target": 11.0, "bytes_from_client": 44.0, "reason": ""})
}

// A flood of datagrams that belong to nobody is answered by nothing, holds no memory and starves nobody.
func TestUDPFlood(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	target := udpServer(t, "127.0.0.1", udpEcho)
	c := associate(t, g.at())
	c.mustEcho(target, "before")
	before, lines := peakMemory(t, g.cmd.Process.Pid), g.mark()
	var floods []*net.UDPConn
	for i := range 64 {
		floods = append(floods, bindUDP(t, fmt.Sprintf("127.0.9.%d", i+1)))
	}
	junk := [][]byte{wrap(t, target, "flood"), []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 9000), {0}, {}}
	end := time.After(2 * time.Second)
	for sent, flooding := 0, true; flooding; {
		for i, f := range floods {
			_, _ = f.WriteToUDPAddrPort(junk[(sent+i)%len(junk)], c.relay)
		}
		select {
		case <-end:
			flooding = false
		default:
			sent++
		}
	}
	for b, tries := make([]byte, 1<<16), 0; ; tries++ { // the socket's buffer may be full of the flood
		c.say(target, "after")
		_ = c.udp.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, _, err := c.udp.ReadFromUDPAddrPort(b); err == nil {
			break
		} else if !errors.Is(err, os.ErrDeadlineExceeded) || tries > 100 {
			t.Fatalf("the good client hears nothing behind the flood: %v", err)
		}
	}
	for _, f := range floods {
		silent(t, "a stranger", f)
	}
	if grown := peakMemory(t, g.cmd.Process.Pid) - before; grown > 64<<20 {
		t.Errorf("the flood costs %d MiB", grown>>20)
	}
	if n := g.mark() - lines; n > 10 {
		t.Errorf("the flood costs %d lines of the log", n)
	}
	c.record(g, map[string]any{"targets": 1.0, "reason": ""})
}

// The end of the connection is that of the association, in whatever way it comes.
func TestUDPEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	var reached atomic.Int64
	target := udpServer(t, "127.0.0.1", func(c *net.UDPConn, from netip.AddrPort, b []byte) {
		reached.Add(1)
		udpEcho(c, from, b)
	})
	idle := g.descriptors()
	for name, end := range map[string]func(*net.TCPConn){
		"in order":   func(c *net.TCPConn) { c.Close() },
		"by halves":  func(c *net.TCPConn) { _ = c.CloseWrite() },
		"by a reset": func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c := associate(t, g.at())
			c.mustEcho(target, "one")
			for range 100 { // in mid-flow
				c.say(target, "more")
			}
			end(c.conn.(*net.TCPConn))
			l := g.record("client=" + c.conn.LocalAddr().String())
			if r := l.str("reason"); r != "" && name != "by a reset" {
				t.Errorf("the reason is %q, want none", r)
			}
			g.settle(idle)
			fence := call(t, dialFrom(t, "127.0.0.2", g.at()), "")
			fence.mustEcho(target, "behind all that was under way")
			reached.Store(0)
			for range 10 {
				c.say(target, "late")
			}
			fence.mustEcho(target, "behind the late ones")
			if n := reached.Load(); n != 1 {
				t.Errorf("behind the end %d datagrams reached the server, want the fence's alone", n)
			}
			fence.conn.Close()
			g.settle(idle)
		})
	}
}
