package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// connectAnswer is what a client hears to a request that may be refused.
type connectAnswer struct {
	status string // with the token of Proxy-Status: "502 dns_error"
	head   http.Header
	page   string // the body; "" of a tunnel
}

// refusedConnect asks for a tunnel that may be refused.
func refusedConnect(t *testing.T, proxy, target string) (connectAnswer, *net.TCPConn) {
	t.Helper()
	return refusable(t, proxy, http.MethodConnect, target)
}

// refusable asks for a target by CONNECT, or by an absolute URI.
func refusable(t *testing.T, proxy, method, target string) (connectAnswer, *net.TCPConn) {
	t.Helper()
	c := dial(t, proxy)
	uri := target
	if method != http.MethodConnect {
		uri = "http://" + target + "/"
	}
	say(t, c, method+" "+uri+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	a := connectAnswer{head: resp.Header, status: fmt.Sprint(resp.StatusCode)}
	if _, token, found := strings.Cut(resp.Header.Get("Proxy-Status"), "error="); found {
		token, _, _ = strings.Cut(token, ";")
		a.status += " " + token
	}
	if resp.StatusCode >= 300 {
		page, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		a.page = string(page)
	}
	return a, c
}

// hangs accepts and says nothing, speaks says that at once and then nothing, and ends says that to a request and closes.
func hangs(t *testing.T) *hop { t.Helper(); return speaks(t, "") }

func speaks(t *testing.T, words string) *hop {
	t.Helper()
	return &hop{t: t, addr: tcpServer(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, words)
		_, _ = io.Copy(io.Discard, c)
	})}
}

func ends(t *testing.T, words string) *hop {
	t.Helper()
	return &hop{t: t, addr: tcpServer(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1000))
		_, _ = io.WriteString(c, words)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})}
}

// upstreamFault is a proxy that gives no tunnel, and how clients hear of that.
type upstreamFault struct {
	name, scheme, login string
	at                  *hop
	connect             string // the status and the token that a client of CONNECT gets
	socks               byte   // REP
	says                string // in the record's err
	forward             string // what a client gets whose GET goes to the proxy itself; "" is not asked
}

// inspect looks for secrets in what the client got, and for the record of that.
func (u upstreamFault) inspect(t *testing.T, g *gateway, got connectAnswer, c net.Conn, says string) {
	t.Helper()
	c.Close()
	lookForSecrets(t, "the answer", got.page+fmt.Sprint(got.head))
	if strings.HasPrefix(got.status, "407") || got.head.Get("Proxy-Authenticate") != "" {
		t.Errorf("the client is asked for credentials that are the gateway's: %v", got.head)
	}
	l := g.record("listener="+u.name, "client="+c.LocalAddr().String())
	check(t, l, map[string]any{"upstream": u.name, "rule": "by " + u.name})
	if !strings.Contains(l.str("err"), says) || l.str("err") == "" {
		t.Errorf("the record's err is %q, want %q in it", l.str("err"), says)
	}
}

