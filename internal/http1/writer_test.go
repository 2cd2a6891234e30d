package http1

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// writes records what is written, one string for each call of Write.
type writes struct{ calls []string }

func (w *writes) Write(p []byte) (int, error) {
	w.calls = append(w.calls, string(p))
	return len(p), nil
}

func (w *writes) all() string { return strings.Join(w.calls, "") }

func TestWriteMessages(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(w *Writer) error
		want  string
	}{
		{"request without body", func(w *Writer) error {
			w.BeginRequest("CONNECT", "a:443")
			w.Field("Host", "a:443")
			w.EndHead(Framing{Kind: NoBody})
			return w.EndBody(nil)
		}, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"},
		{"response with length", func(w *Writer) error {
			w.BeginResponse(404, "")
			w.FieldBytes("A", []byte("b\tc\xe9"))
			w.EndHead(Framing{Length, 5})
			io.WriteString(w, "he")
			io.WriteString(w, "")
			io.WriteString(w, "llo")
			return w.EndBody(nil)
		}, "HTTP/1.1 404 Not Found\r\nA: b\tc\xe9\r\nContent-Length: 5\r\n\r\nhello"},
		{"length written by hand", func(w *Writer) error {
			w.BeginResponse(200, "Fine")
			w.Field("content-length", "05")
			w.EndHead(Framing{Length, 5})
			io.WriteString(w, "hello")
			return w.EndBody(nil)
		}, "HTTP/1.1 200 Fine\r\ncontent-length: 05\r\n\r\nhello"},
		{"chunked", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.EndHead(Framing{Kind: Chunked})
			io.WriteString(w, "hello")
			io.WriteString(w, "")
			io.WriteString(w, strings.Repeat("x", 16))
			return w.EndBody(nil)
		}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"},
		{"until close", func(w *Writer) error {
			w.BeginResponse(299, "")
			w.Field("Connection", "close")
			w.EndHead(Framing{Kind: UntilClose})
			io.WriteString(w, "hello")
			return w.EndBody(nil)
		}, "HTTP/1.1 299 \r\nConnection: close\r\n\r\nhello"},
		{"HEAD keeps its length", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.Field("Content-Length", "5")
			w.EndHead(Framing{Kind: NoBody})
			return w.EndBody(nil)
		}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		{"two in a row", func(w *Writer) error {
			w.BeginResponse(100, "")
			w.EndHead(Framing{Kind: NoBody})
			w.EndBody(nil)
			w.BeginResponse(204, "")
			w.EndHead(Framing{Kind: NoBody})
			return w.EndBody(nil)
		}, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dst writes
			w := NewWriter(&dst)
			if err := tt.write(w); err != nil {
				t.Fatal(err)
			}
			if got := dst.all(); got != tt.want {
				t.Errorf("wrote %q, want %q", got, tt.want)
			}
			if got, want := w.Count(), int64(len(tt.want)); got != want {
				t.Errorf("Count() = %d, want %d", got, want)
			}
			if w.buf != nil {
				t.Error("holds a buffer after the end of the message")
			}
		})
	}
}

