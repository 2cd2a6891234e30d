package http1

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// pieces is a connection on which each piece arrives by a read of its own.
type pieces struct {
	list  []string
	after error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.list) == 0 {
		return 0, p.after
	}
	n := copy(b, p.list[0])
	if p.list[0] = p.list[0][n:]; p.list[0] == "" {
		p.list = p.list[1:]
	}
	return n, nil
}

// forwardResponse reads a response and writes it as it goes on to a client of that
// minor version.
func forwardResponse(src io.Reader, dst io.Writer, minor int, o CopyOptions) (int64, error) {
	r, w, resp := NewReader(src), NewWriter(dst), new(Response)
	if err := r.ReadResponse(resp, "GET"); err != nil {
		return 0, err
	}
	resp.Strip()
	w.BeginForwardResponse(resp)
	w.Fields(&resp.Fields)
	if err := w.EndHead(resp.Framing.ForReceiver(minor)); err != nil {
		return 0, err
	}
	return CopyBody(w, r, o)
}

func TestCopyBody(t *testing.T) {
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		chunked = "Transfer-Encoding: chunked\r\n"
	)
	for _, tt := range []struct {
		name  string
		minor int
		in    string
		want  string
		n     int64
	}{
		{"none", 1, ok + "Content-Length: 0\r\n\r\n", ok + "Content-Length: 0\r\n\r\n", 0},
		{"304", 1, "HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", 0},
		{"length", 1, ok + "Content-Length: 5\r\n\r\nhello", ok + "Content-Length: 5\r\n\r\nhello", 5},
		{"length to HTTP/1.0", 0, ok + "Content-Length: 5\r\n\r\nhello", ok + "Content-Length: 5\r\n\r\nhello", 5},
		{"length, with more behind it", 1, ok + "Content-Length: 5\r\n\r\nhellogarbage", ok + "Content-Length: 5\r\n\r\nhello", 5},
		{
			"chunked", 1, ok + chunked + "\r\n5;a=b\r\nhello\r\n0001\r\nx\r\n0;c\r\n\r\n",
			ok + chunked + "\r\n5\r\nhello\r\n1\r\nx\r\n0\r\n\r\n", 6,
		},
		{
			"chunked with trailers", 1, ok + chunked + "Trailer: A\r\n\r\n1\r\nx\r\n0\r\nHost: a\r\nA:  b\r\nc: D\r\n\r\n",
			ok + "Trailer: A\r\n" + chunked + "\r\n1\r\nx\r\n0\r\nA: b\r\nc: D\r\n\r\n", 1,
		},
		{"chunked to HTTP/1.0", 0, ok + chunked + "\r\n5\r\nhello\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n", ok + "\r\nhellox", 6},
		{"until close to HTTP/1.1", 1, ok + "\r\nhello", ok + chunked + "\r\n5\r\nhello\r\n0\r\n\r\n", 5},
		{"until close, empty", 1, ok + "\r\n", ok + chunked + "\r\n0\r\n\r\n", 0},
		{"until close to HTTP/1.0", 0, ok + "\r\nhello", ok + "\r\nhello", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dst writes
			n, err := forwardResponse(strings.NewReader(tt.in), &dst, tt.minor, CopyOptions{})
			if err != nil || n != tt.n {
				t.Errorf("CopyBody = %d, %v, want %d", n, err, tt.n)
			}
			if got := dst.all(); got != tt.want {
				t.Errorf("wrote %q, want %q", got, tt.want)
			}
		})
		t.Run(tt.name+", byte by byte", func(t *testing.T) {
			var dst writes
			src := iotest.OneByteReader(strings.NewReader(tt.in))
			n, err := forwardResponse(src, &dst, tt.minor, CopyOptions{})
			if err != nil || n != tt.n {
				t.Fatalf("CopyBody = %d, %v, want %d", n, err, tt.n)
			}
			if got, want := decode(t, dst.all()), decode(t, tt.want); got != want {
				t.Errorf("wrote %q, want %q", got, want)
			}
		})
	}
}

