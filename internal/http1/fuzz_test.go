package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stricter lists what is refused here and not by net/http, and in what net/http is
// laxer than we want to be. A refusal that is not in it must be one of net/http too.
var stricter = map[error]string{
	errBareLF:       "net/http takes LF for CR LF; another hop may not",
	errFold:         "net/http unfolds lines",
	errBothFramings: "net/http drops Content-Length",
	errManyLengths:  "net/http takes several that agree",
	errOldCoding:    "net/http ignores Transfer-Encoding in HTTP/1.0",
	errBadLength:    "net/http takes more than 19 digits",
	errConnectBody:  "CONNECT has no content",
	errNameSpace:    "net/http's server checks it later, its ReadRequest does not",
	errName:         "the same",
	errNoHost:       "net/http's server checks it later, its ReadRequest does not",
	errManyHosts:    "the same",
	errBadHost:      "the same",
	errVersion:      "net/http takes HTTP/1.2 and the like",
	errMajor:        "net/http takes HTTP/0.9, HTTP/3.0 and PRI * HTTP/2.0",
	errRequestLine:  "net/http takes spaces in the target",

	errTargetBytes:     "net/http takes bytes above 0x7f and fragments",
	errTargetForm:      "net/http takes URIs without an authority",
	errTargetAuthority: "net/http takes an empty host and ports over 65535",
	errTargetUserinfo:  "net/http takes userinfo",
	errConnectTarget:   "net/http takes CONNECT without a port, or to a path",

	errLongMethod:  "a limit",
	errLongLine:    "a limit",
	errLongHead:    "a limit",
	errManyFields:  "a limit",
	errManyOptions: "a limit",

	errStatusLine:  "net/http takes 001 and 999, and control bytes in the reason phrase",
	errLongStatus:  "a limit",
	errInterimBody: "net/http ignores it",
}

// checkWanted fails unless a refusal is one of stricter.
func checkWanted(t *testing.T, in string, err error) {
	t.Helper()
	var pe *ParseError
	if !errors.As(err, &pe) {
		t.Errorf("%q is taken by net/http and not here: %v", in, err)
		return
	}
	for want := range stricter {
		if want.Error() == pe.Reason {
			return
		}
	}
	t.Errorf("%q is taken by net/http and refused here for no wanted reason: %v", in, err)
}

// checkFields compares our fields with those of net/http, which keeps no order between
// names. ignored are names that net/http changes or takes out.
func checkFields(t *testing.T, in string, f *Fields, h http.Header, ignored ...string) {
	t.Helper()
	got, want := http.Header{}, maps.Clone(h)
	for name, value := range f.All() {
		key := textproto.CanonicalMIMEHeaderKey(string(name))
		got[key] = append(got[key], string(value))
	}
	for _, name := range ignored {
		got.Del(name)
		want.Del(name)
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q: fields %q, net/http has %q", in, got, want)
	}
}

// forNetHTTP makes a request that was accepted here fit for net/http where that one is
// stricter, and we mean not to be: it wants valid percent-encoding in a path, and no
// empty line in front. It returns the changed target too.
func forNetHTTP(in string, req *Request) (changed, target string) {
	head, rest, _ := strings.Cut(strings.TrimPrefix(in, "\r\n"), string(req.Target.Raw))
	authority := strings.TrimSuffix(string(req.Target.Raw), string(req.Target.PathQuery))
	target = authority + strings.ReplaceAll(string(req.Target.PathQuery), "%", "_")
	return head + target + rest, target
}

func FuzzReadRequest(f *testing.F) {
	for _, tt := range refusals {
		if len(tt.in) < 1000 {
			f.Add(tt.in)
		}
	}
	for _, in := range []string{
		typicalRequest, completeRequest, simpleRequest, chunkedRequest,
		"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost:\r\nMax-Forwards: 0\r\n\r\n",
		"GET http://a/%zz?%25 HTTP/1.0\r\n\r\n",
		"GET http://[fe80::1%25eth0]:1?x HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		req, r, err := readRequest(in)
		if err != nil {
			theirs, theirErr := http.ReadRequest(bufio.NewReader(strings.NewReader(in)))
			if theirErr == nil && theirs != nil {
				checkWanted(t, in, err)
			}
			return
		}
		if head := in[:r.Count()]; !strings.HasSuffix(head, "\r\n\r\n") || strings.Contains(head[2:len(head)-2], "\r\n\r\n") {
			t.Errorf("%q: the head ends at %d", in, r.Count())
		}
		checkSameRequest(t, in, req)
	})
}

