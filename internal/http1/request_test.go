package http1

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// readRequest reads one request from in.
func readRequest(in string) (*Request, *Reader, error) {
	r := NewReader(strings.NewReader(in))
	req := new(Request)
	err := r.ReadRequest(req)
	return req, r, err
}

// render prints a request in full, so that two can be compared.
func (req *Request) render() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.%d %v close=%v\n", req.Method, req.Target.Raw, req.Minor, req.Framing, req.Close)
	for name, value := range req.Fields.All() {
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	return b.String()
}

const host = "Host: a.example\r\n"

func TestReadRequest(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{
			"absolute-form", "GET http://a.example/x?y HTTP/1.1\r\n" + host + "\r\n",
			"GET http://a.example/x?y HTTP/1.1 {no body 0} close=false\nHost: a.example\n",
		},
		{
			"order and case are kept", "GET / HTTP/1.1\r\nb: 2\r\nHOST: a\r\nB: 3\r\nA: 1\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=false\nb: 2\nHOST: a\nB: 3\nA: 1\n",
		},
		{
			"white space around values", "GET / HTTP/1.1\r\n" + host + "A: \t b\tc \t\r\nB:\r\nC:  \r\nD:d\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=false\nHost: a.example\nA: b\tc\nB: \nC: \nD: d\n",
		},
		{
			"obs-text in a value", "GET / HTTP/1.1\r\n" + host + "A: caf\xe9\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=false\nHost: a.example\nA: caf\xe9\n",
		},
		{"one empty line before", "\r\nGET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0 {no body 0} close=true\n"},
		{
			"HTTP/1.0 with keep-alive closes", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
			"GET / HTTP/1.0 {no body 0} close=true\nConnection: keep-alive\n",
		},
		{
			"close in a list", "GET / HTTP/1.1\r\n" + host + "Connection: foo, \t,CLOSE\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=true\nHost: a.example\nConnection: foo, \t,CLOSE\n",
		},
		{
			"close in a second Connection", "GET / HTTP/1.1\r\n" + host + "Connection: foo\r\nconnection: close\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=true\nHost: a.example\nConnection: foo\nconnection: close\n",
		},
		{
			"close in Proxy-Connection", "GET / HTTP/1.1\r\n" + host + "Proxy-Connection: Close\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=true\nHost: a.example\nProxy-Connection: Close\n",
		},
		{
			"a quotation mark hides nothing", "GET / HTTP/1.1\r\n" + host + "Connection: \", close\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=true\nHost: a.example\nConnection: \", close\n",
		},
		{
			"length with zeros in front, which nobody behind shall read as octal", "POST / HTTP/1.1\r\n" + host + "Content-Length: 007\r\n\r\n",
			"POST / HTTP/1.1 {length 7} close=false\nHost: a.example\nContent-Length: 7\n",
		},
		{
			"chunked in any case", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \tChUnKeD \r\n\r\n",
			"POST / HTTP/1.1 {chunked 0} close=false\nHost: a.example\nTransfer-Encoding: ChUnKeD\n",
		},
		{
			"any method token", "!#$%&'*+-.^_`|~09az / HTTP/1.1\r\n" + host + "\r\n",
			"!#$%&'*+-.^_`|~09az / HTTP/1.1 {no body 0} close=false\nHost: a.example\n",
		},
		{
			"CONNECT", "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
			"CONNECT [::1]:443 HTTP/1.1 {no body 0} close=false\nHost: [::1]:443\n",
		},
		{
			"CONNECT of length 0", "CONNECT a:443 HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
			"CONNECT a:443 HTTP/1.0 {length 0} close=true\nContent-Length: 0\n",
		},
		{
			"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n",
			"GET / HTTP/1.1 {no body 0} close=false\nHost: \n",
		},
		{
			"a Host that differs", "GET http://a.example/ HTTP/1.1\r\nHost: b.example:80\r\n\r\n",
			"GET http://a.example/ HTTP/1.1 {no body 0} close=false\nHost: b.example:80\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, r, err := readRequest(tt.in + "rest")
			if err != nil {
				t.Fatalf("ReadRequest(%q): %v", tt.in, err)
			}
			if got := req.render(); got != tt.want {
				t.Errorf("ReadRequest(%q) =\n%swant\n%s", tt.in, got, tt.want)
			}
			if got, want := r.Count(), int64(len(tt.in)); got != want {
				t.Errorf("used %d bytes, want %d", got, want)
			}
			if got := string(r.TakeBuffered()); got != "rest" {
				t.Errorf("left %q, want %q", got, "rest")
			}
		})
	}
}

