package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readResponse reads one response to a request of that method from in.
func readResponse(method, in string) (*Response, *Reader, error) {
	r := NewReader(strings.NewReader(in))
	resp := new(Response)
	err := r.ReadResponse(resp, method)
	return resp, r, err
}

// render prints a response in full, so that two can be compared.
func (resp *Response) render() string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.%d %d %q %v close=%v\n", resp.Minor, resp.Status, resp.Reason, resp.Framing, resp.Close)
	for name, value := range resp.Fields.All() {
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	return b.String()
}

func TestReadResponse(t *testing.T) {
	for _, tt := range []struct{ name, method, in, want string }{
		{
			"until close", "GET", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {until close 0} close=true\nA: b\n",
		},
		{
			"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {length 5} close=false\nContent-Length: 5\n",
		},
		{
			"length and close", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {length 5} close=true\nContent-Length: 5\nConnection: close\n",
		},
		{
			"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {chunked 0} close=false\nTransfer-Encoding: CHUNKED\n",
		},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.0 200 \"OK\" {length 5} close=true\nContent-Length: 5\n"},
		{
			"HTTP/1.0 with keep-alive", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n",
			"HTTP/1.0 200 \"OK\" {length 5} close=false\nContent-Length: 5\nConnection: Keep-Alive\n",
		},
		{"no reason", "GET", "HTTP/1.1 304 \r\n\r\n", "HTTP/1.1 304 \"\" {no body 0} close=false\n"},
		{"no reason and no space", "GET", "HTTP/1.1 304\r\n\r\n", "HTTP/1.1 304 \"\" {no body 0} close=false\n"},
		{"reason with spaces", "GET", "HTTP/1.1 304  a\tb\xe9 \r\n\r\n", "HTTP/1.1 304 \" a\\tb\\xe9 \" {no body 0} close=false\n"},
		{
			"HEAD with length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {no body 0} close=false\nContent-Length: 5\n",
		},
		{
			"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {no body 0} close=false\nTransfer-Encoding: chunked\n",
		},
		{"HEAD with neither", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 \"OK\" {no body 0} close=false\n"},
		{
			"304 with length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 304 \"Not Modified\" {no body 0} close=false\nContent-Length: 5\n",
		},
		{
			"204 with length 0", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 204 \"No Content\" {no body 0} close=false\nContent-Length: 0\n",
		},
		{
			"204 with length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 204 \"No Content\" {no body 0} close=true\nContent-Length: 5\n",
		},
		{
			"204 chunked", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 204 \"No Content\" {no body 0} close=true\nTransfer-Encoding: chunked\n",
		},
		{"100", "POST", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 \"Continue\" {no body 0} close=false\n"},
		{
			"101", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
			"HTTP/1.1 101 \"Switching Protocols\" {no body 0} close=false\nUpgrade: websocket\nConnection: upgrade\n",
		},
		{"200 to CONNECT", "CONNECT", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0 200 \"OK\" {no body 0} close=true\n"},
		{
			"200 to CONNECT that announces a body", "CONNECT",
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 \"OK\" {no body 0} close=true\nContent-Length: 5\nTransfer-Encoding: chunked\n",
		},
		{
			"407 to CONNECT", "CONNECT", "HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\n",
			"HTTP/1.1 407 \"No\" {length 2} close=false\nContent-Length: 2\n",
		},
		{"599", "GET", "HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 599 \"x\" {length 0} close=false\nContent-Length: 0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, r, err := readResponse(tt.method, tt.in+"rest")
			if err != nil {
				t.Fatalf("ReadResponse(%q): %v", tt.in, err)
			}
			if got := resp.render(); got != tt.want {
				t.Errorf("ReadResponse(%q) =\n%swant\n%s", tt.in, got, tt.want)
			}
			if got := string(r.TakeBuffered()); got != "rest" {
				t.Errorf("left %q, want %q", got, "rest")
			}
		})
	}
}

