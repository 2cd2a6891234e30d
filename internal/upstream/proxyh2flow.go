package upstream

import (
	"encoding/binary"
	"fmt"
	"sync"

	h2 "golang.org/x/net/http2"
)

// flowGuard watches the flow-control windows of one HTTP/2 connection (RFC 9113 section 6.9.1) for a peer that opens one beyond its
// limit: net/http of Go 1.26.8 waits for itself for ever then, with every tunnel of the connection and whoever wants another one.
type flowGuard struct {
	read, wrote frameScanner

	mu      sync.Mutex
	initial int64 // that streams begin with: SETTINGS_INITIAL_WINDOW_SIZE
	streams map[uint32]streamWindow
	over    []uint32 // streams that are over, the oldest first; net/http may know them for a while yet
}

// streamWindow is what we may still send on a stream, and who has ended it.
type streamWindow struct {
	window       int64
	ours, theirs bool
}

const (
	// maxWindow is the largest window, and firstWindow what streams begin with unless SETTINGS say else (RFC 9113 section 6.9).
	maxWindow   = 1<<31 - 1
	firstWindow = 65535
	// overKept is how many streams that are over are still watched.
	overKept = 1024
)

func newFlowGuard() *flowGuard {
	return &flowGuard{initial: firstWindow, streams: map[uint32]streamWindow{}}
}

// sent takes note of what goes to the peer.
func (g *flowGuard) sent(b []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wrote.scan(b, func(f *frame) {
		st, known := g.streams[f.stream]
		switch {
		case f.kind == h2.FrameHeaders && !known:
			st.window = g.initial
		case !known:
			return
		case f.kind == h2.FrameData:
			st.window -= int64(f.length)
		}
		st.ours = st.ours || f.ends()
		g.put(f, st)
	})
}

// received judges what has come from the peer. After an error net/http must not see it.
func (g *flowGuard) received(b []byte) (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.read.scan(b, func(f *frame) {
		if f.kind == h2.FrameSettings {
			g.settings(f)
			return
		}
		st, known := g.streams[f.stream]
		if !known {
			return // the connection's own, or nothing that net/http would look at
		}
		if f.kind == h2.FrameWindowUpdate && len(f.payload) == 4 {
			st.window += int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
			if st.window > maxWindow && err == nil {
				err = fmt.Errorf("the proxy opened the window of stream %d beyond its limit (RFC 9113 section 6.9.1)", f.stream)
			}
		}
		st.theirs = st.theirs || f.ends()
		g.put(f, st)
	})
	return err
}

// settings applies a change of the initial window to all streams (RFC 9113 section 6.9.2). g.mu is held.
func (g *flowGuard) settings(f *frame) {
	if f.flags&h2.FlagSettingsAck != 0 {
		return
	}
	for p := f.payload; len(p) >= 6; p = p[6:] {
		if h2.SettingID(binary.BigEndian.Uint16(p)) != h2.SettingInitialWindowSize {
			continue
		}
		change := int64(binary.BigEndian.Uint32(p[2:])) - g.initial
		g.initial += change
		for stream, st := range g.streams {
			st.window += change
			g.streams[stream] = st
		}
	}
}

// put keeps what is known of the frame's stream; a stream that is over is forgotten once many others are. g.mu is held.
func (g *flowGuard) put(f *frame, st streamWindow) {
	g.streams[f.stream] = st
	if !f.ends() || f.kind != h2.FrameRSTStream && !(st.ours && st.theirs) {
		return
	}
	if g.over = append(g.over, f.stream); len(g.over) > overKept {
		delete(g.streams, g.over[0])
		g.over = g.over[1:]
	}
}

// frame is the head of a frame (RFC 9113 section 4.1), and the payload of those whose payload is looked at.
type frame struct {
	kind    h2.FrameType
	flags   h2.Flags
	stream  uint32
	length  int
	payload []byte
}

// ends reports whether the frame ends its stream, for one side or for both.
func (f *frame) ends() bool {
	switch f.kind {
	case h2.FrameRSTStream:
		return true
	case h2.FrameData, h2.FrameHeaders:
		return f.flags&h2.FlagDataEndStream != 0 // the flag of both
	}
	return false
}

// frameScanner finds the frames in a stream of bytes that comes in pieces.
type frameScanner struct {
	head    []byte // of the frame that has not begun yet
	current frame
	left    int  // bytes of its payload that have not come
	keep    bool // its payload is looked at
}

// maxLookedAt is the longest payload that is looked at, a SETTINGS frame of the size that every endpoint takes (RFC 9113 section 4.2).
const maxLookedAt = 16384

// scan calls seen for each frame that is complete, or, if its payload is not looked at, has begun.
func (s *frameScanner) scan(b []byte, seen func(f *frame)) {
	for len(b) > 0 {
		if s.left > 0 {
			n := min(s.left, len(b))
			if s.keep {
				s.current.payload = append(s.current.payload, b[:n]...)
			}
			if s.left, b = s.left-n, b[n:]; s.left == 0 && s.keep {
				seen(&s.current)
			}
			continue
		}
		n := min(frameHeader-len(s.head), len(b))
		if s.head, b = append(s.head, b[:n]...), b[n:]; len(s.head) == frameHeader {
			s.begin(seen)
		}
	}
}

// begin begins a frame whose head has come.
func (s *frameScanner) begin(seen func(f *frame)) {
	h := s.head
	s.current = frame{
		kind: h2.FrameType(h[3]), flags: h2.Flags(h[4]), stream: binary.BigEndian.Uint32(h[5:]) & maxWindow,
		length: int(h[0])<<16 | int(h[1])<<8 | int(h[2]), payload: s.current.payload[:0],
	}
	s.head, s.left = h[:0], s.current.length
	s.keep = s.left <= maxLookedAt && (s.current.kind == h2.FrameSettings || s.current.kind == h2.FrameWindowUpdate)
	if !s.keep || s.left == 0 {
		s.keep = false
		seen(&s.current)
	}
}
