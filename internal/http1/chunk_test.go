package http1

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseChunkLine(t *testing.T) {
	for _, tt := range []struct {
		line string
		size int64
		err  error
	}{
		{"0", 0, nil},
		{"00000", 0, nil},
		{"a", 10, nil},
		{"FfFf", 65535, nil},
		{"0000000000000010", 16, nil},
		{"7fffffffffffffff", 1<<63 - 1, nil},
		{"5;a", 5, nil},
		{"5;a=b", 5, nil},
		{"5;a=b;c", 5, nil},
		{"5;a=\"b c;\t\\\"\\\\\xff\";d=e", 5, nil},
		{"5 \t; \ta \t= \tb \t; c", 5, nil},
		{"5;a=\"\"", 5, nil},

		{"", 0, errChunkSize},
		{" 5", 0, errChunkSize},
		{"+5", 0, errChunkSize},
		{"-5", 0, errChunkSize},
		{"0x5", 0, errChunkSize},
		{"0X5", 0, errChunkSize},
		{"5h", 0, errChunkSize},
		{"g", 0, errChunkSize},
		{";a", 0, errChunkSize},
		{"5,5", 0, errChunkSize},
		{"5\r", 0, errChunkSize},
		{"5\x00", 0, errChunkSize},
		{"5_0", 0, errChunkSize},
		{"8000000000000000", 0, errChunkSize},
		{"ffffffffffffffff", 0, errChunkSize},
		{"00000000000000005", 0, errChunkSize},
		{"10000000000000000", 0, errChunkSize},

		{"5 ", 0, errChunkExt},
		{"5\t", 0, errChunkExt},
		{"5 5", 0, errChunkExt},
		{"5;", 0, errChunkExt},
		{"5; ", 0, errChunkExt},
		{"5;;", 0, errChunkExt},
		{"5;a;", 0, errChunkExt},
		{"5;a ", 0, errChunkExt},
		{"5;=b", 0, errChunkExt},
		{"5;a=", 0, errChunkExt},
		{"5;a= ", 0, errChunkExt},
		{"5;a=b=c", 0, errChunkExt},
		{"5;a=b c", 0, errChunkExt},
		{"5;a b", 0, errChunkExt},
		{"5;a=\"b", 0, errChunkExt},
		{"5;a=\"b\\", 0, errChunkExt},
		{"5;a=\"b\\\"", 0, errChunkExt},
		{"5;a=\"b\"c", 0, errChunkExt},
		{"5;a=\"\x00\"", 0, errChunkExt},
		{"5;a=\"\\\x00\"", 0, errChunkExt},
		{"5;a=\"\r\"", 0, errChunkExt},
		{"5;a\x00", 0, errChunkExt},
		{"5;a=b\r", 0, errChunkExt},
		{"5;\xff", 0, errChunkExt},
	} {
		size, err := parseChunkLine([]byte(tt.line))
		if size != tt.size || err != tt.err {
			t.Errorf("parseChunkLine(%q) = %d, %v, want %d, %v", tt.line, size, err, tt.size, tt.err)
		}
	}
}

const chunkedRequest = "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n"

// readChunked reads the chunked body of a request.
func readChunked(body io.Reader) (string, *Reader, error) {
	r := NewReader(io.MultiReader(strings.NewReader(chunkedRequest), body))
	if err := r.ReadRequest(new(Request)); err != nil {
		return "", r, err
	}
	b, err := io.ReadAll(r)
	return string(b), r, err
}

func TestReadChunked(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 10000)
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "0\r\n\r\n", ""},
		{"one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"several chunks", "1\r\nh\r\n0003;a=b\r\nell\r\n1\r\no\r\n000;x\r\n\r\n", "hello"},
		{"data that looks like framing", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n"},
		{"trailers", "5\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello"},
		{"big", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(big), big), big},
	} {
		for _, form := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"at once", func(r io.Reader) io.Reader { return r }},
			{"byte by byte", iotest.OneByteReader},
			{"with the end", iotest.DataErrReader},
		} {
			t.Run(tt.name+", "+form.name, func(t *testing.T) {
				got, r, err := readChunked(form.wrap(strings.NewReader(tt.in + "rest")))
				if err != nil || got != tt.want {
					t.Fatalf("read %.50q, %v, want %.50q", got, err, tt.want)
				}
				if !r.BodyDone() {
					t.Error("the body is not done")
				}
				if got, want := r.Count(), int64(len(chunkedRequest)+len(tt.in)); got != want {
					t.Errorf("used %d bytes, want %d", got, want)
				}
			})
		}
	}
}

