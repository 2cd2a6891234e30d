package httpproxy

import (
	"io"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"
)

func TestH2Connect(t *testing.T) {
	o := echo(t)
	g := newGateway(t, gatewayOptions{names: names{"origin.test": {"127.0.0.1"}}})
	c := g.h2()
	in, out, err := c.tunnel(within(t), "Origin.TEST.:"+portOf(o))
	if err != nil {
		t.Fatal(err)
	}
	const said = "through the tunnel"
	_, _ = io.WriteString(in, said)
	b := make([]byte, len(said))
	if _, err := io.ReadFull(out, b); err != nil || string(b) != said {
		t.Errorf("echo %q, %v", b, err)
	}
	_, _ = io.WriteString(in, ", and more")
	in.Close() // our half
	if rest, err := io.ReadAll(out); string(rest) != ", and more" || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
	rec := g.record()
	n := int64(len(said + ", and more"))
	if rec.Protocol != "connect" || rec.Method != "CONNECT" || rec.Status != 200 || rec.Version != "HTTP/2" || rec.Address.String() != o.addr() ||
		rec.BytesFromClient != n || rec.BytesFromTarget != n || rec.Err != nil || rec.Reason != "" || rec.URL != "origin.test:"+portOf(o) {
		t.Errorf("record %+v", rec)
	}
}

// TestH2ConnectHalfClose: the target may finish first and still listen.
func TestH2ConnectHalfClose(t *testing.T) {
	got := make(chan string, 1)
	o := newScripted(t, func(p *peer) {
		p.send("bye")
		_ = p.CloseWrite()
		b, err := p.rest()
		if err != nil {
			t.Errorf("the target's read: %v", err)
		}
		got <- b
	})
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.head(1, false, ":method", "CONNECT", ":authority", o.addr())
	c.want("1 head :status=200")
	want(t, "from the target", c.content(1), "bye")
	c.data(1, false, "still ")
	c.data(1, true, "here")
	want(t, "to the target", <-got, "still here")
}

func TestH2ConnectPassesResetsOn(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.bytes(1)
		_ = p.SetLinger(0)
	})
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.head(1, false, ":method", "CONNECT", ":authority", o.addr())
	c.want("1 head :status=200")
	c.data(1, false, "x")
	c.want("1 reset CONNECT_ERROR")
	want(t, "reason", g.record().Reason, "reset")
}

func TestH2ConnectIsReset(t *testing.T) {
	for code, reason := range map[h2.ErrCode]string{h2.ErrCodeCancel: "cancelled", h2.ErrCodeConnect: "reset"} {
		got, ended := make(chan struct{}), make(chan error, 1)
		o := newScripted(t, func(p *peer) {
			p.bytes(1)
			close(got)
			_, err := p.r.ReadByte()
			ended <- err
		})
		g := newGateway(t, gatewayOptions{})
		c := newRawClient(t, g.connectH2())
		c.head(1, false, ":method", "CONNECT", ":authority", o.addr())
		c.want("1 head :status=200")
		c.data(1, false, "x")
		<-got
		c.check(c.fr.WriteRSTStream(1, code))
		if err := <-ended; !isReset(err) {
			t.Errorf("%v: the target's connection ended with %v, want a reset", code, err)
		}
		want(t, "reason", g.record().Reason, reason)
	}
}

func isReset(err error) bool { return err != nil && err != io.EOF && isClosed(err) }

func TestH2ConnectRefused(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	for target, status := range map[string]string{"127.0.0.1:1": "502", "192.0.2.1:1": "403", "a.test": "400"} {
		c := newRawClient(t, g.connectH2())
		c.head(1, false, ":method", "CONNECT", ":authority", target)
		c.data(1, false, "early")
		if h := c.next(); !strings.HasPrefix(h, "1 head :status="+status) {
			t.Errorf("CONNECT %s: %q, want %s", target, h, status)
		}
	}
}

// upgrade asks for a WebSocket.
func (r *rawClient) upgrade(id uint32, protocol, authority string) {
	r.t.Helper()
	r.head(id, false, ":method", "CONNECT", ":protocol", protocol, ":scheme", "http", ":authority", authority, ":path", "/chat", "sec-websocket-version", "13")
}

func TestH2WebSocket(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		req, _ := p.request()
		if req.Method != "GET" || req.URL.Path != "/chat" || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" ||
			req.Header.Get("Sec-Websocket-Version") != "13" {
			t.Errorf("the origin saw %s %s %v", req.Method, req.URL, req.Header)
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %s\r\n\r\ngreeting",
			webSocketAccept(req.Header.Get("Sec-Websocket-Key")))
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.upgrade(1, "websocket", o.addr())
	c.want("1 head :status=200 sec-websocket-protocol=chat via=1.1 polyport")
	c.want("1 data greeting")
	c.data(1, false, "ping")
	c.want("1 data ping")
	c.data(1, true, "")
	want(t, "at the end", c.content(1), "")
	rec := g.record()
	if rec.Protocol != "http" || rec.Method != "GET" || rec.Status != 200 || rec.Err != nil || rec.URL != "http://"+o.addr()+"/chat" {
		t.Errorf("record %+v", rec)
	}
}

func TestH2WebSocketRefused(t *testing.T) {
	const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
	for _, tt := range []struct{ name, answer, want, reason string }{
		{"a wrong Sec-WebSocket-Accept", head + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "502", "http_upgrade_failed"},
		{"none", head + "\r\n", "502", "http_upgrade_failed"},
		{"another protocol", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: telnet\r\n\r\n", "502", "http_upgrade_failed"},
		{"no upgrade, but a 2xx, which would say that the tunnel stands", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "502", "http_upgrade_failed"},
		{"403", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "403", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) { p.head(); p.send("%s", tt.answer); untilClosed(p) })
			g := newGateway(t, gatewayOptions{})
			c := newRawClient(t, g.connectH2())
			c.upgrade(1, "websocket", o.addr())
			if h := c.next(); !strings.HasPrefix(h, "1 head :status="+tt.want+" ") {
				t.Errorf("answer %q, want %s", h, tt.want)
			}
			if rec := g.record(); rec.Reason != tt.reason || (rec.Err == nil) != (tt.reason == "") {
				t.Errorf("record %+v, want reason %q", rec, tt.reason)
			}
		})
	}
}

func TestH2UnknownProtocol(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.upgrade(1, "webtransport", "a.test")
	c.want("1 head :status=501 proxy-status=polyport; error=http_request_error end")
	c.upgrade(3, "connect-udp", "a.test")
	if got := c.next(); got == "1 reset NO_ERROR" {
		c.want("3 head :status=501 proxy-status=polyport; error=http_request_error end")
	}
	if rec := g.record(); rec.Status != 501 || rec.Reason != "http_request_error" || rec.Err == nil {
		t.Errorf("record %+v", rec)
	}
}
