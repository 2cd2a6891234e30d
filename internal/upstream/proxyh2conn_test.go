package upstream

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// TestH2Close lets connections go while there are tunnels.
func TestH2Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		c := mustOpen(t, p, l.dial)
		p.Close()
		p.Close()
		wire := c.(*tunnel).conn.wire
		checkEcho(t, c)
		c.Close()
		synctest.Wait()
		if _, err := wire.Write([]byte("x")); err == nil {
			t.Error("the connection is open after its last tunnel")
		}
	})
}

// TestH2Idle has a connection without tunnels close after its time.
func TestH2Idle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		mustOpen(t, p, l.dial).Close()
		synctest.Wait()
		wire := func() (w *h2Wire) {
			p.h2.mu.Lock()
			defer p.h2.mu.Unlock()
			for c := range p.h2.conns {
				w = c.wire
			}
			return w
		}
		if wire() == nil {
			t.Fatal("the connection was not kept")
		}
		time.Sleep(h2IdleTimeout - time.Second)
		if wire() == nil {
			t.Error("the connection was closed early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if wire() != nil {
			t.Errorf("the connection is there after %v", h2IdleTimeout)
		}
	})
}

// TestH2Check has Check wait for SETTINGS, and leave nothing behind.
func TestH2Check(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		if err := p.Check(t.Context(), time.Now().Add(time.Minute), l.dial); err != nil {
			t.Errorf("Check: %v", err)
		}
		p, l = h2Played(t, func(c *framed) { c.frames(ignore) })
		start := time.Now()
		checkError(t, p.Check(t.Context(), start.Add(3*time.Second), l.dial), reasonTimeout, true, 0)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("Check took %v, want 3s", took)
		}
	})
}

// TestH2Dead has a proxy vanish: PING finds out, and its tunnels end.
func TestH2Dead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Played(t, func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if _, ok := f.(*h2.HeadersFrame); ok {
					c.accept(1)
				}
			})
		})
		c := mustOpen(t, p, l.dial)
		defer c.Close()
		start := time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("Read: %v, want that the tunnel is lost", err)
		}
		if took := time.Since(start); took > h2ReadIdle+h2PingTimeout {
			t.Errorf("the tunnel ended after %v", took)
		}
		synctest.Wait() // net/http ends tunnels first
		if len(p.h2.conns) != 0 {
			t.Error("the dead connection is kept")
		}
	})
}

// TestH2Suspect has a connection that was there before be silent: a tunnel that waits in vain takes it out of the pool, unless
// the proxy has given a sign of life.
func TestH2Suspect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		alive bool
		dials int64
	}{
		{"dead", false, 2},
		{"alive", true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conns := 0
				p, l := h2Played(t, func(c *framed) {
					conns++
					first := conns == 1
					c.settings()
					c.frames(func(f h2.Frame) {
						id := f.Header().StreamID
						if _, ok := f.(*h2.HeadersFrame); !ok {
							return
						}
						if !first || id != 3 {
							c.accept(id)
						} else if tt.alive {
							c.say(func() { _ = c.WritePing(false, [8]byte{}) })
						}
					})
				})
				one := mustOpen(t, p, l.dial)
				_, err := p.Open(t.Context(), time.Now().Add(time.Second), "", l.dial, named)
				checkError(t, err, reasonTimeout, true, 0)
				three := mustOpen(t, p, l.dial)
				if got := l.dials.Load(); got != tt.dials {
					t.Errorf("%d connections were dialled, want %d", got, tt.dials)
				}
				three.Close()
				one.Close()
			})
		})
	}
}
