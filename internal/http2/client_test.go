package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client speaks frames to a Conn over net.Pipe. What the server sends is read all the
// time, by a goroutine that ends with the pipe.
type client struct {
	t      *testing.T
	nc     net.Conn
	fr     *h2.Framer
	enc    *hpack.Encoder
	block  bytes.Buffer
	frames chan frame
	conn   *Conn
	ended  chan error    // what Serve returned
	got    []frame       // by until
	wait   time.Duration // of until
}

// frame is a frame of the server, in what tests compare.
type frame struct {
	kind   h2.FrameType
	id     uint32
	end    bool
	ack    bool
	code   ErrCode // of RST_STREAM and GOAWAY
	status string
	fields []Field
	data   string
	last   uint32 // of GOAWAY
	inc    uint32 // of WINDOW_UPDATE
}

// dial begins a connection and serves it, without the preface.
func dial(t *testing.T, o Options) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &client{
		t: t, nc: ours, frames: make(chan frame, 1<<14), ended: make(chan error, 1),
		conn: NewConn(theirs, o),
	}
	c.fr = h2.NewFramer(ours, ours)
	c.fr.AllowIllegalWrites = true
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	go func() {
		err := c.conn.Serve()
		theirs.Close()
		c.ended <- err
	}()
	go c.readAll(c.fr)
	t.Cleanup(c.close)
	return c
}

// greet is dial with the preface.
func greet(t *testing.T, o Options, settings ...h2.Setting) *client {
	t.Helper()
	c := dial(t, o)
	c.write([]byte(h2.ClientPreface))
	c.fr.WriteSettings(settings...)
	return c
}

func (c *client) readAll(fr *h2.Framer) {
	defer close(c.frames)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		c.frames <- convert(f)
	}
}

func convert(f h2.Frame) frame {
	out := frame{kind: f.Header().Type, id: f.Header().StreamID}
	switch f := f.(type) {
	case *h2.MetaHeadersFrame:
		out.end, out.status = f.StreamEnded(), f.PseudoValue("status")
		for _, hf := range f.RegularFields() {
			out.fields = append(out.fields, Field{hf.Name, hf.Value})
		}
	case *h2.DataFrame:
		out.end, out.data = f.StreamEnded(), string(f.Data())
	case *h2.RSTStreamFrame:
		out.code = f.ErrCode
	case *h2.GoAwayFrame:
		out.code, out.last = f.ErrCode, f.LastStreamID
	case *h2.SettingsFrame:
		out.ack = f.IsAck()
	case *h2.PingFrame:
		out.ack, out.data = f.IsAck(), string(f.Data[:])
	case *h2.WindowUpdateFrame:
		out.inc = f.Increment
	}
	return out
}

// close ends the client and waits for Serve.
func (c *client) close() {
	c.nc.Close()
	select {
	case err := <-c.ended:
		c.ended <- err
	case <-time.After(10 * time.Second):
		c.t.Error("Serve has not returned 10 s after the client left")
	}
}

// err waits for Serve and returns its error.
func (c *client) err() error {
	err := <-c.ended
	c.ended <- err
	return err
}

func (c *client) write(p []byte) { c.nc.Write(p) }

// raw writes a frame of any kind.
func (c *client) raw(kind h2.FrameType, flags h2.Flags, id uint32, payload string) {
	c.fr.WriteRawFrame(kind, flags, id, []byte(payload))
}

// encode makes a header block of names and values in turn.
func (c *client) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// request opens a stream with the fields.
func (c *client) request(id uint32, end bool, fields ...string) {
	c.fr.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields...), EndStream: end, EndHeaders: true})
}

var (
	getFields     = []string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/"}
	postFields    = []string{":method", "POST", ":scheme", "https", ":authority", "a.example", ":path", "/"}
	connectFields = []string{":method", "CONNECT", ":authority", "a.example:443"}
)

func (c *client) get(id uint32)     { c.request(id, true, getFields...) }
func (c *client) post(id uint32)    { c.request(id, false, postFields...) }
func (c *client) connect(id uint32) { c.request(id, false, connectFields...) }

// until reads frames to the first that is wanted.
func (c *client) until(what string, wanted func(frame) bool) frame {
	c.t.Helper()
	late := time.After(max(c.wait, 10*time.Second))
	for {
		select {
		case f, ok := <-c.frames:
			if !ok {
				c.t.Fatalf("the connection ended before %s; it sent %+v", what, c.got)
			}
			c.got = append(c.got, f)
			if wanted(f) {
				return f
			}
		case <-late:
			c.t.Fatalf("no %s; the server sent %+v", what, c.got)
		}
	}
}

