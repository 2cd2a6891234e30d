package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// TestH2Cold opens many tunnels at once where there is no connection yet: they share one.
func TestH2Cold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "example.com:443" || r.Method != http.MethodConnect || len(r.Header) != 1 ||
				r.Header.Get("Proxy-Authorization") != "Basic dTpw" {
				t.Errorf("the proxy got %s %s, %v", r.Method, r.Host, r.Header)
			}
			echoing(w, r)
		})
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				c := mustOpen(t, p, l.dial)
				defer c.Close()
				checkEcho(t, c)
			})
		}
		all.Wait()
		if got := l.dials.Load(); got != 1 {
			t.Errorf("%d connections were dialled, want 1", got)
		}
	})
}

// TestH2Full opens more tunnels than a connection takes.
func TestH2Full(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 2, echoing)
		var mu sync.Mutex
		var open []net.Conn
		var all sync.WaitGroup
		for range 7 {
			all.Go(func() {
				c := mustOpen(t, p, l.dial)
				mu.Lock()
				defer mu.Unlock()
				open = append(open, c)
			})
		}
		all.Wait()
		if got := l.dials.Load(); got != 4 {
			t.Errorf("%d connections were dialled, want 4", got)
		}
		for _, c := range open {
			checkEcho(t, c)
			c.Close()
		}
		synctest.Wait()
		mustOpen(t, p, l.dial).Close()
		if got := l.dials.Load(); got != 4 {
			t.Errorf("%d connections were dialled, want no more than 4", got)
		}
	})
}

// TestH2ColdFailure has one dial fail for all who wait for it.
func TestH2ColdFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustProxy(t, ProxyOptions{URL: "h2://gw.example"})
		refused := errors.New("refused")
		dials := 0
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				_, err := p.Open(t.Context(), time.Time{}, "", func(context.Context) (net.Conn, error) {
					dials++
					time.Sleep(time.Second) // of the bubble: all others come meanwhile
					return nil, refused
				}, named)
				if !errors.Is(err, refused) {
					t.Errorf("Open: %v, want %v", err, refused)
				}
				checkError(t, err, reasonUnavailable, true, 0)
			})
		}
		all.Wait()
		if dials != 1 {
			t.Errorf("%d dials, want 1", dials)
		}
	})
}

// TestH2Leader has the one whose dial it is give up: the others get the connection.
func TestH2Leader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		dial := func(ctx context.Context) (net.Conn, error) {
			select {
			case <-time.After(time.Minute / 2):
				return l.dial(ctx)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := p.Open(ctx, time.Now().Add(time.Minute), "", dial, named)
			left <- err
		}()
		synctest.Wait()
		got := make(chan net.Conn, 1)
		go func() { got <- mustOpen(t, p, nil) }()
		synctest.Wait()
		cancel()
		checkError(t, <-left, reasonTerminated, false, 0)
		(<-got).Close()
		if got := l.dials.Load(); got != 1 {
			t.Errorf("%d connections were dialled, want 1", got)
		}

		// When all give up, so does the dial.
		p2, start := mustProxy(t, ProxyOptions{URL: "h2://gw.example"}), time.Now()
		_, err := p2.Open(t.Context(), start.Add(time.Second), "", dial, named)
		checkError(t, err, reasonTimeout, true, 0)
		synctest.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("Open took %v, want 1s", took)
		}
	})
}

// TestH2LeaderInAHurry has the one whose dial it is have less time than another who waits for it, and than the dial takes.
func TestH2LeaderInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, echoing)
		dial := func(ctx context.Context) (net.Conn, error) {
			select {
			case <-time.After(2 * time.Second):
				return l.dial(ctx)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		start, left := time.Now(), make(chan error, 1)
		go func() {
			_, err := p.Open(t.Context(), start.Add(time.Second), "", dial, named)
			left <- err
		}()
		synctest.Wait()
		mustOpen(t, p, dial).Close()
		checkError(t, <-left, reasonTimeout, true, 0)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("Open took %v, want 3s", took)
		}
	})
}

// TestH2Refusal has the proxy refuse tunnels; the connection stays.
func TestH2Refusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 0
		p, l := h2Served(t, 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		for _, tt := range []struct {
			status int
			reason string
			server bool
		}{
			{407, reasonConfiguration, true},
			{400, reasonConfiguration, false},
			{403, reasonDenied, false},
			{502, reasonUnavailable, false},
			{504, reasonTimeout, false},
		} {
			status = tt.status
			_, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", l.dial, named)
			checkError(t, err, tt.reason, tt.server, tt.status)
		}
		if got := l.dials.Load(); got != 1 {
			t.Errorf("%d connections were dialled, want 1", got)
		}
	})
}

