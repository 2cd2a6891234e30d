package httpproxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// request reads one whole request with net/http, which is not what is under test.
func (p *peer) request() (*http.Request, string) {
	req, err := http.ReadRequest(p.r)
	if err != nil {
		p.t.Errorf("the origin reads a request: %v", err)
		return &http.Request{Header: http.Header{}, Trailer: http.Header{}}, ""
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		p.t.Errorf("the origin reads a body: %v", err)
	}
	return req, string(body)
}

func TestChunksAndTrailers(t *testing.T) {
	type seen struct{ body, trailer, hidden string }
	got := make(chan seen, 1)
	o := newScripted(t, func(p *peer) {
		req, body := p.request()
		got <- seen{body, req.Trailer.Get("X-Sum"), req.Trailer.Get("X-Real-IP")}
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Back\r\n\r\n3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Back: yes\r\n\r\n")
		untilClosed(p)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\nTrailer: X-Sum, X-Real-IP\r\n\r\n"+
		"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 11\r\nX-Real-IP: 10.0.0.1\r\n\r\n", o.addr())
	resp, body := c.response(http.MethodPost)
	if s := <-got; s != (seen{"hello world", "11", ""}) {
		t.Errorf("the origin saw %+v", s)
	}
	want(t, "body", body, "abcdefg")
	want(t, "trailer", resp.Trailer.Get("X-Back"), "yes")
}

// TestLargeBodies goes through every way that a body can be copied.
func TestLargeBodies(t *testing.T) {
	const size = 3<<20 + 7
	body := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(body)
	sum := sha256.Sum256(body)
	for _, up := range []string{"length", "chunked"} {
		for _, down := range []string{"length", "chunked", "close"} {
			t.Run(up+" up, "+down+" down", func(t *testing.T) {
				arrived := make(chan [32]byte, 1)
				o := newScripted(t, func(p *peer) {
					_, b := p.request()
					arrived <- sha256.Sum256([]byte(b))
					switch down {
					case "length":
						p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
						_, _ = p.Write(body)
						untilClosed(p)
					case "chunked":
						p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
						writeChunks(p, body)
						untilClosed(p)
					case "close":
						p.send("HTTP/1.1 200 OK\r\n\r\n")
						_, _ = p.Write(body)
					}
				})
				g := newGateway(t, gatewayOptions{})
				c := g.connect()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					if up == "length" {
						c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", o.addr(), size)
						_, _ = c.Write(body)
						return
					}
					c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", o.addr())
					writeChunks(c, body)
				}()
				_, got := c.response(http.MethodPost)
				<-sent
				if <-arrived != sum {
					t.Error("the origin got something else than was sent")
				}
				if sha256.Sum256([]byte(got)) != sum {
					t.Error("the client got something else than was sent")
				}
				c.CloseWrite()
				if rec := g.record(); rec.BytesFromClient < size || rec.BytesFromTarget < size {
					t.Errorf("recorded %d and %d bytes, want more than %d", rec.BytesFromClient, rec.BytesFromTarget, size)
				}
			})
		}
	}
}

