package httpproxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
)

func (g *gateway) get(c *peer, addr, path string, fields ...string) (*http.Response, string) {
	g.t.Helper()
	c.send("GET http://%s%s HTTP/1.1\r\nHost: x\r\n%s\r\n", addr, path, strings.Join(fields, ""))
	return c.response(http.MethodGet)
}

// pathEcho answers each request with its path, on connections that it keeps.
func pathEcho(t *testing.T) *scripted {
	return newScripted(t, func(p *peer) {
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			path := strings.Fields(p.head())[1]
			p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
		}
	})
}

func TestConnectionsAreReused(t *testing.T) {
	o := pathEcho(t)
	g := newGateway(t, gatewayOptions{})
	for range 3 { // three clients, one after another
		c := g.connect()
		for i := range 3 {
			path := fmt.Sprintf("/%d", i)
			resp, body := g.get(c, o.addr(), path)
			want(t, "body", body, path)
			if resp.Close {
				t.Error("the client's connection ends")
			}
			if rec := g.record(); rec.Address.String() != o.addr() { // by now the connection is back
				t.Errorf("recorded address %v, want %v", rec.Address, o.addr())
			}
		}
	}
	if n := o.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the origin, want 1", n)
	}
}

func TestPipelining(t *testing.T) {
	slow := newScripted(t, func(p *peer) {
		p.head()
		<-time.After(50 * time.Millisecond) // the others would overtake it if they could
		p.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
		untilClosed(p)
	})
	fast := pathEcho(t)
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	var b strings.Builder
	fmt.Fprintf(&b, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", slow.addr())
	fmt.Fprintf(&b, "POST http://%s/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", fast.addr())
	fmt.Fprintf(&b, "GET http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
	fmt.Fprintf(&b, "GET http://%s/b HTTP/1.1\r\nHost: x\r\n\r\n", fast.addr())
	c.send("%s", b.String())
	for i, wanted := range []string{"slow", "/a", "", "/b"} {
		resp, body := c.response(http.MethodGet)
		if wanted == "" && resp.StatusCode == 403 {
			continue
		}
		if resp.StatusCode != 200 || body != wanted {
			t.Errorf("answer %d is %d %q, want %q", i, resp.StatusCode, body, wanted)
		}
	}
	for i, status := range []int{200, 200, 403, 200} {
		if rec := g.lastRecord(c, i == 3); rec != status {
			t.Errorf("record %d has status %d, want %d", i, rec, status)
		}
	}
}

// lastRecord returns the status of the next record; the last one comes with the connection's end.
func (g *gateway) lastRecord(c *peer, last bool) int {
	if last {
		c.Close()
	}
	return g.record().Status
}

// TestRepeatOnADeadConnection: a request that meets a connection which dies in that
// moment goes out once more, if it may.
func TestRepeatOnADeadConnection(t *testing.T) {
	tests := []struct {
		name, request string // HOST stands for the origin's address
		status        int
		conns         int32
	}{
		{"GET", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n", 200, 2},
		{"PUT without a body", "PUT http://HOST/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 200, 2},
		{"POST", "POST http://HOST/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 502, 1},
		{"unknown method", "FETCH http://HOST/ HTTP/1.1\r\nHost: x\r\n\r\n", 502, 1},
		{"PUT with a body", "PUT http://HOST/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 502, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var first sync.Once
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send(okAnswer)
				dies := false
				first.Do(func() { dies = true })
				if dies {
					p.head() // of the second request: nobody can have noticed before
					return
				}
				untilClosed(p)
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			g.get(c, o.addr(), "/")
			c.send("%s", strings.ReplaceAll(tt.request, "HOST", o.addr()))
			resp, _ := c.response(http.MethodGet)
			if resp.StatusCode != tt.status {
				t.Errorf("answer %d, want %d", resp.StatusCode, tt.status)
			}
			if n := o.accepted.Load(); n != tt.conns {
				t.Errorf("%d connections to the origin, want %d", n, tt.conns)
			}
		})
	}
}

func TestRepeatOnlyOnce(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		if h := p.head(); strings.HasPrefix(h, "GET /first ") {
			p.send(okAnswer)
			p.head()
		}
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	g.get(c, o.addr(), "/first")
	if resp, _ := g.get(c, o.addr(), "/second"); resp.StatusCode != 502 {
		t.Errorf("answer %d, want 502", resp.StatusCode)
	}
	if n := o.accepted.Load(); n != 2 {
		t.Errorf("%d connections to the origin, want 2", n)
	}
}

func TestNoRepeatOnceSomethingHasCome(t *testing.T) {
	for _, some := range []string{"HTTP/1.1 2", "HTTP/1.1 103 Early Hints\r\n\r\n"} {
		t.Run(some, func(t *testing.T) {
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send(okAnswer)
				p.head()
				p.send("%s", some)
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			g.get(c, o.addr(), "/")
			c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
			resp, _ := c.response(http.MethodGet)
			if resp.StatusCode == 103 {
				resp, _ = c.response(http.MethodGet)
			}
			if resp.StatusCode != 502 || o.accepted.Load() != 1 {
				t.Errorf("answer %d over %d connections, want 502 over 1", resp.StatusCode, o.accepted.Load())
			}
		})
	}
}

// TestConnectionsThatAreNotReused: what an origin says about its connection is heeded.
func TestConnectionsThatAreNotReused(t *testing.T) {
	tests := []struct{ name, answer string }{
		{"Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"more than was asked for", okAnswer + "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, _ := replies(t, tt.answer)
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			for range 3 {
				if _, body := g.get(c, o.addr(), "/"); body != "ok" {
					t.Errorf("body %q, want \"ok\"", body)
				}
			}
			if n := o.accepted.Load(); n != 3 {
				t.Errorf("%d connections to the origin, want 3", n)
			}
		})
	}
}

// TestPolicyPerRequest: a connection that is kept alive is no permit.
func TestPolicyPerRequest(t *testing.T) {
	o := pathEcho(t)
	g := newGateway(t, gatewayOptions{users: users{}, rules: []acl.Rule{
		{Name: "alice", Action: acl.Allow, User: []string{"al"}, Target: []string{"127.0.0.0/8"}},
		{Name: "all", Action: acl.Allow, Method: []string{"HEAD"}, Target: []string{"127.0.0.0/8"}, Anonymous: true},
	}})
	c := g.connect()
	if resp, _ := g.get(c, o.addr(), "/", "Proxy-Authorization: "+basicAuth("al:x")+"\r\n"); resp.StatusCode != 200 {
		t.Fatalf("with a user: %d, want 200", resp.StatusCode)
	}
	if resp, _ := g.get(c, o.addr(), "/"); resp.StatusCode != 407 {
		t.Errorf("without: %d, want 407", resp.StatusCode)
	}

	// A reload takes the right away from a connection that is open.
	old := g.handler
	g.o.rules = []acl.Rule{{Name: "nobody", Action: acl.Deny}}
	g.SetRuntime(g.runtime())
	if resp, _ := g.get(c, o.addr(), "/", "Proxy-Authorization: "+basicAuth("al:x")+"\r\n"); resp.StatusCode != 403 {
		t.Errorf("after a reload: %d, want 403", resp.StatusCode)
	}
	if n := old.pool.size(); n != 0 {
		t.Errorf("the retired handler still holds %d connections", n)
	}

	// And another gives it back, under a new handler and with new connections.
	g.o.rules = nil
	g.SetRuntime(g.runtime())
	if resp, _ := g.get(c, o.addr(), "/"); resp.StatusCode != 200 {
		t.Errorf("after another reload: %d, want 200", resp.StatusCode)
	}
	if n := o.accepted.Load(); n != 2 {
		t.Errorf("%d connections to the origin, want 2: none is shared between generations", n)
	}
	for range 4 {
		g.record() // by the last one the connection is back
	}
	if n := g.handler.pool.size(); n != 1 {
		t.Errorf("the new handler holds %d connections, want 1", n)
	}
}

// TestReloadOnRowHTTP2: a client that has agreed on h2 and speaks HTTP/1.1 is served by the handler of the reload too.
func TestReloadOnRowHTTP2(t *testing.T) {
	o := pathEcho(t)
	g := newGateway(t, gatewayOptions{})
	c := newPeer(t, g.connectH2())
	for _, when := range []string{"before", "after"} {
		if resp, _ := g.get(c, o.addr(), "/"); resp.StatusCode != 200 {
			t.Fatalf("%s the reload: %d, want 200", when, resp.StatusCode)
		}
		if when == "before" {
			g.SetRuntime(g.runtime())
		}
	}
	for range 2 {
		g.record() // by the last one the connection is back
	}
	if n := g.handler.pool.size(); n != 1 {
		t.Errorf("the new handler holds %d connections, want 1", n)
	}
}

// TestOwnedConnections: a connection on which NTLM was seen belongs to its client.
func TestOwnedConnections(t *testing.T) {
	tests := []struct{ name, request, response string }{
		{"challenge", "", "WWW-Authenticate: NTLM TlRMTVNTUAAC\r\n"},
		{"challenge in a list", "", "WWW-Authenticate: Basic realm=\"a, b\", Negotiate\r\n"},
		{"credentials", "Authorization: Negotiate YII=\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan struct{}, 10)
			o := newScripted(t, func(p *peer) {
				for n := 1; ; n++ {
					if _, err := p.r.Peek(1); err != nil {
						ended <- struct{}{}
						return
					}
					p.head()
					p.send("HTTP/1.1 200 OK\r\n%sContent-Length: 1\r\n\r\n%d", tt.response, n)
				}
			})
			g := newGateway(t, gatewayOptions{})
			alice, bob := g.connect(), g.connect()
			_, body := g.get(alice, o.addr(), "/", tt.request)
			want(t, "first of one client", body, "1")
			_, body = g.get(bob, o.addr(), "/", tt.request)
			want(t, "first of another", body, "1")
			_, body = g.get(alice, o.addr(), "/")
			want(t, "second of the one", body, "2")
			if n := g.handler.pool.size(); n != 0 {
				t.Errorf("%d connections in the pool, want none", n)
			}
			if n := o.accepted.Load(); n != 2 {
				t.Errorf("%d connections to the origin, want 2", n)
			}
			alice.Close()
			bob.Close()
			for range 2 { // with the clients their connections go
				select {
				case <-ended:
				case <-time.After(patience):
					t.Fatal("a connection outlives its client")
				}
			}
		})
	}
}

// TestOwnedConnectionIsNotLentToAnotherUser: a client may be a proxy with many users.
func TestOwnedConnectionIsNotLentToAnotherUser(t *testing.T) {
	o, _ := replies(t, "HTTP/1.1 200 OK\r\nWWW-Authenticate: NTLM\r\nContent-Length: 2\r\n\r\nok")
	g := newGateway(t, gatewayOptions{users: users{}})
	c := g.connect()
	g.get(c, o.addr(), "/", "Proxy-Authorization: "+basicAuth("al:x")+"\r\n")
	g.get(c, o.addr(), "/", "Proxy-Authorization: "+basicAuth("alice:pässword")+"\r\n")
	if n := o.accepted.Load(); n != 2 {
		t.Errorf("%d connections to the origin, want 2", n)
	}
}

func TestRetireClosesIdleConnections(t *testing.T) {
	ended := make(chan struct{})
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send(okAnswer)
		untilClosed(p)
		close(ended)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	g.get(c, o.addr(), "/")
	g.handler.Retire()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the idle connection is still open")
	}
}

// TestManyAtOnce: concurrent clients, bodies and origins are never mixed up.
func TestManyAtOnce(t *testing.T) {
	const clients, requests = 24, 20
	var origins []*scripted
	for range 3 {
		origins = append(origins, newScripted(t, func(p *peer) {
			for {
				if _, err := p.r.Peek(1); err != nil {
					return
				}
				req, body := p.request()
				answer := req.URL.Path + " " + body
				p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
			}
		}))
	}
	g := newGateway(t, gatewayOptions{})
	var all sync.WaitGroup
	for i := range clients {
		c := g.connect()
		all.Add(1)
		go func() {
			defer all.Done()
			for n := range requests {
				o := origins[(i+n)%len(origins)]
				path, body := fmt.Sprintf("/%d/%d", i, n), strings.Repeat(fmt.Sprint(i), n*n*200)
				c.send("PUT http://%s%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", o.addr(), path, len(body), body)
				resp, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != path+" "+body {
					t.Errorf("client %d, request %d: %d bytes, %v; want %d", i, n, len(got), err, len(path)+1+len(body))
					return
				}
			}
		}()
	}
	all.Wait()
}

// TestStale: what a look at an idle connection finds.
func TestStale(t *testing.T) {
	tests := []struct {
		name string
		does func(p *peer)
		want bool
	}{
		{"quiet", func(*peer) {}, false},
		{"closed", func(p *peer) { p.Close() }, true},
		{"half-closed", func(p *peer) { _ = p.CloseWrite() }, true},
		{"reset", func(p *peer) { _ = p.SetLinger(0); p.Close() }, true},
		{"spoke", func(p *peer) { p.send("HTTP/1.1 408 Request Timeout\r\n\r\n") }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := tcpPair(t)
			o := newOrigin(egress.Link{Conn: ours, Address: peerOf(ours)}, "key")
			defer o.close()
			tt.does(newPeer(t, theirs))
			if tt.want { // let it arrive: this waits until there is something to read
				if err := waitReadable(ours); err != nil {
					t.Fatal(err)
				}
			}
			if got := o.stale(); got != tt.want {
				t.Errorf("stale() = %v, want %v", got, tt.want)
			}
		})
	}
}

// waitReadable returns once a read of c would not block, and takes nothing.
func waitReadable(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN
	})
}
