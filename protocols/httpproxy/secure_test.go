package httpproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"polyport/internal/http1"
	"polyport/internal/session"
)

func TestForwardHTTPS(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		name, host string
		version    uint16
		protos     []string
	}{
		{"TLS 1.3", "secure.test", tls.VersionTLS13, nil},
		{"TLS 1.2", "secure.test", tls.VersionTLS12, nil},
		{"an address", "127.0.0.1", tls.VersionTLS13, nil},
		{"ALPN", "secure.test", tls.VersionTLS13, []string{"h2", "http/1.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := a.server("secure.test")
			config.MinVersion, config.MaxVersion, config.NextProtos = tt.version, tt.version, tt.protos
			heads := make(chan string, 10)
			o := newSecured(t, config, answering(okAnswer, heads))
			g := secureGateway(t, a, nil)
			c := g.connect()
			for i := range 3 { // the second comes when the session tickets have
				c.send("GET https://%s:%d/a?b=c HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\nConnection: X-A\r\nX-A: 1\r\nX-B: 2\r\n\r\n", tt.host, o.port())
				resp, body := c.response(http.MethodGet)
				if resp.StatusCode != 200 || body != "ok" || resp.Close {
					t.Fatalf("answer %d: %d %q, close %v", i, resp.StatusCode, body, resp.Close)
				}
				want(t, "the request", <-heads, fmt.Sprintf("GET /a?b=c HTTP/1.1\r\nHost: %s:%d\r\nX-B: 2\r\nVia: 1.1 polyport\r\n\r\n", tt.host, o.port()))
				if rec := g.record(); rec.URL != fmt.Sprintf("https://%s:%d/a?b=c", tt.host, o.port()) || rec.Err != nil || rec.Status != 200 ||
					rec.Protocol != "http" || rec.Address.Port() != uint16(o.port()) {
					t.Errorf("record %+v", rec)
				}
			}
			if n := o.accepted.Load(); n != 1 {
				t.Errorf("%d connections for 3 requests, want 1", n)
			}
		})
	}
}

func TestHTTPSRefusals(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	old := a.server("secure.test")
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	expired := a.server("secure.test")
	key, cert := a.sign(&x509.Certificate{DNSNames: []string{"secure.test"}, NotAfter: time.Now().Add(-time.Hour)})
	expired.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
	members := func(version uint16) *tls.Config {
		c := a.server("secure.test")
		c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, version
		return c
	}
	tls12 := func(c *tls.Config, suite uint16) *tls.Config {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite}
		return c
	}
	spdy := a.server("secure.test")
	spdy.NextProtos = []string{"spdy/1"}
	overTLS := func(c *tls.Config) func(*peer) {
		return func(p *peer) {
			s := tls.Server(p.TCPConn, c)
			if s.Handshake() == nil {
				_, _ = io.Copy(io.Discard, s)
			}
			s.Close()
		}
	}
	for _, tt := range []struct {
		name   string
		host   string
		script func(*peer)
		status int
		reason string
	}{
		{"another name", "other.test", overTLS(a.server("secure.test")), 502, "tls_certificate_error"},
		{"a stranger's", "secure.test", overTLS(stranger.server("secure.test")), 502, "tls_certificate_error"},
		{"expired", "secure.test", overTLS(expired), 502, "tls_certificate_error"},
		{"TLS 1.1", "secure.test", overTLS(old), 502, "tls_alert_received"},
		{"no suite in common", "secure.test", overTLS(tls12(a.server("secure.test"), tls.TLS_RSA_WITH_RC4_128_SHA)), 502, "tls_alert_received"},
		{"another protocol", "secure.test", overTLS(spdy), 502, "tls_alert_received"},
		{"a client certificate, TLS 1.2", "secure.test", overTLS(members(tls.VersionTLS12)), 502, "tls_alert_received"},
		{"a client certificate, TLS 1.3", "secure.test", overTLS(members(tls.VersionTLS13)), 502, "tls_alert_received"},
		{"plain HTTP", "secure.test", func(p *peer) { p.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"); untilClosed(p) }, 502, "tls_protocol_error"},
		{"closed", "secure.test", func(p *peer) { _, _ = p.r.Peek(1) }, 502, "connection_terminated"},
		{"silent", "secure.test", untilClosed, 504, "connection_timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, tt.script)
			g := secureGateway(t, a, func(o *gatewayOptions) {
				if tt.status == 504 {
					o.timeouts = brief(func(o *session.Timeouts) { o.Connect = 50 * time.Millisecond })
				}
			})
			c := g.connect()
			c.send("GET https://%s:%d/ HTTP/1.1\r\nHost: x\r\n\r\n", tt.host, o.port())
			resp, _ := c.response(http.MethodGet)
			status := resp.Header.Get("Proxy-Status")
			if resp.StatusCode != tt.status || resp.Close || status != "polyport; error="+tt.reason && !strings.HasPrefix(status, "polyport; error="+tt.reason+"; ") {
				t.Errorf("answer %d, Proxy-Status %q, close %v", resp.StatusCode, status, resp.Close)
			}
			if rec := g.endedRecord(c); rec.Reason != tt.reason || rec.Status != tt.status || rec.Err == nil {
				t.Errorf("record: status %d, reason %q, error %v", rec.Status, rec.Reason, rec.Err)
			}
			if n := g.handler.pool.size(); n != 0 {
				t.Errorf("%d connections in the pool, want none", n)
			}
		})
	}
}