func TestReadChunkedRefuses(t *testing.T) {
	flood := strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 18)
	for _, tt := range []struct {
		name, in string
		want     *ParseError
	}{
		{"no size", "\r\nhello\r\n0\r\n\r\n", errChunkSize},
		{"a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", errChunkSize},
		{"a size over int64", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", errChunkSize},
		{"a bad extension", "5;\r\nhello\r\n0\r\n\r\n", errChunkExt},
		{"a bad extension of the last chunk", "0;\r\n\r\n", errChunkExt},
		{"bare LF after the size", "5\nhello\r\n0\r\n\r\n", errBareLF},
		{"bare LF after the data", "5\r\nhello\n0\r\n\r\n", errChunkEnd},
		{"bare CR after the data", "5\r\nhello\r0\r\n\r\n", errChunkEnd},
		{"more data than its size", "4\r\nhello\r\n0\r\n\r\n", errChunkEnd},
		{"less data than its size", "6\r\nhello\r\n0\r\n\r\n", errChunkEnd},
		{"bare LF for the end", "0\r\n\n", errBareLF},
		{"line too long", "5;" + strings.Repeat("a", MaxChunkLine) + "\r\nhello\r\n0\r\n\r\n", errLongChunkLine},
		{"endless line", "5;" + strings.Repeat("a", MaxChunkLine+1), errLongChunkLine},
		{"a flood of extensions", flood, errExtFlood},
		{"trailer with a fold", "0\r\nA: b\r\n c\r\n\r\n", errFold},
		{"trailer with a space before the colon", "0\r\nA : b\r\n\r\n", errNameSpace},
		{"trailer without a colon", "0\r\nA\r\n\r\n", errNoColon},
		{"trailer without a name", "0\r\n: b\r\n\r\n", errNoName},
		{"trailer name is no token", "0\r\nA B: b\r\n\r\n", errName},
		{"trailer with NUL", "0\r\nA: \x00\r\n\r\n", errValue},
		{"trailer with bare LF", "0\r\nA: b\n\r\n", errBareLF},
		{"the next request as a trailer", "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errNoColon},
		{"too many trailers", "0\r\n" + strings.Repeat("A: b\r\n", MaxFields+1) + "\r\n", errManyFields},
		{"trailers too long", "0\r\n" + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 17) + "\r\n", errLongTrailer},
		{"an endless trailer", "0\r\nA: " + strings.Repeat("b", MaxTrailer), errLongTrailer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, r, err := readChunked(io.MultiReader(strings.NewReader(tt.in), neverRead{t}))
			checkRefused(t, tt.in, err, tt.want)
			if r.BodyDone() {
				t.Error("the refused body is done")
			}
		})
		t.Run(tt.name+", byte by byte", func(t *testing.T) {
			_, _, err := readChunked(iotest.OneByteReader(strings.NewReader(tt.in)))
			checkRefused(t, tt.in, err, tt.want)
		})
		t.Run(tt.name+", of an origin", func(t *testing.T) {
			_, r, err := readResponse("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+tt.in)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(r)
			checkRefused(t, tt.in, err, &ParseError{502, tt.want.Reason})
		})
	}
}

// Extensions that grow with the data (signed uploads have 85 bytes for each chunk) are
// no flood, however long the body is.
func TestExtensionsInProportion(t *testing.T) {
	chunk := "100;chunk-signature=" + strings.Repeat("a", 64) + "\r\n" + strings.Repeat("x", 0x100) + "\r\n"
	got, _, err := readChunked(strings.NewReader(strings.Repeat(chunk, 1000) + "0\r\n\r\n"))
	if err != nil || len(got) != 0x100*1000 {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestTrailers(t *testing.T) {
	for _, tt := range []struct {
		name, connection, in string
		want                 []string
	}{
		{"none", "", "0\r\n\r\n", nil},
		{"some, in order", "", "0\r\nb:  1 \r\nA: 2\r\n\r\n", []string{"b: 1", "A: 2"}},
		{
			"framing and routing are dropped", "",
			"0\r\nContent-Length: 5\r\nTRANSFER-ENCODING: chunked\r\nHost: a\r\nConnection: x\r\nA: b\r\n\r\n",
			[]string{"A: b"},
		},
		{
			"authentication is dropped", "",
			"0\r\nAuthorization: a\r\nproxy-authorization: a\r\nCookie: a\r\nSet-Cookie: a\r\nA: b\r\n\r\n",
			[]string{"A: b"},
		},
		{"integrity stays", "", "0\r\nETag: \"a\"\r\nServer-Timing: a\r\nDigest: b\r\n\r\n", []string{"ETag: \"a\"", "Server-Timing: a", "Digest: b"}},
		{"named in Connection", "Connection: close, x-A\r\nConnection: x-c\r\n", "0\r\nX-a: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n", []string{"X-B: 2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			head := strings.Replace(chunkedRequest, host, host+tt.connection, 1)
			for _, src := range []io.Reader{
				strings.NewReader(head + tt.in),
				iotest.OneByteReader(strings.NewReader(head + tt.in)),
			} {
				r := NewReader(src)
				if err := r.ReadRequest(new(Request)); err != nil {
					t.Fatal(err)
				}
				if n := r.Trailers().Len(); n != 0 {
					t.Errorf("%d trailers before the end", n)
				}
				if _, err := io.ReadAll(r); err != nil {
					t.Fatal(err)
				}
				if got := r.Trailers().lines(); !slices.Equal(got, tt.want) {
					t.Errorf("trailers %q, want %q", got, tt.want)
				}
			}
		})
	}
}

func TestTrailersOfLastMessageAreGone(t *testing.T) {
	r := NewReader(strings.NewReader(chunkedRequest + "0\r\nA: b\r\n\r\n" + chunkedRequest + "0\r\n\r\n"))
	for want := 1; want >= 0; want-- {
		if err := r.ReadRequest(new(Request)); err != nil {
			t.Fatal(err)
		}
		if err := r.Discard(0); err != nil {
			t.Fatal(err)
		}
		if got := r.Trailers().Len(); got != want {
			t.Errorf("%d trailers, want %d", got, want)
		}
	}
}

func TestReadChunkedCutShort(t *testing.T) {
	in := "5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n"
	for n := range len(in) {
		got, r, err := readChunked(strings.NewReader(in[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) || r.BodyDone() {
			t.Errorf("cut after %d bytes: error %v, done %v", n, err, r.BodyDone())
		}
		if want := "hello0123456789abcdef"; !strings.HasPrefix(want, got) {
			t.Errorf("cut after %d bytes: read %q", n, got)
		}
	}
}
