package integration

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// spellings are ways to write an address of this machine or of a private network, or something that some
// program would take for one.
var spellings = []string{
	"127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0x0.0.1", "0177.0.0.1", "017700000001", "000177.1", "127.0.0.1.",
	"127.000.000.001", "127.0.0.2", "127.255.255.254", "0", "0x0", "0.0.0.0", "0.0.0.1", "10.1", "0x0a000001", "4294967297", "+127.0.0.1", "127.0.0.01e0",
	"::1", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "::", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "::ffff:127.0.0.1", "[::ffff:0.0.0.0]", "[::127.0.0.1]",
	"[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::1]", "[::1%lo]", "::1%lo", "[::1%25lo]", "[127.0.0.1]", "[localhost]", "[::1", "::1]", "[[::1]]",
	"localhost", "LOCALHOST", "localhost.", "a.localhost", "a.LocalHost.", "127。0。0。1", "１２７.0.0.1", "１２７。０。０。１", "①②⑦.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "loc\u00adalhost",
	"loop.example", "loop.example.", "LOOP.example", "ｌｏｏｐ.example", "lan.example", "any.example", "six.example", "mapped.example", "mixed.example", "hidden.example",
	"127.0.0.1:80", "user@127.0.0.1", "127.0.0.1\\", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\x00.example.com", "127.0.0.1%00", "%31%32%37.0.0.1", "127%2e0%2e0%2e1",
}

// privateNames is a name server's view of the world in which every name leads inside.
var privateNames = map[string]answerer{
	"loop.example.": records("60 IN A 127.0.0.1", "60 IN AAAA ::1"), "lan.example.": records("60 IN A 10.0.0.1"), "any.example.": records("60 IN A 0.0.0.0", "60 IN AAAA ::"),
	"six.example.": records("60 IN AAAA ::1"), "mapped.example.": records("60 IN AAAA ::ffff:127.0.0.1"), "hidden.example.": records("60 IN AAAA 64:ff9b::7f00:1"),
	"mixed.example.": records("60 IN A 10.0.0.1", "60 IN A 127.0.0.1", "60 IN AAAA fe80::1"),
}

// trap is a server that nobody may reach.
func trap(t *testing.T) (addr string, reached *atomic.Int64) {
	t.Helper()
	reached = new(atomic.Int64)
	return tcpServer(t, func(c *net.TCPConn) { reached.Add(1); _, _ = io.WriteString(c, okAnswer) }), reached
}

// portOf returns the port of "host:port", as a number and in network order.
func portOf(t *testing.T, addr string) (port string, wire []byte) {
	t.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(ap.Port()), place{port: ap.Port()}.wire()
}