func TestWriterRefuses(t *testing.T) {
	begin := func(w *Writer) { w.BeginResponse(200, "") }
	unstripped := parseHead(t, "A: b")
	unstripped.list[0].id = idTransferEncoding
	for _, tt := range []struct {
		name  string
		write func(w *Writer)
		want  error
	}{
		{"method", func(w *Writer) { w.BeginRequest("GET /", "/") }, ErrInvalidHead},
		{"empty method", func(w *Writer) { w.BeginRequest("", "/") }, ErrInvalidHead},
		{"target", func(w *Writer) { w.BeginRequest("GET", "/ HTTP/1.1\r\nA: b") }, ErrInvalidHead},
		{"empty target", func(w *Writer) { w.BeginRequest("GET", "") }, ErrInvalidHead},
		{"status", func(w *Writer) { w.BeginResponse(99, "") }, ErrInvalidHead},
		{"high status", func(w *Writer) { w.BeginResponse(600, "") }, ErrInvalidHead},
		{"reason", func(w *Writer) { w.BeginResponse(200, "a\r\nb") }, ErrInvalidHead},
		{"name", func(w *Writer) { begin(w); w.Field("A:", "b") }, ErrInvalidHead},
		{"empty name", func(w *Writer) { begin(w); w.Field("", "b") }, ErrInvalidHead},
		{"value", func(w *Writer) { begin(w); w.Field("A", "b\r\nc: d") }, ErrInvalidHead},
		{"value in bytes", func(w *Writer) { begin(w); w.FieldBytes("A", []byte("b\x00")) }, ErrInvalidHead},
		{"transfer coding", func(w *Writer) { begin(w); w.Field("transfer-encoding", "chunked") }, ErrInvalidHead},
		{"unstripped fields", func(w *Writer) { begin(w); w.Fields(unstripped) }, ErrInvalidHead},
		{"two lengths", func(w *Writer) { begin(w); w.Field("Content-Length", "1"); w.Field("Content-Length", "1") }, ErrInvalidHead},
		{"bad length", func(w *Writer) { begin(w); w.FieldBytes("Content-Length", []byte("x")) }, ErrInvalidHead},
		{"forgotten request", func(w *Writer) { w.BeginForward(&Request{Method: "GET"}, OriginForm) }, ErrInvalidHead},

		{"field before the start line", func(w *Writer) { w.Field("A", "b") }, ErrWriteOrder},
		{"fields before the start line", func(w *Writer) { w.Fields(parseHead(t, "A: b")) }, ErrWriteOrder},
		{"end before the start line", func(w *Writer) { w.EndHead(Framing{}) }, ErrWriteOrder},
		{"two start lines", func(w *Writer) { begin(w); begin(w) }, ErrWriteOrder},
		{"body in the head", func(w *Writer) { begin(w); io.WriteString(w, "x") }, ErrWriteOrder},
		{"end of body in the head", func(w *Writer) { begin(w); w.EndBody(nil) }, ErrWriteOrder},
		{"field in the body", func(w *Writer) { begin(w); w.EndHead(Framing{}); w.Field("A", "b") }, ErrWriteOrder},
		{"body where there is none", func(w *Writer) { begin(w); w.EndHead(Framing{}); io.WriteString(w, "x") }, ErrWriteOrder},
		{"body too long", func(w *Writer) { begin(w); w.EndHead(Framing{Length, 1}); io.WriteString(w, "xy") }, ErrWriteOrder},
		{"body too short", func(w *Writer) { begin(w); w.EndHead(Framing{Length, 1}); w.EndBody(nil) }, ErrWriteOrder},
		{"length differs", func(w *Writer) { begin(w); w.Field("Content-Length", "1"); w.EndHead(Framing{Length, 2}) }, ErrWriteOrder},
		{"length with chunked", func(w *Writer) { begin(w); w.Field("Content-Length", "1"); w.EndHead(Framing{Kind: Chunked}) }, ErrWriteOrder},
		{"length until close", func(w *Writer) { begin(w); w.Field("Content-Length", "1"); w.EndHead(Framing{Kind: UntilClose}) }, ErrWriteOrder},
		{"negative length", func(w *Writer) { begin(w); w.EndHead(Framing{Length, -1}) }, ErrWriteOrder},
		{"204 with length", func(w *Writer) { w.BeginResponse(204, ""); w.EndHead(Framing{Length, 0}) }, ErrWriteOrder},
		{"304 chunked", func(w *Writer) { w.BeginResponse(304, ""); w.EndHead(Framing{Kind: Chunked}) }, ErrWriteOrder},
		{"100 until close", func(w *Writer) { w.BeginResponse(100, ""); w.EndHead(Framing{Kind: UntilClose}) }, ErrWriteOrder},
		{"204 that names a length", func(w *Writer) {
			w.BeginResponse(204, "")
			w.Field("Content-Length", "1")
			w.EndHead(Framing{})
		}, ErrWriteOrder},
		{"request until close", func(w *Writer) { w.BeginRequest("POST", "/"); w.EndHead(Framing{Kind: UntilClose}) }, ErrWriteOrder},
		{"request that names a length and has none", func(w *Writer) {
			w.BeginRequest("POST", "/")
			w.Field("Content-Length", "1")
			w.EndHead(Framing{})
		}, ErrWriteOrder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dst writes
			w := NewWriter(&dst)
			tt.write(w)
			if w.err != tt.want {
				t.Errorf("error %v, want %v", w.err, tt.want)
			}
			if err := w.EndBody(nil); err != tt.want {
				t.Errorf("EndBody after it: %v, want %v", err, tt.want)
			}
			if _, err := w.Write([]byte("x")); err != tt.want {
				t.Errorf("Write after it: %v, want %v", err, tt.want)
			}
			if got := dst.all(); got != "" {
				t.Errorf("%q reached the connection", got)
			}
		})
	}
}