func TestHTTPSSwitchedOff(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET https://secure.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, body := c.response(http.MethodGet)
	if resp.StatusCode != 400 || !strings.Contains(body, "forward_https = true") || !strings.Contains(body, "CONNECT") {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
}

// TestSchemesShareNothing: an origin that speaks both on one port gets each over its own connection.
func TestSchemesShareNothing(t *testing.T) {
	a := newAuthority(t)
	config := a.server("secure.test")
	o := newScripted(t, func(p *peer) {
		first, err := p.r.Peek(1)
		if err != nil {
			return
		}
		var conn io.ReadWriter = struct {
			io.Reader
			io.Writer
		}{p.r, p.TCPConn}
		scheme := "http"
		if first[0] == 22 {
			scheme, conn = "https", tls.Server(prefixed{p.TCPConn, p.r}, config)
		}
		r := bufio.NewReader(conn)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(scheme), scheme)
		}
	})
	g := secureGateway(t, a, nil)
	c := g.connect()
	for _, scheme := range []string{"http", "https", "https", "http", "https", "http"} {
		c.send("GET %s://secure.test:%d/ HTTP/1.1\r\nHost: x\r\n\r\n", scheme, o.port())
		if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || body != scheme {
			t.Errorf("%s: %d %q", scheme, resp.StatusCode, body)
		}
	}
	if n := o.accepted.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// prefixed is a connection some of whose bytes are in a reader.
type prefixed struct {
	net.Conn
	r io.Reader
}

func (p prefixed) Read(b []byte) (int, error) { return p.r.Read(b) }

// TestStaleTLS: a connection that its origin has closed, or spoken on, is not used for a request that
// could not be repeated.
func TestStaleTLS(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		name string
		then func(p *secured)
	}{
		{"close_notify", func(p *secured) { p.Close() }},
		{"a plain close", func(p *secured) { p.tcp.Close() }},
		{"a reset", func(p *secured) { _ = p.tcp.SetLinger(0); p.tcp.Close() }},
		{"half a close", func(p *secured) { _ = p.CloseWrite(); p.head() }},
		{"an answer that nobody asked for", func(p *secured) { _, _ = io.WriteString(p, okAnswer); p.head() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			done := make(chan struct{}, 10)
			o := newSecured(t, a.server("secure.test"), func(p *secured) {
				if p.head() == "" {
					return
				}
				p.send(okAnswer)
				<-done
				tt.then(p)
			})
			g := secureGateway(t, a, nil)
			c := g.connect()
			post := func() {
				t.Helper()
				c.send("POST https://secure.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", o.port())
				if resp, body := c.response(http.MethodPost); resp.StatusCode != 200 || body != "ok" {
					t.Errorf("answer %d %q", resp.StatusCode, body)
				}
			}
			post()
			g.record()
			idle := g.handler.pool.all.newest
			done <- struct{}{}
			for range 2000 { // until it has come
				if idle.stale() {
					break
				}
				time.Sleep(time.Millisecond)
			}
			post()
			if n := o.accepted.Load(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
			done <- struct{}{}
		})
	}
}