// decode returns the body and the trailers of a response.
func decode(t *testing.T, in string) string {
	t.Helper()
	_, r, err := readResponse("GET", in)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n" + strings.Join(r.Trailers().lines(), "\n")
}

// However a message that is framed is cut, what goes on must not look whole, and what
// has arrived must go on.
func TestCopyBodyCutShort(t *testing.T) {
	for _, tt := range []struct{ name, in, body string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", "0123456789"},
		{
			"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\n01234\r\n5\r\n56789\r\n0\r\nA: b\r\n\r\n",
			"0123456789",
		},
	} {
		body := strings.Index(tt.in, "\r\n\r\n") + 4
		for cut := body; cut < len(tt.in); cut++ {
			for minor := range 2 {
				var dst writes
				n, err := forwardResponse(strings.NewReader(tt.in[:cut]), &dst, minor, CopyOptions{})
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s to HTTP/1.%d, cut after %d: error %v", tt.name, minor, cut, err)
				}
				if we := (*WriteError)(nil); errors.As(err, &we) {
					t.Errorf("%s to HTTP/1.%d, cut after %d: %v is said of the wrong side", tt.name, minor, cut, err)
				}
				resp, r, err := readResponse("GET", dst.all())
				if err != nil {
					t.Fatalf("%s to HTTP/1.%d, cut after %d: %v", tt.name, minor, cut, err)
				}
				got, err := io.ReadAll(r)
				if !strings.HasPrefix(tt.body, string(got)) || len(got) != int(n) {
					t.Errorf("%s to HTTP/1.%d, cut after %d: wrote %q, said %d", tt.name, minor, cut, got, n)
				}
				// Until close it is for the caller to reset the
				// connection.
				if resp.Framing.Kind != UntilClose && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s to HTTP/1.%d, cut after %d: looks whole (%v): %q", tt.name, minor, cut, err, dst.all())
				}
			}
		}
	}
}

func TestCopyBodyResetUntilClose(t *testing.T) {
	reset := errors.New("connection reset")
	var dst writes
	_, err := forwardResponse(&pieces{[]string{"HTTP/1.1 200 OK\r\n\r\nhel", "lo"}, reset}, &dst, 1, CopyOptions{})
	if !errors.Is(err, reset) {
		t.Errorf("error %v, want %v", err, reset)
	}
	want := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n"
	if got := dst.all(); got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func TestCopyBodyMalformed(t *testing.T) {
	in := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n+0\r\n\r\n"
	var dst writes
	n, err := forwardResponse(strings.NewReader(in), &dst, 1, CopyOptions{})
	checkRefused(t, in, err, &ParseError{502, errChunkSize.Reason})
	if got, want := dst.all(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"; got != want || n != 5 {
		t.Errorf("wrote %q (%d), want %q (5)", got, n, want)
	}
}

func TestCopyBodyWriteError(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, in := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
		"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 100000),
		"HTTP/1.1 204 OK\r\n\r\n",
	} {
		_, err := forwardResponse(strings.NewReader(in), &failWriter{n: 10, err: broken}, 1, CopyOptions{})
		var we *WriteError
		if !errors.As(err, &we) || !errors.Is(err, broken) {
			t.Errorf("forwarding %.60q: error %v, want a WriteError", in, err)
		}
	}
}

// The two sides must agree on the length, whatever the caller says.
func TestCopyBodyOtherLength(t *testing.T) {
	for _, announced := range []int64{4, 6} {
		_, r, err := readResponse("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		if err != nil {
			t.Fatal(err)
		}
		w := NewWriter(io.Discard)
		w.BeginResponse(200, "")
		w.EndHead(Framing{Length, announced})
		if _, err := CopyBody(w, r, CopyOptions{}); err != ErrWriteOrder {
			t.Errorf("5 bytes as %d: error %v, want ErrWriteOrder", announced, err)
		}
	}
}

