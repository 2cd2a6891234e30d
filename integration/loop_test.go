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
