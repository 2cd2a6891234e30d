package httpproxy

import (
	"net/http"
	"strings"
	"testing"
)

// TestRequestHead: what an origin gets to see of a request, byte by byte.
func TestRequestHead(t *testing.T) {
	tests := []struct {
		name, anonymity, request, origin string // HOST stands for the origin's address
	}{
		{
			"absolute-form becomes origin-form, Host is rewritten", "",
			"GET http://HOST/a?b=c HTTP/1.1\r\nHost: elsewhere.example\r\nAccept: */*\r\n\r\n",
			"GET /a?b=c HTTP/1.1\r\nHost: HOST\r\nAccept: */*\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"empty path", "",
			"GET http://HOST HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"query without a path", "",
			"GET http://HOST?q=1 HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /?q=1 HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"options with an empty path", "",
			"OPTIONS http://HOST HTTP/1.1\r\nHost: x\r\n\r\n",
			"OPTIONS * HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"scheme in upper case", "",
			"GET HTTP://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"any method token", "",
			"M-SEARCH*!1 http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"M-SEARCH*!1 / HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"hop-by-hop and named fields go", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Secret, close\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n" +
				"Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: websocket\r\nProxy-Authorization: Basic eDp5\r\n" +
				"Proxy-Authenticate: Basic\r\nX-Kept: 1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nX-Kept: 1\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"TE: trailers stays", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: trailers, deflate\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nTE: trailers\r\nConnection: TE\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"HTTP/1.0 goes on as 1.1", "",
			"GET http://HOST/ HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.0 polyport\r\n\r\n",
		},
		{
			"an expectation without content is dropped", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"Via is added behind the client's", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nVia: 1.0 inner\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.0 inner\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"hide-client removes what the client says of itself", "hide-client",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nx-forwarded-proto: http\r\n" +
				"X-Real-IP: 10.0.0.1\r\nClient-IP: 10.0.0.1\r\nTrue-Client-IP: 10.0.0.1\r\nX-Forwarded: kept\r\nCookie: a=b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nX-Forwarded: kept\r\nCookie: a=b\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"hide-proxy adds no Via and removes the client's", "hide-proxy",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nVia: 1.0 inner\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n",
		},
		{
			"off names the client and keeps what it says", "off",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nVia: 1.1 polyport\r\nForwarded: for=127.0.0.1\r\n\r\n",
		},
		{
			"Max-Forwards counts down", "",
			"OPTIONS http://HOST/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 7\r\n\r\n",
			"OPTIONS / HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: 6\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"Max-Forwards means nothing to GET", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: 0\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"a connection option cannot take away Host or Authorization", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: Host, Authorization\r\nAuthorization: Bearer t\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer t\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"h2c is not asked for", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"upgrade is asked for", "",
			"GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"upgrade of HTTP/1.0 is not", "",
			"GET http://HOST/ HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.0 polyport\r\n\r\n",
		},
		{
			"an empty body with a length", "",
			"POST http://HOST/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nVia: 1.1 polyport\r\n\r\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{anonymity: tt.anonymity})
			o, heads := replies(t, okAnswer)
			c := g.connect()
			c.send("%s", strings.ReplaceAll(tt.request, "HOST", o.addr()))
			resp, body := c.response(http.MethodGet)
			if resp.StatusCode != 200 || body != "ok" {
				t.Fatalf("answer %d %q, want 200 \"ok\"", resp.StatusCode, body)
			}
			want(t, "the origin saw", <-heads, strings.ReplaceAll(tt.origin, "HOST", o.addr()))
		})
	}
}

// TestResponseHead: what a client gets to see of a response, byte by byte.
func TestResponseHead(t *testing.T) {
	tests := []struct {
		name, anonymity, request, response, client string
	}{
		{
			"hop-by-hop goes, Via is added", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 200 Fine\r\nConnection: X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-Kept: 1\r\n" +
				"Proxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 Fine\r\nX-Kept: 1\r\nContent-Length: 2\r\nVia: 1.1 polyport\r\n\r\nok",
		},
		{
			"hide-proxy adds no Via", "hide-proxy", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 200 OK\r\nVia: 1.1 cdn\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nVia: 1.1 cdn\r\nContent-Length: 2\r\n\r\nok",
		},
		{
			"a HEAD answer has a length and no body", "", "HEAD http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"204", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 204 No Content\r\nETag: a\r\n\r\n",
			"HTTP/1.1 204 No Content\r\nETag: a\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"304 with a length", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nVia: 1.1 polyport\r\n\r\n",
		},
		{
			"no reason phrase", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 \r\nContent-Length: 2\r\nVia: 1.1 polyport\r\n\r\nok",
		},
		{
			"until the connection ends becomes chunked", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 200 OK\r\n\r\nsome", // the origin closes
			"HTTP/1.1 200 OK\r\nVia: 1.1 polyport\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n",
		},
		{
			"HTTP/1.0 origin", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.0 polyport\r\n\r\nok",
		},
		{
			"HTTP/1.0 client gets no chunks", "", "GET http://HOST/ HTTP/1.0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nVia: 1.1 polyport\r\nConnection: close\r\n\r\nsome",
		},
		{
			"HTTP/1.0 client does not persist, whatever it asks", "", "GET http://HOST/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			okAnswer,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 polyport\r\nConnection: close\r\n\r\nok",
		},
		{
			"the client wants to close", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
			okAnswer,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 polyport\r\nConnection: close\r\n\r\nok",
		},
		{
			"426 keeps its offer", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nVia: 1.1 polyport\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		},
		{
			"an offer of an upgrade elsewhere goes", "", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 polyport\r\n\r\nok",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{anonymity: tt.anonymity})
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send("%s", tt.response)
			})
			c := g.connect()
			c.send("%s", strings.ReplaceAll(tt.request, "HOST", o.addr()))
			want(t, "the client got", c.bytes(len(tt.client)), tt.client)
			if strings.Contains(tt.client, "Connection: close") {
				if more, err := c.rest(); more != "" || err != nil {
					t.Errorf("then came %q, %v; want the end", more, err)
				}
			}
		})
	}
}