// badResponses are responses that must be refused, and why. What is wrong with field
// lines is tested with requests: the code is the same.
var badResponses = []struct {
	name, in string
	want     *ParseError
}{
	{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", errBothFramings},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", errManyLengths},
	{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", errBadLength},
	{"empty length", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", errBadLength},
	{"length with sign", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", errBadLength},
	{"length too large", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", errBadLength},
	{"bad length of 304", "HTTP/1.1 304 x\r\nContent-Length: x\r\n\r\n", errBadLength},
	{"coding gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", errBadCoding},
	{"coding gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", errBadCoding},
	{"coding identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", errBadCoding},
	{"two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", errManyCodings},
	{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", errOldCoding},
	{"100 with length", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", errInterimBody},
	{"103 chunked", "HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n", errInterimBody},

	{"obs-fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", errFold},
	{"space before the colon", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", errNameSpace},
	{"no colon", "HTTP/1.1 200 OK\r\nA\r\n\r\n", errNoColon},
	{"no name", "HTTP/1.1 200 OK\r\n: b\r\n\r\n", errNoName},
	{"name is no token", "HTTP/1.1 200 OK\r\nA/B: b\r\n\r\n", errName},
	{"NUL in a value", "HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n", errValue},
	{"bare CR in a value", "HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", errValue},
	{"bare LF after the status line", "HTTP/1.1 200 OK\nA: b\r\n\r\n", errBareLF},
	{"bare LF after a field", "HTTP/1.1 200 OK\r\nA: b\n\r\n", errBareLF},
	{"bare LF for the empty line", "HTTP/1.1 200 OK\r\nA: b\r\n\n", errBareLF},
	{"too many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", MaxFields+1) + "\r\n", errManyFields},
	{"head too long", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", MaxHead) + "\r\n\r\n", errLongHead},
	{"status line too long", "HTTP/1.1 200 " + strings.Repeat("b", MaxStartLine) + "\r\n\r\n", errLongStatus},
	{"too many connection options", "HTTP/1.1 200 OK\r\nConnection: " + strings.Repeat(",", maxOptions+1) + "\r\n\r\n", errManyOptions},

	{"empty line before", "\r\nHTTP/1.1 200 OK\r\n\r\n", errStatusLine},
	{"status 099", "HTTP/1.1 099 OK\r\n\r\n", errStatusLine},
	{"status 600", "HTTP/1.1 600 OK\r\n\r\n", errStatusLine},
	{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", errStatusLine},
	{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", errStatusLine},
	{"status with sign", "HTTP/1.1 +20 OK\r\n\r\n", errStatusLine},
	{"status no number", "HTTP/1.1 abc OK\r\n\r\n", errStatusLine},
	{"no status", "HTTP/1.1\r\n\r\n", errStatusLine},
	{"two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n", errStatusLine},
	{"tab after the status", "HTTP/1.1 200\tOK\r\n\r\n", errStatusLine},
	{"NUL in the reason", "HTTP/1.1 200 \x00\r\n\r\n", errStatusLine},
	{"bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", errStatusLine},
	{"ICY", "ICY 200 OK\r\n\r\n", errStatusLine},
	{"SSH", "SSH-2.0-OpenSSH_9.2\r\n\r\n", errStatusLine},
	{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", errVersion},
	{"http/1.1", "http/1.1 200 OK\r\n\r\n", errVersion},
	{"HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n", errMajor},
}

func TestReadResponseRefuses(t *testing.T) {
	for _, tt := range badResponses {
		want := &ParseError{502, tt.want.Reason}
		t.Run(tt.name, func(t *testing.T) {
			resp, _, err := readResponse("GET", tt.in)
			checkRefused(t, tt.in, err, want)
			if resp.Fields.Len() != 0 || resp.Reason != nil {
				t.Errorf("a refused response has %d fields and reason %q", resp.Fields.Len(), resp.Reason)
			}
		})
		t.Run(tt.name+", byte by byte", func(t *testing.T) {
			r := NewReader(iotest.OneByteReader(strings.NewReader(tt.in)))
			checkRefused(t, tt.in, r.ReadResponse(new(Response), "GET"), want)
		})
	}
}

func TestReadResponseCutShort(t *testing.T) {
	in := "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n"
	for n := range len(in) {
		_, _, err := readResponse("GET", in[:n])
		if n == 0 && err != io.EOF || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: error %v", n, err)
		}
	}
}

func TestReadResponseByteByByte(t *testing.T) {
	in := "HTTP/1.1 200 Fine\r\nA:b\r\nTransfer-Encoding: chunked\r\n\r\n"
	want, _, err := readResponse("GET", in)
	if err != nil {
		t.Fatal(err)
	}
	r, got := NewReader(iotest.OneByteReader(strings.NewReader(in))), new(Response)
	if err := r.ReadResponse(got, "GET"); err != nil {
		t.Fatal(err)
	}
	if got.render() != want.render() {
		t.Errorf("got\n%s\nwant\n%s", got.render(), want.render())
	}
}

func TestInterimResponses(t *testing.T) {
	interim := "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
	final := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	r := NewReader(strings.NewReader(
		strings.Repeat(interim, MaxInterim) + final + strings.Repeat(interim, MaxInterim+1)))
	var resp Response
	for i := range MaxInterim {
		if err := r.ReadResponse(&resp, "GET"); err != nil || !resp.Interim() {
			t.Fatalf("interim response %d: %v, interim %v", i, err, resp.Interim())
		}
	}
	if err := r.ReadResponse(&resp, "GET"); err != nil || resp.Interim() {
		t.Fatalf("final response: %v, interim %v", err, resp.Interim())
	}
	for i := range MaxInterim {
		if err := r.ReadResponse(&resp, "GET"); err != nil {
			t.Fatalf("interim response %d of the next: %v", i, err)
		}
	}
	checkRefused(t, interim, r.ReadResponse(&resp, "GET"), errManyInterims)
}

func TestResponseUpgrade(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "websocket"},
		{"HTTP/1.1 101 x\r\n\r\n", ""},
		{"HTTP/1.1 426 x\r\nUpgrade: websocket\r\n\r\n", ""},
	} {
		resp, _, err := readResponse("GET", tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(resp.Upgrade()); got != tt.want {
			t.Errorf("Upgrade() of %q = %q, want %q", tt.in, got, tt.want)
		}
		if got, want := resp.Interim(), false; got != want {
			t.Errorf("Interim() of %q = %v, want %v", tt.in, got, want)
		}
	}
}

func TestReadResponseWhileBodyUnread(t *testing.T) {
	_, r, err := readResponse("GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReadResponse(new(Response), "GET"); err != ErrBodyUnread {
		t.Errorf("error %v, want ErrBodyUnread", err)
	}
}

func TestStatusText(t *testing.T) {
	for status, want := range map[int]string{200: "OK", 407: "Proxy Authentication Required", 599: "", 600: "", -1: "", 0: ""} {
		if got := StatusText(status); got != want {
			t.Errorf("StatusText(%d) = %q, want %q", status, got, want)
		}
	}
}
