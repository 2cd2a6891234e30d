package httpproxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"polyport/acl"
	"polyport/internal/session"
)

func TestH2RequestHead(t *testing.T) {
	const host = "GET /a?b HTTP/1.1\r\nHost: ORIGIN\r\n"
	for _, tt := range []struct {
		name      string
		anonymity string
		fields    []string
		want      string
	}{
		{"plain", "", nil, host + "user-agent: x\r\nVia: 2.0 polyport\r\n\r\n"},
		{"cookies", "", []string{"Cookie", "a=b; c=d"}, host + "user-agent: x\r\ncookie: a=b; c=d\r\nVia: 2.0 polyport\r\n\r\n"},
		{"TE", "", []string{"Te", "trailers"}, host + "user-agent: x\r\nTE: trailers\r\nConnection: TE\r\nVia: 2.0 polyport\r\n\r\n"},
		{
			"what clients say of themselves", "",
			[]string{"X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1", "Via", "1.1 mine"},
			host + "via: 1.1 mine\r\nuser-agent: x\r\nVia: 2.0 polyport\r\n\r\n",
		},
		{"hide-proxy", "hide-proxy", []string{"Via", "1.1 mine"}, host + "user-agent: x\r\n\r\n"},
		{"anonymity off", "off", nil, host + "user-agent: x\r\nVia: 2.0 polyport\r\nForwarded: for=127.0.0.1\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, heads := replies(t, okAnswer)
			g := newGateway(t, gatewayOptions{anonymity: tt.anonymity})
			c := g.h2()
			req := c.request("GET", "http://"+o.addr()+"/a?b", nil, append(tt.fields, "User-Agent", "x")...)
			resp, body := c.do(req)
			if resp.StatusCode != 200 || body != "ok" || resp.ContentLength != 2 {
				t.Errorf("answer %d %q, length %d", resp.StatusCode, body, resp.ContentLength)
			}
			want(t, "the origin's request", inOrder(<-heads), inOrder(strings.Replace(tt.want, "ORIGIN", o.addr(), 1)))
		})
	}
}

// inOrder sorts field lines: a client with its fields in a map sends them in any order.
func inOrder(head string) string {
	lines := strings.SplitAfter(head, "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "")
}

func TestH2ResponseHead(t *testing.T) {
	for _, tt := range []struct {
		name, method, answer string
		status               int
		body                 string
		fields               http.Header
		length               int64
	}{
		{
			"fields of the origin's connection", "GET",
			"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: a\r\nKeep-Alive: timeout=5\r\nX: y\r\nX: z\r\nContent-Length: 2\r\n\r\nok",
			200, "ok",
			http.Header{"X": {"y", "z"}, "Content-Length": {"2"}, "Via": {"1.1 polyport"}},
			2,
		},
		{"HTTP/1.0, to the end", "GET", "HTTP/1.0 200 OK\r\n\r\nok", 200, "ok", http.Header{"Via": {"1.0 polyport"}}, -1},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, "ok", http.Header{"Via": {"1.1 polyport"}}, -1},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, "", http.Header{"Content-Length": {"5"}, "Via": {"1.1 polyport"}}, 5},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, "", http.Header{"Etag": {`"x"`}, "Via": {"1.1 polyport"}}, 0},
		{"204", "DELETE", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", http.Header{"Via": {"1.1 polyport"}}, 0},
		{"length 0", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", http.Header{"Content-Length": {"0"}, "Via": {"1.1 polyport"}}, 0},
		{"426", "GET", "HTTP/1.1 426 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", 426, "", http.Header{"Content-Length": {"0"}, "Via": {"1.1 polyport"}}, 0},
		{
			"a long reason phrase", "GET", "HTTP/1.1 200 " + strings.Repeat("x", 12000) + "\r\nContent-Length: 0\r\n\r\n",
			200, "",
			http.Header{"Content-Length": {"0"}, "Via": {"1.1 polyport"}},
			0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send("%s", tt.answer)
			})
			g := newGateway(t, gatewayOptions{})
			c := g.h2()
			resp, body := c.do(c.request(tt.method, "http://"+o.addr()+"/", nil))
			if resp.StatusCode != tt.status || body != tt.body || resp.ContentLength != tt.length {
				t.Errorf("answer %d %q, length %d", resp.StatusCode, body, resp.ContentLength)
			}
			if fmt.Sprint(resp.Header) != fmt.Sprint(tt.fields) {
				t.Errorf("fields %v, want %v", resp.Header, tt.fields)
			}
		})
	}
}

