package httpproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"polyport/mux"
)

// clientHTTP2 returns a client that speaks HTTP/2 to the gateway, by prior knowledge.
func (g *gateway) clientHTTP2() *http.Transport {
	var by http.Protocols
	by.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &by, DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := tcpPair(g.t)
		c := mux.NewConn(server, "main", rowHTTP2, nil)
		go g.Serve(c)
		return client, nil
	}}
	g.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// breaking is an origin that gives each connection the same bytes and closes it; reset says how.
func breaking(t *testing.T, answer string, reset bool) string {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			p := newPeer(t, c)
			p.head()
			p.send("%s", answer)
			if reset {
				time.Sleep(20 * time.Millisecond) // what was sent is to arrive first
				_ = c.SetLinger(0)
			}
			c.Close()
		}
	}()
	return ln.Addr().String()
}

// TestStreamBreaksOff has responses break off: a client of HTTP/2 has nothing but END_STREAM to tell that one is whole (RFC
// 9113 section 8.1), so it must see RST_STREAM.
func TestStreamBreaksOff(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	tests := []struct {
		name, answer string
		reset, whole bool
	}{
		{"chunked, whole", chunked + "0\r\n\r\n", false, true},
		{"until close, whole", "HTTP/1.1 200 OK\r\n\r\nhello", false, true},
		{"chunked, cut behind a chunk", chunked, false, false},
		{"chunked, cut in a chunk", chunked[:len(chunked)-4], false, false},
		{"chunked, reset", chunked, true, false},
		{"chunked, malformed", chunked + "ZZ\r\n", false, false},
		{"trailers, malformed", chunked + "0\r\nno trailer\r\n\r\n", false, false},
		{"until close, reset", "HTTP/1.1 200 OK\r\n\r\nhello", true, false},
		{"short", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{})
			req, err := http.NewRequest(http.MethodGet, "http://"+breaking(t, tt.answer, tt.reset)+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := g.clientHTTP2().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			var reset h2.StreamError
			if tt.whole != (err == nil) || !tt.whole && !errors.As(err, &reset) {
				t.Errorf("the body is %q, and ends with %v; want RST_STREAM: %v", body, err, !tt.whole)
			}
		})
	}
}
