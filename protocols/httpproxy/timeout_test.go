package httpproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"polyport/internal/session"
)

// brief are timeouts of which one is short.
func brief(change func(*session.Timeouts)) session.Timeouts {
	o := session.Timeouts{Handshake: patience, Idle: patience, KeepAlive: patience}
	change(&o)
	return o
}

func TestSlowHead(t *testing.T) {
	for _, established := range []bool{false, true} {
		o, _ := replies(t, okAnswer)
		g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.Handshake = 200 * time.Millisecond })})
		c := g.connect()
		if established {
			g.get(c, o.addr(), "/")
			g.record()
		}
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() { // a byte now and then does not help
			defer close(done)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for _, b := range []byte("GET http://example.com/" + strings.Repeat("a", 16000)) {
				select {
				case <-stop:
					return
				case <-tick.C:
					_, _ = c.Write([]byte{b})
				}
			}
		}()
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
			t.Errorf("answer %d, close %v; want 408 and the end", resp.StatusCode, resp.Close)
		}
		close(stop)
		<-done
		if rec := g.endedRecord(c); rec.Status != 408 || rec.Err == nil {
			t.Errorf("record status %d, error %v", rec.Status, rec.Err)
		}
	}
}

func TestIdleBetweenRequests(t *testing.T) {
	o, _ := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.KeepAlive = 50 * time.Millisecond })})
	c := g.connect()
	g.get(c, o.addr(), "/")
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("then came %q, %v; want the end", rest, err)
	}
	if rec := g.record(); rec.Err != nil || rec.Reason != "" {
		t.Errorf("record %+v, want a plain success", rec)
	}
	if len(g.records) != 0 {
		t.Error("there is a second record, of no exchange")
	}
}

func TestSilentOrigin(t *testing.T) {
	o := newScripted(t, untilClosed)
	g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.Idle = 100 * time.Millisecond })})
	c := g.connect()
	resp, _ := g.get(c, o.addr(), "/")
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("answer %d, want 504", resp.StatusCode)
	}
	want(t, "Proxy-Status", resp.Header.Get("Proxy-Status"), "polyport; error=http_response_timeout")
}

func TestOriginThatStops(t *testing.T) {
	const size = 10 << 20 // enough for splice
	for _, begin := range []string{"12345", strings.Repeat("x", 1<<20)} {
		o := newScripted(t, func(p *peer) {
			p.head()
			p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, begin)
			untilClosed(p)
		})
		g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.Idle = time.Second })})
		c := g.connect()
		c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
		c.head()
		if rest, _ := c.rest(); rest != begin {
			t.Errorf("%d bytes came, want the %d that the origin sent", len(rest), len(begin))
		}
		if rec := g.record(); rec.Reason != "connection_read_timeout" {
			t.Errorf("reason %q, want connection_read_timeout; record %+v", rec.Reason, rec)
		}
	}
}

func TestClientThatDoesNotRead(t *testing.T) {
	for _, kind := range []string{"Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
		o := newScripted(t, func(p *peer) {
			p.head()
			p.send("HTTP/1.1 200 OK\r\n%s\r\n\r\n", kind)
			line := "fff0\r\n" + strings.Repeat("x", 0xfff0) + "\r\n"
			for {
				if _, err := io.WriteString(p, line); err != nil {
					return
				}
			}
		})
		g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.Idle = 200 * time.Millisecond })})
		c := g.connect()
		c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
		if rec := g.record(); rec.Err == nil || rec.Status != 200 {
			t.Errorf("%s: record status %d, error %v; want an error", kind, rec.Status, rec.Err)
		}
	}
}

func TestClientThatStopsUploading(t *testing.T) {
	for _, begin := range []string{"12345", strings.Repeat("x", 1<<20)} {
		ended := make(chan error, 1)
		o := newScripted(t, func(p *peer) {
			p.head()
			_, err := p.rest()
			ended <- err
		})
		g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.Idle = 200 * time.Millisecond })})
		c := g.connect()
		c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n%s", o.addr(), begin)
		if err := <-ended; err == nil {
			t.Error("to the origin the body looks whole")
		}
		if rec := g.record(); rec.Err == nil {
			t.Errorf("record %+v, want an error", rec)
		}
	}
}

// TestKill: what hangs on an origin ends with the process.
func TestKill(t *testing.T) {
	seen := make(chan struct{})
	o := newScripted(t, func(p *peer) {
		p.head()
		close(seen)
		untilClosed(p)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	<-seen
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.Drain(ctx)
	if rec := g.record(); rec.Err == nil {
		t.Errorf("record %+v, want an error", rec)
	}
}

// TestDrain: an exchange that is under way is finished and says that it is the last.
func TestDrain(t *testing.T) {
	seen, answer := make(chan struct{}), make(chan struct{})
	o := newScripted(t, func(p *peer) {
		p.head()
		close(seen)
		<-answer
		p.send(okAnswer)
		untilClosed(p)
	})
	page := pathEcho(t)
	g := newGateway(t, gatewayOptions{})
	idle, busy := g.connect(), g.connect()
	g.get(idle, page.addr(), "/")
	g.record()
	busy.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	<-seen
	drained := make(chan int, 1)
	go func() { drained <- g.Drain(context.Background()) }()
	if rest, err := idle.rest(); rest != "" || err != nil { // the idle one ends at once
		t.Errorf("the idle connection then got %q, %v", rest, err)
	}
	close(answer)
	if resp, body := busy.response(http.MethodGet); body != "ok" || !resp.Close {
		t.Errorf("body %q, close %v; want the answer, and the end announced", body, resp.Close)
	}
	busy.Close()
	if n := <-drained; n != 0 {
		t.Errorf("%d sessions had to be ended, want none", n)
	}
}

// TestClientThatGoesAway: nobody waits for an answer that nobody will read.
func TestClientThatGoesAway(t *testing.T) {
	seen, ended := make(chan struct{}), make(chan struct{})
	o := newScripted(t, func(p *peer) {
		p.head()
		close(seen)
		untilClosed(p)
		close(ended)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	<-seen
	_ = c.SetLinger(0)
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the origin is still being waited for")
	}
	if rec := g.record(); !errors.Is(rec.Err, errClientGone) {
		t.Errorf("record error %v, want %v", rec.Err, errClientGone)
	}
}

// TestHalfShutClient: one that ends its side behind the request gets its answer,
// unless the origin takes very long.
func TestHalfShutClient(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send(okAnswer)
		untilClosed(p)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	_ = c.CloseWrite()
	if _, body := c.response(http.MethodGet); body != "ok" {
		t.Errorf("body %q, want \"ok\"", body)
	}

	ours, theirs := tcpPair(t)
	defer ours.Close()
	_ = theirs.CloseWrite()
	defer theirs.Close()
	origin, _ := tcpOrigin(t, "k")
	half := &client{stream: stream{conn: ours}, t: transfer{ctx: context.Background(), origin: origin}}
	defer half.stopWatching()
	if err := waitReadable(ours); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, step := range []struct {
		after time.Duration
		gone  bool
	}{{0, false}, {halfShutFor - 1, false}, {halfShutFor, true}} {
		if _, err := half.watch(begin.Add(step.after)); errors.Is(err, errClientGone) != step.gone {
			t.Errorf("after %v: %v, want gone %v", step.after, err, step.gone)
		}
	}
	half.t.answering = true
	if _, err := half.watch(begin.Add(time.Hour)); err != nil {
		t.Errorf("while the answer runs: %v, want no error", err)
	}
}
