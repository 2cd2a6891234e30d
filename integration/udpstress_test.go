package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// The longest datagrams pass; what its header makes too long for the client is lost, and nothing else.
func TestUDPLongest(t *testing.T) {
	t.Parallel()
	g := startTidy(t, listenAnywhere+allowLoopback)
	const longest, header = 65507, 10 // over IPv4
	target := udpServer(t, "127.0.0.1", func(c *net.UDPConn, from netip.AddrPort, b []byte) {
		if string(b) == "as much as there can be" {
			b = make([]byte, longest)
		}
		udpEcho(c, from, b)
	})
	c := associate(t, g.at())
	c.mustEcho(target, strings.Repeat("x", longest-header))
	c.say(target, "as much as there can be")
	c.mustEcho(target, "a word")
	silent(t, "the client", c.udp)
	c.record(g, map[string]any{"datagrams_from_client": 3.0, "datagrams_from_target": 2.0, "datagrams_dropped": 1.0, "reason": ""})
}

// Without descriptors associations that there are go on, and new ones get nothing until there are some again.
func TestUDPWithoutDescriptors(t *testing.T) {
	t.Parallel()
	g := prepare(t, listenAnywhere+allowLoopback)
	limited := exec.Command("sh", append([]string{"-c", `ulimit -n 64; exec "$0" "$@"`}, g.cmd.Args...)...)
	limited.Stdout = &g.stdout
	g.cmd = limited
	g.run()
	g.waitListening(1)
	target := udpServer(t, "127.0.0.1", udpEcho)
	first := associate(t, g.at())
	first.mustEcho(target, "first")
	var more []*caller
	for g.descriptors() < 62 {
		more = append(more, associate(t, g.at()))
		if g.descriptors() < 62 {
			more[len(more)-1].mustEcho(target, "more")
		}
	}
	second := udpServer(t, "127.0.0.2", udpEcho)
	dial(t, g.at()) // the last ones
	dial(t, g.at())
	for range 20 {
		first.mustEcho(target, "still here")
		first.mustEcho(second, "elsewhere too")
	}
	for _, c := range more {
		c.conn.Close()
	}
	for _, c := range more {
		g.record("client=" + c.conn.LocalAddr().String())
	}
	late := associate(t, g.at())
	late.mustEcho(target, "late")
	first.record(g, map[string]any{"datagrams_from_client": 41.0, "datagrams_from_target": 41.0, "targets": 2.0, "reason": ""})
}

// visit opens an association, sends what it likes and leaves in some way. What fails on the way is no matter.
func visit(proxy string, targets []string) {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = c.Write([]byte("\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"))
	reply := make([]byte, 12)
	if _, err := io.ReadFull(c, reply); err != nil || reply[3] != 0 {
		return
	}
	bnd, _, err := readAddress(reply[5:])
	if err != nil {
		return
	}
	u, err := net.Dial("udp", bnd)
	if err != nil {
		return
	}
	defer u.Close()
	for range rand.IntN(50) {
		target := netip.MustParseAddrPort(targets[rand.IntN(len(targets))])
		host := target.Addr().String()
		if rand.IntN(4) == 0 {
			host = "localhost"
		}
		_, _ = u.Write(append(append([]byte{0, 0, byte(rand.IntN(8) / 7)}, wireAddress(host, target.Port())...), make([]byte, rand.IntN(2000))...))
	}
	if rand.IntN(2) == 0 {
		_ = u.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = u.Read(make([]byte, 1<<16))
	}
	if rand.IntN(2) == 0 {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
}

// TestUDPTurmoil has associations come and go amid reloads and strangers, and in the end nothing is left of them.
func TestUDPTurmoil(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 4)
	configs := []string{
		listenBoth + allowLoopback, listenBoth + allowLoopback + "[udp]\nidle = \"100ms\"\ntargets = 2\nfilter = \"address\"\n",
		listenBoth + allowLoopback + fmt.Sprintf("[udp]\nports = \"%d-%d\"\n", ports, ports+3), strings.Replace(listenBoth, "[listen.six]", "udp = false\n[listen.six]", 1) + allowLoopback,
	}
	g := startTidy(t, configs[0])
	closed := bindUDP(t, "127.0.0.1")
	targets := []string{udpServer(t, "127.0.0.1", udpEcho), udpServer(t, "127.0.0.1", udpEcho), udpServer(t, "::1", udpEcho), closed.LocalAddr().String()}
	closed.Close()
	end := make(chan struct{})
	var all sync.WaitGroup
	for i := range 6 {
		proxy := []string{g.at(), g.addr("six")}[i%2]
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					visit(proxy, targets)
				}
			}
		})
	}
	stranger, relay := bindUDP(t, "127.0.0.77"), netip.MustParseAddrPort(g.at())
	for i := range 24 {
		if l := g.reload(configs[i%len(configs)]); l.str("msg") != "reloaded" {
			t.Errorf("reload: %v", l)
		}
		for range 20 {
			sendTo(t, stranger, relay, wrap(t, targets[0], "of nobody"))
		}
		silent(t, "the stranger", stranger)
	}
	close(end)
	all.Wait()
	if l := g.reload(configs[0]); l.str("msg") != "reloaded" {
		t.Errorf("reload: %v", l)
	}
	associate(t, g.at()).mustEcho(targets[0], "behind it all")
}
