package http1

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadBody(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 10000)
	for _, tt := range []struct{ name, head, body, rest string }{
		{"none", "HTTP/1.1 304 x\r\n\r\n", "", "rest"},
		{"length 0", "HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", "", "rest"},
		{"length", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n", "hello", "rest"},
		{"big", "HTTP/1.1 200 x\r\nContent-Length: 160000\r\n\r\n", big, "rest"},
		{"until close", "HTTP/1.1 200 x\r\n\r\n", "hello", ""},
		{"empty until close", "HTTP/1.1 200 x\r\n\r\n", "", ""},
		{"big until close", "HTTP/1.0 200 x\r\n\r\n", big, ""},
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
				r := NewReader(form.wrap(strings.NewReader(tt.head + tt.body + tt.rest)))
				if err := r.ReadResponse(new(Response), "GET"); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(iotest.OneByteReader(r)) // small reads must lose nothing
				if err != nil || string(got) != tt.body {
					t.Fatalf("read %.50q, %v, want %.50q", got, err, tt.body)
				}
				if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("another read: %d, %v, want io.EOF", n, err)
				}
				if got, want := r.Count(), int64(len(tt.head)+len(tt.body)); got != want {
					t.Errorf("used %d bytes, want %d", got, want)
				}
			})
		}
	}
}

func TestReadBodyCutShort(t *testing.T) {
	for n := range 10 {
		_, r, err := readResponse("GET", "HTTP/1.1 200 x\r\nContent-Length: 10\r\n\r\n"+"0123456789"[:n])
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if !errors.Is(err, io.ErrUnexpectedEOF) || r.BodyDone() || len(got) != n {
			t.Errorf("cut after %d bytes: read %q, %v, done %v", n, got, err, r.BodyDone())
		}
	}
}

// A body until close is whole only if the connection ends in good order.
func TestReadBodyUntilReset(t *testing.T) {
	reset := errors.New("connection reset")
	r := NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 x\r\n\r\nhello"), iotest.ErrReader(reset)))
	if err := r.ReadResponse(new(Response), "GET"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, reset) || r.BodyDone() || string(got) != "hello" {
		t.Errorf("read %q, %v, done %v", got, err, r.BodyDone())
	}
}

// A deadline in the middle of a body loses nothing.
func TestReadBodyAfterTimeout(t *testing.T) {
	in := "3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n"
	for n := range len(in) {
		src := io.MultiReader(strings.NewReader(chunkedRequest+in[:n]), &failOnce{err: os.ErrDeadlineExceeded}, strings.NewReader(in[n:]))
		r := NewReader(src)
		if err := r.ReadRequest(new(Request)); err != nil {
			t.Fatal(err)
		}
		first, err := io.ReadAll(r)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after %d bytes: error %v", n, err)
		}
		second, err := io.ReadAll(r)
		if err != nil || string(first)+string(second) != "abcde" || r.Trailers().Len() != 1 {
			t.Errorf("after %d bytes: read %q and %q, %d trailers, %v", n, first, second, r.Trailers().Len(), err)
		}
	}
}

func TestDiscard(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		limit    int64
		want     error
	}{
		{"nothing", "HTTP/1.1 204 x\r\n\r\n", 0, nil},
		{"just enough", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhello", 5, nil},
		{"too long", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhello", 4, ErrBodyTooLong},
		{"announced too long", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n", 4, ErrBodyTooLong},
		{"chunked", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", 5, nil},
		{"chunked too long", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\nx\r\n", 5, ErrBodyTooLong},
		{"cut short", "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhell", 5, io.ErrUnexpectedEOF},
		{"malformed", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", 9, &ParseError{502, errChunkEnd.Reason}},
		{"until close", "HTTP/1.1 200 x\r\n\r\nhello", 5, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, r, err := readResponse("GET", tt.in)
			if err != nil {
				t.Fatal(err)
			}
			err = r.Discard(tt.limit)
			if want, ok := tt.want.(*ParseError); ok {
				checkRefused(t, tt.in, err, want)
			} else if !errors.Is(err, tt.want) {
				t.Errorf("Discard(%d) = %v, want %v", tt.limit, err, tt.want)
			}
			if whole := err == nil; err != ErrBodyTooLong && r.BodyDone() != whole {
				t.Errorf("done is %v after error %v", r.BodyDone(), err)
			}
		})
	}
}

// The long-lived part of a connection holds no buffer.
func TestBufferIsGivenBack(t *testing.T) {
	r := NewReader(strings.NewReader("GET / HTTP/1.1\r\n" + host + "\r\n"))
	var req Request
	if err := r.ReadRequest(&req); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != io.EOF {
		t.Errorf("Wait() = %v, want io.EOF", err)
	}
	if r.buf != nil || r.Buffered() != 0 {
		t.Errorf("holds a buffer of %d bytes, %d of them unread", len(r.buf), r.Buffered())
	}
}

func TestReadMakesNoProgress(t *testing.T) {
	r := NewReader(emptyReads{})
	if err := r.ReadRequest(new(Request)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v, want io.ErrNoProgress", err)
	}
}

type emptyReads struct{}

func (emptyReads) Read([]byte) (int, error) { return 0, nil }

// What a head pointed to must not turn into bytes of someone else.
func TestHeadIsForgotten(t *testing.T) {
	in := "GET /secret HTTP/1.1\r\n" + host + "\r\n"
	for _, tt := range []struct {
		name string
		do   func(*Reader)
	}{
		{"Release", (*Reader).Release},
		{"TakeBuffered", func(r *Reader) { r.TakeBuffered() }},
		{"Wait", func(r *Reader) { r.Wait() }},
		{"Reset", func(r *Reader) { r.Reset(bytes.NewReader(nil)) }},
		{"ReadRequest", func(r *Reader) { r.ReadRequest(new(Request)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, r, err := readRequest(in)
			if err != nil {
				t.Fatal(err)
			}
			tt.do(r)
			if req.Fields.Len() != 0 || req.Target.Raw != nil || req.Host() != nil {
				t.Errorf("after %s the head still has %d fields and target %q", tt.name, req.Fields.Len(), req.Target.Raw)
			}
			if req.Method != "GET" || req.Minor != 1 {
				t.Errorf("after %s the method is %q and the minor version %d", tt.name, req.Method, req.Minor)
			}
		})
	}
}