// TestTLSOriginDiesInThatMoment: a request that may be repeated is, whichever way the connection ended.
func TestTLSOriginDiesInThatMoment(t *testing.T) {
	a := newAuthority(t)
	for name, end := range map[string]func(*secured){
		"close_notify":  func(p *secured) { p.Close() },
		"a plain close": func(p *secured) { p.tcp.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var served atomic.Int32
			o := newSecured(t, a.server("secure.test"), func(p *secured) {
				for h := p.head(); h != ""; h = p.head() {
					if served.Add(1) == 2 {
						end(p)
						return
					}
					p.send(okAnswer)
				}
			})
			g := secureGateway(t, a, nil)
			c := g.connect()
			for range 2 {
				c.send("GET https://secure.test:%d/ HTTP/1.1\r\nHost: x\r\n\r\n", o.port())
				if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || body != "ok" {
					t.Errorf("answer %d %q", resp.StatusCode, body)
				}
			}
			if served.Load() != 3 || o.accepted.Load() != 2 {
				t.Errorf("%d requests over %d connections, want 3 over 2", served.Load(), o.accepted.Load())
			}
		})
	}
}

// TestCutTLSBody: without the close_notify a body that ends with the connection is not whole.
func TestCutTLSBody(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		name, head string
		end        func(*secured)
		whole      bool
	}{
		{"until close, whole", "HTTP/1.1 200 OK\r\n\r\n", func(p *secured) { p.Close() }, true},
		{"until close, cut", "HTTP/1.1 200 OK\r\n\r\n", func(p *secured) { p.tcp.Close() }, false},
		{"by length, cut", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", func(p *secured) { p.Close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newSecured(t, a.server("secure.test"), func(p *secured) {
				p.head()
				p.send(tt.head + "hello")
				tt.end(p)
			})
			g := secureGateway(t, a, nil)
			c := g.connect()
			c.send("GET https://secure.test:%d/ HTTP/1.0\r\n\r\n", o.port())
			c.head()
			got, err := c.rest()
			if tt.whole && (got != "hello" || err != nil) {
				t.Errorf("got %q, %v", got, err)
			}
			if rec := g.record(); (rec.Err == nil) != tt.whole || (rec.Reason == "") != tt.whole {
				t.Errorf("record: reason %q, error %v; whole %v", rec.Reason, rec.Err, tt.whole)
			}
			if !tt.whole && strings.HasPrefix(tt.head, "HTTP/1.1 200 OK\r\n\r\n") && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v, want a reset", err)
			}
		})
	}
}

// TestHTTPSBodies both ways, larger than what is spliced where nothing is encrypted.
func TestHTTPSBodies(t *testing.T) {
	a := newAuthority(t)
	o := newSecured(t, a.server("secure.test"), func(p *secured) {
		for {
			req, err := http.ReadRequest(p.r)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				t.Errorf("read the body: %v", err)
			}
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}
	})
	g := secureGateway(t, a, nil)
	c := g.connect()
	for _, size := range []int{5, http1.SpliceMin - 1, http1.SpliceMin, 3 << 20} {
		sent := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		go c.send("PUT https://secure.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", o.port(), size, sent)
		if resp, body := c.response(http.MethodPut); resp.StatusCode != 200 || body != sent || resp.Close {
			t.Errorf("answer to %d bytes: %d with %d bytes, close %v", size, resp.StatusCode, len(body), resp.Close)
		}
	}
	if n := o.accepted.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestUpgradeOverHTTPS(t *testing.T) {
	a := newAuthority(t)
	o := newSecured(t, a.server("secure.test"), func(p *secured) {
		if h := p.head(); !strings.Contains(h, "Upgrade: websocket\r\n") {
			t.Errorf("the origin saw %q", h)
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\ngreeting")
		_, _ = io.Copy(p.Conn, p.r)
		_ = p.CloseWrite()
	})
	g := secureGateway(t, a, nil)
	c := g.connect()
	c.send("GET https://secure.test:%d/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly", o.port())
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 101 ") {
		t.Fatalf("answer %q", h)
	}
	want(t, "the tunnel", c.bytes(len("greetingearly")), "greetingearly")
	c.send("late")
	_ = c.CloseWrite()
	if got, err := c.rest(); got != "late" || err != nil {
		t.Errorf("then %q, %v", got, err)
	}
	if rec := g.record(); rec.Status != 101 || !strings.HasPrefix(rec.URL, "https://secure.test:") {
		t.Errorf("record %+v", rec)
	}
}

