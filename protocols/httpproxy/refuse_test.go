package httpproxy

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/session"
)

// TestMalformedRequests: everything that two parsers could read in two ways is
// refused, the connection ends, and no origin sees a byte of it.
func TestMalformedRequests(t *testing.T) {
	const host = "Host: x\r\n"
	tests := []struct {
		name, request string // HOST stands for the origin's address
		status        int
	}{
		{"CL and TE", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE and CL", "POST http://HOST/ HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
		{"two CL", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		{"two equal CL", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
		{"CL list", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nhello", 400},
		{"CL with a sign", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello", 400},
		{"negative CL", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\nhello", 400},
		{"CL in hex", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\nhello", 400},
		{"CL that overflows", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551621\r\n\r\nhello", 400},
		{"empty CL", "POST http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: \r\n\r\nhello", 400},
		{"TE other than chunked", "POST http://HOST/ HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 400},
		{"TE gzip, chunked", "POST http://HOST/ HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE chunked twice", "POST http://HOST/ HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE xchunked", "POST http://HOST/ HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
		{"TE of HTTP/1.0", "POST http://HOST/ HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"obs-fold", "GET http://HOST/ HTTP/1.1\r\n" + host + "X-A: 1\r\n folded\r\n\r\n", 400},
		{"fold behind the request line", "GET http://HOST/ HTTP/1.1\r\n Host: x\r\n\r\n", 400},
		{"space before the colon", "GET http://HOST/ HTTP/1.1\r\nHost : x\r\n\r\n", 400},
		{"no colon", "GET http://HOST/ HTTP/1.1\r\n" + host + "Nonsense\r\n\r\n", 400},
		{"empty field name", "GET http://HOST/ HTTP/1.1\r\n" + host + ": a\r\n\r\n", 400},
		{"bare LF", "GET http://HOST/ HTTP/1.1\nHost: x\n\n", 400},
		{"bare LF in the head", "GET http://HOST/ HTTP/1.1\r\nHost: x\nX-A: 1\r\n\r\n", 400},
		{"bare CR", "GET http://HOST/ HTTP/1.1\r\n" + host + "X-A: 1\r2\r\n\r\n", 400},
		{"NUL", "GET http://HOST/ HTTP/1.1\r\n" + host + "X-A: 1\x002\r\n\r\n", 400},
		{"control byte in a value", "GET http://HOST/ HTTP/1.1\r\n" + host + "X-A: 1\x7f\r\n\r\n", 400},
		{"control byte in the target", "GET http://HOST/\x01 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"tab in the request line", "GET\thttp://HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"two spaces", "GET  http://HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"two Hosts", "GET http://HOST/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		{"no Host", "GET http://HOST/ HTTP/1.1\r\n\r\n", 400},
		{"Host with userinfo", "GET http://HOST/ HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
		{"Host with a path", "GET http://HOST/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"Host with a space", "GET http://HOST/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"userinfo in the URI", "GET http://user:secret@HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"fragment", "GET http://HOST/#f HTTP/1.1\r\n" + host + "\r\n", 400},
		{"no host in the URI", "GET http:///path HTTP/1.1\r\n" + host + "\r\n", 400},
		{"bad port", "GET http://127.0.0.1:99999/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"port 0", "GET http://127.0.0.1:0/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"IPv6 without brackets", "GET http://::1:80/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"IPv6 with a zone", "GET http://[fe80::1%25eth0]/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"bad version", "GET http://HOST/ HTTP/1.x\r\n" + host + "\r\n", 400},
		{"authority-form for GET", "GET HOST HTTP/1.1\r\n" + host + "\r\n", 400},
		{"long request line", "GET http://HOST/" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\n" + host + "\r\n", 414},
		{"long head", "GET http://HOST/ HTTP/1.1\r\n" + host + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 70) + "\r\n", 431},
		{"many fields", "GET http://HOST/ HTTP/1.1\r\n" + host + strings.Repeat("X-A: a\r\n", 201) + "\r\n", 431},
		{"two Max-Forwards", "TRACE http://HOST/ HTTP/1.1\r\n" + host + "Max-Forwards: 1\r\nMax-Forwards: 2\r\n\r\n", 400},
		{"odd Max-Forwards", "OPTIONS http://HOST/ HTTP/1.1\r\n" + host + "Max-Forwards: -1\r\n\r\n", 400},
		{"TRACE with a body", "TRACE http://HOST/ HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\na", 400},
		{"https without CONNECT", "GET https://HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"ftp", "GET ftp://HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"CONNECT without a port", "CONNECT example.com HTTP/1.1\r\n" + host + "\r\n", 400},
		{"CONNECT with a URI", "CONNECT http://HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"CONNECT with a length", "CONNECT HOST HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", 400},
		{"CONNECT with chunks", "CONNECT HOST HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"CONNECT with userinfo", "CONNECT a:b@HOST HTTP/1.1\r\n" + host + "\r\n", 400},
		{"CONNECT to port 0", "CONNECT 127.0.0.1:0 HTTP/1.1\r\n" + host + "\r\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, heads := replies(t, okAnswer)
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			// A second request stands behind the first: it must never be read.
			c.send("%s", strings.ReplaceAll(tt.request, "HOST", o.addr()))
			_, _ = fmt.Fprintf(c, "GET http://%s/smuggled HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
			resp, body := c.response(http.MethodPost)
			if resp.StatusCode != tt.status || !resp.Close {
				t.Errorf("answer %d, close %v; want %d and the end", resp.StatusCode, resp.Close, tt.status)
			}
			want(t, "Proxy-Status", resp.Header.Get("Proxy-Status"), "polyport; error=http_request_error")
			if strings.Contains(body, "secret") {
				t.Errorf("the page shows the password: %q", body)
			}
			if more, _ := c.rest(); more != "" {
				t.Errorf("then came %q, want the end", more)
			}
			rec := g.record()
			if rec.Status != tt.status || rec.Reason != "http_request_error" || rec.Err == nil {
				t.Errorf("record: status %d, reason %q, error %v", rec.Status, rec.Reason, rec.Err)
			}
			if strings.Contains(fmt.Sprint(rec), "secret") {
				t.Errorf("the record holds the password: %v", rec)
			}
			if len(heads) > 0 {
				t.Errorf("the origin saw %q", <-heads)
			}
		})
	}
}

func TestOtherSchemePointsToConnect(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET https://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, body := c.response(http.MethodGet); !strings.Contains(body, "CONNECT") {
		t.Errorf("the page is %q, want a word of CONNECT", body)
	}
}

func basicAuth(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

func TestCredentials(t *testing.T) {
	tests := []struct {
		name, field string // the field lines, each with its CRLF
		status      int
	}{
		{"right", "Proxy-Authorization: " + basicAuth("alice:pässword") + "\r\n", 200},
		{"scheme in any case", "proxy-authorization: bAsIc  " + strings.TrimPrefix(basicAuth("alice:pässword"), "Basic ") + "\r\n", 200},
		{"none", "", 407},
		{"wrong password", "Proxy-Authorization: " + basicAuth("alice:secret1") + "\r\n", 407},
		{"no colon", "Proxy-Authorization: " + basicAuth("alice") + "\r\n", 407},
		{"not base64", "Proxy-Authorization: Basic !!!!\r\n", 407},
		{"base64 without padding", "Proxy-Authorization: Basic YWw6eA\r\n", 407},
		{"base64 with a bit too many", "Proxy-Authorization: Basic YWw6eB==\r\n", 407},
		{"control byte", "Proxy-Authorization: " + basicAuth("alice:a\nb") + "\r\n", 407},
		{"latin-1", "Proxy-Authorization: " + basicAuth("alice:p\xe4ssword") + "\r\n", 407},
		{"empty", "Proxy-Authorization: \r\n", 407},
		{"scheme alone", "Proxy-Authorization: Basic\r\n", 407},
		{"Bearer", "Proxy-Authorization: Bearer secret1\r\n", 407},
		{"Digest", "Proxy-Authorization: Digest username=\"alice\"\r\n", 407},
		{"two fields", "Proxy-Authorization: " + basicAuth("alice:pässword") + "\r\nProxy-Authorization: " + basicAuth("alice:pässword") + "\r\n", 400},
		{"the origin's credentials do not count", "Authorization: " + basicAuth("alice:pässword") + "\r\n", 407},
		{"locked out", "Proxy-Authorization: " + basicAuth("bob:secret1") + "\r\n", 429},
		{"too busy", "Proxy-Authorization: " + basicAuth("carol:secret1") + "\r\n", 503},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, heads := replies(t, okAnswer)
			g := newGateway(t, gatewayOptions{
				users: users{until: time.Now().Add(15 * time.Minute)}, requireUser: true,
				rules: []acl.Rule{{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}},
			})
			c := g.connect()
			c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", o.addr(), tt.field)
			resp, body := c.response(http.MethodGet)
			if resp.StatusCode != tt.status {
				t.Fatalf("answer %d, want %d", resp.StatusCode, tt.status)
			}
			rec := g.endedRecord(c)
			switch tt.status {
			case 200:
				want(t, "identity", rec.Identity, "alice")
				if h := <-heads; strings.Contains(strings.ToLower(h), "authorization") {
					t.Errorf("the origin saw %q", h)
				}
				return
			case 407:
				want(t, "challenge", resp.Header.Get("Proxy-Authenticate"), `Basic realm="polyport", charset="UTF-8"`)
				if resp.Close {
					t.Error("the connection ends, want it to go on for another try")
				}
			case 429:
				if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || n < 14*60 || n > 15*60 {
					t.Errorf("Retry-After %q, want the rest of the ban", resp.Header.Get("Retry-After"))
				}
			case 503:
				want(t, "Retry-After", resp.Header.Get("Retry-After"), "1")
			}
			if resp.Header.Get("Proxy-Status") == "" {
				t.Error("no Proxy-Status")
			}
			if s := fmt.Sprint(body, resp.Header, rec, g.log.String()); strings.Contains(s, "secret1") {
				t.Errorf("the password shows in %s", s)
			}
			if len(heads) > 0 {
				t.Errorf("the origin saw %q", <-heads)
			}
		})
	}
}

// endedRecord ends the connection and returns the record.
func (g *gateway) endedRecord(c *peer) session.Record {
	g.t.Helper()
	c.Close()
	return g.record()
}

// TestChallengeThenRetry: the usual way of a client, on one connection.
func TestChallengeThenRetry(t *testing.T) {
	o, heads := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{
		users: users{}, requireUser: true,
		rules: []acl.Rule{{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}},
	})
	c := g.connect()
	c.send("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", o.addr())
	if resp, _ := c.response(http.MethodPost); resp.StatusCode != 407 || resp.Close {
		t.Fatalf("answer %d, close %v; want 407 on a connection that goes on", resp.StatusCode, resp.Close)
	}
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %s\r\n\r\n", o.addr(), basicAuth("al:x"))
	if resp, _ := c.response(http.MethodGet); resp.StatusCode != 200 {
		t.Fatalf("answer %d, want 200", resp.StatusCode)
	}
	<-heads
	// Who was somebody is nobody again when he does not say so.
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
	if resp, _ := c.response(http.MethodGet); resp.StatusCode != 407 {
		t.Errorf("answer %d without credentials, want 407", resp.StatusCode)
	}
	if len(heads) > 0 {
		t.Errorf("the origin saw %q", <-heads)
	}
}

func TestChallengeWithALongBodyEnds(t *testing.T) {
	tests := []struct{ name, fields string }{
		{"long", "Content-Length: 1000000\r\n"},
		{"waiting for 100", "Content-Length: 5\r\nExpect: 100-continue\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{users: users{}, requireUser: true, rules: []acl.Rule{{Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}})
			c := g.connect()
			c.send("POST http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n%s\r\n", tt.fields)
			resp, _ := c.response(http.MethodPost)
			if resp.StatusCode != 407 || !resp.Close {
				t.Errorf("answer %d, close %v; want 407 and the end", resp.StatusCode, resp.Close)
			}
		})
	}
}

func TestCredentialsWithoutUsersAreIgnored(t *testing.T) {
	o, _ := replies(t, okAnswer)
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic what\r\n\r\n", o.addr())
	if resp, _ := c.response(http.MethodGet); resp.StatusCode != 200 {
		t.Errorf("answer %d, want 200: there is nobody to be", resp.StatusCode)
	}
}

// TestEgressAnswers: what the policy and the network say, as a client gets it.
func TestEgressAnswers(t *testing.T) {
	dead := newScripted(t, func(*peer) {})
	dead.ln.Close() // a port on which nothing listens
	self := netip.MustParseAddrPort("127.0.0.2:7659")
	o := gatewayOptions{
		rules: []acl.Rule{
			{Name: "no ads", Action: acl.Deny, Target: []string{"*.ads.test"}},
			{Name: "here", Action: acl.Allow, Target: []string{"127.0.0.0/8"}},
			{Name: "names", Action: acl.Allow, Target: []string{"*.test"}},
		},
		names: names{"inner.test": {"10.0.0.1"}, "x.ads.test": {"93.184.216.34"}, "example.com": {"93.184.216.34"}},
		own:   func(a netip.AddrPort) bool { return a == self },
	}
	tests := []struct {
		name, target string
		status       int
		reason       string
		page         []string // what it must say on a loopback listener
	}{
		{"rule", "x.ads.test:80", 403, "http_request_denied", []string{"x.ads.test:80", `target = ["x.ads.test"]`, `port   = ["80"]`}},
		{"no rule", "example.com:80", 403, "http_request_denied", []string{`target = ["example.com"]`}},
		{"guard, by name", "inner.test:80", 403, "destination_ip_prohibited", []string{`target = ["10.0.0.1/32"]`}},
		{"own socket", self.String(), 502, "proxy_loop_detected", []string{"this proxy itself"}},
		{"unknown name", "nowhere.test:80", 502, "dns_error", []string{"nowhere.test:80"}},
		{"slow name server", "slow.test:80", 504, "dns_timeout", nil},
		{"refused", dead.addr(), 502, "connection_refused", []string{"nothing listens"}},
	}
	for _, tt := range tests {
		for _, public := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, public %v", tt.name, public), func(t *testing.T) {
				o := o
				o.public = public
				g := newGateway(t, o)
				c := g.connect()
				c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", tt.target)
				resp, body := c.response(http.MethodGet)
				if resp.StatusCode != tt.status || resp.Close {
					t.Errorf("GET: %d, close %v; want %d on a connection that goes on", resp.StatusCode, resp.Close, tt.status)
				}
				want(t, "Proxy-Status", resp.Header.Get("Proxy-Status"), "polyport; error="+tt.reason)
				rec := g.endedRecord(c)
				if id := rec.ID.String(); !strings.Contains(body, id) {
					t.Errorf("the page %q does not have the session id %q", body, id)
				}
				for _, s := range tt.page {
					if !public && !strings.Contains(body, s) {
						t.Errorf("the page %q does not say %q", body, s)
					}
				}
				if public && (strings.Contains(body, "[[rule]]") || strings.Contains(body, "10.0.0.1")) {
					t.Errorf("the page on a public listener says too much: %q", body)
				}
				c = g.connect()
				c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", tt.target)
				if resp, _ = c.response(http.MethodConnect); resp.StatusCode != tt.status || !resp.Close {
					t.Errorf("CONNECT: %d, close %v; want %d and the end", resp.StatusCode, resp.Close, tt.status)
				}
			})
		}
	}
}

func TestErrorPageForBrowsers(t *testing.T) {
	g := newGateway(t, gatewayOptions{public: true})
	c := g.connect()
	c.send("GET http://a&b<script>.example/ HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\nX-Echo: echo-me\r\n\r\n")
	_, body := c.response(http.MethodGet)
	if strings.Contains(body, "<script") || strings.Contains(body, "echo-me") {
		t.Errorf("the page echoes: %q", body)
	}
	c = g.connect()
	c.send("GET http://10.1.2.3/ HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\nX-Echo: echo-me\r\n\r\n")
	resp, page := c.response(http.MethodGet)
	want(t, "content type", resp.Header.Get("Content-Type"), "text/html; charset=utf-8")
	want(t, "policy", resp.Header.Get("Content-Security-Policy"), plainPolicy)
	want(t, "sniffing", resp.Header.Get("X-Content-Type-Options"), "nosniff")
	want(t, "caching", resp.Header.Get("Cache-Control"), "no-store")
	if !strings.Contains(page, "<h1>403 Forbidden</h1>") || strings.Contains(page, "echo-me") {
		t.Errorf("the page is %q", page)
	}
}

func TestHeadGetsNoErrorBody(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("HEAD http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\nGET http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 403 ") {
		t.Errorf("answer to HEAD %q", h)
	}
	if resp, body := c.response(http.MethodGet); resp.StatusCode != 403 || body == "" {
		t.Errorf("answer to GET behind it %d %q", resp.StatusCode, body)
	}
}

// TestRowsOfTheListener: a listener serves only the rows that it lists, per exchange.
func TestRowsOfTheListener(t *testing.T) {
	o, _ := replies(t, okAnswer)
	tests := []struct {
		name, row, allowed, refused string
	}{
		{"http alone", rowHTTP, "GET http://" + o.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT " + o.addr() + " HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"connect alone", rowConnect, "CONNECT " + o.addr() + " HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://" + o.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{rows: map[string]bool{tt.row: true}})
			c := g.connect()
			c.send("%s%s", tt.refused, tt.allowed)
			if resp, _ := c.response(http.MethodGet); resp.StatusCode != 403 {
				t.Errorf("answer %d to the row that is not served, want 403", resp.StatusCode)
			}
			if tt.row == rowHTTP { // what stands behind a CONNECT is not a request
				if more, _ := c.rest(); more != "" {
					t.Errorf("then came %q, want the end", more)
				}
			}
			c = g.connect()
			c.send("%s", tt.allowed)
			if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 200 ") {
				t.Errorf("answer %q to the row that is served, want 200", h)
			}
		})
	}
}

// TestBrokenOrigins: what origins answer is held to the same care.
func TestBrokenOrigins(t *testing.T) {
	tests := []struct {
		name, answer, reason string
	}{
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "http_protocol_error"},
		{"HTTP/0.9", "<html>hello</html>\r\n\r\n", "http_protocol_error"},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", "http_protocol_error"},
		{"bad status", "HTTP/1.1 2000 OK\r\n\r\n", "http_protocol_error"},
		{"CL and TE", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "http_protocol_error"},
		{"two CL", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "http_protocol_error"},
		{"obs-fold", "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "http_protocol_error"},
		{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "http_protocol_error"},
		{"NUL", "HTTP/1.1 200 OK\r\nX-A: \x00\r\n\r\n", "http_protocol_error"},
		{"endless head", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 70), "http_protocol_error"},
		{"head cut short", "HTTP/1.1 200 OK\r\nContent-Le", "http_response_incomplete"},
		{"nothing at all", "", "connection_terminated"},
		{"407 of an origin", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"bank\"\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"},
		{"101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "http_upgrade_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newScripted(t, func(p *peer) {
				p.head()
				p.send("%s", tt.answer)
				_ = p.CloseWrite()
				untilClosed(p)
			})
			g := newGateway(t, gatewayOptions{})
			c := g.connect()
			c.send("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", o.addr())
			resp, _ := c.response(http.MethodGet)
			if resp.StatusCode != http.StatusBadGateway || resp.Close {
				t.Errorf("answer %d, close %v; want 502 on a connection that goes on", resp.StatusCode, resp.Close)
			}
			status, _, _ := strings.Cut(resp.Header.Get("Proxy-Status"), "; received-status")
			want(t, "Proxy-Status", status, "polyport; error="+tt.reason)
			if resp.Header.Get("Proxy-Authenticate") != "" {
				t.Error("the origin's challenge was passed on")
			}
			if rec := g.endedRecord(c); rec.Status != 502 || rec.Reason != tt.reason || rec.Err == nil {
				t.Errorf("record: status %d, reason %q, error %v", rec.Status, rec.Reason, rec.Err)
			}
			if n := g.handler.pool.size(); n != 0 {
				t.Errorf("%d connections in the pool, want none", n)
			}
		})
	}
}