func TestExchangeRecord(t *testing.T) {
	g := newGateway(t, gatewayOptions{names: names{"origin.test": {"127.0.0.1"}}})
	o, _ := replies(t, okAnswer)
	c := g.connect()
	request := "POST http://Origin.TEST.:%d/x?token=1 HTTP/1.1\r\nHost: y\r\nContent-Length: 3\r\n\r\nabc"
	o2 := newScripted(t, func(p *peer) {
		p.head()
		p.bytes(3)
		p.send(okAnswer)
	})
	_ = o
	c.send(request, o2.port())
	_, body := c.response(http.MethodPost)
	want(t, "body", body, "ok")
	rec := g.record()
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 polyport\r\n\r\nok"
	switch {
	case rec.Method != "POST", rec.Version != "HTTP/1.1", rec.Protocol != "http", rec.Status != 200, rec.Rule != "loopback",
		rec.Reason != "", rec.Err != nil:
		t.Errorf("record %+v", rec)
	case rec.Address.String() != o2.addr():
		t.Errorf("address %v, want %v", rec.Address, o2.addr())
	case rec.URL != "http://origin.test:"+portOf(o2)+"/x?token=1":
		t.Errorf("URL %q", rec.URL)
	case rec.BytesFromClient != int64(len(request)-len("%d")+len(portOf(o2))), rec.BytesFromTarget != int64(len(answer)):
		t.Errorf("bytes %d and %d, want %d and %d", rec.BytesFromClient, rec.BytesFromTarget, len(request), len(answer))
	case rec.Setup <= 0:
		t.Errorf("setup %v, want the time until the answer", rec.Setup)
	}
}

func portOf(s *scripted) string { _, port, _ := strings.Cut(s.addr(), ":"); return port }

func TestTraceAndOptionsEndHere(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	o, heads := replies(t, okAnswer)
	c := g.connect()
	c.send("TRACE http://%s/path HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nX-Mine: 1\r\nCookie: secret=1\r\nAuthorization: Bearer secret\r\n"+
		"Proxy-Authorization: Basic c2VjcmV0OnNlY3JldA==\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n", o.addr())
	resp, body := c.response(http.MethodTrace)
	want(t, "content type", resp.Header.Get("Content-Type"), "message/http")
	want(t, "reflection", body, "TRACE http://"+o.addr()+"/path HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nX-Mine: 1\r\n\r\n")

	c.send("OPTIONS http://%s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", o.addr())
	resp, body = c.response(http.MethodOptions)
	if resp.StatusCode != 200 || body != "" || !strings.Contains(resp.Header.Get("Allow"), "CONNECT") {
		t.Errorf("OPTIONS with Max-Forwards 0: %d %q Allow %q", resp.StatusCode, body, resp.Header.Get("Allow"))
	}
	c.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, _ = c.response(http.MethodOptions); resp.StatusCode != 200 {
		t.Errorf("OPTIONS * answered %d, want 200", resp.StatusCode)
	}
	if len(heads) != 0 {
		t.Errorf("the origin saw %q, want nothing", <-heads)
	}
	c.send("TRACE http://%s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\n\r\n", o.addr())
	c.response(http.MethodTrace)
	if got := <-heads; !strings.Contains(got, "Max-Forwards: 0\r\n") {
		t.Errorf("the origin saw %q, want Max-Forwards: 0", got)
	}
}

func TestPolicyIsAskedBeforeTheLastHop(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("TRACE http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n")
	if resp, _ := c.response(http.MethodTrace); resp.StatusCode != http.StatusForbidden {
		t.Errorf("TRACE to a denied target answered %d, want 403", resp.StatusCode)
	}
}