// writeChunks writes a chunked body in chunks of growing size.
func writeChunks(p *peer, body []byte) {
	w := bufio.NewWriter(p)
	for n := 1; len(body) > 0; n = n*3 + 1 {
		n = min(n, len(body))
		fmt.Fprintf(w, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	fmt.Fprint(w, "0\r\n\r\n")
	_ = w.Flush()
}

func TestEventStreamIsNotHeldBack(t *testing.T) {
	step := make(chan struct{})
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		for range 3 {
			<-step
			p.send("data: x\n\n")
		}
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", o.addr())
	c.head() // comes although there is no body yet
	for range 3 {
		step <- struct{}{}
		want(t, "event", c.bytes(len("9\r\ndata: x\n\n\r\n")), "9\r\ndata: x\n\n\r\n")
	}
	want(t, "end", c.bytes(len("0\r\n\r\n")), "0\r\n\r\n")
}

// TestDuplex: request and response bodies move at the same time.
func TestDuplex(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			chunk := p.bytes(len("4\r\nping\r\n"))
			if p.send("4\r\npong\r\n"); chunk != "4\r\nping\r\n" {
				t.Errorf("the origin got %q", chunk)
			}
			if b, _ := p.r.Peek(1); string(b) == "0" {
				p.bytes(len("0\r\n\r\n"))
				p.send("0\r\n\r\n")
				untilClosed(p)
				return
			}
		}
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", o.addr())
	for i := range 3 {
		c.send("4\r\nping\r\n")
		if i == 0 {
			c.head()
		}
		want(t, "echo", c.bytes(len("4\r\npong\r\n")), "4\r\npong\r\n")
		if i < 2 {
			continue
		}
		c.send("0\r\n\r\n")
	}
	want(t, "end", c.bytes(len("0\r\n\r\n")), "0\r\n\r\n")
}

func TestExpectContinue(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		if h := p.head(); !strings.Contains(h, "Expect: 100-continue\r\n") {
			t.Errorf("the origin saw %q, want the expectation", h)
		}
		p.send("HTTP/1.1 100 Continue\r\n\r\n")
		want(t, "body", p.bytes(5), "hello")
		p.send(okAnswer)
		untilClosed(p)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("PUT http://%s/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", o.addr())
	want(t, "interim", c.head(), "HTTP/1.1 100 Continue\r\nVia: 1.1 polyport\r\n\r\n")
	c.send("hello")
	if resp, _ := c.response(http.MethodPut); resp.StatusCode != 200 || resp.Close {
		t.Errorf("answer %d, close %v; want 200 on a connection that goes on", resp.StatusCode, resp.Close)
	}
}

func TestExpectationRefused(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
		if more, _ := p.rest(); more != "" {
			t.Errorf("the origin then got %q, want nothing", more)
		}
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("PUT http://%s/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", o.addr())
	resp, body := c.response(http.MethodPut)
	if resp.StatusCode != 413 || body != "no" || !resp.Close {
		t.Errorf("answer %d %q, close %v; want 413 \"no\" and the end", resp.StatusCode, body, resp.Close)
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("then came %q, %v", rest, err)
	}
}

func TestUnknownExpectation(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("PUT http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n")
	if resp, _ := c.response(http.MethodPut); resp.StatusCode != http.StatusExpectationFailed {
		t.Errorf("answer %d, want 417", resp.StatusCode)
	}
}

func TestInterimResponses(t *testing.T) {
	script := func(p *peer) {
		p.head()
		p.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + okAnswer)
		untilClosed(p)
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		o, g := newScripted(t, script), newGateway(t, gatewayOptions{})
		c := g.connect()
		c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
		want(t, "first", c.head(), "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nVia: 1.1 polyport\r\n\r\n")
		want(t, "second", c.head(), "HTTP/1.1 102 Processing\r\nVia: 1.1 polyport\r\n\r\n")
		if _, body := c.response(http.MethodGet); body != "ok" {
			t.Errorf("body %q", body)
		}
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		o, g := newScripted(t, script), newGateway(t, gatewayOptions{})
		c := g.connect()
		c.send("GET http://%s/ HTTP/1.0\r\n\r\n", o.addr())
		if resp, _ := c.response(http.MethodGet); resp.StatusCode != 200 {
			t.Errorf("first answer %d, want 200: HTTP/1.0 knows no interim ones", resp.StatusCode)
		}
	})
	t.Run("endless", func(t *testing.T) {
		o := newScripted(t, func(p *peer) {
			p.head()
			for {
				if _, err := io.WriteString(p, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return
				}
			}
		})
		g := newGateway(t, gatewayOptions{})
		c := g.connect()
		c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
		n := 0
		for ; n < 1000; n++ {
			if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 102") {
				break
			}
		}
		if n == 0 || n > 100 {
			t.Errorf("%d interim responses were passed on, want some and not all", n)
		}
	})
}

// TestEarlyAnswer: the origin answers before the body is whole and then reads no more.
func TestEarlyAnswer(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ndenied")
		p.r.Peek(1) // the gateway's close
		untilClosed(p)
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin", o.addr())
	resp, body := c.response(http.MethodPost)
	if resp.StatusCode != 403 || body != "denied" || !resp.Close {
		t.Errorf("answer %d %q, close %v; want 403, and the end announced", resp.StatusCode, body, resp.Close)
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("then came %q, %v; want the end", rest, err)
	}
}

