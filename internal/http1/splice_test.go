package http1

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestSplice(t *testing.T) {
	const length = SpliceMin + 10
	head := "HTTP/1.1 200 OK\r\nContent-Length: 65546\r\n\r\n"
	body := strings.Repeat("x", length)
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		in     string // what arrives with the head
		splice func(n int64, src io.Reader, dst io.Writer) (int64, error)
		asked  []int64
		err    error
	}{
		{"all", "", func(n int64, src io.Reader, dst io.Writer) (int64, error) { return io.CopyN(dst, src, n) }, []int64{length}, nil},
		{"the rest", "xxx", func(n int64, src io.Reader, dst io.Writer) (int64, error) { return io.CopyN(dst, src, n) }, []int64{length - 3}, nil},
		{"a part", "", func(_ int64, src io.Reader, dst io.Writer) (int64, error) { return io.CopyN(dst, src, 9) }, []int64{length}, nil},
		{"nothing", "", func(int64, io.Reader, io.Writer) (int64, error) { return 0, nil }, []int64{length}, nil},
		{"too little is left", "xxxxxxxxxxx", nil, nil, nil},
		{"fails", "", func(int64, io.Reader, io.Writer) (int64, error) { return 0, broken }, []int64{length}, broken},
		{"ends early", "", func(int64, io.Reader, io.Writer) (int64, error) { return 0, io.EOF }, []int64{length}, io.ErrUnexpectedEOF},
		{"lies", "", func(n int64, _ io.Reader, _ io.Writer) (int64, error) { return n + 1, broken }, []int64{length}, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := io.MultiReader(strings.NewReader(head+tt.in), strings.NewReader(body[len(tt.in):]))
			var dst writes
			var asked []int64
			var moved int64
			n, err := forwardResponse(src, &dst, 1, CopyOptions{
				Moved: func(n int64) { moved += n },
				Splice: func(n int64) (int64, error) {
					asked = append(asked, n)
					return tt.splice(n, src, &dst)
				},
			})
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked to splice %v, want %v", asked, tt.asked)
			}
			if err == nil && (n != length || moved != length || dst.all() != head+body) {
				t.Errorf("copied %d bytes, moved %d, wrote %d", n, moved, len(dst.all())-len(head))
			}
		})
	}
}

func TestSpliceIsNotAskedForOtherFramings(t *testing.T) {
	body := strings.Repeat("x", 2*SpliceMin)
	for _, in := range []string{
		"HTTP/1.1 200 OK\r\n\r\n" + body,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + body + "\r\n0\r\n\r\n",
	} {
		for minor := range 2 {
			_, err := forwardResponse(strings.NewReader(in), io.Discard, minor, CopyOptions{
				Splice: func(int64) (int64, error) { return 0, errors.New("asked") },
			})
			if err != nil {
				t.Errorf("forwarding %.60q: %v", in, err)
			}
		}
	}
}

// The real thing: between two sockets, io.Copy does it in the kernel.
func TestSpliceSockets(t *testing.T) {
	const length = 4 << 20
	origin, fromOrigin := tcpPair(t)
	toClient, client := tcpPair(t)
	go func() {
		io.WriteString(origin, "HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n"+strings.Repeat("y", length))
		origin.CloseWrite()
	}()
	copied := make(chan error, 1)
	go func() {
		_, err := forwardResponse(fromOrigin, toClient, 1, CopyOptions{Splice: func(n int64) (int64, error) {
			return spliceTCP(toClient, fromOrigin, n)
		}})
		toClient.CloseWrite()
		copied <- err
	}()
	r := NewReader(client)
	if err := r.ReadResponse(new(Response), "GET"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || len(got) != length || strings.Trim(string(got), "y") != "" {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if err := <-copied; err != nil {
		t.Errorf("CopyBody: %v", err)
	}
}

func spliceTCP(dst, src *net.TCPConn, n int64) (int64, error) {
	return dst.ReadFrom(io.LimitReader(src, n))
}
