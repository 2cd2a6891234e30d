package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestWhatPasses holds what is legal, however odd it looks.
func TestWhatPasses(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := newWitness(t, okAnswer)
	tests := []struct{ name, request, heard string }{
		{"one empty line first", "\r\nGET http://HOST/a HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /a HTTP/1.1\r\n"},
		{"an absolute URI without a path", "GET http://HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET / HTTP/1.1\r\n"},
		{"an absolute URI with a query alone", "GET http://HOST?a=b HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /?a=b HTTP/1.1\r\n"},
		{"a scheme in capitals", "GET HTTP://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET / HTTP/1.1\r\n"},
		{"OPTIONS for the server", "OPTIONS http://HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", "OPTIONS * HTTP/1.1\r\n"},
		{"a method that is not known", "FROBNICATE http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", "FROBNICATE / HTTP/1.1\r\n"},
		{"a Host that differs is replaced", "GET http://HOST/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n", "\r\nHost: HOST\r\n"},
		{"an empty Host is replaced", "GET http://HOST/ HTTP/1.1\r\nHost:\r\n\r\n", "\r\nHost: HOST\r\n"},
		{"HTTP/1.0 without Host", "GET http://HOST/ HTTP/1.0\r\n\r\n", "\r\nHost: HOST\r\n"},
		{"a coding in capitals", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n"},
		{"bytes that are no ASCII in a value", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: \xe4\r\n\r\n", "\r\nX-A: \xe4\r\n"},
		{"a percent that escapes nothing", "GET http://HOST/%zz HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /%zz HTTP/1.1\r\n"},
		{"dot segments are the origin's business", "GET http://HOST/a/../b HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /a/../b HTTP/1.1\r\n"},
		{"a request line of nearly 16 KiB", "GET http://HOST/" + strings.Repeat("a", 16<<10-100) + " HTTP/1.1\r\nHost: HOST\r\n\r\n", "aaa HTTP/1.1\r\n"},
		{"200 fields", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-A: a\r\n", 199) + "\r\n", "\r\nX-A: a\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			say(t, c, strings.ReplaceAll(tt.request, "HOST", origin.addr))
			if line := hearHead(t, c); line != "HTTP/1.1 200 OK" {
				t.Errorf("the answer is %q", line)
			}
			if heard, want := origin.take(), strings.ReplaceAll(tt.heard, "HOST", origin.addr); !strings.Contains(heard, want) {
				t.Errorf("the origin heard %q, want %q", heard, want)
			}
		})
	}
}

func TestPipelining(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	first, second := helloServer(t), helloServer(t)
	c := dial(t, g.at())
	var ask, want strings.Builder
	for i := range 20 {
		host := []string{first, second}[i%2]
		fmt.Fprintf(&ask, "GET http://%s/%d HTTP/1.1\r\nHost: %s\r\n\r\n", host, i, host)
		fmt.Fprintf(&want, "hello from %s/%d over HTTP/1.1|", host, i)
	}
	say(t, c, ask.String()) // in one piece
	var got strings.Builder
	for r := bufio.NewReader(c); strings.Count(got.String(), "|") < 20; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("behind %q: %v", got.String(), err)
		}
		body, err := io.ReadAll(resp.Body)
		fmt.Fprintf(&got, "%s|", body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("status %d, %v", resp.StatusCode, err)
		}
	}
	if got.String() != want.String() {
		t.Errorf("the answers are\n%s, want\n%s", &got, &want)
	}
	// A CONNECT on the same connection, with the first bytes of the tunnel right behind it.
	target := tcpServer(t, echo)
	say(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\nearly")
	if line := hearHead(t, c); !strings.Contains(line, " 200 ") {
		t.Fatalf("CONNECT: %s", line)
	}
	hear(t, c, "early")
	say(t, c, "late")
	hear(t, c, "late")
	_ = c.CloseWrite()
	answers(t, c)
	g.record("protocol=http", "status=200")
	g.record("protocol=connect", "bytes_from_client=9", "bytes_from_target=9")
}