func TestForwardRequest(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		form     Form
		want     string // "": ErrInvalidHead
	}{
		{"to an origin", "GET http://a/x?y HTTP/1.0\r\n\r\n", OriginForm, "GET /x?y HTTP/1.1\r\n\r\n"},
		{"empty path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", OriginForm, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"OPTIONS, empty path", "OPTIONS http://a HTTP/1.0\r\n\r\n", OriginForm, "OPTIONS * HTTP/1.1\r\n\r\n"},
		{"to an upstream", "GET http://a?y HTTP/1.0\r\n\r\n", AbsoluteForm, "GET http://a?y HTTP/1.1\r\n\r\n"},
		{"origin-form to an upstream", "GET / HTTP/1.0\r\n\r\n", AbsoluteForm, ""},
		{"authority-form to an origin", "CONNECT a:1 HTTP/1.0\r\n\r\n", OriginForm, ""},
		{"to nobody", "CONNECT a:1 HTTP/1.0\r\n\r\n", AuthorityForm, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _, err := readRequest(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			var dst writes
			w := NewWriter(&dst)
			w.BeginForward(req, tt.form)
			w.Fields(&req.Fields)
			w.EndHead(req.Framing)
			err = w.EndBody(nil)
			if tt.want == "" && err != ErrInvalidHead || tt.want != "" && err != nil {
				t.Errorf("error %v", err)
			}
			if got := dst.all(); got != tt.want {
				t.Errorf("wrote %q, want %q", got, tt.want)
			}
		})
	}
}