func TestH2Record(t *testing.T) {
	o, _ := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{})
	c := g.h2()
	var exchanges []session.Record
	for range 2 {
		c.do(c.request("GET", "http://"+o.addr()+"/page?q", nil))
		exchanges = append(exchanges, g.record())
	}
	c.nc.Close()
	conn := g.record()
	if conn.Protocol != "h2" || conn.Version != "HTTP/2" || conn.Stream != 0 || !conn.Connection.IsZero() || conn.Err != nil {
		t.Errorf("record of the connection %+v", conn)
	}
	for i, rec := range exchanges {
		if rec.Protocol != "http" || rec.Version != "HTTP/2" || rec.Method != "GET" || rec.Status != 200 || rec.Err != nil || rec.Reason != "" ||
			rec.URL != "http://"+o.addr()+"/page?q" || rec.Address.String() != o.addr() || rec.Connection != conn.ID || rec.Stream != uint32(2*i+1) {
			t.Errorf("record %+v", rec)
		}
		if rec.BytesFromClient <= 0 || rec.BytesFromTarget < 2 {
			t.Errorf("bytes %d, %d", rec.BytesFromClient, rec.BytesFromTarget)
		}
	}
	if n := o.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the origin, want that the second request takes the first's", n)
	}
}

func TestH2Bodies(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<15)
	for _, tt := range []struct {
		name   string
		body   func() io.Reader
		length int64
		coding []string
		want   string
	}{
		{"a length", func() io.Reader { return strings.NewReader("hello") }, 5, nil, "hello"},
		{"no length", func() io.Reader { return io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")) }, -1, []string{"chunked"}, "hello"},
		{"empty", func() io.Reader { return http.NoBody }, 0, nil, ""},
		{"large", func() io.Reader { return strings.NewReader(large) }, int64(len(large)), nil, large},
		{"large, no length", func() io.Reader { return io.MultiReader(strings.NewReader(large)) }, -1, []string{"chunked"}, large},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) {
				req, body := p.request()
				if req.Method != "POST" || req.ContentLength != tt.length || !slices.Equal(req.TransferEncoding, tt.coding) || body != tt.want {
					t.Errorf("the origin saw %s, length %d, %v, %d bytes", req.Method, req.ContentLength, req.TransferEncoding, len(body))
				}
				p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			})
			g := newGateway(t, gatewayOptions{})
			c := g.h2()
			if resp, body := c.do(c.request("POST", "http://"+o.addr()+"/", tt.body())); resp.StatusCode != 200 || body != tt.want {
				t.Errorf("answer %d, %d bytes", resp.StatusCode, len(body))
			}
		})
	}
}

func TestH2Trailers(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		req, body := p.request()
		if body != "hello" || req.Trailer.Get("X-Sum") != "abc" {
			t.Errorf("the origin saw %q, trailers %v", body, req.Trailer)
		}
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Back\r\n\r\n2\r\nok\r\n0\r\nX-Back: def\r\nHost: evil\r\n\r\n")
	})
	g := newGateway(t, gatewayOptions{})
	c := g.h2()
	req := c.request("POST", "http://"+o.addr()+"/", io.MultiReader(strings.NewReader("hello")), "Te", "trailers")
	req.Trailer = http.Header{"X-Sum": {"abc"}}
	resp, body := c.do(req)
	if body != "ok" || fmt.Sprint(resp.Trailer) != "map[X-Back:[def]]" {
		t.Errorf("answer %q, trailers %v", body, resp.Trailer)
	}
}

func TestH2InterimResponses(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + okAnswer)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.h2()
	req := c.request("GET", "http://"+o.addr()+"/", nil)
	var got []string
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h))
			return nil
		},
	}))
	if resp, body := c.do(req); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	want(t, "before it", strings.Join(got, "; "), "103 map[Link:[</a>] Via:[1.1 polyport]]; 102 map[Via:[1.1 polyport]]")
}

