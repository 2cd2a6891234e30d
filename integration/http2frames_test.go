package integration

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames speaks HTTP/2 frame by frame.
type frames struct {
	t     *testing.T
	nc    net.Conn
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32 // the number of the next stream
}

// newFrames sends the preface and waits for the gateway's settings, which it returns.
func newFrames(t *testing.T, nc net.Conn) (*frames, map[http2.SettingID]uint32) {
	t.Helper()
	f := &frames{t: t, nc: nc, fr: http2.NewFramer(nc, nc), next: 1}
	f.enc = hpack.NewEncoder(&f.block)
	f.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	say(t, nc, http2.ClientPreface)
	if err := f.fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	first, ok := f.read().(*http2.SettingsFrame)
	if !ok || first.IsAck() {
		t.Fatalf("the first frame is %v, want SETTINGS", first)
	}
	settings := map[http2.SettingID]uint32{}
	_ = first.ForeachSetting(func(s http2.Setting) error { settings[s.ID] = s.Val; return nil })
	if err := f.fr.WriteSettingsAck(); err != nil {
		t.Fatal(err)
	}
	return f, settings
}

func (f *frames) read() http2.Frame {
	f.t.Helper()
	fr, err := f.fr.ReadFrame()
	if err != nil {
		f.t.Fatalf("read a frame: %v", err)
	}
	return fr
}

// open begins a stream with a head: names and values in turn.
func (f *frames) open(end bool, fields ...string) uint32 {
	f.t.Helper()
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			f.t.Fatal(err)
		}
	}
	id := f.next
	f.next += 2
	if err := f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
		f.t.Fatal(err)
	}
	return id
}

// head waits for that of the answer on a stream.
func (f *frames) head(id uint32) *http2.MetaHeadersFrame {
	f.t.Helper()
	for {
		switch fr := f.read().(type) {
		case *http2.MetaHeadersFrame:
			if fr.StreamID == id {
				return fr
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			f.t.Fatalf("got %v, want a head", fr)
		}
	}
}

// data is what comes on a stream, beside which there is no other.
func (f *frames) data(id uint32) io.Reader {
	from, to := io.Pipe()
	go func() {
		for {
			fr, err := f.fr.ReadFrame()
			if err != nil {
				to.CloseWithError(err)
				return
			}
			switch fr := fr.(type) {
			case *http2.DataFrame:
				if _, err := to.Write(fr.Data()); err != nil || fr.StreamEnded() {
					to.Close()
					return
				}
			case *http2.RSTStreamFrame:
				to.CloseWithError(http2.StreamError{StreamID: id, Code: fr.ErrCode})
				return
			}
		}
	}()
	return from
}

// TestWebSocketByExtendedConnect is RFC 8441: the gateway speaks HTTP/1.1 to the server.
func TestWebSocketByExtendedConnect(t *testing.T) {
	t.Parallel()
	p, site := newPapers(t), newSight(t)
	g := startTidy(t, browsing(t)+p.table())
	for name, nc := range map[string]net.Conn{"TLS": p.dial(g.at(), h2), "clear text": dial(t, g.at())} {
		t.Run(name, func(t *testing.T) {
			f, settings := newFrames(t, nc)
			if settings[http2.SettingEnableConnectProtocol] != 1 {
				t.Fatalf("the settings are %v, want SETTINGS_ENABLE_CONNECT_PROTOCOL", settings)
			}
			id := f.open(false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/echo", ":authority", site.plain,
				"sec-websocket-version", "13", "sec-websocket-protocol", "echo")
			head := f.head(id)
			if got := head.PseudoValue("status"); got != "200" {
				t.Fatalf("the status is %q, want 200", got)
			}
			for _, h := range head.RegularFields() {
				if h.Name == "sec-websocket-accept" || h.Name == "upgrade" || h.Name == "connection" {
					t.Errorf("the answer has %v, which HTTP/2 does not", h)
				}
			}
			in := bufio.NewReader(f.data(id))
			for _, text := range []string{"a word", strings.Repeat("long ", 20)} {
				masked := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...) // with a mask of zeros
				if err := f.fr.WriteData(id, false, masked); err != nil {
					t.Fatal(err)
				}
				want := "\x81" + string([]byte{byte(len(text))}) + text
				got := make([]byte, len(want))
				if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
					t.Fatalf("the echo is %q, %v; want %q", got, err, want)
				}
			}
			if err := f.fr.WriteData(id, true, []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}); err != nil { // a close, and the end
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(in); err != nil || string(rest) != "\x88\x02\x03\xe8" {
				t.Errorf("behind the close comes %q, %v", rest, err)
			}
			nc.Close()
			check(t, g.record("client="+nc.LocalAddr().String(), "protocol=http"), map[string]any{"version": "HTTP/2", "target": site.plain, "reason": ""})
		})
	}
}
