package httpproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	h2 "golang.org/x/net/http2"

	"polyport/mux"
)

// TestH2Cancel: an origin that works for a client that has taken its request back is told so.
func TestH2Cancel(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string // how far the origin gets
	}{
		{"while the origin is silent", ""},
		{"in the head", "HTTP/1.1 200 OK\r\nX: "},
		{"in the body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked, ended := make(chan struct{}), make(chan error, 1)
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send("%s", tt.answer)
				close(asked)
				_, err := p.r.ReadByte()
				ended <- err
			})
			g := newGateway(t, gatewayOptions{})
			c := g.h2()
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				resp, err := c.RoundTrip(c.request("GET", "http://"+o.addr()+"/", nil).WithContext(ctx))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if err == nil {
					t.Error("the answer looks whole")
				}
			}()
			<-asked
			cancel()
			if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
				t.Errorf("the origin's connection ended with %v", err)
			}
			<-done
			if rec := g.record(); rec.Err == nil || rec.Stream != 1 {
				t.Errorf("record %+v", rec)
			}
			// The others go on.
			page := pathEcho(t)
			if _, body := c.do(c.request("GET", "http://"+page.addr()+"/on", nil)); body != "/on" {
				t.Errorf("then %q", body)
			}
		})
	}
}

// The whole connection may go as well.
func TestH2ConnectionLost(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan error, 1)
	o := newScripted(t, func(p *peer) {
		p.head()
		close(asked)
		_, err := p.r.ReadByte()
		ended <- err
	})
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.head(1, true, ":method", "GET", ":scheme", "http", ":authority", o.addr(), ":path", "/")
	<-asked
	c.Close()
	if err := <-ended; err == nil {
		t.Error("the origin got more")
	}
	for range 2 {
		if rec := g.record(); rec.Err == nil {
			t.Errorf("record %+v", rec)
		}
	}
}

func TestH2OverTLS(t *testing.T) {
	page := pathEcho(t)
	g := newGateway(t, gatewayOptions{address: "proxy.test:7659", names: names{"gw.test": {"192.0.2.1"}}})
	ours, theirs := tcpPair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		c := mux.NewConn(theirs, "main", rowHTTP2, nil)
		layer := tls.Server(c.Beneath(), gatewayTLS())
		if err := layer.Handshake(); err != nil {
			t.Error(err)
			theirs.Close()
			return
		}
		c.Secure(layer)
		g.Serve(c)
	}()
	layer := tls.Client(ours, &tls.Config{ServerName: "gw.test", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	c := newH2Client(t, layer)
	for _, tt := range []struct {
		uri    string
		status int
	}{
		{"https://gw.test:7659/", 200},    // as the client's TLS names it
		{"https://proxy.test:7659/", 200}, // as the configuration does
		{"http://gw.test:7659/", 403},     // in clear text that would be another
		{"https://gw.test:1/", 400},       // and so would this, which nobody fetches
		{"http://" + page.addr() + "/a", 200},
	} {
		if resp, _ := c.do(c.request("GET", tt.uri, nil)); resp.StatusCode != tt.status {
			t.Errorf("%s: answer %d, want %d", tt.uri, resp.StatusCode, tt.status)
		}
		if rec := g.record(); rec.TLS != "TLS 1.3" || rec.ServerName != "gw.test" {
			t.Errorf("record %+v", rec)
		}
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	in, out, err := c.tunnel(within(t), echo(t).addr())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = in.Write(large); in.Close() }()
	if got, err := io.ReadAll(out); !bytes.Equal(got, large) || err != nil {
		t.Errorf("a tunnel inside gave %d bytes, %v", len(got), err)
	}
	layer.Close()
	<-served
}

// TestH2SlowStream: a client that does not read one stream, as far as its window goes, gets all the others.
func TestH2SlowStream(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<16)
	o := newScripted(t, func(p *peer) {
		p.head()
		_, _ = fmt.Fprintf(p, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(large), large)
	})
	page := pathEcho(t)
	g := newGateway(t, gatewayOptions{})
	nc := g.connectH2()
	c := newRawClient(t, nc)
	c.check(c.fr.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1000}))
	c.head(1, true, ":method", "GET", ":scheme", "http", ":authority", o.addr(), ":path", "/")
	c.want(fmt.Sprintf("1 head :status=200 content-length=%d via=1.1 polyport", len(large)))
	got := 0
	for got < 1000 {
		got += len(strings.TrimPrefix(c.next(), "1 data "))
	}
	for id := uint32(3); id < 20; id += 2 {
		c.head(id, true, ":method", "GET", ":scheme", "http", ":authority", page.addr(), ":path", fmt.Sprintf("/%d", id))
		if h := c.next(); !strings.HasPrefix(h, fmt.Sprintf("%d head :status=200", id)) {
			t.Fatalf("beside it came %q", h)
		}
		if d := c.next(); !strings.HasPrefix(d, fmt.Sprintf("%d data /%d", id, id)) {
			t.Fatalf("beside it came %q", d)
		} else if !strings.HasSuffix(d, " end") {
			c.want(fmt.Sprintf("%d data  end", id))
		}
	}
	c.check(c.fr.WriteWindowUpdate(1, uint32(len(large))))
	c.check(c.fr.WriteWindowUpdate(0, uint32(len(large))))
	for got < len(large) {
		d := c.next()
		if !strings.HasPrefix(d, "1 data ") {
			t.Fatalf("then came %q", d)
		}
		got += len(strings.TrimSuffix(strings.TrimPrefix(d, "1 data "), " end"))
	}
}