// TestKeepAlive counts the connections that the origin gets.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	var mu sync.Mutex
	peers := map[string]int{}
	origin := tcpServer(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			mu.Lock()
			peers[c.RemoteAddr().String()]++
			mu.Unlock()
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	for range 3 { // clients
		c := dial(t, g.at())
		for range 3 { // requests of each
			say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\n\r\n")
			if line := hearHead(t, c); line != "HTTP/1.1 200 OK" {
				t.Fatalf("the answer is %q", line)
			}
			hear(t, c, "ok")
		}
		c.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	// An answer may be read before its connection is back in the pool, so the next
	// client may find none there; the same client waits for it.
	if len(peers) > 3 {
		t.Errorf("9 requests of 3 clients came over %v, want at most one connection for each client", peers)
	}
}

func TestHTTP10(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	chunked := newWitness(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
	c := dial(t, g.at())
	say(t, c, "GET http://"+chunked.addr+"/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	got := answers(t, c)
	head, body, _ := strings.Cut(got, "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || strings.Contains(strings.ToLower(head), "transfer-encoding") || body != "onetwo" {
		t.Errorf("the answer is %q, want a body that ends with the connection and no coding", got)
	}
	old := tcpServer(t, func(c *net.TCPConn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.0 200 Fine\r\n\r\nuntil the end")
	})
	c = dial(t, g.at())
	say(t, c, "GET http://"+old+"/ HTTP/1.1\r\nHost: "+old+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(resp.Body)
	if err != nil || string(whole) != "until the end" || resp.Proto != "HTTP/1.1" || len(resp.TransferEncoding) != 1 {
		t.Errorf("from an HTTP/1.0 origin came %q (%v) as %v over %s", whole, err, resp.TransferEncoding, resp.Proto)
	}
}

func TestInterimAnswers(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := tcpServer(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Expect") != "100-continue" {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n")
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	c := dial(t, g.at())
	say(t, c, "PUT http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	r := bufio.NewReader(c)
	early, err := http.ReadResponse(r, nil)
	if err != nil || early.StatusCode != 103 || early.Header.Get("Link") != "</style.css>" || early.Header.Get("X-Hop") != "" {
		t.Fatalf("the first answer is %v, %v; want 103 with its Link", early, err)
	}
	goOn, err := http.ReadResponse(r, nil)
	if err != nil || goOn.StatusCode != 100 {
		t.Fatalf("the second answer is %v, %v; want 100", goOn, err)
	}
	say(t, c, "hello") // only now
	final, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(final.Body); err != nil || final.StatusCode != 200 || string(body) != "hello" {
		t.Errorf("the last answer is %d %q, %v", final.StatusCode, body, err)
	}
}

func TestChunkedBothWaysWithTrailers(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	heard := make(chan *http.Request, 1)
	origin := tcpServer(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		req.Header.Set("X-Body", string(body))
		heard <- req
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"+
			"5;name=value\r\nworld\r\n0\r\nX-Sum: 42\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\n")
	})
	c := dial(t, g.at())
	say(t, c, "POST http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nTE: trailers, deflate\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"3\r\nhel\r\n2;a=\"b\"\r\nlo\r\n0\r\nX-Check: 1\r\nHost: evil.example\r\n\r\n")
	req := <-heard
	if got := req.Header.Get("X-Body"); got != "hello" {
		t.Errorf("the origin got the body %q", got)
	}
	if got := req.Trailer.Get("X-Check"); got != "1" || len(req.Trailer) != 1 {
		t.Errorf("the origin got the trailers %v", req.Trailer)
	}
	if got := req.Header.Get("TE"); got != "trailers" {
		t.Errorf("the origin was told TE %q, want trailers alone", got)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "world" || resp.Trailer.Get("X-Sum") != "42" || len(resp.Trailer) != 1 {
		t.Errorf("the client got %q with the trailers %v, %v", body, resp.Trailer, err)
	}
}

// An answer that has no body says what it would be; the connection goes on.
func TestAnswersWithoutBody(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	tests := []struct{ name, method, answer, want string }{
		{"HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "\r\nContent-Length: 1000\r\n"},
		{"HEAD with chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
		{"204", "DELETE", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n"},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n", "\r\nETag: \"x\"\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			origin := newWitness(t, tt.answer)
			c := dial(t, g.at())
			for range 2 {
				say(t, c, tt.method+" http://"+origin.addr+"/ HTTP/1.1\r\nHost: "+origin.addr+"\r\n\r\n")
				var head []byte
				for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b[0]) {
					if _, err := io.ReadFull(c, b); err != nil {
						t.Fatalf("behind %q: %v", head, err)
					}
				}
				if !strings.Contains(string(head), tt.want) || strings.Contains(string(head), "Connection: close") {
					t.Errorf("the head is %q, want %q", head, tt.want)
				}
			}
		})
	}
}

// TestHopByHop sends what must not go on, both ways.
func TestHopByHop(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := newWitness(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n"+
		"Proxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Stays: 1\r\nSet-Cookie: a=b\r\n\r\nok")
	c := dial(t, g.at())
	say(t, c, "GET http://"+origin.addr+"/ HTTP/1.1\r\nHost: "+origin.addr+"\r\nConnection: X-Hop, Keep-Alive, close, Content-Length, Cache-Control\r\nX-Hop: 1\r\nx-hop: 2\r\nKeep-Alive: 300\r\n"+
		"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0OnNlY3JldA==\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Stays: 1\r\nAuthorization: Basic eA==\r\nCache-Control: no-cache\r\n\r\n")
	got := answers(t, c)
	heard := origin.take()
	for _, gone := range []string{"x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "c2VjcmV0", "upgrade", "http2-settings", "gzip"} {
		if strings.Contains(strings.ToLower(heard), strings.ToLower(gone)) {
			t.Errorf("the origin heard %q in %q", gone, heard)
		}
	}
	for _, stays := range []string{"\r\nX-Stays: 1\r\n", "\r\nAuthorization: Basic eA==\r\n", "\r\nCache-Control: no-cache\r\n"} {
		if !strings.Contains(heard, stays) {
			t.Errorf("the origin did not hear %q in %q", stays, heard)
		}
	}
	for _, gone := range []string{"x-mine", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade"} {
		if strings.Contains(strings.ToLower(got), gone) {
			t.Errorf("the client heard %q in %q", gone, got)
		}
	}
	for _, stays := range []string{"\r\nX-Stays: 1\r\n", "\r\nSet-Cookie: a=b\r\n", "\r\nConnection: close\r\n"} {
		if !strings.Contains(got, stays) {
			t.Errorf("the client did not hear %q in %q", stays, got)
		}
	}
}

// TestAnonymity says of the client what each level says, and no more.
func TestAnonymity(t *testing.T) {
	t.Parallel()
	const said = "Via: 1.1 before\r\nForwarded: for=192.0.2.60\r\nX-Forwarded-For: 192.0.2.61\r\nX-Forwarded-Host: inside\r\n" +
		"X-Real-IP: 192.0.2.62\r\nClient-IP: 192.0.2.63\r\nTrue-Client-IP: 192.0.2.64\r\n"
	tests := []struct {
		level      string
		has, hides []string
		answers    []string // what the client hears of Via
	}{
		{
			"",
			[]string{"\r\nVia: 1.1 before\r\n", "\r\nVia: 1.1 polyport\r\n"},
			[]string{"192.0.2.6", "Forwarded", "127.0.0.1;"},
			[]string{"\r\nVia: 1.1 polyport\r\n"},
		},
		{
			"[http]\nanonymity = \"off\"\n",
			[]string{"\r\nVia: 1.1 before\r\n", "\r\nVia: 1.1 polyport\r\n", "\r\nForwarded: for=192.0.2.60\r\n", "\r\nForwarded: for=127.0.0.1\r\n", "192.0.2.61", "192.0.2.62", "192.0.2.64"},
			nil,
			[]string{"\r\nVia: 1.1 polyport\r\n"},
		},
		{
			"[http]\nanonymity = \"hide-proxy\"\n", nil,
			[]string{"Via", "polyport", "192.0.2.6", "Forwarded"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.level, func(t *testing.T) {
			g := start(t, listenAnywhere+tt.level+allowLoopback)
			origin := newWitness(t, okAnswer)
			c := dial(t, g.at())
			say(t, c, "GET http://"+origin.addr+"/ HTTP/1.1\r\nHost: "+origin.addr+"\r\nConnection: close\r\n"+said+"\r\n")
			got, heard := answers(t, c), origin.take()
			for _, want := range tt.has {
				if !strings.Contains(heard, want) {
					t.Errorf("the origin heard %q, which lacks %q", heard, want)
				}
			}
			for _, hidden := range tt.hides {
				if strings.Contains(heard, hidden) {
					t.Errorf("the origin heard %q, which holds %q", heard, hidden)
				}
			}
			for _, want := range tt.answers {
				if !strings.Contains(got, want) {
					t.Errorf("the client heard %q, which lacks %q", got, want)
				}
			}
			if tt.answers == nil && strings.Contains(got, "olyport") {
				t.Errorf("the client heard %q of a proxy that hides", got)
			}
		})
	}
}

func TestMaxForwards(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := newWitness(t, okAnswer)
	tests := []struct {
		name, method, forwards string
		heard                  string // by the origin; "" is nothing
		answer                 string
	}{
		{"TRACE, the last", "TRACE", "0", "", "TRACE http://HOST/ HTTP/1.1\r\n"},
		{"TRACE, two more", "TRACE", "2", "\r\nMax-Forwards: 1\r\n", "ok"},
		{"OPTIONS, the last", "OPTIONS", "0", "", "\r\nAllow: "},
		{"OPTIONS, one more", "OPTIONS", "1", "\r\nMax-Forwards: 0\r\n", "ok"},
		{"GET does not care", "GET", "0", "\r\nMax-Forwards: 0\r\n", "ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			say(t, c, strings.ReplaceAll(tt.method+" http://HOST/ HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: "+tt.forwards+
				"\r\nConnection: close\r\nCookie: crumbs\r\nProxy-Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n\r\n", "HOST", origin.addr))
			got, heard := answers(t, c), origin.take()
			if (heard == "") != (tt.heard == "") || !strings.Contains(heard, tt.heard) {
				t.Errorf("the origin heard %q, want %q", heard, tt.heard)
			}
			if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, strings.ReplaceAll(tt.answer, "HOST", origin.addr)) || strings.Contains(got, "crumbs") || strings.Contains(got, "c2Vj") {
				t.Errorf("the answer is %q, want %q and no secrets", got, tt.answer)
			}
		})
	}
}

// TestUpgrade does a WebSocket's handshake by an absolute-form request, with bytes that come early on both sides.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := tcpServer(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" || req.Header.Get("Sec-WebSocket-Key") != "x" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\nhi ")
		_, _ = io.Copy(c, r)
	})
	c := dial(t, g.at())
	say(t, c, "GET http://"+origin+"/chat HTTP/1.1\r\nHost: "+origin+"\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x\r\n\r\nearly ")
	if line := hearHead(t, c); line != "HTTP/1.1 101 Switching Protocols" {
		t.Fatalf("the answer is %q", line)
	}
	hear(t, c, "hi early ")
	say(t, c, "late")
	hear(t, c, "late")
	_ = c.CloseWrite()
	answers(t, c)
	g.record("protocol=http", "status=101", "method=GET")
}
