package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// witness is an origin that keeps all it hears and answers each head with the same words.
type witness struct {
	addr string

	mu    sync.Mutex
	heard bytes.Buffer
}

// newWitness serves answer ("" is silence) behind every empty line that it hears.
func newWitness(t *testing.T, answer string) *witness {
	t.Helper()
	w := &witness{}
	w.addr = tcpServer(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			w.mu.Lock()
			w.heard.WriteString(line)
			w.mu.Unlock()
			if err != nil {
				return
			}
			if line == "\r\n" && answer != "" {
				_, _ = io.WriteString(c, answer)
			}
		}
	})
	return w
}

// take returns what was heard since the last take.
func (w *witness) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.heard.Reset()
	return w.heard.String()
}

// answers reads all responses up to the end of the connection, which must come.
func answers(t *testing.T, c net.Conn) string {
	t.Helper()
	all, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("the connection does not end as it should: %v, after %q", err, all)
	}
	return string(all)
}

var statusLines = regexp.MustCompile(`HTTP/1\.1 \d{3} `)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// malformed are requests that get a definite no. HOST stands for the origin.
var malformed = []struct {
	name, request string
	status        int
}{
	// Framing.
	{"length and coding", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding and length", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
	{"two lengths", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello", 400},
	{"two equal lengths", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nhello", 400},
	{"a list of lengths", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5,5\r\n\r\nhello", 400},
	{"length with a sign", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: +5\r\n\r\nhello", 400},
	{"negative length", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n", 400},
	{"hexadecimal length", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x5\r\n\r\nhello", 400},
	{"length in two words", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5 5\r\n\r\nhello", 400},
	{"empty length", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length:\r\n\r\n", 400},
	{"length of twenty digits", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 18446744073709551617\r\n\r\nh", 400},
	{"coding gzip", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
	{"coding identity", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: identity\r\n\r\n", 400},
	{"coding gzip, chunked", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding chunked twice", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400},
	{"two codings", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding with a parameter", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400},
	{"coding with a vertical tab", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400},
	{"empty coding", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding:\r\n\r\n", 400},
	{"coding of HTTP/1.0", "POST http://HOST/ HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	// Lines and fields.
	{"folded line", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n 2\r\n\r\n", 400},
	{"folded line with a tab", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n\t2\r\n\r\n", 400},
	{"folded first line", "GET http://HOST/ HTTP/1.1\r\n Host: HOST\r\nHost: HOST\r\n\r\n", 400},
	{"space before the colon", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length : 5\r\n\r\nhello", 400},
	{"tab before the colon", "POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400},
	{"space in a name", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX A: 1\r\n\r\n", 400},
	{"parenthesis in a name", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX(A): 1\r\n\r\n", 400},
	{"no name", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n: 1\r\n\r\n", 400},
	{"no colon", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A\r\n\r\n", 400},
	{"bare LF behind the request line", "GET http://HOST/ HTTP/1.1\nHost: HOST\r\n\r\n", 400},
	{"bare LF behind a field", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\nX-A: 1\r\n\r\n", 400},
	{"bare LF at the end", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\n", 400},
	{"bare CR in a value", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: 1\rX-B: 2\r\n\r\n", 400},
	{"bare CR in the request line", "GET http://HOST/\r HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"CR CR LF", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\r\n\r\n", 400},
	{"NUL in a value", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: a\x00b\r\n\r\n", 400},
	{"NUL in a name", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX\x00A: 1\r\n\r\n", 400},
	{"NUL in the target", "GET http://HOST/\x00 HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"control byte in a value", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: \x1b[2J\r\n\r\n", 400},
	{"DEL in a value", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: \x7f\r\n\r\n", 400},
	// Host.
	{"no Host", "GET http://HOST/ HTTP/1.1\r\n\r\n", 400},
	{"two Hosts", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400},
	{"two Hosts of HTTP/1.0", "GET http://HOST/ HTTP/1.0\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400},
	{"Host with a space", "GET http://HOST/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
	{"Host with a path", "GET http://HOST/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
	{"Host with userinfo", "GET http://HOST/ HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
	{"Host with a bad port", "GET http://HOST/ HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400},
	{"Host that is a list", "GET http://HOST/ HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
	{"Host with half a bracket", "GET http://HOST/ HTTP/1.1\r\nHost: [::1\r\n\r\n", 400},
	// The request line.
	{"version 2.0", "GET http://HOST/ HTTP/2.0\r\nHost: HOST\r\n\r\n", 505},
	{"version 0.9", "GET http://HOST/ HTTP/0.9\r\nHost: HOST\r\n\r\n", 505},
	{"version 1.2", "GET http://HOST/ HTTP/1.2\r\nHost: HOST\r\n\r\n", 400},
	{"version in small letters", "GET http://HOST/ http/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"version of two digits", "GET http://HOST/ HTTP/1.10\r\nHost: HOST\r\n\r\n", 400},
	{"no version", "GET http://HOST/\r\nHost: HOST\r\n\r\n", 400},
	{"something behind the version", "GET http://HOST/ HTTP/1.1 x\r\nHost: HOST\r\n\r\n", 400},
	{"two spaces", "GET  http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a space in the target", "GET http://HOST/a b HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a tab for a space", "GET http://HOST/\tHTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"userinfo in the target", "GET http://a:b@HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"fragment", "GET http://HOST/#a HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"no host in the target", "GET http:///a HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a bad port in the target", "GET http://127.0.0.1:123456/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a letter in the port", "GET http://127.0.0.1:8o/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"bytes that are no ASCII", "GET http://HOST/\xff HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"scheme https", "GET https://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"scheme ftp", "GET ftp://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"scheme ws", "GET ws://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"a request line over 16 KiB", "GET http://HOST/" + strings.Repeat("a", 16<<10) + " HTTP/1.1\r\nHost: HOST\r\n\r\n", 414},
	{"a head over 64 KiB", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1<<10)+"\r\n", 64) + "\r\n", 431},
	{"a field over 64 KiB", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
	{"201 fields", "GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat("X-A: a\r\n", 200) + "\r\n", 431},
	// CONNECT.
	{"CONNECT without a port", "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"CONNECT with a URI", "CONNECT http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"CONNECT with userinfo", "CONNECT a@HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"CONNECT with a body", "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", 400},
	{"CONNECT with chunks", "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"CONNECT to port 0", "CONNECT 127.0.0.1:0 HTTP/1.1\r\nHost: HOST\r\n\r\n", 400},
	{"CONNECT without Host", "CONNECT HOST HTTP/1.1\r\n\r\n", 400},
	{"TRACE with a body", "TRACE http://HOST/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", 400},
	{"Max-Forwards that is no number", "OPTIONS http://HOST/ HTTP/1.1\r\nHost: HOST\r\nMax-Forwards: few\r\n\r\n", 400},
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := newWitness(t, okAnswer)
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			// What stands behind a request that is refused is not a request any more.
			say(t, c, strings.ReplaceAll(tt.request+"GET http://HOST/smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n", "HOST", origin.addr))
			got := answers(t, c)
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tt.status)) || len(statusLines.FindAllString(got, -1)) != 1 {
				t.Errorf("the answer is %q, want one %d", got, tt.status)
			}
			for _, want := range []string{"\r\nConnection: close\r\n", "\r\nProxy-Status: polyport; error=http_request_error\r\n"} {
				if !strings.Contains(got, want) {
					t.Errorf("the answer %q lacks %q", got, want)
				}
			}
			if heard := origin.take(); heard != "" {
				t.Errorf("the origin heard %q", heard)
			}
		})
	}
	for _, status := range []string{"400", "414", "431", "505"} {
		g.record("status="+status, "reason=http_request_error")
	}
}

// A method that is longer than any is not even recognised as HTTP on a fresh connection; on one that
// speaks HTTP it is 501.
func TestLongMethod(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := newWitness(t, okAnswer)
	long := strings.Repeat("M", 65) + " http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n"
	c := dial(t, g.at())
	say(t, c, strings.ReplaceAll("GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n"+long, "HOST", origin.addr))
	if got := answers(t, c); !strings.Contains(got, "HTTP/1.1 501 Not Implemented\r\n") {
		t.Errorf("the answers are %q, want 501 at last", got)
	}
	g.record("status=501")
	c = dial(t, g.at())
	say(t, c, strings.ReplaceAll(long, "HOST", origin.addr))
	rest, _ := io.ReadAll(c)
	if len(rest) != 0 {
		t.Errorf("a connection that is no HTTP got %q", rest)
	}
	g.record("protocol=reject")
	c = dial(t, g.at())
	say(t, c, strings.ReplaceAll(strings.Repeat("M", 64)+" http://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", "HOST", origin.addr))
	if line := hearHead(t, c); line != "HTTP/1.1 200 OK" {
		t.Errorf("any other method gets %q", line)
	}
}

// malformedBodies are bodies that are found out after the head has gone on.
var malformedBodies = []struct{ name, chunks string }{
	{"no size", "\r\nhello\r\n0\r\n\r\n"},
	{"a sign", "+5\r\nhello\r\n0\r\n\r\n"},
	{"a minus", "-5\r\nhello\r\n0\r\n\r\n"},
	{"0x", "0x5\r\nhello\r\n0\r\n\r\n"},
	{"space first", " 5\r\nhello\r\n0\r\n\r\n"},
	{"no hexadecimal", "5g\r\nhello\r\n0\r\n\r\n"},
	{"seventeen digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"},
	{"more than there can be", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"},
	{"bare LF behind the size", "5\nhello\r\n0\r\n\r\n"},
	{"bare CR behind the size", "5\rhello\r\n0\r\n\r\n"},
	{"longer than it says", "5\r\nhello, world\r\n0\r\n\r\n"},
	{"bare LF behind the data", "5\r\nhello\n0\r\n\r\n"},
	{"an extension without a name", "5;\r\nhello\r\n0\r\n\r\n"},
	{"an extension without a value", "5;a=\r\nhello\r\n0\r\n\r\n"},
	{"an open quote", "5;a=\"b\r\nhello\r\n0\r\n\r\n"},
	{"a bare LF in an extension", "5;a=b\nhello\r\n0\r\n\r\n"},
	{"a NUL in an extension", "5;a=\"\x00\"\r\nhello\r\n0\r\n\r\n"},
	{"an extension over 4 KiB", "5;a=" + strings.Repeat("b", 4<<10) + "\r\nhello\r\n0\r\n\r\n"},
	{"extensions that outweigh the body", strings.Repeat("1;a="+strings.Repeat("b", 1<<10)+"\r\nh\r\n", 20) + "0\r\n\r\n"},
	{"a folded trailer", "5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n"},
	{"a trailer with a space", "5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n"},
	{"a NUL in a trailer", "5\r\nhello\r\n0\r\nX-A: \x00\r\n\r\n"},
	{"trailers over 16 KiB", "5\r\nhello\r\n0\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1<<10)+"\r\n", 17) + "\r\n"},
}

func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	for _, tt := range malformedBodies {
		t.Run(tt.name, func(t *testing.T) {
			whole := make(chan string, 1) // the body that the origin believes to have got
			origin := tcpServer(t, func(c *net.TCPConn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				if body, err := io.ReadAll(req.Body); err == nil {
					whole <- string(body)
				}
			})
			c := dial(t, g.at())
			say(t, c, strings.ReplaceAll("POST http://HOST/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n"+tt.chunks+
				"GET http://HOST/smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n", "HOST", origin))
			got := answers(t, c)
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") && !strings.HasPrefix(got, "HTTP/1.1 431 ") || len(statusLines.FindAllString(got, -1)) != 1 {
				t.Errorf("the answer is %q, want one 400 or 431", got)
			}
			select {
			case body := <-whole:
				t.Errorf("the origin got the body %q and took it for whole", body)
			default:
			}
		})
	}
}

// malformedAnswers are what origins say that is refused as a bad gateway.
var malformedAnswers = []struct{ name, answer string }{
	{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n"},
	{"garbage", "\x00\x01\x02\x03\r\n\r\n"},
	{"version 2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"version 1.2", "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"status 600", "HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"a control byte in the reason", "HTTP/1.1 200 O\x1bK\r\nContent-Length: 2\r\n\r\nok"},
	{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!"},
	{"two equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"},
	{"a bad length", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"},
	{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"},
	{"another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
	{"coding of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"a folded line", "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok"},
	{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"},
	{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
	{"bare CR", "HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 2\r\n\r\nok"},
	{"NUL", "HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 2\r\n\r\nok"},
	{"no colon", "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok"},
	{"a head over 64 KiB", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1<<10)+"\r\n", 65) + "\r\n"},
	{"201 fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: a\r\n", 201) + "\r\n"},
	{"33 interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 33) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
	{"an interim answer with a body", "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nok" + okAnswer},
	{"407", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"},
	{"101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"},
}

func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	for _, tt := range malformedAnswers {
		t.Run(tt.name, func(t *testing.T) {
			origin := newWitness(t, tt.answer+"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled")
			c := dial(t, g.at())
			say(t, c, strings.ReplaceAll("GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", "HOST", origin.addr))
			got := answers(t, c)
			final := regexp.MustCompile(`(?s)^(HTTP/1.1 103 Early Hints\r\n.*?\r\n\r\n)*`).ReplaceAllString(got, "")
			if !strings.HasPrefix(final, "HTTP/1.1 502 ") || !strings.Contains(final, "\r\nProxy-Status: polyport; error=http_") || strings.Contains(final, "smuggled") {
				t.Errorf("the answer is %q, want 502", got)
			}
		})
	}
	g.record("status=502", "reason=http_protocol_error")
	g.record("status=502", "reason=http_upgrade_failed")
}
