package upstream

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// TestH2Overflow has the proxy open a tunnel's window beyond its limit: it costs the connection and nobody waits for ever.
func TestH2Overflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Played(t, func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if f, ok := f.(*h2.HeadersFrame); ok {
					c.accept(f.StreamID)
					c.say(func() { _ = c.WriteWindowUpdate(f.StreamID, maxWindow) })
					c.say(func() { _ = c.WriteWindowUpdate(f.StreamID, maxWindow) })
				}
			})
		})
		for range 3 {
			if c, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", l.dial, named); err == nil {
				c.SetReadDeadline(time.Now().Add(time.Minute))
				if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
					t.Errorf("the tunnel goes on: %v", err)
				}
				c.Close()
			}
			synctest.Wait()
		}
		if got := l.dials.Load(); got != 3 {
			t.Errorf("%d connections were dialled, want 3", got)
		}
	})
}

// framesOf are the bytes that write writes.
func framesOf(write func(f *h2.Framer)) []byte {
	var b bytes.Buffer
	write(h2.NewFramer(&b, nil))
	return b.Bytes()
}

func TestFlowGuard(t *testing.T) {
	open := func(f *h2.Framer) {
		_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	}
	sent := make([]byte, 1000)
	tests := []struct {
		name string
		ours func(f *h2.Framer)
		says func(f *h2.Framer)
		ok   bool
	}{
		{"to the limit", open, func(f *h2.Framer) { _ = f.WriteWindowUpdate(1, maxWindow-firstWindow) }, true},
		{"beyond it", open, func(f *h2.Framer) { _ = f.WriteWindowUpdate(1, maxWindow-firstWindow+1) }, false},
		{"as much as was sent", func(f *h2.Framer) {
			open(f)
			_ = f.WriteData(1, false, sent)
		}, func(f *h2.Framer) {
			_ = f.WriteWindowUpdate(1, maxWindow-firstWindow)
			_ = f.WriteWindowUpdate(1, 1000)
		}, true},
		{"more than was sent", func(f *h2.Framer) {
			open(f)
			_ = f.WriteData(1, false, sent)
		}, func(f *h2.Framer) {
			_ = f.WriteWindowUpdate(1, maxWindow-firstWindow)
			_ = f.WriteWindowUpdate(1, 1001)
		}, false},
		{"a smaller window", open, func(f *h2.Framer) {
			_ = f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
			_ = f.WriteWindowUpdate(1, maxWindow)
		}, true},
		{"a larger window", open, func(f *h2.Framer) {
			_ = f.WriteSettings(h2.Setting{ID: h2.SettingMaxFrameSize, Val: 16384}, h2.Setting{ID: h2.SettingInitialWindowSize, Val: maxWindow})
			_ = f.WriteWindowUpdate(1, 1)
		}, false},
		{"after the peer's end", open, func(f *h2.Framer) {
			_ = f.WriteData(1, true, nil)
			_ = f.WriteWindowUpdate(1, maxWindow)
		}, false},
		{"after a reset", open, func(f *h2.Framer) {
			_ = f.WriteRSTStream(1, h2.ErrCodeCancel)
			_ = f.WriteWindowUpdate(1, maxWindow)
		}, false},
		{"of the connection", open, func(f *h2.Framer) { _ = f.WriteWindowUpdate(0, maxWindow) }, true},
		{"of no stream of ours", open, func(f *h2.Framer) { _ = f.WriteWindowUpdate(3, maxWindow) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, says := framesOf(tt.ours), framesOf(tt.says)
			for _, size := range []int{1, 2, 8, 9, 10, 1 << 20} {
				g := newFlowGuard()
				for p := ours; len(p) > 0; p = p[min(size, len(p)):] {
					g.sent(p[:min(size, len(p))])
				}
				var err error
				for p := says; len(p) > 0 && err == nil; p = p[min(size, len(p)):] {
					err = g.received(p[:min(size, len(p))])
				}
				if (err == nil) != tt.ok {
					t.Errorf("in pieces of %d: %v, want it to pass: %v", size, err, tt.ok)
				}
			}
		})
	}
}

// TestFlowGuardForgets opens and ends many streams: only so many are remembered.
func TestFlowGuardForgets(t *testing.T) {
	g := newFlowGuard()
	for i := range uint32(10 * overKept) {
		stream := 2*i + 1
		g.sent(framesOf(func(f *h2.Framer) {
			_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: i%2 == 0})
		}))
		err := g.received(framesOf(func(f *h2.Framer) {
			if i%2 == 0 {
				_ = f.WriteData(stream, true, nil)
			} else {
				_ = f.WriteRSTStream(stream, h2.ErrCodeCancel)
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(g.streams) > overKept {
		t.Errorf("%d streams are remembered, want %d at most", len(g.streams), overKept)
	}
}

// FuzzFrameScanner: bytes in whatever pieces are the same frames.
func FuzzFrameScanner(f *testing.F) {
	f.Add(framesOf(func(f *h2.Framer) {
		_ = f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1})
		_ = f.WriteData(1, true, []byte("abc"))
		_ = f.WriteWindowUpdate(1, 7)
	}), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		list := func(into *[]frame) func(*frame) {
			return func(f *frame) {
				c := *f
				c.payload = bytes.Clone(f.payload)
				*into = append(*into, c)
			}
		}
		var whole, pieces []frame
		var s1, s2 frameScanner
		s1.scan(b, list(&whole))
		dice := rand.New(rand.NewPCG(seed, 0))
		for p := b; len(p) > 0; {
			n := 1 + dice.IntN(len(p))
			s2.scan(p[:n], list(&pieces))
			p = p[n:]
		}
		if len(whole) != len(pieces) {
			t.Fatalf("%d frames at once, %d in pieces", len(whole), len(pieces))
		}
		for i := range whole {
			a, b := whole[i], pieces[i]
			if a.kind != b.kind || a.flags != b.flags || a.stream != b.stream || a.length != b.length || !bytes.Equal(a.payload, b.payload) {
				t.Errorf("frame %d is %+v at once and %+v in pieces", i, a, b)
			}
		}
	})
}