// TestUpstreamFaults has proxies fail before there is a tunnel.
func TestUpstreamFaults(t *testing.T) {
	t.Parallel()
	p, server := newPapers(t), tcpServer(t, echo)
	squid, micro := newSquid(t, false, ""), newMicrosocks(t, false)
	believed := fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)
	nghttpx, front := newNghttpx(t, p, squid), newStunnel(t, p, micro)
	const wrong = hopUser + ":" + secret + "-wrong@"
	nobody := &hop{addr: fmt.Sprintf("127.0.0.1:%d", closedPort(t))}
	gone := newMicrosocks(t, true)
	gone.kill()
	tests := []upstreamFault{
		{"silent-http", "http", hopLogin, hangs(t), "504 connection_timeout", 6, "was silent", ""},
		{"silent-https", "https", hopLogin, hangs(t), "504 connection_timeout", 6, "was silent", ""},
		{"silent-h2", "h2", hopLogin, hangs(t), "504 connection_timeout", 6, "was silent", ""},
		{"silent-socks4a", "socks4a", "", hangs(t), "504 connection_timeout", 6, "was silent", ""},
		{"silent-socks5", "socks5", hopLogin, hangs(t), "504 connection_timeout", 6, "was silent", ""},
		{"silent-socks5s", "socks5s", hopLogin, hangs(t), "504 connection_timeout", 6, "was silent", ""},
		{"garbage-http", "http", hopLogin, speaks(t, "SSH-2.0-OpenSSH_9.2\r\n\r\n"), "502 http_protocol_error", 1, "check its scheme and port", "502 http_protocol_error"},
		{"garbage-https", "https", hopLogin, speaks(t, "SSH-2.0-OpenSSH_9.2\r\n"), "502 tls_protocol_error", 1, "check its scheme and port", ""},
		{"garbage-socks4a", "socks4a", "", speaks(t, "SSH-2.0-OpenSSH_9.2\r\n"), "502 connection_terminated", 1, "check its scheme and port", ""},
		{"garbage-socks5", "socks5", hopLogin, speaks(t, "SSH-2.0-OpenSSH_9.2\r\n"), "502 connection_terminated", 1, "check its scheme and port", ""},
		{"closes-http", "http", hopLogin, ends(t, ""), "502 connection_terminated", 1, "without an answer", "502 connection_terminated"},
		{"closes-socks5", "socks5", hopLogin, ends(t, ""), "502 connection_terminated", 1, "without an answer", ""},
		{"cut-http", "http", hopLogin, ends(t, "HTTP/1.1 200 Connection est"), "502 connection_terminated", 1, "", "502 http_response_incomplete"},
		{"socks-at-http", "http", hopLogin, micro, "502 ", 1, "", ""},
		{"http-at-socks", "socks5", hopLogin, squid, "504 connection_timeout", 6, "was silent", ""}, // squid waits for a line
		{"closed", "socks5", hopLogin, nobody, "502 connection_refused", 5, "connection refused", ""},
		{"closed-http", "http", hopLogin, nobody, "502 connection_refused", 5, "connection refused", "502 connection_refused"},
		{"killed", "socks5", "", gone, "502 connection_refused", 5, "connection refused", ""},
		{"password-http", "http", wrong, squid, "500 proxy_configuration_error", 1, "check its user and password", "502 proxy_configuration_error"},
		{"password-none-http", "http", "", squid, "500 proxy_configuration_error", 1, "requires a user", "502 proxy_configuration_error"},
		{"password-h2", "h2", wrong, nghttpx, "500 proxy_configuration_error", 1, "check its user and password", ""},
		{"password-socks5", "socks5", wrong, micro, "500 proxy_configuration_error", 1, "check its user and password", ""},
		{"password-none-socks5", "socks5", "", micro, "500 proxy_configuration_error", 1, "requires a user", ""},
		{"password-socks5s", "socks5s", wrong, front, "500 proxy_configuration_error", 1, "check its user and password", ""},
	}
	const bound = 500 * time.Millisecond // for those who are silent
	hasty, patient := fmt.Sprintf("[timeouts]\nconnect = %q\n", bound), ""
	for _, tt := range tests {
		n := next{name: tt.name, scheme: tt.scheme, login: tt.login, at: tt.at}
		if slices.Contains([]string{"https", "h2", "socks5s"}, tt.scheme) {
			n.table = believed
		}
		if tt.socks == 6 {
			hasty += n.config()
		} else {
			patient += n.config()
		}
	}
	gateways := map[bool]*gateway{true: startDiscreet(t, hasty), false: startDiscreet(t, patient)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := gateways[tt.socks == 6]
			begun := time.Now()
			got, c := refusable(t, g.addr(tt.name), http.MethodConnect, server)
			took := time.Since(begun)
			if !strings.HasPrefix(got.status, tt.connect) {
				t.Errorf("the answer is %q, want %q: %s", got.status, tt.connect, got.page)
			}
			if tt.socks == 6 && took < bound {
				t.Errorf("the answer came after %v, before the time for a connection was over", took)
			}
			tt.inspect(t, g, got, c, tt.says)
			if tt.forward != "" {
				got, c = refusable(t, g.addr(tt.name), http.MethodGet, server)
				if !strings.HasPrefix(got.status, tt.forward) {
					t.Errorf("the answer to GET is %q, want %q: %s", got.status, tt.forward, got.page)
				}
				tt.inspect(t, g, got, c, "")
			}
			if got := socks5Code(t, g.addr(tt.name), server); got != tt.socks {
				t.Errorf("by SOCKS5: REP %02x, want %02x", got, tt.socks)
			}
		})
	}
}

