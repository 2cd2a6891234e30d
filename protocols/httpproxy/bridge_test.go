package httpproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"

	"polyport/internal/http1"
	"polyport/internal/http2"
)

// bridgeOf is a bridge of a stream of which there is nothing but the head.
func bridgeOf(h http2.Head) *bridge {
	b := &bridge{Stream: new(http2.Stream)}
	*b.Head() = h
	return b
}

// request makes the head of a request without content.
func headOf(method, scheme, authority, path string, fields ...string) http2.Head {
	h := http2.Head{Method: method, Scheme: scheme, Authority: authority, Path: path, Length: -1, End: true}
	for i := 0; i < len(fields); i += 2 {
		h.Fields = append(h.Fields, http2.Field{Name: fields[i], Value: fields[i+1]})
	}
	return h
}

func TestTranslate(t *testing.T) {
	with := func(h http2.Head, change func(h *http2.Head)) http2.Head {
		change(&h)
		return h
	}
	get := headOf("GET", "http", "a.test", "/x?y")
	for _, tt := range []struct {
		name string
		head http2.Head
		own  bool
		want string
		body bodyForm
	}{
		{"GET", get, false, "GET http://a.test/x?y HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", bodyNone},
		{"a port, and another scheme", headOf("GET", "https", "a.test:8443", "/"), false, "GET https://a.test:8443/ HTTP/1.1\r\nhost: a.test:8443\r\nconnection: close\r\n\r\n", bodyNone},
		{"an own page", get, true, "GET /x?y HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", bodyNone},
		{"OPTIONS *", headOf("OPTIONS", "http", "a.test", "*"), false, "OPTIONS http://a.test HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", bodyNone},
		{"OPTIONS * of the gateway", headOf("OPTIONS", "http", "a.test", "*"), true, "OPTIONS * HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", bodyNone},
		{"CONNECT", headOf("CONNECT", "", "a.test:443", ""), false, "CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\nconnection: close\r\n\r\n", bodyTunnel},
		{
			"CONNECT with content-length 0", with(headOf("CONNECT", "", "a.test:443", "", "content-length", "0"), func(h *http2.Head) { h.Length, h.End = 0, false }), false,
			"CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\nconnection: close\r\n\r\n", bodyTunnel,
		},
		{
			"cookies in crumbs", headOf("GET", "http", "a", "/", "cookie", "a=b", "x", "y", "cookie", "c=d", "cookie", "e"), false,
			"GET http://a/ HTTP/1.1\r\nhost: a\r\nx: y\r\ncookie: a=b; c=d; e\r\nconnection: close\r\n\r\n", bodyNone,
		},
		{
			"an empty crumb", headOf("GET", "http", "a", "/", "cookie", "", "cookie", "c=d"), false,
			"GET http://a/ HTTP/1.1\r\nhost: a\r\ncookie: c=d\r\nconnection: close\r\n\r\n", bodyNone,
		},
		{
			"te", headOf("GET", "http", "a", "/", "te", "trailers"), false,
			"GET http://a/ HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n", bodyNone,
		},
		{
			"host, which says the same as :authority", headOf("GET", "http", "a.test", "/", "host", "A.test:80"), false,
			"GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", bodyNone,
		},
		{
			"content of a known length", with(headOf("POST", "http", "a", "/", "content-length", "007"), func(h *http2.Head) { h.Length, h.End = 7, false }), false,
			"POST http://a/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 7\r\n\r\n", bodyLength,
		},
		{
			"no content, as content-length says", with(headOf("POST", "http", "a", "/", "content-length", "0"), func(h *http2.Head) { h.Length = 0 }), false,
			"POST http://a/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", bodyLength,
		},
		{
			"content of an unknown length", with(headOf("POST", "http", "a", "/"), func(h *http2.Head) { h.End = false }), false,
			"POST http://a/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n", bodyChunked,
		},
		{
			"values with tabs, obs-text and nothing", headOf("GET", "http", "a", "/", "x", "b\tc\xe9", "y", ""), false,
			"GET http://a/ HTTP/1.1\r\nhost: a\r\nx: b\tc\xe9\r\ny: \r\nconnection: close\r\n\r\n", bodyNone,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bridgeOf(tt.head)
			if r := b.translate(tt.own); r != nil {
				t.Fatalf("translate = %v", r)
			}
			want(t, "the text", string(b.text), tt.want)
			if b.body != tt.body || b.key != "" {
				t.Errorf("the body is read as %d, want %d; key %q", b.body, tt.body, b.key)
			}
			var req http1.Request
			if err := http1.NewReader(bytes.NewReader(b.text)).ReadRequest(&req); err != nil {
				t.Errorf("it is read as %v", err)
			}
		})
	}
}