// TestH2EventStream: each piece arrives before the next is sent, in both directions.
func TestH2EventStream(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 3 {
			want(t, "a chunk", p.bytes(len("1\r\nx\r\n"))[3:4], "x")
			p.send("1\r\ny\r\n")
		}
		want(t, "the end", p.bytes(5), "0\r\n\r\n")
		p.send("0\r\n\r\n")
	})
	g := newGateway(t, gatewayOptions{})
	c := g.h2()
	r, w := io.Pipe()
	resp, err := c.RoundTrip(c.request("POST", "http://"+o.addr()+"/", r))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	one := make([]byte, 1)
	for range 3 {
		_, _ = io.WriteString(w, "x")
		if _, err := io.ReadFull(resp.Body, one); err != nil || one[0] != 'y' {
			t.Fatalf("read %q, %v", one, err)
		}
	}
	w.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}

func TestH2ChallengeThenRetry(t *testing.T) {
	o, heads := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{users: users{}, requireUser: true, rules: []acl.Rule{{Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}})
	c := g.h2()
	resp, _ := c.do(c.request("GET", "http://"+o.addr()+"/", nil))
	if resp.StatusCode != 407 || !strings.HasPrefix(resp.Header.Get("Proxy-Authenticate"), "Basic ") || resp.Header.Get("Connection") != "" {
		t.Errorf("answer %d, %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := c.do(c.request("GET", "http://"+o.addr()+"/", nil, "Proxy-Authorization", basicAuth("al:wrong"))); resp.StatusCode != 407 {
		t.Errorf("with a wrong password: answer %d", resp.StatusCode)
	}
	if resp, body := c.do(c.request("GET", "http://"+o.addr()+"/", nil, "Proxy-Authorization", basicAuth("al:x"))); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("with the password: answer %d %q", resp.StatusCode, body)
	}
	if h := <-heads; strings.Contains(strings.ToLower(h), "proxy-authorization") || len(heads) > 0 {
		t.Errorf("the origin saw %q and %d more", h, len(heads))
	}
	// Each stream says for itself who it is.
	if resp, _ := c.do(c.request("GET", "http://"+o.addr()+"/", nil)); resp.StatusCode != 407 {
		t.Errorf("afterwards, without one: answer %d", resp.StatusCode)
	}
	identities := map[uint32]string{}
	for range 4 {
		rec := g.record()
		identities[rec.Stream] = rec.Identity
	}
	want(t, "identities", fmt.Sprint(identities), "map[1: 3: 5:al 7:]")
}