func TestH2ManyAtOnce(t *testing.T) {
	page := pathEcho(t)
	g := newGateway(t, gatewayOptions{})
	c := g.h2()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			req, _ := http.NewRequestWithContext(within(t), "GET", fmt.Sprintf("http://%s/%d", page.addr(), i), nil)
			resp, err := c.RoundTrip(req)
			if err != nil {
				t.Errorf("%d: %v", i, err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); string(body) != fmt.Sprintf("/%d", i) || err != nil {
				t.Errorf("%d: %q, %v", i, body, err)
			}
		})
	}
	all.Wait()
	ids := map[string]bool{}
	for range 100 {
		rec := g.record()
		ids[rec.ID.String()] = true
		if rec.Status != 200 || rec.Err != nil {
			t.Errorf("record %+v", rec)
		}
	}
	if len(ids) != 100 {
		t.Errorf("%d records with an ID of their own", len(ids))
	}
}

// TestH2Limits: streams count as connections of their client do.
func TestH2Limits(t *testing.T) {
	release := make(chan struct{})
	o := newScripted(t, func(p *peer) {
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			p.head()
			<-release
			p.send(okAnswer)
		}
	})
	g := newGateway(t, gatewayOptions{})
	s := mux.NewServer(mux.Options{Rows: []string{rowHTTP2}, Handle: g.Handle, Limits: mux.Limits{ConnectionsPerClient: 3}})
	s.SetTable(mux.Table{"main": {{Name: rowHTTP2, Match: matchHTTP2}}})
	sock, err := mux.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(mux.Listener{Name: "main", Socket: sock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	nc, err := net.Dial("tcp", sock.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newRawClient(t, nc)
	ask := func(id uint32) {
		c.head(id, true, ":method", "GET", ":scheme", "http", ":authority", o.addr(), ":path", "/")
	}
	for n := range 2 {
		ask(uint32(2*n + 1))
		waitFor(t, func() bool { return o.accepted.Load() == int32(n+1) })
	}
	if total, unfinished := s.Connections(); total != 3 || unfinished != 0 {
		t.Errorf("%d connections, %d unfinished; want 3, 0", total, unfinished)
	}
	ask(5)
	c.want("5 reset REFUSED_STREAM")
	close(release)
	answered := map[string]bool{}
	for len(answered) < 2 {
		if f := c.next(); strings.HasSuffix(f, " end") {
			answered[f[:1]] = true
		}
	}
	waitFor(t, func() bool { total, _ := s.Connections(); return total == 1 })
	ask(7)
	if h := c.next(); !strings.HasPrefix(h, "7 head :status=200") {
		t.Errorf("once there is room: %q", h)
	}
	c.Close()
	waitFor(t, func() bool { total, _ := s.Connections(); return total == 0 })
}

// TestH2Drain: what is under way ends well, nothing new is begun, and the connection goes by itself.
func TestH2Drain(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	o := newScripted(t, func(p *peer) {
		p.head()
		close(asked)
		<-release
		p.send(okAnswer)
	})
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.head(1, true, ":method", "GET", ":scheme", "http", ":authority", o.addr(), ":path", "/")
	<-asked
	g.BeginDrain()
	c.want("goaway NO_ERROR")
	close(release)
	if h := c.next(); !strings.HasPrefix(h, "1 head :status=200") {
		if h = c.next(); !strings.HasPrefix(h, "1 head :status=200") { // behind the second GOAWAY
			t.Errorf("the answer is %q", h)
		}
	}
	go func() { // until it is closed
		for {
			if _, err := c.fr.ReadFrame(); err != nil {
				return
			}
		}
	}()
	if killed := g.Drain(within(t)); killed != 0 {
		t.Errorf("Drain ended %d sessions", killed)
	}
}

// A client whose frames break the protocol ends its connection, and the record says why.
func TestH2BrokenConnection(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.data(1, true, "on a stream that was never opened")
	c.want("goaway PROTOCOL_ERROR")
	if rec := g.record(); rec.Reason != "http_protocol_error" || rec.Err == nil || rec.Protocol != "h2" {
		t.Errorf("record %+v", rec)
	}
}

// An answer that comes before the whole of the request is there arrives, and the stream ends.
func TestH2EarlyAnswer(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	g := newGateway(t, gatewayOptions{})
	c := newRawClient(t, g.connectH2())
	c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", o.addr(), ":path", "/", "content-length", "100000000")
	c.data(1, false, "some of it")
	if h := c.next(); !strings.HasPrefix(h, "1 head :status=413") {
		t.Errorf("the answer is %q", h)
	}
}