// Whatever a read returns is written on before the next read, in one write, and the
// head goes out with the first bytes.
func TestCopyBodyFlushes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		minor    int
		in, want []string
		moved    []int64
	}{
		{
			"length", 1,
			[]string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab", "c", "def"},
			[]string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab", "c", "def"},
			[]int64{2, 1, 3},
		},
		{
			"head alone", 1,
			[]string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abcdef"},
			[]string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "abcdef"},
			[]int64{6},
		},
		{
			"chunked, several in one read", 1,
			[]string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nb", "c", "\r\n1\r\nd\r\n0\r\n", "\r\n"},
			[]string{
				"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n", "1\r\nc\r\n", "1\r\nd\r\n", "0\r\n\r\n",
			},
			[]int64{2, 1, 1},
		},
		{
			"until close", 1,
			[]string{"HTTP/1.1 200 OK\r\n\r\na", "b"},
			[]string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"},
			[]int64{1, 1},
		},
		{
			"dechunked", 0,
			[]string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n", "0\r\n\r\n"},
			[]string{"HTTP/1.1 200 OK\r\n\r\nab"},
			[]int64{2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dst writes
			var moved []int64
			o := CopyOptions{Moved: func(n int64) { moved = append(moved, n) }}
			if _, err := forwardResponse(&pieces{tt.in, io.EOF}, &dst, tt.minor, o); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(dst.calls, tt.want) {
				t.Errorf("writes %q, want %q", dst.calls, tt.want)
			}
			if !slices.Equal(moved, tt.moved) {
				t.Errorf("Moved was called with %v, want %v", moved, tt.moved)
			}
		})
	}
}

func TestCopyBodyDropTrailer(t *testing.T) {
	in := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Real-IP: a\r\nA: b\r\n\r\n"
	var dst writes
	_, err := forwardResponse(strings.NewReader(in), &dst, 1, CopyOptions{
		DropTrailer: func(name []byte) bool { return EqualFold(name, "x-real-ip") },
	})
	want := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n"
	if got := dst.all(); err != nil || got != want {
		t.Errorf("wrote %q, %v, want %q", got, err, want)
	}
}

func TestCopyRequestBody(t *testing.T) {
	for _, tt := range []struct{ name, fields, body, want string }{
		{"length", "Content-Length: 5\r\n", "hello", "Content-Length: 5\r\n\r\nhello"},
		{"chunked", "Transfer-Encoding: chunked\r\n", "5;x\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"none", "", "", "\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, r, err := readRequest("POST http://a/ HTTP/1.1\r\nHost: a\r\n" + tt.fields + "\r\n" + tt.body + "next")
			if err != nil {
				t.Fatal(err)
			}
			req.Strip()
			var dst writes
			w := NewWriter(&dst)
			w.BeginForward(req, OriginForm)
			w.Fields(&req.Fields)
			if err := w.EndHead(req.Framing); err != nil {
				t.Fatal(err)
			}
			if _, err := CopyBody(w, r, CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			if got, want := dst.all(), "POST / HTTP/1.1\r\nHost: a\r\n"+tt.want; got != want || len(dst.calls) != 1 {
				t.Errorf("wrote %q, want %q in one write", dst.calls, want)
			}
			if got := string(r.TakeBuffered()); got != "next" {
				t.Errorf("left %q, want %q", got, "next")
			}
		})
	}
}

// Large bodies are read in large pieces, and their memory does not grow.
func TestCopyBodyLarge(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 1<<16)
	var dst writes
	r, w := NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"+body)), NewWriter(&dst)
	var resp Response
	if err := r.ReadResponse(&resp, "GET"); err != nil {
		t.Fatal(err)
	}
	w.BeginForwardResponse(&resp)
	w.EndHead(resp.Framing)
	n, err := CopyBody(w, r, CopyOptions{})
	if err != nil || n != int64(len(body)) || !strings.HasSuffix(dst.all(), "\r\n\r\n"+body) {
		t.Fatalf("copied %d bytes, %v", n, err)
	}
	if len(dst.calls) > 20 {
		t.Errorf("took %d writes for 1 MiB", len(dst.calls))
	}
	for _, c := range dst.calls {
		if len(c) > largeBuffer {
			t.Errorf("a write of %d bytes", len(c))
		}
	}
}