func TestTranslateExtendedConnect(t *testing.T) {
	h := headOf("CONNECT", "http", "a.test", "/chat?x", "origin", "http://b", "sec-websocket-version", "13", "sec-websocket-key", "of the client")
	h.Protocol, h.End = "websocket", false
	for _, asked := range []struct {
		target string
		own    bool
	}{{"http://a.test/chat?x", false}, {"/chat?x", true}} {
		b := bridgeOf(h)
		if r := b.translate(asked.own); r != nil {
			t.Fatalf("translate = %v", r)
		}
		want(t, "the text", string(b.text), "GET "+asked.target+" HTTP/1.1\r\nupgrade: websocket\r\nsec-websocket-key: "+b.key+
			"\r\nhost: a.test\r\norigin: http://b\r\nsec-websocket-version: 13\r\nconnection: close, upgrade\r\n\r\n")
		if b.body != bodyTunnel || len(b.key) != 24 {
			t.Errorf("the body is read as %d, key %q", b.body, b.key)
		}
	}
	for _, protocol := range []string{"webtransport", "connect-udp", "WebSocket"} {
		h.Protocol = protocol
		if r := bridgeOf(h).translate(false); r == nil || r.status != 501 {
			t.Errorf("%s: %v, want 501", protocol, r)
		}
	}
}

