package http1

import (
	"slices"
	"strings"
	"testing"
)

func TestStripRequest(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want []string
	}{
		{"nothing to do", []string{"Host: a", "A: b"}, []string{"Host: a", "A: b"}},
		{
			"the standing list",
			[]string{
				"A: 1", "Connection: keep-alive", "Proxy-Connection: x", "keep-alive: timeout=5", "TE: trailers",
				"Transfer-Encoding: chunked", "Upgrade: h2c", "HTTP2-Settings: x", "PROXY-AUTHORIZATION: Basic x",
				"Proxy-Authenticate: x", "Proxy-Authentication-Info: x", "B: 2",
			},
			[]string{"A: 1", "B: 2"},
		},
		{"named", []string{"Connection: x-a", "X-A: 1", "x-a: 2", "X-B: 3"}, []string{"X-B: 3"}},
		{
			"named in several lines, any case and spacing",
			[]string{"X-A: 1", "Connection: close, ,\tx-A ,", "X-B: 2", "CONNECTION:x-c,X-b", "X-C: 3", "X-D: 4"},
			[]string{"X-D: 4"},
		},
		{"named behind a quotation mark", []string{"Connection: \", x-a", "X-A: 1"}, nil},
		{"part of a name", []string{"Connection: x-a", "X-AB: 1", "X: 2"}, []string{"X-AB: 1", "X: 2"}},
		{
			"end-to-end fields cannot be named",
			[]string{
				"Connection: host, content-length, Cache-Control, Authorization, Trailer, Via, Cookie",
				"Host: a", "Content-Length: 0", "Cache-Control: no-store", "Authorization: x", "Trailer: y", "Via: z", "Cookie: c",
			},
			[]string{"Host: a", "Content-Length: 0", "Cache-Control: no-store", "Authorization: x", "Trailer: y", "Via: z", "Cookie: c"},
		},
		{"a name that is not there", []string{"A: 1", "Connection: x-none"}, []string{"A: 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const added = "Host: added" // no HTTP/1.1 request is without one
			lines := slices.Clone(tt.in)
			if !slices.Contains(lines, "Host: a") {
				lines = append(lines, added)
			}
			req, _, err := readRequest("GET / HTTP/1.1\r\n" + strings.Join(append(lines, "", ""), "\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			req.Strip()
			got := slices.DeleteFunc(req.Fields.lines(), func(l string) bool { return l == added })
			if !slices.Equal(got, tt.want) {
				t.Errorf("left %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStripResponse(t *testing.T) {
	for _, tt := range []struct {
		name, method, in string
		want             []string
	}{
		{
			"the standing list", "GET",
			"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nProxy-Authentication-Info: x\r\nConnection: X-A\r\n" +
				"Keep-Alive: 5\r\nX-A: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
			[]string{"Set-Cookie: a", "Set-Cookie: b", "Content-Length: 0"},
		},
		{"HEAD keeps its length", "HEAD", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n", []string{"Content-Length: 5"}},
		{"304 keeps its length", "GET", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", []string{"Content-Length: 5"}},
		{"204 does not", "GET", "HTTP/1.1 204 x\r\nContent-Length: 0\r\nA: b\r\n\r\n", []string{"A: b"}},
		{"100 does not", "GET", "HTTP/1.1 100 x\r\nContent-Length: 0\r\n\r\n", nil},
		{"200 to CONNECT does not", "CONNECT", "HTTP/1.1 200 x\r\nContent-Length: 7\r\n\r\n", nil},
		{"403 to CONNECT does", "CONNECT", "HTTP/1.1 403 x\r\nContent-Length: 7\r\n\r\n", []string{"Content-Length: 7"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, _, err := readResponse(tt.method, tt.in)
			if err != nil {
				t.Fatal(err)
			}
			resp.Strip()
			if got := resp.Fields.lines(); !slices.Equal(got, tt.want) {
				t.Errorf("left %q, want %q", got, tt.want)
			}
		})
	}
}

// naiveStrip is Strip as RFC 9110 section 7.6.1 tells it, on strings.
func naiveStrip(lines [][2]string) (kept [][2]string) {
	drop := map[string]bool{
		"connection": true, "proxy-connection": true, "keep-alive": true, "te": true,
		"transfer-encoding": true, "upgrade": true, "http2-settings": true, "proxy-authorization": true,
		"proxy-authenticate": true, "proxy-authentication-info": true,
	}
	protected := map[string]bool{}
	for _, k := range knownNames {
		if k.class&endToEnd != 0 {
			protected[strings.ToLower(k.name)] = true
		}
	}
	for _, l := range lines {
		if strings.EqualFold(l[0], "connection") {
			for option := range strings.SplitSeq(l[1], ",") {
				if option = strings.ToLower(strings.Trim(option, " \t")); !protected[option] {
					drop[option] = true
				}
			}
		}
	}
	for _, l := range lines {
		if !drop[strings.ToLower(l[0])] {
			kept = append(kept, l)
		}
	}
	return kept
}

// FuzzStrip checks Strip against naiveStrip: no hop-by-hop field is left, and all
// others are, in their order.
func FuzzStrip(f *testing.F) {
	for _, seed := range []string{
		"Host: a\r\nConnection: x, close\r\nX: 1\r\nY: 2\r\n",
		"Connection: a\r\nconnection: B ,\tc\r\nA: 1\r\nb: 2\r\nC: 3\r\nHost: d\r\n",
		"Connection: host, Cache-Control\r\nHost: a\r\nCache-Control: x\r\n",
		"TE: trailers\r\nUpgrade: a\r\nKeep-Alive: x\r\nProxy-Authorization: y\r\nProxy-Connection: z\r\n",
		"Connection: \"a, b\r\nB: 1\r\nA: 2\r\n",
		"Connection: ,,,\r\nConnection:\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, fields string) {
		req, _, err := readRequest("GET / HTTP/1.0\r\n" + fields + "\r\n")
		if err != nil {
			return
		}
		var before, got [][2]string
		for name, value := range req.Fields.All() {
			before = append(before, [2]string{string(name), string(value)})
		}
		req.Strip()
		for name, value := range req.Fields.All() {
			got = append(got, [2]string{string(name), string(value)})
		}
		if want := naiveStrip(before); !slices.Equal(got, want) {
			t.Errorf("of %q\nleft %q\nwant %q", before, got, want)
		}
	})
}
