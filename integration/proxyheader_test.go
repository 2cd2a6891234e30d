package integration

import (
	"io"
	"strings"
	"testing"
)

const signature2 = "\r\n\r\n\x00\r\nQUIT\n"

// TestProxyHeader has 127.0.0.2 for the balancer, and rules that know the declared client.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"2s\"\n[limits]\nunfinished_per_client = 1000\n"+listenAnywhere+"proxy_protocol_from = [\"127.0.0.2\"]\n"+
		"[[rule]]\nname = \"the declared one\"\naction = \"allow\"\nclient = [\"192.0.2.7\", \"2001:db8::7\", \"127.0.0.2\"]\ntarget = [\"127.0.0.0/8\"]\n")
	target := tcpServer(t, echo)
	connect := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n"
	tests := []struct {
		name, says string
		status     string // "" is closed without an answer
		client     string // in the record, where there is one
	}{
		{"version 1", "PROXY TCP4 192.0.2.7 192.0.2.1 50000 7659\r\n" + connect, "200", "192.0.2.7:50000"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 50000 7659\r\n" + connect, "200", "[2001:db8::7]:50000"},
		{"version 1, a mapped address", "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 50001 7659\r\n" + connect, "200", "192.0.2.7:50001"},
		{"version 1, another client", "PROXY TCP4 192.0.2.8 192.0.2.1 50000 7659\r\n" + connect, "403", "192.0.2.8:50000"},
		{"version 1, unknown", "PROXY UNKNOWN\r\n" + connect, "200", ""},
		{"version 2", signature2 + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\xc3\x52\x1d\xeb" + connect, "200", "192.0.2.7:50002"},
		{"version 2, with more behind the addresses", signature2 + "\x21\x11\x00\x10\xc0\x00\x02\x07\xc0\x00\x02\x01\xc3\x53\x1d\xeb\x04\x00\x01\x00" + connect, "200", "192.0.2.7:50003"},
		{"version 2, the balancer itself", signature2 + "\x20\x00\x00\x00" + connect, "200", ""},
		{"none", connect, "", ""},
		{"none, SOCKS5", "\x05\x01\x00", "", ""},
		{"garbage", "PROXY TCP4 here there 1 2\r\n" + connect, "", ""},
		{"a port too many", "PROXY TCP4 192.0.2.7 192.0.2.1 65536 7659\r\n" + connect, "", ""},
		{"no end of line", "PROXY TCP4 " + strings.Repeat("1", 200) + connect, "", ""},
		{"another family", "PROXY TCP4 2001:db8::7 2001:db8::1 50000 7659\r\n" + connect, "", ""},
		{"version 2, too short for its addresses", signature2 + "\x21\x11\x00\x04\xc0\x00\x02\x07" + connect, "", ""},
		{"version 3", signature2 + "\x31\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\xc3\x52\x1d\xeb" + connect, "", ""},
		{"a second header is noise", "PROXY TCP4 192.0.2.8 192.0.2.1 50009 7659\r\nPROXY TCP4 192.0.2.7 192.0.2.1 50000 7659\r\n" + connect, "", "192.0.2.8:50009"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dialFrom(t, "127.0.0.2", g.at())
			say(t, c, tt.says)
			if tt.status == "" {
				if got := hearOut(c); got != "" {
					t.Errorf("heard %q, want nothing but the end", got)
				}
			} else if line := hearHead(t, c); !strings.HasPrefix(line, "HTTP/1.1 "+tt.status+" ") {
				t.Errorf("heard %q, want %s", line, tt.status)
			}
			c.Close()
			if tt.client != "" {
				g.record("client=" + tt.client)
			} else if tt.status != "" {
				g.record("client=" + c.LocalAddr().String())
			}
		})
	}
	t.Run("byte by byte", func(t *testing.T) {
		c := dialFrom(t, "127.0.0.2", g.at())
		for _, b := range []byte("PROXY TCP4 192.0.2.7 192.0.2.1 50010 7659\r\n" + connect) {
			say(t, c, string(b))
		}
		if line := hearHead(t, c); !strings.HasPrefix(line, "HTTP/1.1 200 ") {
			t.Errorf("heard %q", line)
		}
		c.Close()
		g.record("client=192.0.2.7:50010")
	})
	t.Run("a stranger's", func(t *testing.T) {
		c := dialFrom(t, "127.0.0.3", g.at())
		say(t, c, "PROXY TCP4 192.0.2.7 192.0.2.1 50011 7659\r\n"+connect)
		if got := hearOut(c); got != "" {
			t.Errorf("heard %q, want nothing but the end", got)
		}
		if l := g.record("client=" + c.LocalAddr().String()); l.str("protocol") != "reject" {
			t.Errorf("the record says %v", l)
		}
	})
	l := g.wait("the refusals", func(l logLine) bool { return l.str("reason") == "bad_proxy_header" })
	if !strings.HasPrefix(l.str("client"), "127.0.0.2:") || !strings.Contains(l.str("err"), "balancer 127.0.0.2 must send") {
		t.Errorf("the log says %v", l)
	}
}

// The caps count the client that the balancer declares, so that one of them cannot use up the balancer's room.
func TestCapsCountTheDeclaredClient(t *testing.T) {
	t.Parallel()
	g := start(t, "[sniff]\ntimeout = \"10m\"\n[limits]\nconnections_per_client = 2\n"+listenAnywhere+"proxy_protocol_from = [\"127.0.0.2\"]\n"+allowLoopback)
	target := tcpServer(t, echo)
	connect := func(declared string) string {
		c := dialFrom(t, "127.0.0.2", g.at())
		_, _ = io.WriteString(c, "PROXY TCP4 "+declared+" 192.0.2.1 50000 7659\r\nCONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
		b := make([]byte, len("HTTP/1.1 200"))
		_, _ = io.ReadFull(c, b)
		return strings.TrimPrefix(strings.TrimRight(string(b), "\x00"), "HTTP/1.1 ")
	}
	got := ""
	for _, declared := range []string{"192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.8", "192.0.2.8"} {
		got += connect(declared) + "|"
	}
	if want := "200|200||200|200||"; got != want {
		t.Errorf("the answers are %s, want %s", got, want)
	}
	g.wait("the refusal", func(l logLine) bool {
		return l.str("reason") == "too_many_connections_of_client" && l.str("client") == "192.0.2.7:50000"
	})
}