func TestForwardResponse(t *testing.T) {
	resp, _, err := readResponse("GET", "HTTP/1.0 299  odd\xe9 \r\nb:  1\r\nA: 2 \r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	var dst writes
	w := NewWriter(&dst)
	w.BeginForwardResponse(resp)
	w.Fields(&resp.Fields)
	w.EndHead(resp.Framing)
	if err := w.EndBody(nil); err != nil {
		t.Fatal(err)
	}
	want := "HTTP/1.1 299  odd\xe9 \r\nb: 1\r\nA: 2\r\nContent-Length: 0\r\n\r\n"
	if got := dst.all(); got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func TestHeadAndFirstBytesInOneWrite(t *testing.T) {
	for _, n := range []int{1, 1000, smallBuffer - 200} {
		var dst writes
		w := NewWriter(&dst)
		w.BeginResponse(200, "")
		w.EndHead(Framing{Length, int64(n)})
		w.Write(make([]byte, n))
		if err := w.EndBody(nil); err != nil {
			t.Fatal(err)
		}
		if len(dst.calls) != 1 {
			t.Errorf("a head and %d bytes took %d writes, want 1", n, len(dst.calls))
		}
	}
}

// Whatever the sizes, the bytes come out whole and in order.
func TestWriteSizes(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 30000)
	for _, n := range []int{
		1, directWrite - 1, directWrite, smallBuffer - 1, smallBuffer, smallBuffer + 1,
		MaxHead - 1, MaxHead, largeBuffer - 1, largeBuffer, largeBuffer + 1, 200000,
	} {
		for _, f := range []Framing{{Length, int64(2 * n)}, {Kind: Chunked}, {Kind: UntilClose}} {
			var dst writes
			w := NewWriter(&dst)
			w.BeginResponse(200, "")
			w.EndHead(f)
			io.WriteString(w, data[:n])
			io.WriteString(w, data[n:2*n])
			if err := w.EndBody(nil); err != nil {
				t.Fatalf("%d bytes, %v: %v", n, f, err)
			}
			r := NewReader(strings.NewReader(dst.all()))
			if err := r.ReadResponse(new(Response), "GET"); err != nil {
				t.Fatalf("%d bytes, %v: %v", n, f, err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != data[:2*n] {
				t.Errorf("%d bytes, %v: read %d bytes, %v", n, f, len(got), err)
			}
		}
	}
}

func TestWriteLongHead(t *testing.T) {
	var dst writes
	w := NewWriter(&dst)
	w.BeginRequest("GET", "/"+strings.Repeat("a", 10000))
	var want strings.Builder
	want.WriteString("GET /" + strings.Repeat("a", 10000) + " HTTP/1.1\r\n")
	for _, n := range []int{10, 9000, 60000, 80000, 3} {
		w.Field("A", strings.Repeat("b", n))
		want.WriteString("A: " + strings.Repeat("b", n) + "\r\n")
	}
	long := parseHead(t, "C: "+strings.Repeat("d", 60000))
	w.Fields(long)
	w.Fields(long)
	for range 2 {
		want.WriteString("C: " + strings.Repeat("d", 60000) + "\r\n")
	}
	w.EndHead(Framing{})
	if err := w.EndBody(nil); err != nil {
		t.Fatal(err)
	}
	if got := dst.all(); got != want.String()+"\r\n" {
		t.Errorf("wrote %d bytes, want %d", len(got), want.Len()+2)
	}
}

// failWriter takes n bytes and fails then.
type failWriter struct {
	n   int
	err error
}

func (f *failWriter) Write(p []byte) (int, error) {
	n := min(len(p), f.n)
	f.n -= n
	if n < len(p) {
		return n, f.err
	}
	return n, nil
}

func TestWriteErrors(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, tt := range []struct {
		name      string
		err, want error
	}{{"failing", broken, broken}, {"short", nil, io.ErrShortWrite}} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWriter(&failWriter{n: 10, err: tt.err})
			w.BeginResponse(200, "")
			if err := w.EndHead(Framing{Kind: NoBody}); err != nil {
				t.Fatalf("EndHead, of what is buffered: %v", err)
			}
			err := w.EndBody(nil)
			var we *WriteError
			if !errors.As(err, &we) || !errors.Is(err, tt.want) {
				t.Errorf("error %v, want a WriteError of %v", err, tt.want)
			}
			if got, want := err.Error(), "write: "+tt.want.Error(); got != want {
				t.Errorf("error %q, want %q", got, want)
			}
			if w.Count() != 10 {
				t.Errorf("Count() = %d, want 10", w.Count())
			}
			w.BeginResponse(200, "")
			w.Field("A", "b")
			w.FieldBytes("A", nil)
			w.Fields(parseHead(t, "A: b"))
			if again := w.EndHead(Framing{}); again != err {
				t.Errorf("later error %v, want %v", again, err)
			}
			if again := w.Flush(); again != err || w.buf != nil {
				t.Errorf("Flush: %v, want %v", again, err)
			}
		})
	}
}

func TestWriterReset(t *testing.T) {
	var first, second writes
	w := NewWriter(&first)
	w.BeginResponse(200, "")
	w.Reset(&second)
	w.BeginResponse(204, "")
	w.EndHead(Framing{})
	if err := w.EndBody(nil); err != nil {
		t.Fatal(err)
	}
	if got := first.all(); got != "" {
		t.Errorf("%q reached the first connection", got)
	}
	if got, want := second.calls, []string{"HTTP/1.1 204 No Content\r\n\r\n"}; !slices.Equal(got, want) {
		t.Errorf("wrote %q, want %q", got, want)
	}
	w.BeginResponse(200, "")
	w.Release()
	if w.buf != nil {
		t.Error("holds a buffer after Release")
	}
}