func TestReadRequestLimits(t *testing.T) {
	line := func(n int) string { // a request line of n bytes
		return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n"
	}
	head := func(n int) string { // a head of n bytes
		start, end := "GET / HTTP/1.1\r\nHost: a\r\n", "\r\n\r\n"
		var b strings.Builder
		b.WriteString(start)
		for n-b.Len() > 2000 {
			b.WriteString("A: " + strings.Repeat("b", 995) + "\r\n")
		}
		return b.String() + "A: " + strings.Repeat("b", n-b.Len()-len("A: ")-len(end)) + end
	}
	fields := func(n int) string {
		return "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", n-1) + "\r\n"
	}
	for _, tt := range []struct {
		name, in string
		want     *ParseError // nil: accepted
	}{
		{"longest line", line(MaxStartLine) + host + "\r\n", nil},
		{"line one too long", line(MaxStartLine+1) + host + "\r\n", errLongLine},
		{"endless line", strings.Repeat("a", MaxStartLine+2), errLongLine},
		{"longest head", head(MaxHead), nil},
		{"head one too long", head(MaxHead + 1), errLongHead},
		{"endless field", "GET / HTTP/1.1\r\nA: " + strings.Repeat("b", MaxHead), errLongHead},
		{"most fields", fields(MaxFields), nil},
		{"one field too many", fields(MaxFields + 1), errManyFields},
		{"longest method", strings.Repeat("A", MaxMethod) + " / HTTP/1.1\r\n" + host + "\r\n", nil},
		{
			"most connection options",
			"GET / HTTP/1.1\r\n" + host + "Connection: " + strings.Repeat("a,", maxOptions) + "\r\n\r\n", nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			endless := io.MultiReader(strings.NewReader(tt.in), neverRead{t})
			r := NewReader(endless)
			err := r.ReadRequest(new(Request))
			if tt.want == nil {
				if err != nil {
					t.Errorf("ReadRequest: %v", err)
				}
				return
			}
			checkRefused(t, tt.in, err, tt.want)
			if n := r.Buffered(); n > MaxHead {
				t.Errorf("buffered %d bytes", n)
			}
		})
	}
}

// neverRead fails the test when it is read: the bytes before it suffice to decide.
type neverRead struct{ t *testing.T }

func (n neverRead) Read([]byte) (int, error) {
	n.t.Error("read on after what suffices to decide")
	return 0, io.EOF
}

// A head behind another one in the buffer may be as long as any.
func TestReadRequestLongPipelined(t *testing.T) {
	long := "GET /long HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("b", MaxHead-1000) + "\r\n\r\n"
	r := NewReader(strings.NewReader("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + long + "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"))
	var req Request
	for _, want := range []string{"/1", "/long", "/3"} {
		if err := r.ReadRequest(&req); err != nil {
			t.Fatalf("ReadRequest: %v", err)
		}
		if got := string(req.Target.Raw); got != want {
			t.Errorf("target %q, want %q", got, want)
		}
	}
	if err := r.ReadRequest(&req); err != io.EOF {
		t.Errorf("error %v, want io.EOF", err)
	}
}

const completeRequest = "\r\nPOST http://a.example:80/x HTTP/1.1\r\nHost: a.example:80\r\nA:  b \r\n" +
	"Content-Length: 3\r\nConnection: x, close\r\n\r\n"

func TestReadRequestByteByByte(t *testing.T) {
	want, _, err := readRequest(completeRequest)
	if err != nil {
		t.Fatal(err)
	}
	r, got := NewReader(iotest.OneByteReader(strings.NewReader(completeRequest))), new(Request)
	if err := r.ReadRequest(got); err != nil {
		t.Fatal(err)
	}
	if got.render() != want.render() {
		t.Errorf("got\n%s\nwant\n%s", got.render(), want.render())
	}
}

func TestReadRequestCutShort(t *testing.T) {
	for n := range len(completeRequest) {
		_, _, err := readRequest(completeRequest[:n])
		switch n {
		case 0, 2: // nothing, or the empty line that does not count
			if err != io.EOF {
				t.Errorf("cut after %d bytes: error %v, want io.EOF", n, err)
			}
		default:
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut after %d bytes: error %v, want io.ErrUnexpectedEOF", n, err)
			}
		}
	}
}

// A deadline in the middle of a head does not confuse the next try.
func TestReadRequestAfterTimeout(t *testing.T) {
	in := "GET /x HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
	for n := range len(in) {
		src := io.MultiReader(strings.NewReader(in[:n]), &failOnce{err: os.ErrDeadlineExceeded}, strings.NewReader(in[n:]))
		r, req := NewReader(src), new(Request)
		if err := r.ReadRequest(req); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after %d bytes: error %v", n, err)
		}
		if err := r.ReadRequest(req); err != nil || req.Fields.Len() != 2 || req.Method != "GET" {
			t.Errorf("after %d bytes: second try gave %v, %d fields", n, err, req.Fields.Len())
		}
	}
}

// failOnce returns its error from one Read, and ends after that.
type failOnce struct{ err error }

func (f *failOnce) Read([]byte) (int, error) {
	err := f.err
	f.err = io.EOF
	return 0, err
}

