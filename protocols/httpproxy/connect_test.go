package httpproxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"polyport/acl"
)

// echo is an origin that sends back what it gets until the client half-closes.
func echo(t *testing.T) *scripted {
	return newScripted(t, func(p *peer) {
		_, _ = io.Copy(p, p.r)
		_ = p.CloseWrite()
	})
}

func TestConnect(t *testing.T) {
	tests := []struct{ name, request string }{
		{"HTTP/1.1", "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nUser-Agent: curl\r\nProxy-Connection: Keep-Alive\r\n\r\n"},
		{"HTTP/1.0, as nc sends it", "CONNECT HOST HTTP/1.0\r\n\r\n"},
		{"by name, in any case, with a dot", "CONNECT Origin.TEST.:PORT HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"an odd spelling of the address", "CONNECT 0x7f.1:PORT HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"Content-Length 0", "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n"},
		{"an empty line first", "\r\nCONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n"},
	}
	for _, tt := range tests {
		for _, early := range []string{"", "early data"} {
			t.Run(tt.name+", "+early, func(t *testing.T) {
				o := echo(t)
				g := newGateway(t, gatewayOptions{names: names{"origin.test": {"127.0.0.1"}}})
				c := g.connect()
				c.send("%s%s", strings.NewReplacer("HOST", o.addr(), "PORT", portOf(o)).Replace(tt.request), early)
				want(t, "answer", c.head(), "HTTP/1.1 200 Connection established\r\n\r\n")
				c.send(" and more")
				_ = c.CloseWrite()
				got, err := c.rest()
				if got != early+" and more" || err != nil {
					t.Errorf("echo %q, %v", got, err)
				}
				rec := g.record()
				if rec.Protocol != "connect" || rec.Method != "CONNECT" || rec.Status != 200 || rec.Address.String() != o.addr() ||
					rec.BytesFromClient != int64(len(got)) || rec.BytesFromTarget != int64(len(got)) || rec.Err != nil {
					t.Errorf("record %+v", rec)
				}
				if !strings.HasSuffix(rec.URL, ":"+portOf(o)) {
					t.Errorf("URL %q", rec.URL)
				}
			})
		}
	}
}

// TestGetThenConnect: one connection, both rows.
func TestGetThenConnect(t *testing.T) {
	page, tunnel := pathEcho(t), echo(t)
	g := newGateway(t, gatewayOptions{rules: []acl.Rule{
		{Name: "pages", Action: acl.Allow, Protocol: []string{"http"}, Target: []string{"127.0.0.0/8"}},
		{Name: "tunnels", Action: acl.Allow, Protocol: []string{"connect"}, Target: []string{"127.0.0.0/8"}},
	}})
	c := g.connect()
	c.send("GET http://%s/page HTTP/1.1\r\nHost: x\r\n\r\nCONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nearly", page.addr(), tunnel.addr())
	if _, body := c.response(http.MethodGet); body != "/page" {
		t.Errorf("page %q", body)
	}
	c.head()
	want(t, "echo", c.bytes(5), "early")
	_ = c.CloseWrite()
	_, _ = c.rest()
	for _, rule := range []string{"pages", "tunnels"} {
		want(t, "rule", g.record().Rule, rule)
	}
}

// TestConnectHalfClose: the target may finish first and still listen.
func TestConnectHalfClose(t *testing.T) {
	got := make(chan string, 1)
	o := newScripted(t, func(p *peer) {
		p.send("bye")
		_ = p.CloseWrite()
		b, _ := p.rest()
		got <- b
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	c.head()
	if s, err := c.rest(); s != "bye" || err != nil {
		t.Errorf("from the target %q, %v", s, err)
	}
	c.send("still here")
	_ = c.CloseWrite()
	want(t, "to the target", <-got, "still here")
}

// TestConnectRefusedWithEarlyData: what was meant for the tunnel is not a request.
func TestConnectRefusedWithEarlyData(t *testing.T) {
	o, heads := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{users: users{}, requireUser: true, rules: []acl.Rule{{Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}})
	c := g.connect()
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nGET http://%s/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %s\r\n\r\n",
		o.addr(), o.addr(), basicAuth("al:x"))
	if resp, _ := c.response(http.MethodConnect); resp.StatusCode != 407 || !resp.Close {
		t.Errorf("answer %d, close %v; want 407 and the end", resp.StatusCode, resp.Close)
	}
	if more, _ := c.rest(); more != "" || len(heads) > 0 {
		t.Errorf("then came %q, and the origin saw %d requests", more, len(heads))
	}
}

func TestConnectChallengeThenRetry(t *testing.T) {
	o := echo(t)
	g := newGateway(t, gatewayOptions{users: users{}, requireUser: true, rules: []acl.Rule{{Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}})
	c := g.connect()
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	if resp, _ := c.response(http.MethodHead); resp.StatusCode != 407 || resp.Close {
		t.Fatalf("answer %d, close %v; want 407 on a connection that goes on", resp.StatusCode, resp.Close)
	}
	// http.ReadResponse took no body for HEAD; what is left of the page goes with the buffer.
	c.r.Discard(c.r.Buffered())
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %s\r\n\r\n", o.addr(), basicAuth("al:x"))
	want(t, "answer", c.head(), "HTTP/1.1 200 Connection established\r\n\r\n")
}

func TestConnectToADeadTargetIsNeverEstablished(t *testing.T) {
	dead := newScripted(t, func(*peer) {})
	dead.ln.Close()
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", dead.addr())
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 502 ") {
		t.Errorf("answer %q, want 502", h)
	}
}

func TestConnectPassesResetsOn(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.bytes(1)
		_ = p.SetLinger(0)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	c.head()
	c.send("x")
	if _, err := c.rest(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the tunnel ended with %v, want a reset", err)
	}
}
