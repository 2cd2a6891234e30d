package http2

import (
	"strings"
	"testing"
	"testing/synctest"

	h2 "golang.org/x/net/http2"
)

const (
	endStream  = h2.FlagDataEndStream
	endHeaders = h2.FlagHeadersEndHeaders
	padded     = h2.FlagDataPadded
	hasPrio    = h2.FlagHeadersPriority
)

// TestConnectionErrors breaks the protocol so that the connection ends.
func TestConnectionErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		code ErrCode
		send func(c *client)
	}{
		{"DATA on stream 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameData, 0, 0, "x") }},
		{"DATA on an idle stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameData, 0, 1, "x") }},
		{"DATA on an even stream", ErrCodeProtocol, func(c *client) { c.get(3); c.raw(h2.FrameData, 0, 2, "x") }},
		{"DATA after both sides ended", ErrCodeStreamClosed, func(c *client) {
			c.get(1)
			c.body(1)
			c.raw(h2.FrameData, 0, 1, "x")
		}},
		{"DATA with too much padding", ErrCodeProtocol, func(c *client) { c.post(1); c.raw(h2.FrameData, padded, 1, "\x05abcd") }},
		{"DATA padded and empty", ErrCodeFrameSize, func(c *client) { c.post(1); c.raw(h2.FrameData, padded, 1, "") }},
		{"HEADERS on stream 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameHeaders, endHeaders, 0, "\x82") }},
		{"HEADERS on an even stream", ErrCodeProtocol, func(c *client) { c.get(2) }},
		{"HEADERS on a lower stream", ErrCodeProtocol, func(c *client) { c.get(5); c.get(3) }},
		{"HEADERS after both sides ended", ErrCodeStreamClosed, func(c *client) { c.get(1); c.body(1); c.get(1) }},
		{"HEADERS with too much padding", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameHeaders, endHeaders|padded, 1, "\x05\x82") }},
		{"HEADERS too short", ErrCodeFrameSize, func(c *client) { c.raw(h2.FrameHeaders, endHeaders|hasPrio, 1, "\x00") }},
		{"HEADERS that cannot be decoded", ErrCodeCompression, func(c *client) { c.raw(h2.FrameHeaders, endHeaders, 1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }},
		{"HEADERS that end in a field", ErrCodeCompression, func(c *client) { c.raw(h2.FrameHeaders, endHeaders, 1, "\x00\x05ab") }},
		{"CONTINUATION alone", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameContinuation, endHeaders, 1, "\x82") }},
		{"CONTINUATION of another stream", ErrCodeProtocol, func(c *client) {
			c.raw(h2.FrameHeaders, 0, 1, "\x82")
			c.raw(h2.FrameContinuation, endHeaders, 3, "\x82")
		}},
		{"PING inside a head", ErrCodeProtocol, func(c *client) {
			c.raw(h2.FrameHeaders, 0, 1, "\x82")
			c.raw(h2.FramePing, 0, 0, "12345678")
		}},
		{"DATA inside a head", ErrCodeProtocol, func(c *client) {
			c.raw(h2.FrameHeaders, 0, 1, "\x82")
			c.raw(h2.FrameData, 0, 1, "x")
		}},
		{"PRIORITY on stream 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePriority, 0, 0, "\x00\x00\x00\x01\x00") }},
		{"PRIORITY of another length", ErrCodeFrameSize, func(c *client) { c.raw(h2.FramePriority, 0, 1, "\x00\x00\x00\x01") }},
		{"PRIORITY of an idle stream on itself", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePriority, 0, 1, "\x00\x00\x00\x01\x00") }},
		{"RST_STREAM on stream 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameRSTStream, 0, 0, "\x00\x00\x00\x08") }},
		{"RST_STREAM on an idle stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameRSTStream, 0, 1, "\x00\x00\x00\x08") }},
		{"RST_STREAM of another length", ErrCodeFrameSize, func(c *client) { c.get(1); c.raw(h2.FrameRSTStream, 0, 1, "\x00") }},
		{"SETTINGS on a stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameSettings, 0, 1, "") }},
		{"SETTINGS of half a setting", ErrCodeFrameSize, func(c *client) { c.raw(h2.FrameSettings, 0, 0, "\x00\x01\x00") }},
		{"SETTINGS ACK with content", ErrCodeFrameSize, func(c *client) { c.raw(h2.FrameSettings, h2.FlagSettingsAck, 0, "\x00\x01\x00\x00\x00\x00") }},
		{"ENABLE_PUSH 2", ErrCodeProtocol, func(c *client) { c.fr.WriteSettings(h2.Setting{ID: h2.SettingEnablePush, Val: 2}) }},
		{"NO_RFC7540_PRIORITIES 2", ErrCodeProtocol, func(c *client) { c.fr.WriteSettings(h2.Setting{ID: h2.SettingNoRFC7540Priorities, Val: 2}) }},
		{"MAX_FRAME_SIZE too small", ErrCodeProtocol, func(c *client) { c.fr.WriteSettings(h2.Setting{ID: h2.SettingMaxFrameSize, Val: 16383}) }},
		{"MAX_FRAME_SIZE too large", ErrCodeProtocol, func(c *client) { c.fr.WriteSettings(h2.Setting{ID: h2.SettingMaxFrameSize, Val: 1 << 24}) }},
		{"INITIAL_WINDOW_SIZE too large", ErrCodeFlowControl, func(c *client) {
			c.fr.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1}, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 31})
		}},
		{"INITIAL_WINDOW_SIZE overflows a stream", ErrCodeFlowControl, func(c *client) {
			c.post(1)
			c.fr.WriteWindowUpdate(1, maxWindow-startWindow)
			c.fr.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: startWindow + 1})
		}},
		{"PUSH_PROMISE", ErrCodeProtocol, func(c *client) { c.get(1); c.raw(h2.FramePushPromise, endHeaders, 1, "\x00\x00\x00\x02\x82") }},
		{"PING on a stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePing, 0, 1, "12345678") }},
		{"PING of another length", ErrCodeFrameSize, func(c *client) { c.raw(h2.FramePing, 0, 0, "1234567") }},
		{"GOAWAY on a stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameGoAway, 0, 1, "\x00\x00\x00\x00\x00\x00\x00\x00") }},
		{"GOAWAY too short", ErrCodeFrameSize, func(c *client) { c.raw(h2.FrameGoAway, 0, 0, "\x00") }},
		{"WINDOW_UPDATE of 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00") }},
		{"WINDOW_UPDATE of 0 on an idle stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00") }},
		{"WINDOW_UPDATE on an idle stream", ErrCodeProtocol, func(c *client) { c.fr.WriteWindowUpdate(1, 1) }},
		{"WINDOW_UPDATE overflows", ErrCodeFlowControl, func(c *client) { c.fr.WriteWindowUpdate(0, maxWindow) }},
		{"WINDOW_UPDATE of another length", ErrCodeFrameSize, func(c *client) { c.raw(h2.FrameWindowUpdate, 0, 0, "\x00\x00\x01") }},
		{"PRIORITY_UPDATE on a stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePriorityUpdate, 0, 1, "\x00\x00\x00\x01u=1") }},
		{"PRIORITY_UPDATE of stream 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x00u=1") }},
		{"PRIORITY_UPDATE of an even stream", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x02u=1") }},
		{"a frame that is too large", ErrCodeFrameSize, func(c *client) { c.post(1); c.raw(h2.FrameData, 0, 1, strings.Repeat("x", 16385)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := greet(t, Options{Serve: patient})
				tt.send(c)
				c.wantGoAway(tt.code, "")
			})
		})
	}
}

