//lint:file-ignore SA1019 The client of x/net is deprecated for use, not as somebody to talk to.

package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	h2 "golang.org/x/net/http2"
)

// listen serves connections on loopback until the test ends.
func listen(t testing.TB, o Options) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				NewConn(nc, o).Serve()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// transport is the client of x/net, over clear text.
func transport(t testing.TB, addr string) *h2.Transport {
	tr := &h2.Transport{
		AllowHTTP: true, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// mirror answers with what it was sent: content, the fields of the request, trailers.
func mirror(s *Stream) {
	s.WriteHead(103, []Field{{"link", "</style.css>"}}, false)
	fields := []Field{{"method", s.Head().Method}, {"path", s.Head().Path}, {"authority", s.Head().Authority}}
	s.WriteHead(200, append(fields, s.Head().Fields...), false)
	io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
	s.WriteTrailers(s.Trailers())
}

func TestTransport(t *testing.T) {
	tr := transport(t, listen(t, Options{Serve: mirror}))
	body := strings.Repeat("content ", 100_000)
	var hints int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == 103 && h.Get("Link") == "</style.css>" {
				hints++
			}
			return nil
		},
	})
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://a.example/path?query", io.NopCloser(strings.NewReader(body)))
	req.Header["X-Many"] = []string{"1", "2"}
	req.Trailer = http.Header{"Check": {"sum"}}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != body {
		t.Errorf("read %d bytes, %v, want the %d sent", len(got), err, len(body))
	}
	for name, want := range map[string]string{"Method": "POST", "Path": "/path?query", "Authority": "a.example", "X-Many": "1 2"} {
		if got := strings.Join(res.Header[name], " "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if res.Trailer.Get("Check") != "sum" || hints != 1 {
		t.Errorf("trailers %v, %d early hints", res.Trailer, hints)
	}
}

func TestTransportConnect(t *testing.T) {
	tr := transport(t, listen(t, Options{Serve: echo}))
	r, w := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "CONNECT", "http://a.example:443", r)
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i := range 100 {
		want := fmt.Sprintf("message %d", i)
		io.WriteString(w, want)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	w.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

// TestTransportMany sends random bodies on many streams at once.
func TestTransportMany(t *testing.T) {
	tr := transport(t, listen(t, Options{Serve: mirror, StreamWindow: startWindow, ConnWindow: 4 * startWindow}))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { roundTrip(t, tr, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	wg.Wait()
}

// roundTrip wants a random body back.
func roundTrip(t *testing.T, tr http.RoundTripper, rnd *rand.Rand) {
	body := make([]byte, rnd.IntN(300_000))
	for i := range body {
		body[i] = byte(rnd.Uint32())
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://a.example/", bytes.NewReader(body))
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("read %d bytes, %v, want the %d sent", len(got), err, len(body))
	}
}
