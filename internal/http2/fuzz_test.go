//lint:file-ignore SA1019 The client of x/net is deprecated for use, not as somebody to talk to.

package http2

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// script is a connection that gives its bytes and then ends, and keeps what is written.
type script struct {
	net.Conn
	in  *bytes.Reader
	mu  sync.Mutex
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzServe sends any bytes after the preface. Serve returns when they end; what was
// written are frames; nothing was held beyond the windows.
func FuzzServe(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		nc := &script{in: bytes.NewReader(append([]byte(h2.ClientPreface), in...))}
		o := Options{HeaderList: 4096, StreamWindow: startWindow, ConnWindow: startWindow, Streams: 8}
		o.Serve = func(s *Stream) {
			checkHolds(t, s)
			mirror(s)
		}
		c := NewConn(nc, o)
		c.Serve()
		if c.running != 0 || len(c.streams) != 0 {
			t.Errorf("%d streams, %d Serve are left", len(c.streams), c.running)
		}
		if max := headerListTimes*o.HeaderList + minFrame*32; c.blk.size > max {
			t.Errorf("a head of %d bytes was decoded", c.blk.size)
		}
		checkFrames(t, nc.out.Bytes())
	})
}

// checkHolds fails if an inbox holds more than the window.
func checkHolds(t *testing.T, s *Stream) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if s.in.size > startWindow {
		t.Errorf("%d bytes of content are held", s.in.size)
	}
}

// checkFrames fails unless b is whole frames, and heads that can be decoded.
func checkFrames(t *testing.T, b []byte) {
	t.Helper()
	fr := h2.NewFramer(io.Discard, bytes.NewReader(b))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		if _, err := fr.ReadFrame(); err == io.EOF {
			return
		} else if err != nil {
			t.Errorf("what was written are no frames: %v", err)
			return
		}
	}
}

// seeds are conversations with a bit of everything.
func seeds() (all [][]byte) {
	write := func(say func(c *client)) {
		var b bytes.Buffer
		c := &client{fr: h2.NewFramer(&b, nil)}
		c.fr.AllowIllegalWrites = true
		c.enc = hpack.NewEncoder(&c.block)
		c.fr.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 100}, h2.Setting{ID: h2.SettingMaxFrameSize, Val: 1 << 20})
		say(c)
		all = append(all, b.Bytes())
	}
	write(func(c *client) { c.get(1) })
	write(func(c *client) {
		c.post(1)
		c.fr.WriteDataPadded(1, false, []byte("hello"), make([]byte, 9))
		c.request(1, true, "a", "b")
		c.fr.WriteWindowUpdate(1, 10)
		c.fr.WriteWindowUpdate(0, 10)
	})
	write(func(c *client) {
		c.connect(1)
		c.get(3)
		c.fr.WriteData(1, true, []byte("hello"))
		c.fr.WriteRSTStream(3, ErrCodeCancel)
		c.fr.WriteData(3, true, []byte("late"))
	})
	write(func(c *client) {
		block := c.encode(getFields...)
		c.fr.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:3], EndStream: true})
		c.fr.WriteContinuation(1, false, block[3:5])
		c.fr.WriteContinuation(1, true, block[5:])
		c.raw(h2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x01u=1, i")
		c.raw(h2.FramePriority, 0, 5, "\x00\x00\x00\x01\x00")
		c.raw(h2.FramePing, 0, 0, "12345678")
		c.fr.WriteGoAway(0, ErrCodeNo, []byte("bye"))
	})
	return all
}

// FuzzEcho is differential: whatever the bodies, the windows and their order, a client
// that is not ours gets back what it sends.
func FuzzEcho(f *testing.F) {
	f.Add(uint64(1), uint32(1), uint32(1))
	f.Add(uint64(2), uint32(1<<20), uint32(1<<17))
	f.Fuzz(func(t *testing.T, seed uint64, streamWindow, connWindow uint32) {
		o := Options{Serve: mirror, StreamWindow: int(streamWindow % (1 << 21)), ConnWindow: int(connWindow % (1 << 22))}
		ours, theirs := net.Pipe()
		var served sync.WaitGroup
		served.Go(func() {
			NewConn(theirs, o).Serve()
			theirs.Close()
		})
		cc, err := new(h2.Transport).NewClientConn(ours)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { roundTrip(t, cc, rand.New(rand.NewPCG(seed, uint64(i)))) })
		}
		wg.Wait()
		cc.Close()
		served.Wait()
	})
}
