package httpproxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

const wish = "GET http://%s/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func TestUpgrade(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		h := p.head()
		if !strings.Contains(h, "Connection: Upgrade\r\n") || !strings.Contains(h, "Upgrade: websocket\r\n") {
			t.Errorf("the origin saw %q", h)
		}
		// The greeting comes in one piece with the head, before anybody asked.
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\ngreeting")
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send(wish+"early", o.addr(), "websocket")
	want(t, "head", c.head(), "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"+
		"Via: 1.1 polyport\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n")
	want(t, "what came behind the head", c.bytes(len("greeting")), "greeting")
	want(t, "echo of what went ahead", c.bytes(len("early")), "early")
	c.send("late")
	_ = c.CloseWrite()
	if got, err := c.rest(); got != "late" || err != nil {
		t.Errorf("echo %q, %v", got, err)
	}
	rec := g.record()
	if rec.Status != 101 || rec.Protocol != "http" || rec.BytesFromClient < int64(len("earlylate")) || rec.BytesFromTarget < int64(len("greetingearlylate")) {
		t.Errorf("record %+v", rec)
	}
	if n := g.handler.pool.size(); n != 0 {
		t.Errorf("%d connections in the pool, want none", n)
	}
}

// TestUpgradeRefused: both connections go on as HTTP.
func TestUpgradeRefused(t *testing.T) {
	o, heads := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	for range 2 {
		c.send(wish, o.addr(), "websocket")
		if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || body != "ok" || resp.Close {
			t.Errorf("answer %d %q, close %v", resp.StatusCode, body, resp.Close)
		}
	}
	if n := o.accepted.Load(); n != 1 || len(heads) != 2 {
		t.Errorf("%d requests over %d connections, want 2 over 1", len(heads), n)
	}
}

func TestUpgradeToSomethingElse(t *testing.T) {
	tests := []struct{ name, asked, answer string }{
		{"another protocol", "websocket", "Upgrade: telnet\r\n"},
		{"no protocol", "websocket", ""},
		{"h2c, which was not passed on", "h2c", "Upgrade: h2c\r\n"},
		{"one more than asked for", "websocket", "Upgrade: websocket, telnet\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n%s\r\n", tt.answer)
				untilClosed(p)
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			c.send(wish, o.addr(), tt.asked)
			if resp, _ := c.response(http.MethodGet); resp.StatusCode != http.StatusBadGateway {
				t.Errorf("answer %d, want 502", resp.StatusCode)
			}
		})
	}
}

// TestUpgradeWithABody is served as a plain request: the body would stand
// where the tunnel begins.
func TestUpgradeWithABody(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		req, body := p.request()
		if req.Header.Get("Upgrade") != "" || body != "hello" {
			t.Errorf("the origin saw Upgrade %q, body %q", req.Header.Get("Upgrade"), body)
		}
		p.send(okAnswer)
		untilClosed(p)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", o.addr())
	if resp, _ := c.response(http.MethodPost); resp.StatusCode != 200 {
		t.Errorf("answer %d, want 200", resp.StatusCode)
	}
}

func TestUpgradeWish(t *testing.T) {
	tests := []struct{ in, want string }{
		{"websocket", "websocket"},
		{"h2c", ""},
		{"H2C, websocket", "websocket"},
		{"HTTP/2.0, TLS/1.0 , websocket", "TLS/1.0, websocket"},
		{"", ""},
		{",,", ""},
	}
	for _, tt := range tests {
		if got := upgradeWish([]byte(tt.in)); got != tt.want {
			t.Errorf("upgradeWish(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