// TestStreamErrors breaks the protocol so that one stream is reset and the rest goes on.
func TestStreamErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		code ErrCode
		send func(c *client) // with a POST under way on stream 1
	}{
		{"DATA after END_STREAM", ErrCodeStreamClosed, func(c *client) { c.raw(h2.FrameData, endStream, 1, ""); c.raw(h2.FrameData, 0, 1, "x") }},
		{"HEADERS after END_STREAM", ErrCodeStreamClosed, func(c *client) { c.raw(h2.FrameData, endStream, 1, ""); c.request(1, true, "a", "b") }},
		{"DATA after RST_STREAM", ErrCodeStreamClosed, func(c *client) { c.fr.WriteRSTStream(1, ErrCodeCancel); c.raw(h2.FrameData, 0, 1, "x") }},
		{"HEADERS after RST_STREAM", ErrCodeStreamClosed, func(c *client) { c.fr.WriteRSTStream(1, ErrCodeCancel); c.post(1) }},
		{"trailers without END_STREAM", ErrCodeProtocol, func(c *client) { c.request(1, false, "a", "b") }},
		{"trailers with a pseudo field", ErrCodeProtocol, func(c *client) { c.request(1, true, ":path", "/") }},
		{"trailers in upper case", ErrCodeProtocol, func(c *client) { c.request(1, true, "A", "b") }},
		{"trailers that are too long", ErrCodeEnhanceYourCalm, func(c *client) { c.request(1, true, "a", strings.Repeat("b", 5000)) }},
		{"WINDOW_UPDATE of 0", ErrCodeProtocol, func(c *client) { c.raw(h2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00") }},
		{"WINDOW_UPDATE overflows", ErrCodeFlowControl, func(c *client) { c.fr.WriteWindowUpdate(1, maxWindow) }},
		{"PRIORITY on itself", ErrCodeProtocol, func(c *client) { c.raw(h2.FramePriority, 0, 1, "\x00\x00\x00\x01\x00") }},
		{"window of the stream", ErrCodeFlowControl, func(c *client) {
			for range 5 {
				c.raw(h2.FrameData, 0, 1, strings.Repeat("x", 16384))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			serve, _ := hold()
			c := greet(t, Options{Serve: serve, HeaderList: 4096, StreamWindow: startWindow})
			c.post(1)
			tt.send(c)
			c.wantReset(1, tt.code)
			c.wantPing("alive")
		})
	}
}

func TestMalformedRequests(t *testing.T) {
	serve, _ := hold()
	c := greet(t, Options{Serve: serve})
	id := uint32(1)
	for _, tt := range malformed {
		var fields []string
		for _, f := range tt.lines {
			fields = append(fields, f.Name, f.Value)
		}
		c.request(id, true, fields...)
		c.wantReset(id, ErrCodeProtocol)
		id += 2
	}
	c.wantPing("alive")
}

func TestContentLength(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []string
		ok   bool
	}{
		{"exact", []string{"hello"}, true},
		{"in parts", []string{"he", "", "llo"}, true},
		{"short", []string{"hell"}, false},
		{"long", []string{"hello!"}, false},
		{"long in parts", []string{"hello", "!"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := greet(t, Options{Serve: echo})
			c.request(1, false, append(postFields[:8:8], "content-length", "5")...)
			for i, d := range tt.data {
				c.fr.WriteData(1, i == len(tt.data)-1, []byte(d))
			}
			if !tt.ok {
				c.wantReset(1, ErrCodeProtocol)
				return
			}
			if got := c.body(1); got != "hello" {
				t.Errorf("the body is %q", got)
			}
		})
	}
	t.Run("trailers come early", func(t *testing.T) {
		c := greet(t, Options{Serve: echo})
		c.request(1, false, append(postFields[:8:8], "content-length", "5")...)
		c.request(1, true, "a", "b")
		c.wantReset(1, ErrCodeProtocol)
	})
}

// TestLateFrames sends what a client may have sent before it knew of our RST_STREAM.
func TestLateFrames(t *testing.T) {
	serve, streams := hold()
	c := greet(t, Options{Serve: serve, ConnWindow: startWindow, StreamWindow: startWindow})
	c.post(1)
	next(t, streams).Reset(ErrCodeCancel)
	c.wantReset(1, ErrCodeCancel)
	for range 40 { // ten times the window of the connection
		c.raw(h2.FrameData, 0, 1, strings.Repeat("x", 16384))
		c.frame(h2.FrameWindowUpdate, 0)
	}
	c.fr.WriteWindowUpdate(1, 5)
	c.request(1, true, "late", "trailers")
	c.fr.WriteRSTStream(1, ErrCodeNo)
	c.wantPing("alive")
	c.raw(h2.FrameData, 0, 1, "x") // after its RST_STREAM nothing can have been under way
	c.wantReset(1, ErrCodeStreamClosed)
}

func TestIgnored(t *testing.T) {
	c := greet(t, Options{Serve: greeting})
	c.raw(0x77, 0xff, 0, "unknown")
	c.raw(0x77, 0xff, 9, "unknown on an idle stream")
	c.raw(h2.FramePriority, 0, 7, "\x00\x00\x00\x01\x00")
	c.raw(h2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x09u=1")
	c.fr.WriteSettings(h2.Setting{ID: 0xabcd, Val: 7})
	c.raw(h2.FramePing, 0x80, 0, "flagflag")
	c.get(1)
	if got := c.body(1); got != "hello" {
		t.Errorf("the body is %q", got)
	}
}

// TestPreface cuts the preface everywhere and spoils it everywhere.
func TestPreface(t *testing.T) {
	whole := h2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for n := range len(whole) + 1 {
		c := dial(t, Options{Serve: greeting})
		for i := range n {
			c.write([]byte(whole[i : i+1]))
		}
		if n == len(whole) {
			c.wantPing("alive") // so that nothing of ours is on its way
		}
		c.nc.Close()
		if err := c.err(); (err == nil) != (n == len(whole)) {
			t.Errorf("after %d bytes: Serve = %v", n, err)
		}
	}
	for n := range len(h2.ClientPreface) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, Options{Serve: greeting})
			c.write([]byte(whole[:n] + "?" + whole[n+1:]))
			c.wantGoAway(ErrCodeProtocol, "")
		})
	}
	t.Run("the first frame is another", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, Options{Serve: greeting})
			c.write([]byte(h2.ClientPreface))
			c.raw(h2.FramePing, 0, 0, "12345678")
			c.wantGoAway(ErrCodeProtocol, "")
		})
	})
}

// TestOneByteAtATime sends a whole conversation in single bytes.
func TestOneByteAtATime(t *testing.T) {
	c := dial(t, Options{Serve: echo})
	c.fr = h2.NewFramer(slow{c}, nil)
	c.write([]byte(h2.ClientPreface))
	c.fr.WriteSettings()
	c.post(1)
	c.fr.WriteDataPadded(1, false, []byte("hello "), make([]byte, 7))
	c.fr.WriteData(1, false, []byte("world"))
	c.request(1, true, "a", "b")
	if got := c.body(1); got != "hello world" {
		t.Errorf("the body is %q", got)
	}
}

// slow writes single bytes.
type slow struct{ c *client }

func (s slow) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.c.nc.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}