// TestH2Garbage has what comes after TLS be no HTTP/2, or none that is of use.
func TestH2Garbage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		play   func(c *framed)
		reason string
		words  string
	}{
		{"HTTP/1.1", func(c *framed) {
			c.say(func() { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
			c.frames(ignore)
		}, reasonProtocol, "does not begin HTTP/2"},
		{"closed", func(*framed) {}, reasonTerminated, "closed the connection without an answer"},
		{"PING first", func(c *framed) {
			c.say(func() { _ = c.WritePing(false, [8]byte{}) })
			c.frames(ignore)
		}, reasonProtocol, "does not begin HTTP/2"},
		{"silent", func(c *framed) { c.frames(ignore) }, reasonTimeout, "was silent"},
		{"no streams", func(c *framed) {
			c.settings(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 0})
			c.frames(ignore)
		}, reasonTerminated, "no place for a stream"},
		{"no answer", func(c *framed) {
			c.settings()
			c.frames(ignore)
		}, reasonTimeout, "was silent"},
		{"CONNECT_ERROR", func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if _, ok := f.(*h2.HeadersFrame); ok {
					c.say(func() { _ = c.WriteRSTStream(1, h2.ErrCodeConnect) })
				}
			})
		}, reasonUnavailable, "reset the stream to example.com:443 (HTTP/2 CONNECT_ERROR)"},
		{"INTERNAL_ERROR", func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if _, ok := f.(*h2.HeadersFrame); ok {
					c.say(func() { _ = c.WriteRSTStream(1, h2.ErrCodeInternal) })
				}
			})
		}, reasonTerminated, "reset the stream (HTTP/2 INTERNAL_ERROR)"},
		{"PROTOCOL_ERROR", func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if _, ok := f.(*h2.HeadersFrame); ok {
					c.say(func() { _ = c.WriteRSTStream(1, h2.ErrCodeProtocol) })
				}
			})
		}, reasonProtocol, "reset the stream (HTTP/2 PROTOCOL_ERROR)"},
		{"ENHANCE_YOUR_CALM", func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if _, ok := f.(*h2.HeadersFrame); ok {
					c.say(func() { _ = c.WriteRSTStream(1, h2.ErrCodeEnhanceYourCalm) })
				}
			})
		}, reasonLimit, "reset the stream (HTTP/2 ENHANCE_YOUR_CALM)"},
		{"Content-Length", func(c *framed) {
			c.settings()
			c.frames(func(f h2.Frame) {
				if _, ok := f.(*h2.HeadersFrame); ok { // ":status: 200", and "content-length: 0" with the name from the table
					head := h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x88\x0f\x0d\x010"), EndHeaders: true}
					c.say(func() { _ = c.WriteHeaders(head) })
				}
			})
		}, reasonProtocol, "sends Content-Length with a tunnel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, l := h2Played(t, tt.play)
				c, err := p.Open(t.Context(), time.Now().Add(10*time.Second), "", l.dial, named)
				if c != nil {
					t.Errorf("Open = %v", c)
				}
				var e *Error
				if !errors.As(err, &e) || e.Reason != tt.reason || e.Server != (tt.name != "CONNECT_ERROR") {
					t.Errorf("Open: %v (%+v), want %s", err, e, tt.reason)
				}
				checkSays(t, err, tt.words)
				if e != nil && e.Server && strings.Contains(e.Error(), named.String()) {
					t.Errorf("error %q is of the proxy, which others hear of, and shows the target", e)
				}
				if e != nil && e.Heard != (tt.name == "no answer" || tt.name == "INTERNAL_ERROR" || tt.name == "ENHANCE_YOUR_CALM") {
					t.Errorf("error %q: the proxy was heard: %v", e, e.Heard)
				}
				if got := l.dials.Load(); got != 1 {
					t.Errorf("%d connections were dialled, want 1", got)
				}
			})
		})
	}
}

// TestH2Retry has the proxy refuse a stream, go away, or die, each time on a connection that was there before: the tunnel is
// opened on another.
func TestH2Retry(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first func(c *framed, stream uint32)
	}{
		{"REFUSED_STREAM", func(c *framed, stream uint32) {
			c.say(func() { _ = c.WriteRSTStream(stream, h2.ErrCodeRefusedStream) })
		}},
		{"GOAWAY", func(c *framed, _ uint32) { c.say(func() { _ = c.WriteGoAway(1, h2.ErrCodeNo, nil) }) }},
		{"closed", func(c *framed, _ uint32) { c.Close() }},
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
						} else if first && id > 1 {
							tt.first(c, id)
						} else {
							c.accept(id)
						}
					})
				})
				one := mustOpen(t, p, l.dial)
				two := mustOpen(t, p, l.dial)
				if got := l.dials.Load(); got != 2 {
					t.Errorf("%d connections were dialled, want 2", got)
				}
				two.Close()
				one.Close()
			})
		})
	}
}

// TestH2ManyDead has all connections that were there before die, more of them than a tunnel is asked for on.
func TestH2ManyDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const dead = maxAttempts + 2
		conns := 0
		p, l := h2Played(t, func(c *framed) {
			conns++
			old := conns <= dead
			c.settings(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 1})
			c.frames(func(f h2.Frame) {
				id := f.Header().StreamID
				if _, ok := f.(*h2.HeadersFrame); !ok {
					return
				} else if old && id > 1 {
					c.Close()
				} else {
					c.accept(id)
				}
			})
		})
		var before [dead]net.Conn
		for i := range before {
			before[i] = mustOpen(t, p, l.dial)
		}
		for _, c := range before {
			c.Close()
		}
		synctest.Wait()
		mustOpen(t, p, l.dial).Close()
		if got := l.dials.Load(); got != dead+1 {
			t.Errorf("%d connections were dialled, want %d", got, dead+1)
		}
	})
}