func checkSameRequest(t *testing.T, in string, req *Request) {
	t.Helper()
	changed, target := forNetHTTP(in, req)
	theirs, err := http.ReadRequest(bufio.NewReader(strings.NewReader(changed)))
	if err != nil {
		if req.Fields.Count("Trailer") > 0 && strings.Contains(err.Error(), "trailer") {
			return // which fields a trailer section may have is checked when it comes
		}
		t.Fatalf("%q is taken here and not by net/http: %v", in, err)
	}
	if req.Method != theirs.Method || target != theirs.RequestURI || req.Minor != theirs.ProtoMinor {
		t.Errorf("%q: %s %s HTTP/1.%d, net/http has %s %s HTTP/1.%d", in,
			req.Method, req.Target.Raw, req.Minor, theirs.Method, theirs.RequestURI, theirs.ProtoMinor)
	}
	wantHost := string(req.Host())
	if a := req.Target.Authority; a != nil {
		wantHost = strings.ReplaceAll(string(a), "%25", "%") // of a zone
	}
	if theirs.Host != wantHost {
		t.Errorf("%q: host %q, net/http has %q", in, wantHost, theirs.Host)
	}
	if got := netHTTPFraming(theirs.ContentLength, theirs.TransferEncoding, NoBody); got != req.Framing &&
		!(req.Framing.Empty() && got.Empty()) {
		t.Errorf("%q: framing %v, net/http has %v", in, req.Framing, got)
	}
	checkFields(t, in, &req.Fields, theirs.Header, "Host", "Transfer-Encoding", "Trailer", "Cache-Control", "Content-Length")
}

// netHTTPFraming says in our words how net/http will find the end of a body.
func netHTTPFraming(length int64, codings []string, undeclared Kind) Framing {
	switch {
	case len(codings) > 0:
		return Framing{Kind: Chunked}
	case length < 0:
		return Framing{Kind: undeclared}
	}
	return Framing{Length, length}
}

func FuzzReadResponse(f *testing.F) {
	for _, tt := range badResponses {
		if len(tt.in) < 1000 {
			f.Add("GET", tt.in)
		}
	}
	for _, in := range []string{
		typicalResponse, "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
		"HTTP/1.1 204 x\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 101 x\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add("GET", in)
		f.Add("HEAD", in)
		f.Add("CONNECT", in)
	}
	f.Fuzz(func(t *testing.T, method, in string) {
		resp, _, err := readResponse(method, in)
		theirs, theirErr := http.ReadResponse(bufio.NewReader(strings.NewReader(in)), &http.Request{Method: method})
		switch {
		case err != nil && theirErr != nil:
			return
		case err != nil:
			checkWanted(t, in, err)
			return
		case theirErr != nil:
			if method == "CONNECT" && resp.Status/100 == 2 {
				return // net/http does not ignore what is wrong with the lengths of a tunnel
			}
			if resp.Fields.Count("Trailer") > 0 && strings.Contains(theirErr.Error(), "trailer") {
				return
			}
			t.Fatalf("%q is taken here and not by net/http: %v", in, theirErr)
		}
		want := strings.TrimPrefix(fmt.Sprintf("%d %s", resp.Status, resp.Reason), " ")
		if resp.Status != theirs.StatusCode || strings.TrimSpace(want) != strings.TrimSpace(theirs.Status) || resp.Minor != theirs.ProtoMinor {
			t.Errorf("%q: HTTP/1.%d %q, net/http has HTTP/1.%d %q", in, resp.Minor, want, theirs.ProtoMinor, theirs.Status)
		}
		checkResponseFraming(t, in, method, resp, theirs)
		checkFields(t, in, &resp.Fields, theirs.Header, "Transfer-Encoding", "Trailer", "Cache-Control", "Content-Length", "Connection")
	})
}

func checkResponseFraming(t *testing.T, in, method string, resp *Response, theirs *http.Response) {
	t.Helper()
	if resp.Framing.Kind == NoBody {
		// After CONNECT net/http leaves the tunnel to the caller as a body.
		if b, _ := io.ReadAll(theirs.Body); len(b) > 0 && method != "CONNECT" && resp.Status != 101 {
			t.Errorf("%q: no body here, one of %d bytes in net/http", in, len(b))
		}
		return
	}
	if got := netHTTPFraming(theirs.ContentLength, theirs.TransferEncoding, UntilClose); got != resp.Framing {
		t.Errorf("%q: framing %v, net/http has %v", in, resp.Framing, got)
	}
	if theirs.Close && !resp.Close {
		t.Errorf("%q: net/http closes the connection and we do not", in)
	}
}

