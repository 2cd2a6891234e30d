package httpproxy

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/upstream"
)

// TestOnwardVia: a CONNECT that the gateway sends has what the client's request had in its Via, and us behind it.
func TestOnwardVia(t *testing.T) {
	const connect = "CONNECT example.test:1 HTTP/1.1\r\nHost: x\r\n"
	tests := []struct {
		name, anonymity, request string
		via                      string // of the CONNECT that the proxy sees, its whole line
	}{
		{"none", "", connect, "Via: 1.1 polyport\r\n"},
		{"HTTP/1.0", "", "CONNECT example.test:1 HTTP/1.0\r\n", "Via: 1.0 polyport\r\n"},
		{"some", "", connect + "Via: 1.0 fred, 1.1 p.example.net (a, b)\r\n", "Via: 1.0 fred, 1.1 p.example.net (a, b), 1.1 polyport\r\n"},
		{"several lines, and none", "off", connect + "via: 1.0 a\r\nX: y\r\nVIA: \r\nVia:  1.1 b,1.1 c \r\n", "Via: 1.0 a, 1.1 b,1.1 c, 1.1 polyport\r\n"},
		{"an option that cannot take it away", "", connect + "Connection: Via\r\nVia: 1.0 a\r\n", "Via: 1.0 a, 1.1 polyport\r\n"},
		{"15 of us", "", connect + "Via: " + passed(15) + "\r\n", "Via: " + passed(16) + "\r\n"},
		{"as long as it may be", "", connect + "Via: 1.1 " + strings.Repeat("a", maxVia-4) + "\r\n", "Via: 1.1 " + strings.Repeat("a", maxVia-4) + ", 1.1 polyport\r\n"},
		{"hide-proxy", "hide-proxy", connect + "Via: 1.0 a\r\n", ""},
		{
			"a request that takes a tunnel", "",
			"GET http://example.test:1/ HTTP/1.1\r\nHost: x\r\nVia: 1.0 a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
			"Via: 1.0 a, 1.1 polyport\r\n",
		},
		{
			"one that does and hides", "hide-proxy",
			"GET http://example.test:1/ HTTP/1.1\r\nHost: x\r\nVia: 1.0 a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proxy, heads := replies(t, "HTTP/1.1 502 x\r\nContent-Length: 0\r\n\r\n")
			g, _ := through(t, "http://"+proxy.addr(), func(o *gatewayOptions) { o.anonymity = tt.anonymity })
			c := g.connect()
			c.send("%s\r\n", tt.request)
			c.response(http.MethodGet)
			want(t, "the proxy saw", <-heads, "CONNECT 127.0.0.9:1 HTTP/1.1\r\nHost: 127.0.0.9:1\r\n"+tt.via+"\r\n")
		})
	}
}

// TestOnwardViaH2 is TestOnwardVia in HTTP/2 on both sides.
func TestOnwardViaH2(t *testing.T) {
	a := newAuthority(t)
	var got atomic.Pointer[http.Header]
	proxy := newH2Proxy(t, a, "")
	proxy.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(&r.Header)
		w.Header().Set("Proxy-Status", "polyport; error=proxy_loop_detected")
		w.WriteHeader(502)
	})
	url := "h2://" + proxy.addr()
	g, _ := throughProxy(t, upstream.ProxyOptions{URL: url, RootCAs: a.roots, ServerName: "proxy.test"}, nil)
	c := g.h2()
	req := c.request(http.MethodConnect, "http://example.test:1", nil, "Via", "1.0 a", "Via", "2.0 b")
	resp, body := c.do(req)
	if seen := got.Load(); seen == nil || fmt.Sprint((*seen)["Via"]) != "[1.0 a, 2.0 b, 2.0 polyport]" {
		t.Errorf("the proxy saw %v", seen)
	}
	want(t, "Proxy-Status", resp.Header.Get("Proxy-Status"), `polyport; error=proxy_loop_detected; next-hop="`+url+`"; received-status=502`)
	if rec := g.record(); resp.StatusCode != 502 || !strings.Contains(body, "goes round in a circle") || rec.Reason != "proxy_loop_detected" {
		t.Errorf("answer %d %q, record %+v", resp.StatusCode, body, rec)
	}
}

// passed is the Via of what has passed n gateways of this kind.
func passed(n int) string { return strings.TrimSuffix(strings.Repeat("1.1 polyport, ", n), ", ") }