// TestCutResponses: what an origin did not finish must not look whole.
func TestCutResponses(t *testing.T) {
	tests := []struct {
		name, version, response, body string
		reset                         bool // the origin resets instead of closing
		wantErr                       error
		reason                        string
	}{
		{"length", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "12345", false, io.ErrUnexpectedEOF, "http_response_incomplete"},
		{"length, reset", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "12345", true, io.ErrUnexpectedEOF, "http_response_incomplete"},
		{"chunked", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\n12345\r\n", false, io.ErrUnexpectedEOF, "http_response_incomplete"},
		{"chunked, in a chunk", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "ff\r\n12345", false, io.ErrUnexpectedEOF, "http_response_incomplete"},
		{"chunked, bad size", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\n12345\r\nzz\r\n", false, io.ErrUnexpectedEOF, "http_response_transfer_coding"},
		{"chunked to HTTP/1.0", "1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\n12345\r\n", false, syscall.ECONNRESET, "http_response_incomplete"},
		{"until the end, reset", "1.1", "HTTP/1.1 200 OK\r\n\r\n", "12345", true, io.ErrUnexpectedEOF, "http_response_incomplete"},
		{"until the end, reset, to HTTP/1.0", "1.0", "HTTP/1.1 200 OK\r\n\r\n", "12345", true, syscall.ECONNRESET, "http_response_incomplete"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cut := make(chan struct{})
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send("%s%s", tt.response, tt.body)
				<-cut
				if tt.reset {
					_ = p.SetLinger(0)
				}
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			c.send("GET http://%s/ HTTP/%s\r\nHost: x\r\n\r\n", o.addr(), tt.version)
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 5)
			if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "12345" {
				t.Errorf("the first bytes are %q, %v", first, err)
			}
			close(cut)
			if _, err = io.ReadAll(resp.Body); !errors.Is(err, tt.wantErr) {
				t.Errorf("the body ends with %v, want %v", err, tt.wantErr)
			}
			if rec := g.record(); rec.Reason != tt.reason || rec.Err == nil {
				t.Errorf("record reason %q, error %v; want reason %q", rec.Reason, rec.Err, tt.reason)
			}
		})
	}
}

// TestCutRequests: what a client did not finish must not look whole to the origin.
func TestCutRequests(t *testing.T) {
	tests := []struct{ name, fields, body string }{
		{"length", "Content-Length: 100000\r\n", "12345"},
		{"chunked", "Transfer-Encoding: chunked\r\n", "5\r\n12345\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan error, 1)
			begun := make(chan struct{})
			o := newScripted(t, func(p *peer) {
				p.head()
				p.bytes(len(tt.body))
				close(begun)
				_, err := p.rest()
				ended <- err
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n%s", o.addr(), tt.fields, tt.body)
			<-begun
			c.Close()
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the origin's stream ended with %v, want a reset", err)
			}
			if rec := g.record(); rec.Err == nil || rec.Status != 0 {
				t.Errorf("record status %d, error %v", rec.Status, rec.Err)
			}
		})
	}
}

func TestMalformedRequestBody(t *testing.T) {
	for _, bad := range []string{"zz\r\n", "5\r\nhelloXX", "5\nhello\r\n", "ffffffffffffffffff\r\n", "1 \r\na\r\n", "0\r\nA : b\r\n\r\n"} {
		t.Run(fmt.Sprintf("%q", bad), func(t *testing.T) {
			got := make(chan string, 1)
			o := newScripted(t, func(p *peer) {
				p.head()
				b, _ := p.rest()
				got <- b
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n%s", o.addr(), bad)
			resp, _ := c.response(http.MethodPost)
			if resp.StatusCode != 400 || !resp.Close {
				t.Errorf("answer %d, close %v; want 400 and the end", resp.StatusCode, resp.Close)
			}
			if b := <-got; strings.Contains(b, "0\r\n\r\n") {
				t.Errorf("the origin got %q, which looks whole", b)
			}
		})
	}
}

// TestSmallBodyKeepsConnection: no goroutine, no close.
func TestBodiesKeepTheConnection(t *testing.T) {
	o := newScripted(t, func(p *peer) {
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			_, body := p.request()
			p.send("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	large := bytes.Repeat([]byte("x"), 200_000)
	for i, body := range []string{"small", string(large), "", string(large[:20_000]), "small"} {
		c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", o.addr(), len(body))
		c.send("%s", body)
		resp, got := c.response(http.MethodPost)
		if resp.Close || got != body {
			t.Fatalf("exchange %d: close %v, %d bytes back, want %d", i, resp.Close, len(got), len(body))
		}
	}
	if n := o.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the origin, want 1", n)
	}
}