func TestLocate(t *testing.T) {
	for _, tt := range []struct{ uri, host, base, target string }{
		{"http://EXAMPLE.com./a", "example.com", "http://example.com", "example.com:80"},
		{"https://EXAMPLE.com./a", "example.com", "https://example.com", "example.com:443"},
		{"HTTPS://example.com:443", "example.com", "https://example.com", "example.com:443"},
		{"https://example.com:80/", "example.com:80", "https://example.com:80", "example.com:80"},
		{"http://example.com:443/", "example.com:443", "http://example.com:443", "example.com:443"},
		{"https://[2001:db8::1]/", "[2001:db8::1]", "https://[2001:db8::1]", "[2001:db8::1]:443"},
		{"https://192.0.2.1/", "192.0.2.1", "https://192.0.2.1", "192.0.2.1:443"},
	} {
		c := &client{h: &handler{tls: originTLS()}}
		var err error
		// The same authority in the other scheme has been asked for before.
		other := strings.Replace(strings.ToLower(tt.uri), "https:", "http:", 1)
		if other == strings.ToLower(tt.uri) {
			other = strings.Replace(tt.uri, "http:", "https:", 1)
		}
		for _, uri := range []string{other, tt.uri} {
			if c.req.Target, err = http1.ParseTarget("GET", []byte(uri)); err != nil {
				t.Fatal(err)
			}
			err = c.locate()
		}
		if d := c.dest; err != nil || d.host != tt.host || d.base != tt.base || d.target.String() != tt.target {
			t.Errorf("locate(%q) = %+v, %v", tt.uri, d, err)
		}
	}
	for _, uri := range []string{"ftp://example.com/", "wss://example.com/", "httpss://example.com/"} {
		c := &client{h: &handler{tls: originTLS()}}
		c.req.Target, _ = http1.ParseTarget("GET", []byte(uri))
		if err := c.locate(); !errors.Is(err, errScheme) {
			t.Errorf("locate(%q): %v, want %v", uri, err, errScheme)
		}
	}
}

func TestTLSRefusal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
		reason token
		says   string
	}{
		{"name", &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}}, 502, "tls_certificate_error", "another name"},
		{"authority", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, 502, "tls_certificate_error", "nobody"},
		{"expired", &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}, 502, "tls_certificate_error", "expired"},
		{"something else", &tls.CertificateVerificationError{Err: io.EOF}, 502, "tls_certificate_error", "cannot be trusted"},
		{"alert", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, 502, "tls_alert_received", "alert"},
		{"fault", &net.OpError{Op: "local error", Err: tls.AlertError(20)}, 502, "tls_protocol_error", "agree"},
		{"not TLS", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, 502, "tls_protocol_error", "does not speak TLS"},
		{"old", errors.New("tls: server selected unsupported protocol version 301"), 502, "tls_protocol_error", "agree"},
		{"silence", context.DeadlineExceeded, 504, "connection_timeout", "in time"},
		{"silence, as the socket says it", os.ErrDeadlineExceeded, 504, "connection_timeout", "in time"},
		{"killed", context.Canceled, 503, "connection_terminated", "shutting down"},
		{"end", io.EOF, 502, "connection_terminated", "closed"},
		{"cut", io.ErrUnexpectedEOF, 502, "connection_terminated", "closed"},
		{"reset", os.NewSyscallError("read", syscall.ECONNRESET), 502, "connection_terminated", "closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := &handshakeError{tt.err}
			if r := dialRefusal(err); r.status != tt.status || r.reason != tt.reason || !strings.Contains(r.says, tt.says) || !errors.Is(r, err) {
				t.Errorf("dialRefusal(%v) = %d %s %q", tt.err, r.status, r.reason, r.says)
			}
		})
	}
}

// deadlines is a connection that notes its write deadlines.
type deadlines struct {
	net.Conn
	mu  sync.Mutex
	set []time.Duration
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.IsZero() {
		d.set = append(d.set, 0)
	} else {
		d.set = append(d.set, time.Until(t))
	}
	return d.Conn.SetWriteDeadline(t)
}

// TestFragileWrites: a deadline that an earlier Write has left never meets a later one, and one that fires is the end.
func TestFragileWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			_, _ = io.CopyN(io.Discard, far, 4)
		}()
		d := &deadlines{Conn: near}
		s := stream{conn: d, fragile: true}
		s.wr.each(time.Minute)
		for _, b := range []string{"a", "b", "c"} {
			if _, err := s.Write([]byte(b)); err != nil {
				t.Errorf("Write(%q): %v", b, err)
			}
			time.Sleep(50 * time.Second)
		}
		s.wr.each(-1)
		if _, err := s.Write([]byte("d")); err != nil {
			t.Errorf("Write without end: %v", err)
		}
		s.wr.each(time.Second)
		began := time.Now()
		if _, err := s.Write([]byte("e")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Write to nobody: %v after %v", err, time.Since(began))
		}
		if got, want := fmt.Sprint(d.set), "[1m0s 1m0s 1m0s 0s 1s]"; got != want {
			t.Errorf("deadlines %s, want %s", got, want)
		}
		near.Close()
		far.Close()
	})
}