func TestWebSocketAccept(t *testing.T) { // of RFC 6455 section 1.3
	want(t, "Sec-WebSocket-Accept", webSocketAccept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	if a, b := newWebSocketKey(), newWebSocketKey(); a == b {
		t.Error("two keys are the same")
	}
}

// Package http2 lets none of these through; here is the second lock on that door.
func TestTranslateRefuses(t *testing.T) {
	for _, evil := range []string{"a b", "a\r\nx: y", "a\nb", "a\rb", "a\x00b", "a\x7fb", "a\tb"} {
		for name, h := range map[string]http2.Head{
			"method":    headOf(evil, "http", "a", "/"),
			"scheme":    headOf("GET", evil, "a", "/"),
			"authority": headOf("GET", "http", evil, "/"),
			"path":      headOf("GET", "http", "a", "/"+evil),
			"CONNECT":   headOf("CONNECT", "", evil, ""),
			"name":      headOf("GET", "http", "a", "/", evil, "x"),
		} {
			if r := bridgeOf(h).translate(false); r == nil || r.status != 400 || !r.closes {
				t.Errorf("%s %q: %v, want 400", name, evil, r)
			}
			if h.Method != "CONNECT" && name != "scheme" && name != "authority" {
				if r := bridgeOf(h).translate(true); r == nil || r.status != 400 {
					t.Errorf("%s %q, own: %v, want 400", name, evil, r)
				}
			}
		}
	}
	for _, name := range []string{
		"", "a:b", ":path", "a:", "A", "Transfer-Encoding", "transfer-encoding", "connection", "upgrade", "keep-alive", "proxy-connection",
	} {
		if r := bridgeOf(headOf("GET", "http", "a", "/", name, "x")).translate(false); r == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	for _, value := range []string{"a\r\nb: c", "a\nb", "a\rb", "a\x00b"} {
		for _, name := range []string{"x", "cookie"} {
			if r := bridgeOf(headOf("GET", "http", "a", "/", name, value)).translate(false); r == nil {
				t.Errorf("the value %q of %s is taken", value, name)
			}
		}
	}
	if r := bridgeOf(headOf("", "http", "a", "/")).translate(false); r == nil {
		t.Error("an empty method is taken")
	}
}

// FuzzTranslate checks that whatever a head holds, the text of it is refused or read as exactly what it held: the
// same method, target and fields, with nothing behind.
func FuzzTranslate(f *testing.F) {
	f.Add("GET", "http", "a.test", "/x?y", "", "a", "b", "cookie", "c=d", int64(-1), true, false)
	f.Add("POST", "http", "a.test:80", "/", "", "content-length", "3", "te", "trailers", int64(3), false, false)
	f.Add("POST", "http", "a", "/", "", "transfer-encoding", "chunked", "connection", "close, x", int64(-1), false, false)
	f.Add("CONNECT", "", "a:443", "", "", "a", "b", "proxy-authorization", "Basic eDp5", int64(-1), false, false)
	f.Add("CONNECT", "https", "a", "/chat", "websocket", "sec-websocket-version", "13", "upgrade", "h2c", int64(-1), false, false)
	f.Add("OPTIONS", "http", "a", "*", "", "max-forwards", "0", "host", "b", int64(-1), true, true)
	f.Add("GET", "http", "a", "/ HTTP/1.1\r\nx: y\r\n\r\nGET /", "", "a", "b\r\nc: d", "a: b\r\nc", "x", int64(-1), true, true)
	f.Add("GET", "ftp", "a", "b.c/", "", " a", "b", "a ", "\tx ", int64(9), true, true)
	f.Fuzz(func(t *testing.T, method, scheme, authority, path, protocol, name, value, name2, value2 string, length int64, end, own bool) {
		h := headOf(method, scheme, authority, path, name, value, name2, value2)
		h.Protocol, h.Length, h.End = protocol, max(length, -1), end
		b := bridgeOf(h)
		if b.translate(own) != nil {
			return
		}
		r := http1.NewReader(io.MultiReader(bytes.NewReader(b.text), strings.NewReader("the rest is content")))
		var req http1.Request
		if r.ReadRequest(&req) != nil {
			return
		}
		if n := r.Count(); n != int64(len(b.text)) {
			t.Fatalf("%q: the head ends after %d bytes", b.text, n)
		}
		checkTranslated(t, h, own, b, &req)
	})
}

// checkTranslated compares a head with what was read of its text.
func checkTranslated(t *testing.T, h http2.Head, own bool, b *bridge, req *http1.Request) {
	t.Helper()
	method, target := h.Method, h.Scheme+"://"+h.Authority+h.Path
	framing := http1.Framing{Kind: http1.NoBody}
	tunnel := h.Method == "CONNECT"
	switch {
	case tunnel && h.Protocol == "":
		target = h.Authority
	case tunnel:
		method = "GET"
	case own:
		target = h.Path
	case h.Path == "*":
		target = h.Scheme + "://" + h.Authority
	}
	switch {
	case tunnel:
	case h.Length >= 0:
		framing = http1.Framing{Kind: http1.Length, Length: h.Length}
	case !h.End:
		framing = http1.Framing{Kind: http1.Chunked}
	}
	if req.Method != method || string(req.Target.Raw) != target || req.Minor != 1 || req.Framing != framing || !req.Close {
		t.Errorf("%+v is read as %s %s, framing %v", h, req.Method, req.Target.Raw, req.Framing)
	}
	var wants []string
	cookies := ""
	if b.key != "" {
		wants = append(wants, "upgrade: websocket", "sec-websocket-key: "+b.key)
	}
	wants = append(wants, "host: "+strings.Trim(h.Authority, " \t"))
	for _, f := range h.Fields {
		switch f.Name {
		case "host", "content-length", "sec-websocket-key":
		case "cookie":
			if cookies != "" {
				cookies += "; "
			}
			cookies += f.Value
		default:
			wants = append(wants, f.Name+": "+strings.Trim(f.Value, " \t"))
		}
	}
	if cookies != "" {
		wants = append(wants, "cookie: "+strings.Trim(cookies, " \t"))
	}
	var got []string
	for name, value := range req.Fields.All() {
		got = append(got, string(name)+": "+string(value))
	}
	ours := got[min(len(wants), len(got)):] // what the bridge adds behind
	if len(got) < len(wants) || !slices.Equal(got[:len(wants)], wants) || len(ours) > 2 || !strings.HasPrefix(ours[0], "connection: close") {
		t.Errorf("%+v: fields %q, want %q and then the framing", h, got, wants)
	}
}

// The text of a request with content is the same for every size of the buffer that it is read into.
func TestBridgeRead(t *testing.T) {
	const long = "a value that makes the trailers longer than anything that is read in one piece into a small buffer"
	for _, tt := range []struct {
		name string
		send func(c *rawClient)
		body string
	}{
		{"no content", func(c *rawClient) {
			c.head(1, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
		}, ""},
		{"a length", func(c *rawClient) {
			c.head(1, false, ":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "10")
			c.data(1, false, "01234")
			c.data(1, true, "56789")
		}, "0123456789"},
		{"no length", func(c *rawClient) {
			c.head(1, false, ":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/")
			c.data(1, false, strings.Repeat("x", 300))
			c.data(1, false, "")
			c.data(1, true, "yz")
		}, strings.Repeat("x", 300) + "yz"},
		{"no length, and empty", func(c *rawClient) {
			c.head(1, false, ":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/")
			c.data(1, true, "")
		}, ""},
		{"trailers", func(c *rawClient) {
			c.head(1, false, ":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/")
			c.data(1, false, "0123456789")
			c.head(1, true, "a", "b", "c", long)
		}, "0123456789 a: b c: " + long},
		{"trailers alone", func(c *rawClient) {
			c.head(1, false, ":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/")
			c.head(1, true, "c", long)
		}, " c: " + long},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 5, chunkRoom - 1, chunkRoom, chunkRoom + 1, 20, 63, 64, 65, 100, 4096} {
				served(t, tt.send, func(st *http2.Stream) {
					b := newBridge(st)
					if r := b.translate(false); r != nil {
						t.Errorf("translate = %v", r)
						return
					}
					var text bytes.Buffer
					if _, err := io.CopyBuffer(struct{ io.Writer }{&text}, struct{ io.Reader }{b}, make([]byte, size)); err != nil {
						t.Errorf("into %d bytes: %v", size, err)
					}
					if got := contentOf(t, text.String()); got != tt.body {
						t.Errorf("into %d bytes: %q, want %q", size, got, tt.body)
					}
					if n, err := b.Read(make([]byte, size)); n != 0 || err != io.EOF {
						t.Errorf("behind the end: %d, %v", n, err)
					}
				})
			}
		})
	}
}

// contentOf reads a request and returns its content and trailers.
func contentOf(t *testing.T, text string) string {
	r := http1.NewReader(strings.NewReader(text))
	var req http1.Request
	if err := r.ReadRequest(&req); err != nil {
		t.Errorf("%q: %v", text, err)
		return ""
	}
	body, err := io.ReadAll(r)
	if err != nil || r.Count() != int64(len(text)) {
		t.Errorf("%q: after %d bytes %v", text, r.Count(), err)
	}
	for name, value := range r.Trailers().All() {
		body = fmt.Appendf(body, " %s: %s", name, value)
	}
	return string(body)
}

// A request that is taken back does not look whole.
func TestBridgeReadReset(t *testing.T) {
	got := make(chan string, 1)
	served(t, func(c *rawClient) {
		c.head(1, false, ":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/")
		c.data(1, false, "01234")
		want(t, "what came first", <-got, "00000005\r\n01234\r\n")
		c.check(c.fr.WriteRSTStream(1, h2.ErrCodeCancel))
	}, func(st *http2.Stream) {
		b := newBridge(st)
		if r := b.translate(false); r != nil {
			t.Errorf("translate = %v", r)
		}
		p := make([]byte, 1000)
		_, _ = b.Read(p)
		n, _ := b.Read(p)
		got <- string(p[:n])
		if n, err := b.Read(p); n != 0 || !errors.Is(err, http2.ErrReset) {
			t.Errorf("then %q, %v", p[:n], err)
		}
	})
}

func TestGone(t *testing.T) {
	var g gone
	calls := 0
	call := func() { calls++ }
	g.do(call)
	g.do(nil)
	g.is()
	if calls != 0 {
		t.Errorf("called %d times after it was taken back", calls)
	}
	g.do(call)
	if calls != 1 {
		t.Errorf("called %d times for one that is gone already", calls)
	}
	g = gone{}
	g.do(call)
	g.is()
	if calls != 2 {
		t.Errorf("called %d times, want once more", calls)
	}
}

func TestMatchHTTP2(t *testing.T) {
	for n := 1; n <= len(preface); n++ {
		wanted := "need more"
		if n == len(preface) {
			wanted = "match"
		}
		want(t, "verdict on "+preface[:n], matchHTTP2([]byte(preface[:n])).String(), wanted)
	}
	want(t, "verdict", matchHTTP2([]byte(preface+"more")).String(), "match")
	for _, no := range []string{"PRI * HTTP/1.1", "GET / HTTP/2.0", "pri"} {
		want(t, "verdict on "+no, matchHTTP2([]byte(no)).String(), "no match")
	}
}
