package httpproxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"polyport/internal/http2"
)

// rawClient speaks HTTP/2 frame by frame. One goroutine uses it.
type rawClient struct {
	net.Conn
	t   testing.TB
	fr  *h2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
}

// newRawClient begins a connection.
func newRawClient(t testing.TB, c net.Conn) *rawClient {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	r := &rawClient{Conn: c, t: t, fr: h2.NewFramer(c, c)}
	r.enc = hpack.NewEncoder(&r.buf)
	r.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err := io.WriteString(c, h2.ClientPreface)
	r.check(err)
	r.check(r.fr.WriteSettings())
	return r
}

func (r *rawClient) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("write a frame: %v", err)
	}
}

// block encodes fields, which are names and values.
func (r *rawClient) block(fields []string) []byte {
	r.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return r.buf.Bytes()
}

// head opens a stream, or sends its trailers.
func (r *rawClient) head(id uint32, end bool, fields ...string) {
	r.t.Helper()
	r.check(r.fr.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(fields), EndHeaders: true, EndStream: end}))
}

func (r *rawClient) data(id uint32, end bool, s string) {
	r.t.Helper()
	r.check(r.fr.WriteData(id, end, []byte(s)))
}

// next returns the next frame about a stream as text, as far as tests look at it.
func (r *rawClient) next() string {
	r.t.Helper()
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *h2.SettingsFrame:
			if !f.IsAck() {
				r.check(r.fr.WriteSettingsAck())
			}
		case *h2.MetaHeadersFrame:
			s := fmt.Sprintf("%d head", f.StreamID)
			for _, field := range f.Fields {
				s += " " + field.Name + "=" + field.Value
			}
			return s + ending(f.StreamEnded())
		case *h2.DataFrame:
			return fmt.Sprintf("%d data %s", f.StreamID, f.Data()) + ending(f.StreamEnded())
		case *h2.RSTStreamFrame:
			return fmt.Sprintf("%d reset %v", f.StreamID, f.ErrCode)
		case *h2.GoAwayFrame:
			return fmt.Sprintf("goaway %v", f.ErrCode)
		}
	}
}

func ending(end bool) string {
	if end {
		return " end"
	}
	return ""
}

// want compares the next frame about a stream.
func (r *rawClient) want(wanted string) {
	r.t.Helper()
	if got := r.next(); got != wanted {
		r.t.Errorf("the next frame is %q, want %q", got, wanted)
	}
}

// content returns the content of a stream to its end.
func (r *rawClient) content(id uint32) string {
	r.t.Helper()
	prefix, all := fmt.Sprintf("%d data ", id), ""
	for {
		d, ok := strings.CutPrefix(r.next(), prefix)
		if !ok {
			r.t.Errorf("%d bytes of content do not end", len(all))
			return all
		}
		d, ended := strings.CutSuffix(d, " end")
		if all += d; ended {
			return all
		}
	}
}

// served opens one stream and calls f for it at the other end.
func served(t *testing.T, send func(c *rawClient), f func(st *http2.Stream)) {
	t.Helper()
	client, server := tcpPair(t)
	done := make(chan struct{})
	conn := http2.NewConn(server, http2.Options{Serve: func(st *http2.Stream) {
		defer close(done)
		f(st)
	}})
	ended := make(chan struct{})
	go func() { _ = conn.Serve(); server.Close(); close(ended) }()
	c := newRawClient(t, client)
	send(c)
	<-done
	client.Close()
	<-ended
}