// TestRefusedVia: what goes round in a circle, or has too long a Via, is refused before anything is looked up or dialled.
func TestRefusedVia(t *testing.T) {
	long := "1.1 " + strings.Repeat("a", maxVia-3)
	for _, tt := range []struct {
		name   string
		via    []string
		status int
		token  string
	}{
		{"16 of us", []string{passed(16)}, 502, "proxy_loop_detected"},
		{"on several lines", []string{"1.0 fred", passed(9), "", "HTTP/1.1 POLYPORT (x), 2.0\tpolyport", passed(5)}, 502, "proxy_loop_detected"},
		{"behind what is not closed", []string{`1.1 a ("\`, passed(16)}, 502, "proxy_loop_detected"},
		{"on one line with it", []string{`1.1 a ("\, ` + passed(16)}, 502, "proxy_loop_detected"},
		{"too long", []string{long}, 431, "http_request_error"},
		{"together too long", []string{long[:maxVia/2], long[:maxVia/2+1]}, 431, "http_request_error"},
		{"both", []string{long, passed(16)}, 502, "proxy_loop_detected"},
	} {
		for _, kind := range []string{"CONNECT", "GET", "upgrade", "h2 CONNECT", "h2 GET"} {
			t.Run(tt.name+", "+kind, func(t *testing.T) {
				g := newGateway(t, gatewayOptions{
					names: names{}, own: func(a netip.AddrPort) bool { t.Errorf("somebody asks of %v", a); return false }, anonymity: "hide-proxy",
				})
				resp := askedWith(t, g, kind, tt.via)
				rec := g.record()
				if resp.StatusCode != tt.status || rec.Status != tt.status || rec.Reason != tt.token || rec.Rule != "" {
					t.Errorf("answer %d, record %+v; want %d, %s", resp.StatusCode, rec, tt.status, tt.token)
				}
				want(t, "Proxy-Status", resp.Header.Get("Proxy-Status"), "polyport; error="+tt.token)
				if tt.status == 502 && !strings.Contains(fmt.Sprint(rec.Err), "the request has passed polyport 16 times, as its Via says: gateways are each other's upstream") {
					t.Errorf("the record says %v", rec.Err)
				}
			})
		}
	}
}

// askedWith sends a request of a kind with these lines of Via.
func askedWith(t *testing.T, g *gateway, kind string, via []string) *http.Response {
	t.Helper()
	if method, ok := strings.CutPrefix(kind, "h2 "); ok {
		c := g.h2()
		var fields []string
		for _, v := range via {
			fields = append(fields, "Via", v)
		}
		resp, _ := c.do(c.request(method, "http://192.0.2.1:1", nil, fields...))
		return resp
	}
	lines := ""
	for _, v := range via {
		lines += "Via: " + v + "\r\n"
	}
	c := g.connect()
	head := map[string]string{
		"CONNECT": "CONNECT 192.0.2.1:1 HTTP/1.1\r\nHost: x\r\n",
		"GET":     "GET http://192.0.2.1:1/ HTTP/1.1\r\nHost: x\r\n",
		"upgrade": "GET http://192.0.2.1:1/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
	}[kind]
	c.send("%s", head+lines+"\r\n")
	resp, _ := c.response(http.MethodGet)
	c.Close()
	return resp
}

// TestPassesIn counts us among the members of Via.
func TestPassesIn(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  int
	}{
		{"", 0},
		{",,", 0},
		{"polyport", 0}, // no received-by
		{"1.1 polyport", 1},
		{" 1.1 \t polyport (comment) ", 1},
		{"1.1 polyport(comment)", 1},
		{"HTTP/1.1 PolyPort", 1},
		{"1.1 polyport:7659", 0}, // a host
		{"1.1 polyport.example", 0},
		{"1.1 apolyport", 0},
		{"1.1 squid (polyport)", 0},
		{"1.1 polyport,2.0 polyport,1.0 squid, 1.0 polyport", 3},
		{`1.1 "x, 1.1 polyport`, 1},
		{"1.1 x (, 1.1 polyport", 1},
	} {
		if got := passesIn([]byte(tt.value)); got != tt.want {
			t.Errorf("passesIn(%q) = %d, want %d", tt.value, got, tt.want)
		}
	}
}

// FuzzPassesIn checks that nothing in a Via hides a member behind it, nor the other way round, and that there are no more than members.
func FuzzPassesIn(f *testing.F) {
	for _, in := range []string{"", passed(3), `1.1 a ("\`, "1.1 polyport (x, y)", "\t,\x00"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n := passesIn(in)
		if n > bytes.Count(in, []byte(","))+1 {
			t.Errorf("passesIn(%q) = %d", in, n)
		}
		for _, with := range []string{string(in) + ", 1.1 polyport", "2.0 polyport, " + string(in)} {
			if got := passesIn([]byte(with)); got != n+1 {
				t.Errorf("passesIn(%q) = %d, want %d", with, got, n+1)
			}
		}
	})
}

// TestNoViaNoGarbage: a CONNECT without a Via costs nothing for it, with an upstream and without.
func TestNoViaNoGarbage(t *testing.T) {
	proxy := newScripted(t, untilClosed)
	g, _ := through(t, "http://"+proxy.addr(), nil)
	for _, tt := range []struct {
		name string
		h    *handler
		g    *gateway
	}{{"through an upstream", g.handler, g}, {"directly", g.handler, newGateway(t, gatewayOptions{})}} {
		t.Run(tt.name, func(t *testing.T) {
			permit := permitOf(t, tt.g)
			c := &client{h: tt.h}
			c.r.Reset(strings.NewReader("CONNECT example.test:1 HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n\r\n"))
			defer c.r.Release()
			if err := c.r.ReadRequest(&c.req); err != nil {
				t.Fatal(err)
			}
			if n := testing.AllocsPerRun(100, func() {
				if c.examineVia() != nil {
					t.Error("refused")
				}
				c.onwardVia(permit)
			}); n != 0 {
				t.Errorf("%v allocations, want none", n)
			}
		})
	}
}

// permitOf is what the gateway's rules give for a target on loopback.
func permitOf(t *testing.T, g *gateway) *egress.Permit {
	t.Helper()
	p, err := g.Runtime().Egress.Authorize(t.Context(), acl.Request{Protocol: rowConnect, Method: methodConnect, Target: mustTarget(t, "127.0.0.9:1")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
