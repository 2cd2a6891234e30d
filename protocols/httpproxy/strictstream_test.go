package httpproxy

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"polyport/internal/http2"
	"polyport/mux"
)

// streamOf opens a stream to the gateway with these fields and returns the fields of the answer by name.
func (g *gateway) streamOf(fields ...string) map[string]string {
	g.t.Helper()
	client, server := tcpPair(g.t)
	g.t.Cleanup(func() { client.Close() })
	go g.Serve(mux.NewConn(server, "main", rowHTTP2, nil))
	_ = client.SetDeadline(time.Now().Add(patience))
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	fr := h2.NewFramer(client, client)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(client, preface); err != nil {
		g.t.Fatal(err)
	}
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: fields[1] != methodConnect})
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			g.t.Fatalf("read the answer to %q: %v", fields, err)
		}
		if head, ok := f.(*h2.MetaHeadersFrame); ok {
			got := map[string]string{}
			for _, f := range head.Fields {
				got[f.Name] = f.Value
			}
			return got
		}
	}
}

// TestForeignSchemeIsNotOurs asks for the gateway's own address by a scheme whose paths are anything: a path that is a whole URI
// must not become the request target.
func TestForeignSchemeIsNotOurs(t *testing.T) {
	g := newGateway(t, gatewayOptions{address: "proxy.test:7659"})
	origin := breaking(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
	for _, tt := range []struct{ scheme, path, status string }{
		{"http", "/", "200"}, // the help page
		{"foo", "/", "400"},
		{"foo", "http://" + origin + "/", "400"},
		{"https", "/", "400"},
	} {
		got := g.streamOf(":method", "GET", ":scheme", tt.scheme, ":authority", "proxy.test:7659", ":path", tt.path)
		if got[":status"] != tt.status {
			t.Errorf("%s, path %s: status %s, want %s", tt.scheme, tt.path, got[":status"], tt.status)
		}
	}
}

// TestNoSwitchNoTunnel has origins answer an extended CONNECT without switching: to the client a 2xx says that its tunnel
// stands (RFC 8441 section 5), whatever the origin meant.
func TestNoSwitchNoTunnel(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	for answer, want := range map[string]string{"200 OK": "502", "204 No Content": "502", "404 Not Found": "404"} {
		origin := breaking(t, "HTTP/1.1 "+answer+"\r\nConnection: close\r\n\r\n", false)
		got := g.streamOf(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", origin, ":path", "/")
		if got[":status"] != want {
			t.Errorf("the origin says %s: the client gets %s, want %s", answer, got[":status"], want)
		}
	}
}

// TestRequireTLSIsLive has the listener require TLS while connections without it stand.
func TestRequireTLSIsLive(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	p := g.connect()
	ask := func() int {
		p.send("GET /proxy.pac HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
		resp, _ := p.response(http.MethodGet)
		return resp.StatusCode
	}
	if got := ask(); got != 200 {
		t.Errorf("status %d, want 200", got)
	}
	rt := g.runtime()
	l := rt.Listeners["main"]
	l.RequireTLS = true
	rt.Listeners["main"] = l
	g.SetRuntime(rt)
	if got := ask(); got != 403 {
		t.Errorf("status %d after the reload, want 403", got)
	}
	if got := g.streamOf(":method", "CONNECT", ":authority", "127.0.0.1:1")[":status"]; got != "403" {
		t.Errorf("status %s of a stream, want 403", got)
	}
}

// TestBridgeLetsGoOfTheHead reads the head of a request: its text, which HPACK may have made of a few bytes, is not kept while
// the exchange lasts.
func TestBridgeLetsGoOfTheHead(t *testing.T) {
	b := &bridge{text: make([]byte, 60<<10)}
	if n, err := io.Copy(io.Discard, b); n != 60<<10 || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	if cap(b.text) != 0 {
		t.Errorf("%d bytes are kept", cap(b.text))
	}
}

// TestTextSize makes the text of heads without growing it.
func TestTextSize(t *testing.T) {
	h := &http2.Head{Method: "GET", Scheme: "http", Authority: "example.test:8080", Path: "/", Length: -1, End: true}
	for range 900 {
		h.Fields = append(h.Fields, http2.Field{Name: "a-field", Value: "with a value"})
	}
	w := &headText{b: make([]byte, 0, textSize(h))}
	w.line(h.Method, h.Scheme+"://"+h.Authority+h.Path)
	w.field("host", h.Authority)
	if text := new(bridge).fields(w, h); len(text) > textSize(h) || cap(text) > textSize(h)+1024 {
		t.Errorf("%d bytes in room for %d, where %d were foreseen", len(text), cap(text), textSize(h))
	}
}