func TestH2Refusals(t *testing.T) {
	broken := newScripted(t, func(p *peer) { p.head(); p.send("nonsense\r\n\r\n") })
	hangsUp := newScripted(t, func(p *peer) { p.head() })
	for _, tt := range []struct {
		name, method, uri string
		status            int
		reason            string
	}{
		{"denied", "GET", "http://192.0.2.1/", 403, "http_request_denied"},
		{"the target refuses", "GET", "http://127.0.0.1:1/", 502, "connection_refused"},
		{"no such name", "GET", "http://nowhere.test/", 502, "dns_error"},
		{"what is no HTTP", "GET", "http://" + broken.addr() + "/", 502, "http_protocol_error"},
		{"no answer", "POST", "http://" + hangsUp.addr() + "/", 502, "connection_terminated"},
		{"another scheme", "GET", "https://127.0.0.1:1/", 400, "http_request_error"},
		{"a bad host", "GET", "http://a_b%2f/", 400, "http_request_error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{rules: []acl.Rule{{Action: acl.Allow, Target: []string{"127.0.0.0/8", "*.test"}, Anonymous: true}}})
			c := newRawClient(t, g.connectH2())
			scheme, rest, _ := strings.Cut(tt.uri, "://")
			authority, path, _ := strings.Cut(rest, "/")
			c.head(1, true, ":method", tt.method, ":scheme", scheme, ":authority", authority, ":path", "/"+path)
			head := c.next()
			if !strings.HasPrefix(head, fmt.Sprintf("1 head :status=%d ", tt.status)) || strings.Contains(head, " connection=") {
				t.Errorf("answer %q", head)
			}
			if !strings.Contains(head, " proxy-status=polyport; error="+tt.reason) {
				t.Errorf("no proxy-status with %s in %q", tt.reason, head)
			}
			for !strings.HasSuffix(head, " end") {
				if head = c.next(); !strings.HasPrefix(head, "1 data ") {
					t.Fatalf("then %q", head)
				}
			}
			if rec := g.record(); rec.Status != tt.status || rec.Reason == "" || rec.Err == nil || rec.Stream != 1 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A response that is cut short must not look whole, whatever framed it.
func TestH2CutResponses(t *testing.T) {
	for _, tt := range []struct{ name, answer string }{
		{"a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"},
		{"chunks, in the trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n"},
		{"a broken chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) { p.head(); p.send("%s", tt.answer) })
			g := newGateway(t, gatewayOptions{})
			c := g.h2()
			resp, err := c.RoundTrip(c.request("GET", "http://"+o.addr()+"/", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			var reset h2.StreamError
			if string(body) != "hello" || !errors.As(err, &reset) {
				t.Errorf("the client got %q, %v; want what came, and a reset", body, err)
			}
			if rec := g.record(); rec.Err == nil || rec.Reason == "" {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// An origin that resets its connection in the middle of a body that ends with the connection, too.
func TestH2OriginResets(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.0 200 OK\r\n\r\nhello")
		_ = p.SetLinger(0)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.h2()
	resp, err := c.RoundTrip(c.request("GET", "http://"+o.addr()+"/", nil))
	if err != nil {
		return // the reset has overtaken the head
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the client got %q as a whole", body)
	}
}

func TestH2OwnPages(t *testing.T) {
	for _, tt := range []struct {
		name      string
		address   string // public_address
		authority string // LOCAL is where the gateway is
		path      string
		status    int
	}{
		{"by IP", "", "LOCAL", "/", 200},
		{"the PAC file", "", "LOCAL", "/proxy.pac", 200},
		{"no such page", "", "LOCAL", "/x", 404},
		{"by public address", "proxy.test:7659", "proxy.test:7659", "/", 200},
		{"in any case", "proxy.test:7659", "Proxy.TEST:7659", "/", 200},
		{"by the port of the scheme", "proxy.test:80", "proxy.test", "/", 200},
		{"another port", "proxy.test:7659", "proxy.test:7660", "/", 403},
		{"another name", "proxy.test:7659", "else.test:7659", "/", 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{
				address: tt.address, names: names{"proxy.test": {"192.0.2.1"}, "else.test": {"192.0.2.1"}},
			})
			nc := g.connectH2()
			c := newH2Client(t, nc)
			authority := strings.Replace(tt.authority, "LOCAL", nc.RemoteAddr().String(), 1)
			if resp, body := c.do(c.request("GET", "http://"+authority+tt.path, nil)); resp.StatusCode != tt.status || body == "" {
				t.Errorf("answer %d with %d bytes, want %d", resp.StatusCode, len(body), tt.status)
			}
		})
	}
}

func TestH2OptionsOfAServer(t *testing.T) {
	o, heads := replies(t, "HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n")
	g := newGateway(t, gatewayOptions{})
	nc := g.connectH2()
	c := newRawClient(t, nc)
	c.head(1, true, ":method", "OPTIONS", ":scheme", "http", ":authority", o.addr(), ":path", "*")
	c.want("1 head :status=204 allow=GET via=1.1 polyport end")
	want(t, "the origin's request", <-heads, "OPTIONS * HTTP/1.1\r\nHost: "+o.addr()+"\r\nVia: 2.0 polyport\r\n\r\n")
	c.head(3, true, ":method", "OPTIONS", ":scheme", "http", ":authority", nc.RemoteAddr().String(), ":path", "*")
	if h := c.next(); !strings.HasPrefix(h, "3 head :status=200 ") || !strings.Contains(h, " allow="+allowed) {
		t.Errorf("the gateway's own answer is %q", h)
	}
}

// gatewayTLS is the gateway's side of TLS in tests.
var gatewayTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"gw.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}}
})

// A request of scheme https is fetched over TLS, as an absolute URI of HTTP/1.1 is.
func TestH2ForwardsHTTPS(t *testing.T) {
	a, heads := newAuthority(t), make(chan string, 1)
	o := newSecured(t, a.server("origin.test"), answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", heads))
	g := secureGateway(t, a, nil)
	c := newRawClient(t, g.connectH2())
	c.head(1, true, ":method", "GET", ":scheme", "https", ":authority", o.addr(), ":path", "/x")
	c.want("1 head :status=200 content-length=2 via=1.1 polyport")
	want(t, "the body", c.content(1), "ok")
	if head := <-heads; !strings.HasPrefix(head, "GET /x HTTP/1.1\r\n") {
		t.Errorf("the origin was asked %q", head)
	}
	if rec := g.record(); rec.URL != "https://"+o.addr()+"/x" || rec.Version != "HTTP/2" || rec.Status != 200 {
		t.Errorf("record %+v", rec)
	}
}