// FuzzChunked checks that a chunked body which is accepted decodes to what httputil
// makes of it, that all ways of reading it agree, and that no cut of it is accepted.
func FuzzChunked(f *testing.F) {
	for _, in := range []string{
		"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0;c=\"d\\\"\"\r\nA: b\r\n\r\n",
		"000a ; x = y\r\n0123456789\r\n1\r\nx\r\n0\r\nb: 1\r\nA: 2\r\n\r\nrest",
		"5 \r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "0x5\r\nhello\r\n0\r\n\r\n", "-1\r\n\r\n",
		"ffffffffffffffff\r\n", "00000000000000005\r\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "0\r\nA b: c\r\n\r\n",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(io.MultiReader(strings.NewReader(chunkedRequest), bytes.NewReader(in)))
		if err := r.ReadRequest(new(Request)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil {
			if r.BodyDone() {
				t.Errorf("%q: done after %v", in, err)
			}
			return
		}
		used := r.Count() - int64(len(chunkedRequest))
		trailers := r.Trailers().lines()
		if want, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(withoutBWS(string(in))))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: read %q, httputil has %q, %v", in, got, want, err)
		}
		if _, _, err := readChunked(bytes.NewReader(in[:used-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q, cut after %d bytes: %v", in, used-1, err)
		}
		checkCopied(t, in, got, trailers)
	})
}

// withoutBWS takes away the white space that RFC 9112 section 7.1.1 has a recipient
// accept before the extensions, and httputil refuses.
func withoutBWS(in string) string {
	var b strings.Builder
	for {
		line, rest, found := strings.Cut(in, "\r\n")
		digits, ext, _ := strings.Cut(line, ";")
		digits = strings.TrimRight(digits, " \t")
		size, err := strconv.ParseUint(digits, 16, 32)
		if err != nil || size == 0 || !found || size+2 > uint64(len(rest)) {
			b.WriteString(digits + ";" + ext + "\r\n" + rest)
			return b.String()
		}
		b.WriteString(digits + ";" + ext + "\r\n" + rest[:size+2])
		in = rest[size+2:]
	}
}

// checkCopied copies a chunked body and checks that what was written is the same.
func checkCopied(t *testing.T, in, want []byte, trailers []string) {
	t.Helper()
	r := NewReader(io.MultiReader(strings.NewReader(chunkedRequest), bytes.NewReader(in)))
	if err := r.ReadRequest(new(Request)); err != nil {
		t.Fatal(err)
	}
	var dst writes
	w := NewWriter(&dst)
	w.BeginResponse(200, "")
	w.EndHead(Framing{Kind: Chunked})
	if n, err := CopyBody(w, r, CopyOptions{}); err != nil || n != int64(len(want)) {
		t.Fatalf("%q: copied %d bytes, %v", in, n, err)
	}
	out := dst.all()
	if got, want := decode(t, out), string(want)+"\n"+strings.Join(trailers, "\n"); got != want {
		t.Errorf("%q: copied as %q, want %q", in, got, want)
	}
}

// FuzzTarget checks that a target which is accepted is put together by its parts, and
// that what an origin is sent is accepted again.
func FuzzTarget(f *testing.F) {
	for _, raw := range []string{"/", "*", "http://a", "http://a:80/x?y", "http://[::1]?x", "a:443", "http://u@a/", "urn:x", "http://a#b", "[::1]:1"} {
		f.Add("GET", raw)
		f.Add("OPTIONS", raw)
		f.Add("CONNECT", raw)
	}
	f.Fuzz(func(t *testing.T, method, raw string) {
		target, err := ParseTarget(method, []byte(raw))
		if err != nil {
			return
		}
		var whole string
		switch target.Form {
		case OriginForm:
			whole = string(target.PathQuery)
		case AbsoluteForm:
			whole = string(target.Scheme) + "://" + string(target.Authority) + string(target.PathQuery)
		case AuthorityForm:
			whole = string(target.Host) + ":" + string(target.Port)
		case AsteriskForm:
			whole = "*"
		}
		if whole != raw || string(target.Raw) != raw {
			t.Errorf("%q: parts make %q", raw, whole)
		}
		if target.Form == AuthorityForm {
			return
		}
		origin := target.AppendOriginForm(nil, method)
		again, err := ParseTarget(method, origin)
		if err != nil || again.Form != OriginForm && again.Form != AsteriskForm {
			t.Errorf("%q: %q for the origin is %v, %v", raw, origin, again.Form, err)
		}
	})
}

// FuzzList checks that no element of a list is empty, has white space around it, or is
// not in the value.
func FuzzList(f *testing.F) {
	for _, v := range []string{"", ",", "a, b", `"a, b", c`, `"`, `a"b,c"d,`, `"\",", x`} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		rest := value
		for e := range List(value) {
			if len(e) == 0 || isSpace(e[0]) || isSpace(e[len(e)-1]) {
				t.Errorf("%q has the element %q", value, e)
			}
			i := bytes.Index(rest, e)
			if i < 0 {
				t.Fatalf("%q has the element %q, which is not in what is left: %q", value, e, rest)
			}
			rest = rest[i+len(e):]
		}
	})
}