// frame waits for a frame of a kind on a stream.
func (c *client) frame(kind h2.FrameType, id uint32) frame {
	c.t.Helper()
	return c.until(fmt.Sprintf("%v on stream %d", kind, id), func(f frame) bool { return f.kind == kind && f.id == id && !f.ack })
}

// wantReset waits for RST_STREAM.
func (c *client) wantReset(id uint32, code ErrCode) {
	c.t.Helper()
	if f := c.frame(h2.FrameRSTStream, id); f.code != code {
		c.t.Errorf("stream %d was reset with %v, want %v", id, f.code, code)
	}
}

// wantGoAway waits for the GOAWAY that ends the connection, and for the end.
func (c *client) wantGoAway(code ErrCode, flood string) {
	c.t.Helper()
	f := c.until("GOAWAY", func(f frame) bool { return f.kind == h2.FrameGoAway && f.last != maxStreamID })
	if f.code != code {
		c.t.Errorf("GOAWAY said %v, want %v", f.code, code)
	}
	c.nc.Close()
	err := c.err()
	var ce *ConnError
	switch {
	case code == ErrCodeNo:
		if err != nil {
			c.t.Errorf("Serve = %v, want nil", err)
		}
	case !errors.As(err, &ce):
		c.t.Errorf("Serve = %v, want a ConnError", err)
	case ce.Code != code || ce.Flood != flood:
		c.t.Errorf("Serve = %+v, want %v %q", ce, code, flood)
	}
}

// body reads the content of a response to its end.
func (c *client) body(id uint32) string {
	c.t.Helper()
	var b bytes.Buffer
	for {
		f := c.until("content", func(f frame) bool {
			return f.id == id && (f.kind == h2.FrameData || f.kind == h2.FrameHeaders && f.end || f.kind == h2.FrameRSTStream)
		})
		b.WriteString(f.data)
		if f.kind == h2.FrameRSTStream {
			c.t.Fatalf("stream %d was reset: %v", id, f.code)
		}
		if f.end {
			return b.String()
		}
	}
}

// wantPing checks that the connection is alive and has taken all frames so far.
func (c *client) wantPing(data string) {
	c.t.Helper()
	c.raw(h2.FramePing, 0, 0, (data + "........")[:8])
	c.until("PING", func(f frame) bool { return f.kind == h2.FramePing && f.ack })
}

// echo answers 200 and sends back what comes.
func echo(s *Stream) {
	s.WriteHead(200, nil, false)
	io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
	s.CloseWrite()
}

// greeting answers GET with a few bytes.
func greeting(s *Stream) {
	s.WriteHead(200, []Field{{"content-type", "text/plain"}}, false)
	s.Write([]byte("hello"))
	s.CloseWrite()
}

// hold serves streams by handing them to the test. Their Serve return with the connection.
func hold() (serve func(*Stream), streams chan *Stream) {
	streams = make(chan *Stream, 1024)
	return func(s *Stream) {
		select {
		case streams <- s:
		case <-s.c.written:
		}
		<-s.c.written
	}, streams
}

// patient is greeting once all of the request has come.
func patient(s *Stream) {
	io.Copy(io.Discard, s)
	greeting(s)
}

// next returns the next stream that hold was given.
func next(t *testing.T, streams chan *Stream) *Stream {
	t.Helper()
	select {
	case s := <-streams:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("no stream was opened")
		return nil
	}
}

// wantReadErr reads once and wants an error.
func wantReadErr(t *testing.T, s *Stream, wants ...error) {
	t.Helper()
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := s.Read(make([]byte, 10))
	for _, want := range wants {
		if !errors.Is(err, want) || n != 0 {
			t.Errorf("Read = %d, %v, want %v", n, err, want)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) != (wants[0] == os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
}

// mute is greet by a client that reads nothing.
func mute(t *testing.T, o Options) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &client{t: t, nc: ours, ended: make(chan error, 1), conn: NewConn(theirs, o)}
	c.fr = h2.NewFramer(ours, nil)
	c.enc = hpack.NewEncoder(&c.block)
	go func() {
		err := c.conn.Serve()
		theirs.Close()
		c.ended <- err
	}()
	t.Cleanup(c.close)
	c.write([]byte(h2.ClientPreface))
	c.fr.WriteSettings()
	return c
}

func wantFlood(t *testing.T, err error, flood string) {
	t.Helper()
	var ce *ConnError
	if !errors.As(err, &ce) || ce.Flood != flood {
		t.Errorf("Serve = %v, want the flood %q", err, flood)
	}
}