func TestReadRequestErrorNeverEchoes(t *testing.T) {
	for _, tt := range refusals {
		in := strings.ReplaceAll(tt.in, "a.example", "hunter2.example")
		if _, _, err := readRequest(in + "hunter2"); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error %q echoes the message", tt.name, err)
		}
	}
}

func TestReadRequestWhileBodyUnread(t *testing.T) {
	_, r, err := readRequest("POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReadRequest(new(Request)); err != ErrBodyUnread {
		t.Errorf("error %v, want ErrBodyUnread", err)
	}
	if err := r.Wait(); err != ErrBodyUnread {
		t.Errorf("Wait: error %v, want ErrBodyUnread", err)
	}
	if err := r.Discard(1); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadRequest(new(Request)); err != io.EOF {
		t.Errorf("error %v, want io.EOF", err)
	}
}

func TestRequestUpgrade(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"asked for", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "websocket"},
		{"in a list", "GET / HTTP/1.1\r\n" + host + "Upgrade: a/1, b\r\nConnection: keep-alive\r\nConnection: uPGRADE\r\n\r\n", "a/1, b"},
		{"not in Connection", "GET / HTTP/1.1\r\n" + host + "Upgrade: websocket\r\n\r\n", ""},
		{"not in Upgrade", "GET / HTTP/1.1\r\n" + host + "Connection: upgrade\r\n\r\n", ""},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _, err := readRequest(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			got := req.Upgrade()
			req.Strip()
			if string(got) != tt.want {
				t.Errorf("Upgrade() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	for _, tt := range []struct {
		name, in    string
		wait, other bool
	}{
		{"none", "POST / HTTP/1.1\r\n" + host + "\r\n", false, false},
		{"empty", "POST / HTTP/1.1\r\n" + host + "Expect:\r\n\r\n", false, false},
		{"known", "POST / HTTP/1.1\r\n" + host + "Expect: 100-Continue\r\n\r\n", true, false},
		{"HTTP/1.0", "POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", false, false},
		{"other", "POST / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\n\r\n", false, true},
		{"both", "POST / HTTP/1.1\r\n" + host + "Expect: 100-continue, x\r\n\r\n", true, true},
		{"both, two lines", "POST / HTTP/1.1\r\n" + host + "Expect: x\r\nExpect: 100-continue\r\n\r\n", true, true},
		{"with a parameter", "POST / HTTP/1.1\r\n" + host + "Expect: 100-continue;a=\"b,100-continue,\"\r\n\r\n", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _, err := readRequest(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if wait, other := req.ExpectContinue(); wait != tt.wait || other != tt.other {
				t.Errorf("ExpectContinue() = %v, %v, want %v, %v", wait, other, tt.wait, tt.other)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	for _, method := range []string{
		"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "get", "M-SEARCH",
	} {
		target := "http://a:1/"
		if method == "CONNECT" {
			target = "a:1"
		}
		if req, _, err := readRequest(method + " " + target + " HTTP/1.0\r\n\r\n"); err != nil || req.Method != method {
			t.Errorf("method %q, %v, want %q", req.Method, err, method)
		}
	}
}

func TestMaxForwards(t *testing.T) {
	for _, tt := range []struct {
		name, fields string
		n            int
		present      bool
		err          error
	}{
		{"none", "", 0, false, nil},
		{"zero", "Max-Forwards: 0\r\n", 0, true, nil},
		{"ten", "max-forwards: 010\r\n", 10, true, nil},
		{"huge", "Max-Forwards: 99999999999999999999999\r\n", math.MaxInt, true, nil},
		{"empty", "Max-Forwards:\r\n", 0, true, errMaxForwards},
		{"signed", "Max-Forwards: +1\r\n", 0, true, errMaxForwards},
		{"two", "Max-Forwards: 1\r\nMax-Forwards: 1\r\n", 0, true, errMaxForwards},
		{"list", "Max-Forwards: 1, 2\r\n", 0, true, errMaxForwards},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _, err := readRequest("TRACE / HTTP/1.1\r\n" + host + tt.fields + "\r\n")
			if err != nil {
				t.Fatal(err)
			}
			n, present, err := req.MaxForwards()
			if (err == nil && n != tt.n) || present != tt.present || err != tt.err {
				t.Errorf("MaxForwards() = %d, %v, %v, want %d, %v, %v", n, present, err, tt.n, tt.present, tt.err)
			}
		})
	}
}

func TestAcceptsTrailers(t *testing.T) {
	for _, tt := range []struct {
		fields string
		want   bool
	}{
		{"", false},
		{"TE: trailers\r\n", true},
		{"te: gzip;q=0.5, Trailers\r\n", true},
		{"TE: trailers;q=1\r\n", false},
		{"TE: gzip\r\nTE: trailers\r\n", true},
	} {
		req, _, err := readRequest("GET / HTTP/1.1\r\n" + host + tt.fields + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := req.AcceptsTrailers(); got != tt.want {
			t.Errorf("AcceptsTrailers() with %q = %v, want %v", tt.fields, got, tt.want)
		}
	}
}