// requestsFor are the ways to ask for a host, in whole messages that a refusal ends.
func requestsFor(host, port string, wire []byte) map[string]string {
	in := map[string]string{
		"get":         "GET http://" + host + ":" + port + "/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
		"get by Host": "GET http://nowhere.invalid/ HTTP/1.1\r\nHost: " + host + ":" + port + "\r\nConnection: close\r\n\r\n",
		"origin-form": "GET / HTTP/1.1\r\nHost: " + host + ":" + port + "\r\nConnection: close\r\n\r\n",
		"user":        "GET http://a.example:80@" + host + ":" + port + "/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
		"upgrade":     "GET http://" + host + ":" + port + "/ HTTP/1.1\r\nHost: a.example\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\r\n",
		"connect":     "CONNECT " + host + ":" + port + " HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
		"socks5":      "\x05\x01\x00\x05\x01\x00\x03" + string([]byte{byte(len(host))}) + host + string(wire),
		"socks4a":     "\x04\x01" + string(wire) + "\x00\x00\x00\x01\x00" + host + "\x00",
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && a.Is4() {
		if host != "0.0.0.1" { // which says that a name follows
			in["socks4 address"] = "\x04\x01" + string(wire) + string(a.AsSlice()) + "\x00"
		}
		in["socks5 address"] = "\x05\x01\x00\x05\x01\x00\x01" + string(a.AsSlice()) + string(wire)
	} else if err == nil {
		in["socks5 address"] = "\x05\x01\x00\x05\x01\x00\x04" + string(a.WithZone("").AsSlice()) + string(wire)
	}
	return in
}

// heardOn sends s on a connection of its own and returns all that comes back; the connection has to end.
func heardOn(t *testing.T, proxy, s string) string {
	t.Helper()
	c := dial(t, proxy)
	defer c.Close()
	_, _ = io.WriteString(c, s) // it may be refused in mid-message
	return hearOut(c)
}

// passed reports whether an answer says that the target was reached.
func passed(answer string) bool {
	return strings.HasPrefix(answer, "HTTP/1.1 200") || strings.HasPrefix(answer, "\x05\x00\x05\x00") || strings.HasPrefix(answer, "\x00\x5a")
}

// A rule for everything lifts the guard from nothing, whatever the protocol and the spelling.
func TestNoSpellingReachesThisMachine(t *testing.T) {
	t.Parallel()
	addr, reached := trap(t)
	port, wire := portOf(t, addr)
	l := newLiar(t, privateNames)
	g := start(t, listenAnywhere+"help_page = false\n[dns]\nservers = [\"udp://"+l.addr+"\"]\n[limits]\nunfinished_per_client = 16384\n[protocols.tls]\ndial_sni = true\n"+
		"[[rule]]\naction = \"allow\"\ntarget = [\"*\", \"0.0.0.0/0\", \"::/0\", \"localhost\", \".example\"]\n")
	for _, host := range spellings {
		for way, says := range requestsFor(host, port, wire) {
			if got := heardOn(t, g.at(), says); passed(got) {
				t.Errorf("%s of %q heard %q", way, host, got)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the server behind the guard was reached %d times", n)
	}
}

// The gateway is never its own target, though rules allow every address of this
// machine; nor by an address that no interface lists.
func TestNobodyIsLedBackToTheGateway(t *testing.T) {
	if !apart(t) {
		return
	}
	ip(t, "addr", "add", "10.88.0.1/16", "dev", "lo") // all of 10.88.0.0/16 is this machine's now
	ip(t, "addr", "add", "10.99.0.1/32", "dev", "lo")
	for _, address := range []string{`"127.0.0.1:7659"`, `"0.0.0.0:7659"`, `"[::]:7659", "127.0.0.1:7659"`, `"127.0.0.1:7659", "[::1]:7659", "10.99.0.1:7659"`} {
		g := start(t, "allow_open_proxy = true\n[listen.main]\naddress = ["+address+"]\nhelp_page = false\n[[rule]]\naction = \"allow\"\n"+
			"target = [\"127.0.0.0/8\", \"10.0.0.0/8\", \"0.0.0.0/8\", \"::1/128\", \"::/128\", \"*\"]\n")
		proxy := "127.0.0.1:7659"
		for _, host := range append([]string{"10.99.0.1", "10.88.0.1", "10.88.7.7", "127.3.4.5", "012.130.7.7"}, spellings...) {
			for way, says := range requestsFor(host, "7659", []byte{0x1d, 0xeb}) {
				if got := heardOn(t, proxy, says); passed(got) {
					t.Errorf("listening on %s, %s of %q heard %q", address, way, host, got)
				}
			}
		}
		g.stop()
	}
}

// basic is a Proxy-Authorization field.
func basic(pair string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) + "\r\n"
}

// Neither another protocol, nor a connection on which somebody has logged in before, is a way around the user.
func TestNoWayAroundTheUser(t *testing.T) {
	t.Parallel()
	addr, reached := trap(t)
	_, wire := portOf(t, addr)
	g := prepare(t, listenAnywhere+"[auth]\nhtpasswd = \"users.htpasswd\"\n[auth.lockout]\nfailures = 0\n[protocols.tls]\ndial_sni = true\n"+
		"[[rule]]\naction = \"allow\"\nuser = [\"alice\"]\ntarget = [\"127.0.0.1\"]\n[[rule]]\naction = \"deny\"\nuser = [\"bob\"]\n"+allowLoopback)
	g.addUser("alice", "alice's own")
	g.addUser("bob", "bob's own")
	g.run()
	g.waitListening(1)
	get := func(field string) string {
		return "GET http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n" + field + "\r\n"
	}
	connect := func(field string) string { return "CONNECT " + addr + " HTTP/1.1\r\nHost: x\r\n" + field + "\r\n" }
	socks5 := func(user, password string) string {
		return "\x05\x02\x00\x02\x01" + string([]byte{byte(len(user))}) + user + string([]byte{byte(len(password))}) + password + "\x05\x01\x00\x01\x7f\x00\x00\x01" + string(wire)
	}
	alice, bob, last := basic("alice:alice's own"), basic("bob:bob's own"), "Connection: close\r\n"
	tests := []struct {
		name, says string
		reached    int64
	}{
		{"alice", get(alice + last), 1},
		{"nobody", get(last), 0},
		{"bob", get(bob + last), 0},
		{"nobody behind alice", get(alice) + get(last), 1},
		{"bob behind alice", get(alice) + get(bob) + get(last), 1},
		{"a tunnel behind alice", get(alice) + connect(last), 1},
		{"alice behind a tunnel that was refused", connect("") + get(alice+last), 0},
		{"alice in the body of nobody's request", "POST http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n" + last + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(get(alice))) + get(alice), 0},
		{"two at once", get(bob + alice + last), 0},
		{"in the origin's field", get(strings.TrimPrefix(alice, "Proxy-") + last), 0},
		{"another case of the name", get(basic("Alice:alice's own") + last), 0},
		{"a longer password", get(basic("alice:alice's own\x00") + last), 0},
		{"no password", get(basic("alice:") + last), 0},
		{"an upgrade", get("Connection: close, upgrade\r\nUpgrade: websocket\r\n"), 0},
		{"OPTIONS", "OPTIONS http://" + addr + " HTTP/1.1\r\nHost: x\r\n" + last + "\r\n", 0},
		{"SOCKS5 as alice", socks5("alice", "alice's own"), 1},
		{"SOCKS5 as bob", socks5("bob", "bob's own"), 0},
		{"SOCKS5 with a wrong password", socks5("alice", "bob's own"), 0},
		{"SOCKS5 without one", socks5("alice", ""), 0},
		{"SOCKS5 as nobody", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + string(wire), 0},
		{"SOCKS4 as alice", "\x04\x01" + string(wire) + "\x7f\x00\x00\x01alice\x00", 0},
		{"a PROXY header from a stranger", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get(last), 0},
		{"TLS", string(askTLS(dialect{}, place{name: "localhost"})), 0},
	}
	for _, tt := range tests {
		before := reached.Load()
		heard := heardOn(t, g.at(), tt.says)
		if got := reached.Load() - before; got != tt.reached {
			t.Errorf("%s: the server was reached %d times, want %d; heard %q", tt.name, got, tt.reached, heard)
		}
	}
	for _, secret := range []string{"'s own", base64.StdEncoding.EncodeToString([]byte("alice:alice's own")), "$2"} {
		if strings.Contains(g.log(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// One client's names that hang leave the name server to everybody else.
func TestHangingNamesOfOneClient(t *testing.T) {
	t.Parallel()
	const share = 32 // of look-ups that one client may have under way
	target := tcpServer(t, echo)
	port, _ := portOf(t, target)
	names := map[string]answerer{"good.example.": records("60 IN A 127.0.0.1")}
	var asked sync.WaitGroup
	asked.Add(share)
	const all = 24 * share // three times as many as may be under way for everybody together
	for i := range all {
		var once sync.Once
		names[fmt.Sprintf("n%d.hangs.example.", i)] = func(dns.ResponseWriter, *dns.Msg) {
			if i < share {
				once.Do(asked.Done)
			}
		}
	}
	l := newLiar(t, names)
	g := start(t, "[timeouts]\nhandshake = \"1m\"\ndrain = \"0s\"\n[limits]\nunfinished_per_client = 16384\n"+behindLiar(l))
	for i := range all {
		c := dialFrom(t, "127.0.0.2", g.at())
		say(t, c, fmt.Sprintf("CONNECT n%d.hangs.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", i))
		if i == share-1 {
			asked.Wait() // all of its share hangs
		}
	}
	c := tunnel(t, g.at(), "good.example:"+port)
	say(t, c, "through")
	hear(t, c, "through")
}

// Heads, lines and handshakes without an end are cut off, and hold no memory worth speaking of.
func TestEndlessMessages(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	g := start(t, listenAnywhere+allowLoopback)
	post := "POST http://" + origin + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := []struct{ name, begins, goesOn string }{
		{"field lines", "GET http://" + origin + "/ HTTP/1.1\r\nHost: x\r\n", "A: b\r\n"},
		{"one field line", "GET http://" + origin + "/ HTTP/1.1\r\nHost: x\r\nA: ", "b"},
		{"a request line", "GET http://" + origin + "/", "a"},
		{"a method", "", "A"},
		{"a chunk extension", post + "1;a=", "a"},
		{"a chunk size", post, "0"},
		{"trailers", post + "0\r\n", "A: b\r\n"},
		{"the body of a refused request", "POST http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n", "a"},
		{"USERID", "\x04\x01\x00\x50\x7f\x00\x00\x01", "a"},
		{"records of one byte", "\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x01\x00\x16\x03\x01\x00\x01\xff\x16\x03\x01\x00\x01\xf0", "\x16\x03\x01\x00\x01a"},
	}
	for _, tt := range tests {
		const most = 64 << 20 // far more than all buffers on the way
		c := dial(t, g.at())
		say(t, c, tt.begins)
		block := []byte(strings.Repeat(tt.goesOn, 32<<10/len(tt.goesOn)))
		var total int
		for err := error(nil); err == nil && total < most; {
			var n int
			n, err = c.Write(block)
			total += n
		}
		c.Close()
		if total >= most {
			t.Errorf("%s: %d bytes were taken without an end", tt.name, total)
		}
	}
	if peak := peakMemory(t, g.cmd.Process.Pid); peak > 512<<20 {
		t.Errorf("the gateway has taken %d MiB", peak>>20)
	}
	serveWell(t, "127.0.0.1", g.at(), origin)
}

// mangle changes some bytes of a message.
func mangle(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(4) {
		if len(b) == 0 {
			return b
		}
		switch i := r.IntN(len(b)); r.IntN(5) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b = append(b[:i], b[i+1:]...)
		case 2:
			b = b[:i]
		case 3:
			b = append(b[:i:i], append([]byte(hostilePieces[r.IntN(len(hostilePieces))]), b[i:]...)...)
		case 4:
			b = append(b[:i:i], append(bytes.Repeat(b[i:i+1], r.IntN(3000)), b[i:]...)...)
		}
	}
	return b
}

var hostilePieces = []string{
	"\r\n", "\n", "\r", "\x00", "\xff\xff\xff\xff", ": ", "chunked", "\r\nContent-Length: 5\r\n", "\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", "ffffffffffffffff",
	"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", "\r\nExpect: 100-continue\r\n", "[::1]", "%", "@", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
}

// Whatever bytes come, from clients and from origins, the gateway serves on; what it leaves is looked at when it stops.
func TestHostileBytes(t *testing.T) {
	t.Parallel()
	seeds := [...]string{
		okAnswer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n", "HTTP/1.1 103 E\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nframe", "HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 401 U\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
	}
	var answered atomic.Uint64
	origin := tcpServer(t, func(c *net.TCPConn) {
		n := answered.Add(1)
		r := rand.New(rand.NewPCG(n, 1))
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write(mangle(r, []byte(seeds[n%uint64(len(seeds))])))
	})
	_, wire := portOf(t, origin)
	var hello firstWrite
	_ = tls.Client(&hello, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2"}}).Handshake()
	messages := []string{
		"GET http://" + origin + "/ HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: trailers\r\n\r\n", "HEAD http://" + origin + "/?q HTTP/1.0\r\n\r\n",
		"POST http://" + origin + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
		"PUT http://" + origin + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
		"GET http://" + origin + "/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframe", "GET /proxy.pac HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT " + origin + " HTTP/1.1\r\nHost: x\r\n\r\nearly", "\x04\x01" + string(wire) + "\x7f\x00\x00\x01me\x00early", "\x04\x01" + string(wire) + "\x00\x00\x00\x01me\x00localhost\x00",
		"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + string(wire) + "early", "\x05\x02\x00\x02\x05\x01\x00\x03\x09localhost" + string(wire), string(hello.bytes), "SSH-2.0-x\r\n", "\x80\x2e\x01",
		"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	}
	config := listenAnywhere + "[listen.balanced]\naddress = [\"127.0.0.1:0\"]\nproxy_protocol_from = [\"127.0.0.1\"]\n[limits]\nunfinished_per_client = 16384\n" +
		"[backend.server]\nservers = [\"" + origin + "\"]\n[protocols.tls.route.all]\nsni = [\"*\", \"\"]\nbackend = \"server\"\n" +
		"[protocols.raw.ssh]\nregex = \"^SSH-[0-9.]+-\"\nbackend = \"server\"\n[[rule]]\naction = \"allow\"\nprotocol = [\"tls\", \"ssh\"]\n" + allowLoopback
	g := startTidy(t, config)
	ports := []string{g.at(), g.addr("balanced")}
	var attackers sync.WaitGroup
	for a := range 8 {
		attackers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(a), 2))
			for i := range 250 {
				c, err := net.Dial("tcp", ports[i%len(ports)])
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = c.Write(mangle(r, []byte(messages[r.IntN(len(messages))])))
				if r.IntN(2) == 0 {
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = c.Read(make([]byte, 1))
				}
				if r.IntN(2) == 0 {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
			}
		})
	}
	attackers.Wait()
	serveWell(t, "127.0.0.1", g.at(), tcpServer(t, echo))
	if log := g.log(); strings.Contains(log, `"reason":"internal_error"`) || strings.Contains(log, "matcher_panicked") {
		t.Error("the log holds an internal error")
	}
}
