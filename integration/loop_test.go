package integration

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// eachOther starts two gateways that are each other's upstream, twice over so that a failure could be tried again.
func eachOther(t *testing.T, more string) (a, b *gateway) {
	t.Helper()
	config := func(address, upstream string) string {
		return fmt.Sprintf("default_upstream = \"other\"\n[listen.main]\naddress = [%q]\n[upstream.other]\nservers = [\"http://%[2]s\", \"http://again@%[2]s\"]\n", address, upstream) +
			"[dns]\nhosts = { \"round.test\" = [\"127.0.0.1\", \"127.0.0.2\", \"127.0.0.3\"] }\n" + allowLoopback + more
	}
	at := freeAddress(t, "127.0.0.1")
	a = start(t, config("127.0.0.1:0", at))
	return a, start(t, config(at, a.at()))
}

// TestLoop: a request that goes round between two gateways ends by itself, and each of them has seen it a few times.
func TestLoop(t *testing.T) {
	t.Parallel()
	const target = "round.test:9"
	connect := func(fields string) string {
		return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + fields + "\r\n"
	}
	for _, tt := range []struct {
		name, request string
		answer        []string
		row           string // of the first session
		sessions      int    // of both
	}{
		{"CONNECT", connect(""), []string{"HTTP/1.1 502 ", "error=proxy_loop_detected; next-hop=", "goes round in a circle"}, "connect", 17},
		{"behind another proxy", connect("Via: 1.1 squid (squid/6), 1.1 polyport\r\n"), []string{"HTTP/1.1 502 ", "error=proxy_loop_detected"}, "connect", 16},
		{
			"GET", "GET http://" + target + "/ HTTP/1.1\r\nHost: " + target + "\r\nConnection: close\r\n\r\n",
			[]string{"HTTP/1.1 502 ", "\r\nProxy-Status: polyport; error=proxy_loop_detected\r\n", "goes round in a circle"},
			"http", 17,
		},
		{"SOCKS5", "\x05\x01\x00\x05\x01\x00\x03\x0around.test\x00\x09", []string{"\x05\x00\x05\x02\x00\x01"}, "socks5", 17},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := eachOther(t, "")
			c := dial(t, a.at())
			say(t, c, tt.request)
			got, err := io.ReadAll(c)
			if err != nil {
				t.Errorf("the answer ends with %v", err)
			}
			for _, want := range tt.answer {
				if !strings.Contains(string(got), want) {
					t.Errorf("the answer is %q, which lacks %q", got, want)
				}
			}
			first := a.record("client="+c.LocalAddr().String(), "protocol="+tt.row)
			if tt.row != "http" { // whose answers go on as they are
				check(t, first, map[string]any{"reason": "proxy_loop_detected"})
			}
			a.stop()
			b.stop()
			sessions, refused := 0, 0
			for _, l := range append(a.allLines(), b.allLines()...) {
				if l.str("msg") != "session end" {
					continue
				}
				sessions++
				if strings.Contains(l.str("err"), "has passed polyport 16 times, as its Via says: gateways are each other's upstream") {
					refused++
				}
			}
			if sessions != tt.sessions || refused != 1 {
				t.Errorf("both have had %d sessions, and refused %d for their Via; want %d and 1", sessions, refused, tt.sessions)
			}
		})
	}
}

// TestViaToUpstreams: what the gateway asks an upstream for says by Via who has asked before, and nothing where it is to be hidden.
func TestViaToUpstreams(t *testing.T) {
	t.Parallel()
	const head = "CONNECT 127.0.0.9:9 HTTP/1.1\r\nHost: 127.0.0.9:9\r\n"
	for _, tt := range []struct{ name, level, request, want string }{
		{"CONNECT", "", head + "Via: 1.0 fred\r\nVia: 2.0 squid (a, b)\r\n\r\n", head + "Via: 1.0 fred, 2.0 squid (a, b), 1.1 polyport\r\n\r\n"},
		{"CONNECT, hidden", "hide-proxy", head + "Via: 1.0 fred\r\n\r\n", head + "\r\n"},
		{"SOCKS5", "off", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x09\x00\x09", head + "Via: 1.1 polyport\r\n\r\n"},
		{"SOCKS5, hidden", "hide-proxy", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x09\x00\x09", head + "\r\n"},
		{"SOCKS4", "", "\x04\x01\x00\x09\x7f\x00\x00\x09\x00", head + "Via: 1.1 polyport\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := newWitness(t, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			config := "default_upstream = \"next\"\n" + listenAnywhere + "[upstream.next]\nservers = [\"http://" + proxy.addr + "\"]\n" + allowLoopback
			if tt.level != "" {
				config += "[http]\nanonymity = \"" + tt.level + "\"\n"
			}
			g := start(t, config)
			c := dial(t, g.at())
			say(t, c, tt.request)
			if got, err := io.ReadAll(c); err != nil {
				t.Errorf("the answer is %q and ends with %v", got, err)
			}
			if got := proxy.take(); got != tt.want {
				t.Errorf("the upstream heard\n%q, want\n%q", got, tt.want)
			}
		})
	}
}