// TestUpstreamRefuses passes on what squid says of a target.
func TestUpstreamRefuses(t *testing.T) {
	t.Parallel()
	forbidden, closed := tcpServer(t, echo), fmt.Sprintf("127.0.0.1:%d", closedPort(t))
	_, port, _ := net.SplitHostPort(forbidden)
	squid, micro, dante := newSquid(t, false, "acl forbidden port "+port+"\nhttp_access deny forbidden\n"), newMicrosocks(t, true), newDante(t)
	p := newPapers(t)
	all := []next{
		{name: "squid", scheme: "http", login: hopLogin, at: squid},
		{name: "h2", scheme: "h2", login: hopLogin, at: newNghttpx(t, p, squid), table: fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)},
		{name: "socks5", scheme: "socks5", at: micro},
		{name: "socks4", scheme: "socks4", at: dante},
	}
	g := startDiscreet(t, nextsConfig(all))
	tests := []struct {
		next, target, connect string
		socks                 byte
		get                   string // the answer to GET, which is squid's own page where a request goes to it
		page                  string // on that
	}{
		{"squid", forbidden, "403 http_request_denied", 2, "403", "ERR_ACCESS_DENIED"},
		{"squid", closed, "503 destination_unavailable", 4, "503", "ERR_CONNECT_FAIL"},
		{"h2", forbidden, "403 http_request_denied", 2, "403 http_request_denied", "polyport"},
		{"h2", closed, "503 destination_unavailable", 4, "503 destination_unavailable", "polyport"},
		{"socks5", closed, "502 connection_refused", 5, "502 connection_refused", "polyport"},
		{"socks4", closed, "503 destination_unavailable", 4, "503 destination_unavailable", "polyport"},
	}
	for _, tt := range tests {
		t.Run(tt.next+" "+tt.connect, func(t *testing.T) {
			got, c := refusedConnect(t, g.addr(tt.next), tt.target)
			if got.status != tt.connect {
				t.Errorf("the answer to CONNECT is %q, want %q: %s", got.status, tt.connect, got.page)
			}
			c.Close()
			_, reason, _ := strings.Cut(tt.connect, " ")
			check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"upstream": tt.next, "reason": reason, "rule": "by " + tt.next})
			if got := socks5Code(t, g.addr(tt.next), tt.target); got != tt.socks {
				t.Errorf("by SOCKS5: REP %02x, want %02x", got, tt.socks)
			}
			got, c = refusable(t, g.addr(tt.next), http.MethodGet, tt.target)
			c.Close()
			if got.status != tt.get || !strings.Contains(got.page, tt.page) {
				t.Errorf("the answer to GET is %q, want %q and %q on the page: %s", got.status, tt.get, tt.page, got.page)
			}
			lookForSecrets(t, "the page", got.page)
		})
	}
}

// TestUpstreamClosesBehindItsAnswer has one break off as soon as there is a tunnel.
func TestUpstreamClosesBehindItsAnswer(t *testing.T) {
	t.Parallel()
	g := startTidy(t, nextsConfig([]next{{name: "ends", scheme: "http", at: ends(t, "HTTP/1.1 200 fine\r\n\r\n")}}))
	c := tunnel(t, g.addr("ends"), tcpServer(t, echo))
	if b, err := io.ReadAll(c); isTimeout(err) || len(b) > 0 {
		t.Errorf("the client got %q, %v; want the end", b, err)
	}
	c.Close()
	check(t, g.record("client="+c.LocalAddr().String()), map[string]any{"upstream": "ends", "status": 200.0, "bytes_from_target": 0.0})
}

// TestUpstreamIsKilled kills proxies under tunnels: each client hears of it, and each record.
func TestUpstreamIsKilled(t *testing.T) {
	t.Parallel()
	p, server := newPapers(t), tcpServer(t, echo)
	micro, squid := newMicrosocks(t, true), newSquid(t, true, "")
	nghttpx, front := newNghttpx(t, p, squid), newStunnel(t, p, micro)
	believed := fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)
	all := []next{
		{name: "socks5s", scheme: "socks5s", at: front, table: believed},
		{name: "h2", scheme: "h2", at: nghttpx, table: believed},
		{name: "socks5", scheme: "socks5", at: micro},
		{name: "http", scheme: "http", at: squid},
	}
	config := nextsConfig(all)
	g := startDiscreet(t, config)
	const many = 20
	for _, n := range all {
		t.Run(n.name, func(t *testing.T) {
			var clients []*net.TCPConn
			for range many {
				c := tunnel(t, g.addr(n.name), server)
				say(t, c, "before")
				hear(t, c, "before")
				clients = append(clients, c)
			}
			n.at.kill()
			for _, c := range clients {
				if b, err := io.ReadAll(c); isTimeout(err) || len(b) > 0 {
					t.Errorf("the client got %q, %v; want the end, or a reset", b, err)
				}
				c.Close()
				check(t, g.record("listener="+n.name, "client="+c.LocalAddr().String()), map[string]any{
					"upstream": n.name, "server": n.server(), "bytes_from_client": 6.0, "bytes_from_target": 6.0, "status": 200.0,
				})
			}
			got, c := refusedConnect(t, g.addr(n.name), server)
			c.Close()
			if got.status != "502 connection_refused" {
				t.Errorf("once it is dead the answer is %q, want %q", got.status, "502 connection_refused")
			}
		})
	}
	got := polyport(t, g.dir, "", "doctor", "-c", g.file, "--target", server, g.addr("http"))
	for _, n := range all {
		if line := "connection refused"; !strings.Contains(lineWith(got.stdout, "by "+n.server()), line) {
			t.Errorf("doctor does not say of %s that it is down: %s%s", n.server(), got.stdout, got.stderr)
		}
	}
	if got.code != 1 {
		t.Errorf("doctor ended with %d, want 1", got.code)
	}
}

// lineWith returns the line of a text that holds a word.
func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return line
		}
	}
	return ""
}
